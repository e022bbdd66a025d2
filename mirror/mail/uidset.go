package mail

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// UIDSet is a set of UIDs as a sequence-set of RFC 9051 section 9 without "*": ranges by ascending UID that do not touch each
// other, "3:5,9". The empty set is "". Two sets are equal if they are the same string.
type UIDSet string

// UIDs is a [UIDSet] to look things up in and to add to: ranges by ascending UID that do not touch each other.
type UIDs []UIDRange

// UIDRange is all UIDs from First to Last.
type UIDRange struct{ First, Last UID }

// Parse returns the ranges of a set, or an error if it is none.
func (s UIDSet) Parse() (UIDs, error) {
	if s == "" {
		return nil, nil
	}
	var out UIDs
	past := UID(0)
	for part := range strings.SplitSeq(string(s), ",") {
		from, to, isRange := strings.Cut(part, ":")
		first, err := parseUID(from)
		last := first
		if err == nil && isRange {
			last, err = parseUID(to)
		}
		if err != nil || last < first || isRange && last == first || len(out) > 0 && first <= past+1 {
			return nil, fmt.Errorf("UID set: %.40q", part)
		}
		out, past = append(out, UIDRange{first, last}), last
	}
	return out, nil
}

func parseUID(s string) (UID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && (n == 0 || n > uint64(MaxUID) || s[0] == '0' || s[0] == '+') {
		err = strconv.ErrRange
	}
	return UID(n), err
}

// Set returns the ranges in their written form.
func (u UIDs) Set() UIDSet {
	var b []byte
	for i, r := range u {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.First), 10)
		if r.Last > r.First {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(r.Last), 10)
		}
	}
	return UIDSet(b)
}

// find returns the place of the first range that ends at or above a UID.
func (u UIDs) find(uid UID) int {
	i, _ := slices.BinarySearchFunc(u, uid, func(r UIDRange, uid UID) int { return cmp.Compare(r.Last, uid) })
	return i
}

// Has reports whether a UID is in the set.
func (u UIDs) Has(uid UID) bool {
	i := u.find(uid)
	return i < len(u) && u[i].First <= uid
}

// Add puts a UID from 1 to [MaxUID] into the set.
func (u *UIDs) Add(uid UID) {
	if u.Has(uid) {
		return
	}
	i := u.find(uid)
	before, after := i > 0 && (*u)[i-1].Last == uid-1, i < len(*u) && (*u)[i].First == uid+1
	switch {
	case before && after:
		(*u)[i-1].Last = (*u)[i].Last
		*u = slices.Delete(*u, i, i+1)
	case before:
		(*u)[i-1].Last = uid
	case after:
		(*u)[i].First = uid
	default:
		*u = slices.Insert(*u, i, UIDRange{uid, uid})
	}
}
