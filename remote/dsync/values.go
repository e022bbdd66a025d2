package dsync

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strconv"

	"dsyncfs/mirror/mail"
)

var (
	errNumber = errors.New("not a number")
	errRange  = errors.New("number out of range")
)

// parseUint reads digits of base 10 or 16, of either case, without sign, up to max.
func parseUint(v []byte, base, max uint64) (uint64, error) {
	if len(v) == 0 {
		return 0, errNumber
	}
	var n uint64
	for _, c := range v {
		d := digit(c)
		if d >= base {
			return 0, errNumber
		}
		if n > (math.MaxUint64-d)/base {
			return 0, errRange
		}
		n = n*base + d
	}
	if n > max {
		return 0, errRange
	}
	return n, nil
}

func digit(c byte) uint64 {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0')
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return uint64(c-'A') + 10
	}
	return math.MaxUint64
}

// Setters. A field keeps its absent value unless one of them is called.

func (r *record) setString(f int, v string) {
	r.add(f, func(dst []byte) []byte { return append(dst, v...) })
}

func (r *record) setUint(f int, v uint64) {
	r.add(f, func(dst []byte) []byte { return strconv.AppendUint(dst, v, 10) })
}

func (r *record) setHex(f int, v uint64) {
	r.add(f, func(dst []byte) []byte { return strconv.AppendUint(dst, v, 16) })
}

func (r *record) setTime(f int, v int64) {
	r.add(f, func(dst []byte) []byte { return strconv.AppendInt(dst, v, 10) })
}

func (r *record) setBytesHex(f int, v []byte) {
	r.add(f, func(dst []byte) []byte { return hex.AppendEncode(dst, v) })
}

func (r *record) setFlag(f int, v bool) {
	if v {
		r.values[f] = []byte{}
	}
}

func (r *record) setByte(f int, v byte) {
	r.add(f, func(dst []byte) []byte { return append(dst, v) })
}

func (r *record) setList(f int, v []string) {
	r.add(f, func(dst []byte) []byte { return appendList(dst, v, '\t') })
}

// fields reads the values of a received record. The first thing that is wrong is kept in err; what is read after it is
// meaningless.
type fields struct {
	*record
	words words
	err   error
}

func (d *fields) fail(f int, err error) {
	if d.err == nil && err != nil {
		d.err = d.kind.errorf("%s: %s in %s", d.kind.fields[f].name, err, quote(d.values[f]))
	}
}

// quote shows the start of what a peer sent, safe for a terminal.
func quote(v []byte) string {
	const most = 80
	if len(v) > most {
		return strconv.QuoteToASCII(string(v[:most])) + "..."
	}
	return strconv.QuoteToASCII(string(v))
}

func (d *fields) has(f int) bool { return d.values[f] != nil }

func (d *fields) string(f int) string { return string(d.values[f]) }

// text reads a value of at most most bytes without NUL and line breaks, which no file name or list of a store can hold.
// Other odd bytes are for the store to judge: one strange file name must not end the sync of an account.
func (d *fields) text(f, most int) string {
	v := d.values[f]
	if len(v) > most {
		d.fail(f, errors.New("more than "+strconv.Itoa(most)+" bytes"))
		return ""
	}
	if bytes.ContainsAny(v, "\x00\r\n") {
		d.fail(f, errors.New("NUL or line break"))
		return ""
	}
	return string(v)
}

// uint reads a decimal number up to max; absent is 0.
func (d *fields) uint(f int, max uint64) uint64 { return d.number(f, 10, max) }

func (d *fields) number(f int, base, max uint64) uint64 {
	if !d.has(f) {
		return 0
	}
	n, err := parseUint(d.values[f], base, max)
	d.fail(f, err)
	return n
}

func (d *fields) uint32(f int) uint32 { return uint32(d.uint(f, math.MaxUint32)) }

func (d *fields) modSeq(f int) mail.ModSeq { return mail.ModSeq(d.uint(f, math.MaxUint64)) }

// positive reads an option that is either absent or not 0.
func (d *fields) positive(f int, max uint64) uint64 {
	n := d.uint(f, max)
	if d.has(f) && n == 0 {
		d.fail(f, errRange)
	}
	return n
}

// uid reads a UID; absent is 0, and 0 itself is out of range.
func (d *fields) uid(f int) mail.UID { return mail.UID(d.positive(f, uint64(mail.MaxUID))) }

// time reads seconds since the epoch, which may be negative; absent is 0.
func (d *fields) time(f int) int64 {
	if !d.has(f) {
		return 0
	}
	n, err := parseTime(d.values[f])
	d.fail(f, err)
	return n
}

func parseTime(v []byte) (int64, error) {
	if len(v) > 0 && v[0] == '-' {
		n, err := parseUint(v[1:], 10, math.MaxInt64)
		return -int64(n), err
	}
	n, err := parseUint(v, 10, math.MaxInt64)
	return int64(n), err
}

// char reads the one character out of allowed that f must be.
func (d *fields) char(f int, allowed string) byte {
	v := d.values[f]
	if len(v) == 1 {
		for i := range len(allowed) {
			if allowed[i] == v[0] {
				return v[0]
			}
		}
	}
	d.fail(f, errors.New("not one of "+allowed))
	return 0
}

// flags reads a set of system flags in hex. Bits beyond them, \Recent and internal ones, are dropped.
func (d *fields) flags(f int) mail.Flags {
	return mail.Flags(d.number(f, 16, math.MaxUint8)) & mail.AllFlags
}

func (d *fields) mailboxGUID(f int) mail.MailboxGUID { return mail.MailboxGUID(d.guid128(f)) }

func (d *fields) guid128(f int) mail.GUID128 {
	var g mail.GUID128
	d.hexBytes(f, g[:])
	return g
}

// hexBytes fills dst with the hex digits of f, exactly; absent leaves it alone.
func (d *fields) hexBytes(f int, dst []byte) {
	if !d.has(f) {
		return
	}
	if len(d.values[f]) != hex.EncodedLen(len(dst)) {
		d.fail(f, errors.New("not "+strconv.Itoa(hex.EncodedLen(len(dst)))+" hex digits"))
		return
	}
	_, err := hex.Decode(dst, d.values[f])
	d.fail(f, err)
}

// list reads a list; absent is nil, an empty value has one empty element.
func (d *fields) list(f int, sep byte) []string {
	if !d.has(f) {
		return nil
	}
	out, err := splitList(d.values[f], sep)
	d.fail(f, err)
	return out
}

// names reads a list whose elements cannot be empty. Empty elements, as Dovecot's hashed_headers has one at the end, are
// dropped, so that an empty value is an empty list. Absent is nil.
func (d *fields) names(f int) []string {
	all := d.list(f, '\t')
	if all == nil {
		return nil
	}
	out := all[:0]
	for _, name := range all {
		if name != "" {
			out = append(out, name)
		}
	}
	return out
}

// someNames is names for a list that says nothing when it is empty.
func (d *fields) someNames(f int) []string {
	if names := d.names(f); len(names) > 0 {
		return names
	}
	return nil
}

// words keeps strings that come again and again, such as keywords, so that they are allocated once.
type words map[string]string

const maxWords = 1 << 10

func (w words) intern(v []byte) string {
	if s, ok := w[string(v)]; ok {
		return s
	}
	s := string(v)
	if len(w) < maxWords && len(s) <= 64 {
		w[s] = s
	}
	return s
}
