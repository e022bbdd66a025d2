package harness

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
)

// modified is the base64 alphabet of mailbox names (RFC 3501 §5.1.3).
var modified = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// EncodeName writes a mailbox name, or a level of one, in modified UTF-7.
func EncodeName(name string) string {
	var out strings.Builder
	var wide []rune
	flush := func() {
		if len(wide) == 0 {
			return
		}
		var raw []byte
		for _, u := range utf16.Encode(wide) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		out.WriteString("&" + modified.EncodeToString(raw) + "-")
		wide = nil
	}
	for _, r := range name {
		if r < 0x20 || r > 0x7e {
			wide = append(wide, r)
			continue
		}
		flush()
		if r == '&' {
			out.WriteString("&-")
		} else {
			out.WriteRune(r)
		}
	}
	flush()
	return out.String()
}

// DecodeName is the reverse; what does not decode is returned as it is.
func DecodeName(name string) string {
	var out strings.Builder
	for {
		plain, rest, found := strings.Cut(name, "&")
		out.WriteString(plain)
		if !found {
			return out.String()
		}
		coded, after, closed := strings.Cut(rest, "-")
		raw, err := modified.DecodeString(coded)
		switch {
		case !closed || err != nil || len(raw)%2 != 0:
			out.WriteString("&" + rest)
			return out.String()
		case coded == "":
			out.WriteByte('&')
		default:
			units := make([]uint16, len(raw)/2)
			for i := range units {
				units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
			}
			out.WriteString(string(utf16.Decode(units)))
		}
		name = after
	}
}
