package index

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/bits"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// A stored value is its payload and four bytes of CRC-32C, little-endian, over kind, mailbox ID, key and payload: a value
// that strays to another key does not pass for one.
//
// Within payloads, uint is a varint of the least possible length, int a zigzag varint, string a uint length and the bytes.
//
//	mailbox  uint ID, UIDVALIDITY, UIDNEXT, messages, first recent, HIGHESTMODSEQ; int renamed; uint log start;
//	         string signature
//	message  byte form, byte flags; uint modseq; int received, size, virtual size - size; string file; then, as form says,
//	         GUID, string keywords, string UIDL, uint order, int saved - received
//	log      byte form, uint UID, int time; then, as form says, string origin, 16 bytes GUID128, the delta: byte added, byte
//	         removed, string keywords added, string keywords removed
//
// A string of keywords holds a string per keyword. In a Maildir the GUID of most messages is part of the file name, and is
// then stored as two uints, offset and length in it; a message takes about 110 bytes with its key and bbolt's overhead.
const (
	kindHead byte = iota + 1
	kindMailbox
	kindGUID
	kindMessage
	kindLog
	kindValue
)

// Bits of a message's form.
const (
	guidNone   = 0 // no GUID
	guidInFile = 1 // part of the file name
	guidHex    = 2 // 16 bytes that stand for 32 lower-case hex digits
	guidPlain  = 3 // a string
	guidMask   = 3

	hasKeywords = 1 << 2
	hasUIDL     = 1 << 3
	hasOrder    = 1 << 4
	hasSaved    = 1 << 5
)

