package maildir

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// mutf7Alphabet is base64 with ',' in place of '/' and without padding (RFC 3501 §5.1.3).
var mutf7Alphabet = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

var errMUTF7 = errors.New("not modified UTF-7")

// encodeMUTF7 writes valid UTF-8 in modified UTF-7: printable ASCII as it is, "&" as "&-", everything else in base64 of
// UTF-16.
func encodeMUTF7(s string) string {
	var out strings.Builder
	for s != "" {
		if c := s[0]; c >= 0x20 && c < 0x7f {
			out.WriteByte(c)
			if c == '&' {
				out.WriteByte('-')
			}
			s = s[1:]
			continue
		}
		n := strings.IndexFunc(s, func(r rune) bool { return r >= 0x20 && r < 0x7f })
		if n < 0 {
			n = len(s)
		}
		var raw []byte
		for _, u := range utf16.Encode([]rune(s[:n])) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		out.WriteByte('&')
		out.WriteString(mutf7Alphabet.EncodeToString(raw))
		out.WriteByte('-')
		s = s[n:]
	}
	return out.String()
}

// decodeMUTF7 reads modified UTF-7. Whatever encodeMUTF7 would not have written is refused: a directory must have one name
// and a name one directory (dovecot 2.3.19 imap-utf7.c is as strict).
func decodeMUTF7(s string) (string, error) {
	var out strings.Builder
	for rest := s; rest != ""; {
		plain, encoded, found := strings.Cut(rest, "&")
		out.WriteString(plain)
		if !found {
			break
		}
		encoded, after, found := strings.Cut(encoded, "-")
		if !found {
			return "", errMUTF7
		}
		rest = after
		if encoded == "" {
			out.WriteByte('&')
			continue
		}
		raw, err := mutf7Alphabet.DecodeString(encoded)
		if err != nil || len(raw)%2 != 0 {
			return "", errMUTF7
		}
		units := make([]uint16, 0, len(raw)/2)
		for i := 0; i < len(raw); i += 2 {
			units = append(units, uint16(raw[i])<<8|uint16(raw[i+1]))
		}
		out.WriteString(string(utf16.Decode(units)))
	}
	name := out.String()
	if !utf8.ValidString(name) || encodeMUTF7(name) != s {
		return "", errMUTF7
	}
	return name, nil
}
