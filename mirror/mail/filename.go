package mail

import (
	"slices"
	"strconv"
	"strings"
)

// FileName is a Maildir file name taken apart: "base:2,flags". This is the only place that splits or joins one.
//
// Rules (dovecot 2.3.19 maildir-filename.c and maildir-filename-flags.c): the base ends at the first colon; flags are read
// after the last ":2,"; anything else is kept when the name is written again.
type FileName struct {
	Base    string // unique name with its ,S= and ,W= fields; the identity of the mail in its mailbox
	Flags   Flags  // the system flags
	Letters uint32 // bit i set: keyword letter 'a'+i, an index into dovecot-keywords
	Other   string // flag characters that we do not know, sorted
	Rest    string // from the second comma of the info on, with it
	HasInfo bool   // the name has a ":2," part
}

// letters of the system flags in ASCII order, with their flag.
var flagLetters = [...]struct {
	letter byte
	flag   Flags
}{{'D', FlagDraft}, {'F', FlagFlagged}, {'R', FlagAnswered}, {'S', FlagSeen}, {'T', FlagDeleted}}

// BaseName returns the part of name before the info. ok is false for what is not a mail: an empty name, one that starts with a dot or
// a colon, or one with a slash, CR, LF or NUL. A mount asks for it several times for each name that it is asked about.
func BaseName(name string) (base string, ok bool) {
	if name == "" || name[0] == '.' || name[0] == ':' {
		return "", false
	}
	end := len(name)
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c > ':':
		case c == ':' && i < end:
			end = i
		case c == '/', c == '\n', c == '\r', c == 0:
			return "", false
		}
	}
	return name[:end], true
}

// ParseFileName takes name apart. ok is false for what is not a mail; see BaseName.
func ParseFileName(name string) (f FileName, ok bool) {
	if f.Base, ok = BaseName(name); !ok || len(f.Base) == len(name) {
		return f, ok
	}
	info := name[strings.LastIndexByte(name, ':')+1:]
	flags, isFlags := strings.CutPrefix(info, "2,")
	if !isFlags {
		return f, true
	}
	f.HasInfo = true
	if i := strings.IndexByte(flags, ','); i >= 0 {
		flags, f.Rest = flags[:i], flags[i:]
	}
	var other []byte
	for i := 0; i < len(flags); i++ {
		switch c := flags[i]; {
		case c >= 'a' && c <= 'z':
			f.Letters |= 1 << (c - 'a')
		case flagOfLetter(c) != 0:
			f.Flags |= flagOfLetter(c)
		case !slices.Contains(other, c):
			other = append(other, c)
		}
	}
	slices.Sort(other)
	f.Other = string(other)
	return f, true
}

func flagOfLetter(c byte) Flags {
	for _, l := range flagLetters {
		if l.letter == c {
			return l.flag
		}
	}
	return 0
}

// String writes the name in Dovecot's order: system flags and unknown characters by code point, keyword letters last. A
// name without info and without flags stays without info.
func (f FileName) String() string {
	if !f.HasInfo && f.Flags == 0 && f.Letters == 0 {
		return f.Base
	}
	letters := []byte(f.Other)
	for _, l := range flagLetters {
		if f.Flags&l.flag != 0 {
			letters = append(letters, l.letter)
		}
	}
	slices.Sort(letters)
	for i := byte(0); i < 26; i++ {
		if f.Letters&(1<<i) != 0 {
			letters = append(letters, 'a'+i)
		}
	}
	return f.Base + ":2," + string(letters) + f.Rest
}

// Sizes returns the physical (S=) and virtual (W=) sizes that the base name claims, -1 for one that it does not. The first
// occurrence counts, and only if its digits end at a comma or the end (dovecot 2.3.19 maildir_filename_get_size).
func (f FileName) Sizes() (physical, virtual int64) {
	return sizeField(f.Base, ",S="), sizeField(f.Base, ",W=")
}

func sizeField(base, key string) int64 {
	_, after, found := strings.Cut(base, key)
	if !found {
		return -1
	}
	digits, _, _ := strings.Cut(after, ",")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || digits[0] == '+' {
		return -1
	}
	return n
}

// CompareDelivery orders base names as Dovecot does when it gives UIDs to new files: leading seconds, then the number after
// 'M' in the second dot-separated part, then bytes (dovecot 2.3.19 maildir_filename_sort_cmp).
func CompareDelivery(a, b string) int {
	as, am, aok := deliveryTime(a)
	bs, bm, bok := deliveryTime(b)
	if as != bs {
		return compareUint(as, bs)
	}
	if aok && bok && am != bm {
		return compareUint(am, bm)
	}
	return strings.Compare(a, b)
}

func deliveryTime(base string) (secs, micros uint64, hasMicros bool) {
	secs, rest := leadingDigits(base)
	if m, found := strings.CutPrefix(rest, ".M"); found {
		micros, after := leadingDigits(m)
		return secs, micros, len(after) < len(m)
	}
	return secs, 0, false
}

func leadingDigits(s string) (n uint64, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' && n < 1<<58 {
		n = n*10 + uint64(s[i]-'0')
		i++
	}
	return n, s[i:]
}

func compareUint(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}