// Bits of a log entry's form; below them is its kind.
const (
	kindMask   = 7
	hasOrigin  = 1 << 3
	hasGUID128 = 1 << 4
	hasDelta   = 1 << 5
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum begins with a value that is another for each kind and mailbox, so that equal records of two do not have one sum.
func checksum(kind byte, box uint32, key, payload []byte) uint32 {
	const spread = 0x9e3779b1 // odd, near 2^32 divided by the golden ratio: kinds do not meet the numbers of mailboxes
	sum := crc32.Update(uint32(kind)*spread^box, castagnoli, key)
	return crc32.Update(sum, castagnoli, payload)
}

// seal appends the checksum to payload.
func seal(kind byte, box uint32, key, payload []byte) []byte {
	return binary.LittleEndian.AppendUint32(payload, checksum(kind, box, key, payload))
}

// unseal returns the payload of a stored value, without a copy.
func unseal(kind byte, box uint32, key, value []byte) ([]byte, error) {
	n := len(value) - 4
	if n < 0 || binary.LittleEndian.Uint32(value[n:]) != checksum(kind, box, key, value[:n]) {
		return nil, fmt.Errorf("%w: checksum of record %x", ErrCorrupt, key)
	}
	return value[:n], nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendKeywords(b []byte, k mail.Keywords) []byte {
	n := 0
	for _, name := range k {
		n += uvarintLen(uint64(len(name))) + len(name)
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, name := range k {
		b = appendString(b, name)
	}
	return b
}

func uvarintLen(n uint64) int { return (bits.Len64(n|1) + 6) / 7 }

func appendMailbox(b []byte, id uint32, r store.MailboxRecord) []byte {
	for _, n := range []uint64{
		uint64(id), uint64(r.Status.UIDValidity), uint64(r.Status.UIDNext), uint64(r.Status.Messages),
		uint64(r.Status.FirstRecent), uint64(r.Status.HighestModSeq),
	} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendVarint(b, r.Renamed)
	b = binary.AppendUvarint(b, uint64(r.LogStart))
	return appendString(b, string(r.Signature))
}

// decodeMailbox leaves name and GUID, which are in the key, to the caller.
func decodeMailbox(payload []byte) (id uint32, r store.MailboxRecord, err error) {
	d := decoder{rest: payload}
	id = d.uint32()
	r.Status.UIDValidity = mail.UIDValidity(d.uint32())
	r.Status.UIDNext = mail.UID(d.uint32())
	r.Status.Messages = d.uint32()
	r.Status.FirstRecent = mail.UID(d.uint32())
	r.Status.HighestModSeq = mail.ModSeq(d.uint())
	r.Renamed = d.int()
	r.LogStart = mail.ModSeq(d.uint())
	if signature := d.bytes(); len(signature) > 0 {
		r.Signature = append([]byte(nil), signature...)
	}
	return id, r, d.end()
}

func appendMessage(b []byte, r *store.MessageRecord) []byte {
	form, at := guidForm(r)
	if len(r.Keywords) > 0 {
		form |= hasKeywords
	}
	if r.POP3UIDL != "" {
		form |= hasUIDL
	}
	if r.POP3Order != 0 {
		form |= hasOrder
	}
	if r.Saved != 0 {
		form |= hasSaved
	}
	b = append(b, form, byte(r.Flags))
	b = binary.AppendUvarint(b, uint64(r.ModSeq))
	b = binary.AppendVarint(b, r.Received)
	b = binary.AppendVarint(b, r.Size)
	b = binary.AppendVarint(b, r.VirtualSize-r.Size)
	b = appendString(b, r.File)
	switch form & guidMask {
	case guidInFile:
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(at)), uint64(len(r.GUID)))
	case guidHex:
		b, _ = hex.AppendDecode(b, []byte(r.GUID))
	case guidPlain:
		b = appendString(b, string(r.GUID))
	}
	if form&hasKeywords != 0 {
		b = appendKeywords(b, r.Keywords)
	}
	if form&hasUIDL != 0 {
		b = appendString(b, r.POP3UIDL)
	}
	if form&hasOrder != 0 {
		b = binary.AppendUvarint(b, uint64(r.POP3Order))
	}
	if form&hasSaved != 0 {
		b = binary.AppendVarint(b, r.Saved-r.Received)
	}
	return b
}

func guidForm(r *store.MessageRecord) (form byte, at int) {
	if r.GUID == "" {
		return guidNone, 0
	}
	if at := strings.Index(r.File, string(r.GUID)); at >= 0 {
		return guidInFile, at
	}
	if isLowerHex128(string(r.GUID)) {
		return guidHex, 0
	}
	return guidPlain, 0
}

func isLowerHex128(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// decodeMessage reads a message record; the UID is in the key.
func decodeMessage(payload []byte, uid mail.UID, shared *keywordSets) (r store.MessageRecord, err error) {
	d := decoder{rest: payload}
	form := d.byte()
	r.UID = uid
	r.Flags = mail.Flags(d.byte())
	r.ModSeq = mail.ModSeq(d.uint())
	r.Received = d.int()
	r.Size = d.int()
	r.VirtualSize = r.Size + d.int()
	r.File = string(d.bytes())
	switch form & guidMask {
	case guidInFile:
		r.GUID = d.within(r.File)
	case guidHex:
		r.GUID = mail.GUID(hex.EncodeToString(d.take(16)))
	case guidPlain:
		r.GUID = mail.GUID(d.bytes())
	}
	if form&hasKeywords != 0 {
		r.Keywords = d.keywords(shared)
	}
	if form&hasUIDL != 0 {
		r.POP3UIDL = string(d.bytes())
	}
	if form&hasOrder != 0 {
		r.POP3Order = d.uint32()
	}
	if form&hasSaved != 0 {
		r.Saved = r.Received + d.int()
	}
	d.bad = d.bad || form >= hasSaved<<1
	return r, d.end()
}

func appendLogEntry(b []byte, e *store.LogEntry) []byte {
	form := byte(e.Kind)
	if e.Origin != "" {
		form |= hasOrigin
	}
	if !e.GUID128.IsZero() {
		form |= hasGUID128
	}
	if !e.Delta.IsZero() {
		form |= hasDelta
	}
	b = binary.AppendUvarint(append(b, form), uint64(e.UID))
	b = binary.AppendVarint(b, e.Time)
	if form&hasOrigin != 0 {
		b = appendString(b, string(e.Origin))
	}
	if form&hasGUID128 != 0 {
		b = append(b, e.GUID128[:]...)
	}
	if form&hasDelta != 0 {
		b = append(b, byte(e.Delta.Add), byte(e.Delta.Remove))
		b = appendKeywords(appendKeywords(b, e.Delta.AddKeywords), e.Delta.RemoveKeywords)
	}
	return b
}

// decodeLogEntry reads a log entry; the modseq is in the key.
func decodeLogEntry(payload []byte, modseq mail.ModSeq, shared *keywordSets) (e store.LogEntry, err error) {
	d := decoder{rest: payload}
	form := d.byte()
	e.ModSeq = modseq
	e.Kind = store.LogKind(form & kindMask)
	e.UID = mail.UID(d.uint32())
	e.Time = d.int()
	if form&hasOrigin != 0 {
		e.Origin = store.Origin(d.bytes())
	}
	if form&hasGUID128 != 0 {
		copy(e.GUID128[:], d.take(16))
	}
	if form&hasDelta != 0 {
		e.Delta.Add, e.Delta.Remove = mail.Flags(d.byte()), mail.Flags(d.byte())
		e.Delta.AddKeywords, e.Delta.RemoveKeywords = d.keywords(shared), d.keywords(shared)
	}
	d.bad = d.bad || form >= hasDelta<<1 || !validKind(e.Kind)
	return e, d.end()
}

func validKind(k store.LogKind) bool { return k >= store.LogAppend && k <= store.LogExpunge }
