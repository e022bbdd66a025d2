package dovecotlog

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"dsyncfs/mirror/mail"
)

// Expunge is what the logs say about one UID.
type Expunge struct {
	GUID      mail.GUID128 // zero if it was not recorded
	Requested bool         // a session was told to expunge the mail: a witness
	Gone      bool         // Dovecot saw that the mail is gone, for whatever reason: no witness by itself
}

// Expunges is what the logs of one mailbox say about expunges. It is immutable.
type Expunges struct {
	IndexID     uint32
	UIDValidity mail.UIDValidity // 0 if no log says; then dovecot.index does, see [ReadIndexHeader]

	requested, gone []span // sorted and disjoint, without GUIDs
	guids           map[mail.UID]mail.GUID128
}

// Combine joins the current log of a mailbox with the one before it, which may be nil. That one counts only if it is of the
// same index and UIDVALIDITY.
func Combine(current, previous *Log) *Expunges {
	e := &Expunges{IndexID: current.IndexID, UIDValidity: current.UIDValidity, guids: map[mail.UID]mail.GUID128{}}
	logs := []*Log{current}
	if previous != nil && continues(previous, current) {
		logs = append(logs, previous)
		e.UIDValidity = cmp.Or(e.UIDValidity, previous.UIDValidity)
	}
	for _, l := range logs {
		e.requested = append(e.requested, l.requested...)
		e.gone = append(e.gone, l.gone...)
	}
	for _, s := range slices.Concat(e.gone, e.requested) {
		if !s.guid.IsZero() {
			e.guids[s.first] = s.guid
		}
	}
	e.requested, e.gone = merge(e.requested), merge(e.gone)
	return e
}

// continues reports whether the UIDs of the log l mean the same mails in the log that came after it. The current log names a
// UIDVALIDITY only if it was set there; a log that starts anew (no previous one) shares nothing with an older file.
func continues(l, next *Log) bool {
	return l.IndexID == next.IndexID && next.PrevSequence != 0 && l.Sequence == next.PrevSequence &&
		(next.UIDValidity == 0 || l.UIDValidity == 0 || next.UIDValidity == l.UIDValidity)
}

// merge returns the same UIDs as sorted spans with gaps between them.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && uint64(s.first) <= uint64(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, s.last)
			continue
		}
		out = append(out, span{first: s.first, last: s.last})
	}
	return out
}

func contains(spans []span, uid mail.UID) bool {
	i, found := slices.BinarySearchFunc(spans, uid, func(s span, uid mail.UID) int { return cmp.Compare(s.first, uid) })
	return found || i > 0 && uid <= spans[i-1].last
}

// Lookup returns what the logs say about a UID, false if nothing.
func (e *Expunges) Lookup(uid mail.UID) (Expunge, bool) {
	x := Expunge{GUID: e.guids[uid], Requested: contains(e.requested, uid), Gone: contains(e.gone, uid)}
	return x, x.Requested || x.Gone
}

// Requested gives the ranges of UIDs, first and last, that were to be expunged, in ascending order.
func (e *Expunges) Requested() iter.Seq2[mail.UID, mail.UID] {
	return func(yield func(first, last mail.UID) bool) {
		for _, s := range e.requested {
			if !yield(s.first, s.last) {
				return
			}
		}
	}
}

// IndexHeader is the part of the header of dovecot.index that says what a log belongs to.
type IndexHeader struct {
	IndexID     uint32
	UIDValidity mail.UIDValidity
	NextUID     mail.UID
	LogSequence uint32 // the log that has what is newer than this file
}

// IndexHeaderSize is how many bytes of dovecot.index [ReadIndexHeader] needs.
const IndexHeaderSize = 64

// ReadIndexHeader reads the start of dovecot.index (dovecot 2.3.19 mail-index.h: mail_index_header). Errors wrap ErrFormat.
func ReadIndexHeader(b []byte) (h IndexHeader, err error) {
	switch {
	case len(b) < IndexHeaderSize:
		return h, fmt.Errorf("%w: index too short", ErrFormat)
	case b[0] != 7:
		return h, fmt.Errorf("%w: index version %d", ErrFormat, b[0])
	case b[12]&1 == 0:
		return h, fmt.Errorf("%w: index is big-endian", ErrFormat)
	}
	h.IndexID = binary.LittleEndian.Uint32(b[16:])
	h.UIDValidity = mail.UIDValidity(binary.LittleEndian.Uint32(b[offsetUIDValidity:]))
	h.NextUID = uid(b[28:])
	h.LogSequence = binary.LittleEndian.Uint32(b[60:])
	if h.IndexID == 0 || b[20]&1 != 0 { // MAIL_INDEX_HDR_FLAG_CORRUPTED
		return h, fmt.Errorf("%w: index is marked corrupted", ErrFormat)
	}
	return h, nil
}
