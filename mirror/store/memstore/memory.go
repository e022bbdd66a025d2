package memstore

import (
	"bytes"
	"cmp"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// memory is what the store remembers of the disk: what a catalog holds for an adapter of a real format.
type memory struct {
	boxes     map[mail.MailboxGUID]*box
	dirs      map[mail.Name]struct{}
	subs      map[mail.Name]subscription
	deletions []mail.Deletion
	bases     map[string]map[mail.MailboxGUID]store.State
}

// box is what is known of one mailbox.
type box struct {
	name     mail.Name
	status   mail.Status
	renamed  int64
	messages []*message // by ascending UID
	log      []store.LogEntry
	logStart mail.ModSeq // the log holds every change above it
	attrs    map[attrKey]store.Attribute
	lost     store.Lost // without a witness, and accepted
	reserved mail.UID   // UIDs below are not for mails that turn up here; see Reserve
}

// message is replaced and never changed in place, so that the slices of pointers that mailboxes hold are snapshots.
type message struct {
	mail.Message
	base string
}

type attrKey struct {
	shared bool
	key    string
}

func (m *memory) reset() {
	m.boxes = map[mail.MailboxGUID]*box{}
	m.dirs = map[mail.Name]struct{}{}
	m.subs = map[mail.Name]subscription{}
	m.forget()
}

// forget loses what no file of a Maildir holds.
func (m *memory) forget() {
	m.deletions = nil
	m.bases = map[string]map[mail.MailboxGUID]store.State{}
	for _, b := range m.boxes {
		b.dropLog()
	}
}

func (m *memory) addDeletion(kind mail.DeletionKind, id mail.GUID128, now int64) {
	m.dropDeletion(kind, id)
	m.deletions = append(m.deletions, mail.Deletion{Kind: kind, ID: id, Time: now})
	slices.SortFunc(m.deletions, compareDeletions)
}

// forgetBases forgets the last common states of a mailbox of that GUID that was there before.
func (m *memory) forgetBases(guid mail.MailboxGUID) {
	for _, states := range m.bases {
		delete(states, guid)
	}
}

func (m *memory) dropDeletion(kind mail.DeletionKind, id mail.GUID128) {
	m.deletions = slices.DeleteFunc(m.deletions, func(d mail.Deletion) bool { return d.Kind == kind && d.ID == id })
}

func newBox(name mail.Name, d *diskBox) *box {
	return &box{
		name:     name,
		renamed:  d.renamed,
		logStart: 1,
		status: mail.Status{
			GUID: d.guid, UIDValidity: d.validity, UIDNext: 1, FirstRecent: 1, HighestModSeq: 1,
		},
		attrs: map[attrKey]store.Attribute{},
	}
}

func (b *box) dropLog() { b.log, b.logStart = nil, b.status.HighestModSeq }

// tick draws the next modseq, at least min.
func (b *box) tick(min mail.ModSeq) mail.ModSeq {
	b.status.HighestModSeq = max(b.status.HighestModSeq+1, min)
	return b.status.HighestModSeq
}

// record ticks and logs e under the modseq drawn.
func (b *box) record(e store.LogEntry, min mail.ModSeq) mail.ModSeq {
	e.ModSeq = b.tick(min)
	b.log = append(b.log, e)
	return e.ModSeq
}

func (b *box) index(uid mail.UID) (int, bool) {
	return slices.BinarySearchFunc(b.messages, uid, func(m *message, uid mail.UID) int { return cmp.Compare(m.UID, uid) })
}

func (b *box) message(uid mail.UID) *message {
	if i, ok := b.index(uid); ok {
		return b.messages[i]
	}
	return nil
}

// put adds m or replaces the message of its UID.
func (b *box) put(m *message) {
	i, found := b.index(m.UID)
	b.messages = slices.Clone(b.messages)
	if found {
		b.messages[i] = m
		return
	}
	b.messages = slices.Insert(b.messages, i, m)
	b.count()
	b.status.UIDNext = max(b.status.UIDNext, m.UID+1)
}

func (b *box) drop(uid mail.UID) {
	if i, found := b.index(uid); found {
		b.messages = slices.Delete(slices.Clone(b.messages), i, i+1)
		b.count()
	}
}

// above is one more than the highest UID.
func (b *box) above() mail.UID {
	if n := len(b.messages); n > 0 {
		return b.messages[n-1].UID + 1
	}
	return 1
}

func (b *box) count() { b.status.Messages = uint32(len(b.messages)) }

// messageOf describes a file as a new message of that UID.
func messageOf(base string, f *file, uid mail.UID) *message {
	return &message{base: base, Message: mail.Message{
		UID: uid, GUID: f.guid, Flags: f.flags, Keywords: f.keywords,
		Received: f.received, Saved: f.saved, POP3UIDL: f.uidl, POP3Order: f.order,
		Size: int64(len(f.body)), VirtualSize: virtualSize(f.body),
	}}
}

// virtualSize counts every line end as CRLF.
func virtualSize(body []byte) int64 {
	return int64(len(body) + bytes.Count(body, []byte("\n")) - bytes.Count(body, []byte("\r\n")))
}

func compareDeletions(x, y mail.Deletion) int {
	return cmp.Or(cmp.Compare(x.Kind, y.Kind), bytes.Compare(x.ID[:], y.ID[:]))
}
