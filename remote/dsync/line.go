package dsync

import (
	"bytes"
	"fmt"
)

// record is an item as field values: the middle ground between a line and a mirror/item. A nil value is an absent field;
// true flags are present and empty. Values belong to the record until the next reset.
type record struct {
	kind   *kind
	values [][]byte // by the field constants of the kind
	arena  []byte   // backs values that were made here
}

// reset makes r an item of kind k without any field. The memory is used again, unless a huge item has blown it up.
func (r *record) reset(k *kind) {
	r.kind = k
	if cap(r.values) < len(k.fields) {
		r.values = make([][]byte, len(k.fields), len(handshakeKind.fields))
	}
	r.values = r.values[:len(k.fields)]
	clear(r.values)
	if cap(r.arena) > bufferSize {
		r.arena = nil
	}
	r.arena = r.arena[:0]
}

// add sets field f to what is appended to the arena by write.
func (r *record) add(f int, write func(dst []byte) []byte) {
	start := len(r.arena)
	r.arena = write(r.arena)
	r.values[f] = r.arena[start:len(r.arena):len(r.arena)]
	if r.values[f] == nil {
		r.values[f] = []byte{}
	}
}

// layout says which fields a side sends for a kind, and in which order: the field list of the greeting. Its elements are
// field constants, or -1 for a name that we do not know.
type layout struct {
	kind   *kind
	fields []int
}

// ownLayout is our own field list. Without ext, the fields of our extension are left out.
func ownLayout(k *kind, ext bool) *layout {
	l := &layout{kind: k}
	for i, f := range k.fields {
		if ext || !f.ours {
			l.fields = append(l.fields, i)
		}
	}
	return l
}

// appendHeader appends the line that announces l, without its LF.
func (l *layout) appendHeader(dst []byte) []byte {
	dst = append(dst, l.kind.letter)
	for i, f := range l.fields {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = appendEscaped(dst, l.kind.fields[f].name)
	}
	return dst
}

// parseHeader reads the rest of a peer's field-list line for k, after the letter. Every required field must be in it.
func parseHeader(k *kind, names []byte) (*layout, error) {
	l := &layout{kind: k}
	seen := make([]bool, len(k.fields))
	var buf []byte
	for name := range bytes.SplitSeq(names, []byte{'\t'}) {
		buf = appendUnescaped(buf[:0], name)
		f := k.fieldIndex(string(buf))
		if f >= 0 && seen[f] {
			return nil, k.errorf("field %s is announced twice", k.fields[f].name)
		}
		if f >= 0 {
			seen[f] = true
		}
		l.fields = append(l.fields, f)
	}
	for i, f := range k.fields {
		if f.required && !seen[i] {
			return nil, k.errorf("required field %s is not announced", f.name)
		}
	}
	return l, nil
}

func (k *kind) fieldIndex(name string) int {
	for i, f := range k.fields {
		if f.name == name {
			return i
		}
	}
	return -1
}

// appendLine appends r as a line, without its LF. Fields that l does not have are lost; trailing absent fields are not
// written.
func (l *layout) appendLine(dst []byte, r *record) []byte {
	dst = append(dst, l.kind.letter)
	last := len(l.fields) - 1
	for last >= 0 && l.value(r, last) == nil {
		last--
	}
	for i := 0; i <= last; i++ {
		if i > 0 {
			dst = append(dst, '\t')
		}
		dst = appendField(dst, l.value(r, i))
	}
	return dst
}

func (l *layout) value(r *record, i int) []byte {
	if f := l.fields[i]; f >= 0 {
		return r.values[f]
	}
	return nil
}

func appendField(dst, v []byte) []byte {
	if v == nil || len(v) > 0 && v[0] == absent {
		dst = append(dst, absent)
	}
	return appendEscaped(dst, v)
}

// parseLine reads the rest of a line of kind l, after the letter, into r, whose values refer to it. A line of the bare
// letter has no fields, not one empty one.
func (l *layout) parseLine(r *record, rest []byte) error {
	r.reset(l.kind)
	for i := 0; len(rest) > 0 || i > 0; i++ {
		piece, after, more := bytes.Cut(rest, []byte{'\t'})
		if i == len(l.fields) {
			return l.kind.errorf("more fields than the %d announced", len(l.fields))
		}
		if f := l.fields[i]; f >= 0 {
			r.set(f, piece)
		}
		if rest = after; !more {
			break
		}
	}
	for i, f := range l.kind.fields {
		if f.required && r.values[i] == nil {
			return l.kind.errorf("required field %s is missing", f.name)
		}
	}
	return nil
}

// set decodes piece into field f.
func (r *record) set(f int, piece []byte) {
	if len(piece) > 0 && piece[0] == absent {
		if len(piece) == 1 {
			return
		}
		piece = piece[1:]
	}
	if bytes.IndexByte(piece, 0x01) >= 0 {
		r.add(f, func(dst []byte) []byte { return appendUnescaped(dst, piece) })
		return
	}
	r.values[f] = piece[:len(piece):len(piece)]
}

// layouts holds the field lists that one side announced, by letter.
type layouts [256]*layout

// check reports what a side of this minor version must have announced and did not.
func (l *layouts) check(minor int) error {
	for _, k := range kinds {
		if l[k.letter] == nil && !k.ours && minor >= k.since {
			return fmt.Errorf("%w: no fields announced for %s", ErrProtocol, k.name)
		}
	}
	return nil
}

// has reports whether field f of kind k was announced.
func (l *layouts) has(k *kind, f int) bool {
	list := l[k.letter]
	if list == nil {
		return false
	}
	for _, g := range list.fields {
		if g == f {
			return true
		}
	}
	return false
}
