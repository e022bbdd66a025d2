package tree

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"dsyncfs/mirror/mail"
)

// Mapper makes local names of names that a peer sent part by part. What it returns always passes [mail.Name.Check] and is a
// function of its input alone. The zero value maps for a store with '/' as its separator.
type Mapper struct {
	Separator byte   // of the local store, a punctuation character; it cannot stand inside of a part there
	AltChar   string // replacement for what a part cannot hold; "_" if empty or unusable
	PartMax   int    // longest part in bytes, in UTF-8 and in modified UTF-7; 0: [mail.MaxNamePart]

	// Refuse reports whether the store cannot hold a part that is otherwise valid ("cur" in a Maildir with LAYOUT=fs). Such a
	// part gets "_" in front. Nil: it holds all.
	Refuse func(part string) bool
}

// MapParts maps one name with a [Mapper] of these fields.
func MapParts(parts []string, sep byte, altChar string, partMax int) mail.Name {
	return Mapper{Separator: sep, AltChar: altChar, PartMax: partMax}.Map(parts)
}

// Map returns the local name for parts. Different names may become the same; see [Mapper.MapAll].
func (m Mapper) Map(parts []string) mail.Name {
	if len(parts) == 0 {
		parts = []string{""}
	}
	mapped := make([]string, len(parts))
	for i, part := range parts {
		mapped[i] = m.part(part, i == 0)
	}
	return m.fit(mail.JoinName(mapped...).FoldInbox())
}

// MapAll maps all names of a tree so that different ones stay different: where several become one, those that the mapping had
// to change get a hash of their parts at the end. The order of names does not matter.
func (m Mapper) MapAll(names [][]string) []mail.Name {
	out := make([]mail.Name, len(names))
	taken := make(map[mail.Name]string, len(names)) // the original, parts joined by NUL
	order := make([]int, len(names))
	original := make([]string, len(names))
	for i, parts := range names {
		order[i], out[i], original[i] = i, m.Map(parts), strings.Join(parts, "\x00")
	}
	changed := func(i int) bool { return strings.ReplaceAll(original[i], "\x00", "/") != string(out[i]) }
	slices.SortStableFunc(order, func(a, b int) int {
		if ca, cb := changed(a), changed(b); ca != cb {
			if cb {
				return -1
			}
			return 1
		}
		return strings.Compare(original[a], original[b])
	})
	for _, i := range order {
		for owner, used := taken[out[i]]; used && owner != original[i]; owner, used = taken[out[i]] {
			out[i] = m.tagged(out[i], original[i])
		}
		taken[out[i]] = original[i]
	}
	return out
}

// tagged puts a hash of the original behind the name.
func (m Mapper) tagged(name mail.Name, original string) mail.Name {
	return m.fit(name.Parent().Child(m.shorten(name.Base(), string(name)+"\x00"+original, true)))
}

// part makes one part valid for the store.
func (m Mapper) part(part string, first bool) string {
	alt := m.alt()
	part = strings.ToValidUTF8(part, string(utf8.RuneError))
	var b strings.Builder
	for _, r := range part {
		if m.holds(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(alt)
		}
	}
	part = b.String()
	if part == "" || part == "." || part == ".." || first && part[0] == '~' || m.Refuse != nil && m.Refuse(part) {
		part = m.mark("_", "-") + part
	}
	return m.shorten(part, part, false)
}

func (m Mapper) holds(r rune) bool {
	return r >= 0x20 && r != 0x7f && r != '/' && (r != rune(m.Separator) || r >= utf8.RuneSelf)
}

// mark returns first, or second if first is the separator of the store.
func (m Mapper) mark(first, second string) string {
	if m.holds(rune(first[0])) {
		return first
	}
	return second
}

func (m Mapper) alt() string {
	for _, alt := range []string{m.AltChar, "_"} {
		if r, n := utf8.DecodeRuneInString(alt); n > 0 && n == len(alt) && (r != utf8.RuneError || n > 1) && m.holds(r) {
			return alt
		}
	}
	return "-"
}

// tagLength is the length of the hash with its "-" at the end of a name that was cut.
const tagLength = 9

// shorten cuts a part that is too long, or with always any part, and puts a hash of id behind it.
func (m Mapper) shorten(part, id string, always bool) string {
	limit := mail.MaxNamePart
	if m.PartMax > 0 {
		limit = min(limit, max(m.PartMax, 2*tagLength))
	}
	if !always && storedLength(part) <= limit {
		return part
	}
	part = cutRunes(part, limit-tagLength)
	for storedLength(part) > limit-tagLength {
		_, n := utf8.DecodeLastRuneInString(part)
		part = part[:len(part)-n]
	}
	return part + m.mark("-", "_") + shortHash(id)
}

func shortHash(s string) string {
	sum := sha1.Sum([]byte(s))
	return hex.EncodeToString(sum[:])[:tagLength-1]
}

// storedLength returns the greater of the lengths of s in UTF-8 and in modified UTF-7 (RFC 3501 §5.1.3).
func storedLength(s string) int {
	utf7, units := 0, 0
	flush := func() {
		if units > 0 {
			utf7 += 2 + base64.RawStdEncoding.EncodedLen(2*units)
		}
		units = 0
	}
	for _, r := range s {
		switch {
		case r >= utf8.RuneSelf:
			units += utf16.RuneLen(r)
			continue
		case r == '&':
			utf7++
		}
		flush()
		utf7++
	}
	flush()
	return max(utf7, len(s))
}

// fit cuts a name that is too long as a whole: the levels that do not fit become one that holds their hash.
func (m Mapper) fit(name mail.Name) mail.Name {
	const room = mail.MaxName - tagLength - 1
	if len(name) <= mail.MaxName {
		return name
	}
	cut := strings.LastIndexByte(string(name[:room+1]), '/')
	return name[:cut].Child(m.mark("_", "-") + shortHash(string(name)))
}
