package index

import (
	"encoding/binary"
	"fmt"
	"math"

	"dsyncfs/mirror/mail"
)

// decoder reads a payload from its front. After the first mistake it is bad and gives zero values.
type decoder struct {
	rest []byte
	bad  bool
}

// end reports whether the payload was good and is used up.
func (d *decoder) end() error {
	if d.bad || len(d.rest) > 0 {
		return fmt.Errorf("%w: record does not parse", ErrCorrupt)
	}
	return nil
}

func (d *decoder) fail() {
	d.bad, d.rest = true, nil
}

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

// uint reads a varint. One that is longer than needed is bad: every value has one spelling.
func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > math.MaxUint32 {
		d.fail()
		return 0
	}
	return uint32(v)
}

func (d *decoder) int() int64 {
	u := d.uint()
	return int64(u>>1) ^ -int64(u&1)
}

// take returns the next n bytes, nil if there are fewer.
func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.rest)) {
		d.fail()
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// bytes returns the bytes of a string, without a copy.
func (d *decoder) bytes() []byte { return d.take(d.uint()) }

// within reads a part of s.
func (d *decoder) within(s string) mail.GUID {
	at, n := d.uint(), d.uint()
	if at > uint64(len(s)) || n > uint64(len(s))-at {
		d.fail()
		return ""
	}
	return mail.GUID(s[at : at+n])
}

// keywordSets holds the sets that a reader met, so that equal ones are made once. Most messages of a mailbox have one of few.
type keywordSets struct{ sets map[string]mail.Keywords }

// maxKeywordSets bounds how many sets are held.
const maxKeywordSets = 1024

func (d *decoder) keywords(shared *keywordSets) mail.Keywords {
	block := d.bytes()
	if len(block) == 0 {
		return nil
	}
	if k, ok := shared.sets[string(block)]; ok {
		return k
	}
	list := decoder{rest: block}
	var k mail.Keywords
	for len(list.rest) > 0 {
		k = append(k, string(list.bytes()))
	}
	if list.bad {
		d.fail()
		return nil
	}
	if shared.sets == nil {
		shared.sets = map[string]mail.Keywords{}
	}
	if len(shared.sets) < maxKeywordSets {
		shared.sets[string(block)] = k
	}
	return k
}
