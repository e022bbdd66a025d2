package dsync

import (
	"bytes"
	"errors"
)

// absent is how a field without a value is written; a value that starts with this byte gets another one in front
// (dovecot 2.3 dsync-serializer.h: NULL_CHR).
const absent = 0x02

// escapes maps the bytes that a line cannot hold to the letter that follows the escape byte 0x01 (dovecot 2.3 strescape.c,
// str_append_tabescaped).
var escapes = [256]byte{0x00: '0', 0x01: '1', '\t': 't', '\n': 'n', '\r': 'r'}

// appendEscaped appends the tab-escaped form of v to dst.
func appendEscaped[T string | []byte](dst []byte, v T) []byte {
	start := 0
	for i := 0; i < len(v); i++ {
		if e := escapes[v[i]]; e != 0 {
			dst = append(dst, v[start:i]...)
			dst = append(dst, 0x01, e)
			start = i + 1
		}
	}
	return append(dst, v[start:]...)
}

// appendUnescaped appends what v is the tab-escaped form of. Unknown escapes give their letter, a lone escape byte at the
// end is dropped, as in Dovecot.
func appendUnescaped(dst, v []byte) []byte {
	for {
		i := bytes.IndexByte(v, 0x01)
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(dst, v[:i]...)
		if i+1 == len(v) {
			return dst
		}
		dst = append(dst, unescape(v[i+1]))
		v = v[i+2:]
	}
}

func unescape(letter byte) byte {
	switch letter {
	case '0':
		return 0x00
	case '1':
		return 0x01
	case 't':
		return '\t'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	}
	return letter
}

// maxList bounds the number of elements of a list in a field.
const maxList = 1 << 16

var errLongList = errors.New("too many elements")

// appendList appends the elements, each tab-escaped, joined by sep.
func appendList(dst []byte, elements []string, sep byte) []byte {
	for i, e := range elements {
		if i > 0 {
			dst = append(dst, sep)
		}
		dst = appendEscaped(dst, e)
	}
	return dst
}

// splitList takes apart what appendList made; an empty value has one empty element.
func splitList(v []byte, sep byte) ([]string, error) {
	n := bytes.Count(v, []byte{sep}) + 1
	if n > maxList {
		return nil, errLongList
	}
	out := make([]string, 0, n)
	var buf []byte
	for range n {
		var e []byte
		e, v, _ = bytes.Cut(v, []byte{sep})
		buf = appendUnescaped(buf[:0], e)
		out = append(out, string(buf))
	}
	return out, nil
}
