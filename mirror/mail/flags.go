package mail

import (
	"slices"
	"strings"
)

// Flags is a set of system flags, in Dovecot's bit order (dovecot 2.3 mail-types.h).
type Flags uint8

// The system flags of RFC 9051 §2.3.2. \Recent is state of a session and not of a message, so it has no bit here.
const (
	FlagAnswered Flags = 1 << iota
	FlagFlagged
	FlagDeleted
	FlagSeen
	FlagDraft

	AllFlags = FlagAnswered | FlagFlagged | FlagDeleted | FlagSeen | FlagDraft
)

var flagNames = [...]string{`\Answered`, `\Flagged`, `\Deleted`, `\Seen`, `\Draft`}

// String lists the flags by their IMAP names, separated by spaces.
func (f Flags) String() string {
	var names []string
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// ParseFlag returns the flag of an IMAP name such as \Seen, of any case, and whether there is one.
func ParseFlag(name string) (Flags, bool) {
	for i, n := range flagNames {
		if strings.EqualFold(n, name) {
			return 1 << i, true
		}
	}
	return 0, false
}

// Keywords is a set of keywords: sorted by bytes, without duplicates. Names are compared exactly, as dsync does. Nil and
// empty are the same set. Values are shared freely, so nobody may change one in place.
type Keywords []string

// NewKeywords makes a set of names in any order.
func NewKeywords(names ...string) Keywords {
	if len(names) == 0 {
		return nil
	}
	k := slices.Clone(names)
	slices.Sort(k)
	return slices.Compact(k)
}

// Has reports whether name is in the set.
func (k Keywords) Has(name string) bool {
	_, ok := slices.BinarySearch(k, name)
	return ok
}

// Equal reports whether both sets hold the same names.
func (k Keywords) Equal(o Keywords) bool { return slices.Equal(k, o) }

// Union returns the names in either set.
func (k Keywords) Union(o Keywords) Keywords {
	if len(o) == 0 {
		return k
	}
	if len(k) == 0 {
		return o
	}
	return NewKeywords(append(slices.Clone(k), o...)...)
}

// Minus returns the names of k that are not in o.
func (k Keywords) Minus(o Keywords) Keywords {
	var out Keywords
	for _, name := range k {
		if !o.Has(name) {
			out = append(out, name)
		}
	}
	return out
}

// Intersect returns the names that are in both sets.
func (k Keywords) Intersect(o Keywords) Keywords {
	var out Keywords
	for _, name := range k {
		if o.Has(name) {
			out = append(out, name)
		}
	}
	return out
}
