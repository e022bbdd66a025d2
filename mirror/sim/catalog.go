package sim

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// catalog is a [store.Catalog] in memory with the semantics of mirror/index: an Update is durable once it has returned and
// undone if it fails. So a crash leaves it as its last finished Update did.
type catalog struct {
	epoch  uint64
	before func() error // asked before each Update: the place where a simulation interrupts or fails it

	crashed bool // the process before was killed, and nobody has opened the store since

	mu     sync.RWMutex
	boxes  map[mail.MailboxGUID]*catalogBox
	values map[string]map[string][]byte
}

type catalogBox struct {
	record   store.MailboxRecord
	messages map[mail.UID]store.MessageRecord
	log      []store.LogEntry // by modseq
}

func newCatalog(epoch uint64, before func() error) *catalog {
	return &catalog{epoch: epoch, before: before, boxes: make(map[mail.MailboxGUID]*catalogBox), values: make(map[string]map[string][]byte)}
}

func (c *catalog) Epoch() uint64 { return c.epoch }
func (c *catalog) Close() error  { return nil }
func (c *catalog) Crashed() bool { return c.crashed }

func (c *catalog) View(f func(store.CatalogTx) error) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return f(&catalogTx{c: c})
}

func (c *catalog) Update(f func(store.CatalogTx) error) error {
	if err := c.before(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &catalogTx{c: c, writable: true}
	err := f(t)
	if err != nil {
		for _, undo := range slices.Backward(t.undo) {
			undo()
		}
	}
	return err
}

var errReadOnly = errors.New("write in a View")

type catalogTx struct {
	c        *catalog
	writable bool
	undo     []func()
}

func (t *catalogTx) known(guid mail.MailboxGUID) (*catalogBox, error) {
	if !t.writable {
		return nil, errReadOnly
	}
	b := t.c.boxes[guid]
	if b == nil {
		return nil, fmt.Errorf("mailbox %v: %w", guid, store.ErrNotFound)
	}
	return b, nil
}

func (t *catalogTx) later(undo func()) { t.undo = append(t.undo, undo) }

func (t *catalogTx) Mailboxes() iter.Seq2[store.MailboxRecord, error] {
	all := make([]store.MailboxRecord, 0, len(t.c.boxes))
	for _, b := range t.c.boxes {
		all = append(all, b.record)
	}
	slices.SortFunc(all, func(a, b store.MailboxRecord) int {
		if c := strings.Compare(string(a.Name), string(b.Name)); c != 0 {
			return c
		}
		return a.Status.GUID.Compare(b.Status.GUID)
	})
	return without(all)
}

// without yields elements that came without an error.
func without[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (t *catalogTx) Mailbox(guid mail.MailboxGUID) (store.MailboxRecord, bool, error) {
	b := t.c.boxes[guid]
	if b == nil {
		return store.MailboxRecord{}, false, nil
	}
	return b.record, true, nil
}

func (t *catalogTx) PutMailbox(r store.MailboxRecord) error {
	guid := r.Status.GUID
	switch {
	case !t.writable:
		return errReadOnly
	case guid.IsZero() || r.Name == "":
		return fmt.Errorf("put mailbox %q %v: %w", r.Name, guid, store.ErrName)
	}
	r.Signature = bytes.Clone(r.Signature)
	if b := t.c.boxes[guid]; b != nil {
		old := b.record
		b.record = r
		t.later(func() { b.record = old })
		return nil
	}
	t.c.boxes[guid] = &catalogBox{record: r, messages: make(map[mail.UID]store.MessageRecord)}
	t.later(func() { delete(t.c.boxes, guid) })
	return nil
}

func (t *catalogTx) DropMailbox(guid mail.MailboxGUID) error {
	b, err := t.known(guid)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	delete(t.c.boxes, guid)
	t.later(func() { t.c.boxes[guid] = b })
	for _, bucket := range t.bucketsOf(guid) {
		t.moveBucket(bucket, "")
	}
	return nil
}

func (t *catalogTx) bucketsOf(guid mail.MailboxGUID) (names []string) {
	for name := range t.c.values {
		if strings.HasSuffix(name, guid.String()) {
			names = append(names, name)
		}
	}
	return names
}

// moveBucket gives a bucket another name, or drops it if that is empty. What stood there is replaced.
func (t *catalogTx) moveBucket(from, to string) {
	was, there := t.c.values[from], t.c.values[to]
	delete(t.c.values, from)
	if to != "" {
		t.c.values[to] = was
	}
	t.later(func() {
		if to != "" {
			delete(t.c.values, to)
		}
		if there != nil {
			t.c.values[to] = there
		}
		t.c.values[from] = was
	})
}

func (t *catalogTx) Rekey(from, to mail.MailboxGUID) error {
	b, err := t.known(from)
	if err != nil || from == to {
		return err
	}
	if t.c.boxes[to] != nil || to.IsZero() {
		return fmt.Errorf("mailbox %v: %w", to, store.ErrExists)
	}
	delete(t.c.boxes, from)
	t.c.boxes[to] = b
	b.record.Status.GUID = to
	t.later(func() {
		delete(t.c.boxes, to)
		b.record.Status.GUID = from
		t.c.boxes[from] = b
	})
	for _, bucket := range t.bucketsOf(from) {
		t.moveBucket(bucket, strings.TrimSuffix(bucket, from.String())+to.String())
	}
	return nil
}

func (t *catalogTx) Messages(guid mail.MailboxGUID, after mail.UID) iter.Seq2[store.MessageRecord, error] {
	b := t.c.boxes[guid]
	if b == nil {
		return without[store.MessageRecord](nil)
	}
	var all []store.MessageRecord
	for _, uid := range slices.Sorted(maps.Keys(b.messages)) {
		if uid > after {
			all = append(all, b.messages[uid])
		}
	}
	return without(all)
}

func (t *catalogTx) Message(guid mail.MailboxGUID, uid mail.UID) (store.MessageRecord, bool, error) {
	b := t.c.boxes[guid]
	if b == nil {
		return store.MessageRecord{}, false, nil
	}
	r, found := b.messages[uid]
	return r, found, nil
}

func (t *catalogTx) PutMessage(guid mail.MailboxGUID, r store.MessageRecord) error {
	b, err := t.known(guid)
	if err != nil {
		return err
	}
	if r.UID == 0 {
		return fmt.Errorf("message %q has no UID", r.File)
	}
	t.keep(b, r.UID)
	b.messages[r.UID] = r
	return nil
}

func (t *catalogTx) DropMessage(guid mail.MailboxGUID, uid mail.UID) error {
	b, err := t.known(guid)
	if err != nil {
		return err
	}
	t.keep(b, uid)
	delete(b.messages, uid)
	return nil
}

// keep lets a failed Update put a message back as it was.
func (t *catalogTx) keep(b *catalogBox, uid mail.UID) {
	old, was := b.messages[uid]
	t.later(func() {
		if delete(b.messages, uid); was {
			b.messages[uid] = old
		}
	})
}

func (t *catalogTx) Log(guid mail.MailboxGUID, since mail.ModSeq) iter.Seq2[store.LogEntry, error] {
	b := t.c.boxes[guid]
	if b == nil {
		return without[store.LogEntry](nil)
	}
	i := 0
	for i < len(b.log) && b.log[i].ModSeq <= since {
		i++
	}
	return without(b.log[i:])
}

func (t *catalogTx) AppendLog(guid mail.MailboxGUID, e store.LogEntry) error {
	b, err := t.known(guid)
	if err != nil {
		return err
	}
	if n := len(b.log); n > 0 && e.ModSeq <= b.log[n-1].ModSeq {
		return fmt.Errorf("log of mailbox %v: modseq %d is not above %d", guid, e.ModSeq, b.log[n-1].ModSeq)
	}
	t.keepLog(b)
	b.log = append(slices.Clip(b.log), e)
	return nil
}

func (t *catalogTx) TrimLog(guid mail.MailboxGUID, upTo mail.ModSeq) error {
	b, err := t.known(guid)
	if err != nil {
		return err
	}
	t.keepLog(b)
	b.log = slices.DeleteFunc(slices.Clone(b.log), func(e store.LogEntry) bool { return e.ModSeq <= upTo })
	return nil
}

func (t *catalogTx) keepLog(b *catalogBox) {
	old := b.log
	t.later(func() { b.log = old })
}

func (t *catalogTx) Value(bucket, key string) ([]byte, error) {
	return bytes.Clone(t.c.values[bucket][key]), nil
}

func (t *catalogTx) SetValue(bucket, key string, value []byte) error {
	if !t.writable {
		return errReadOnly
	}
	m := t.c.values[bucket]
	if m == nil {
		if value == nil {
			return nil
		}
		m = make(map[string][]byte)
		t.c.values[bucket] = m
	}
	old, was := m[key]
	t.later(func() {
		if delete(m, key); was {
			m[key] = old
		}
	})
	if value == nil {
		delete(m, key)
	} else {
		m[key] = append([]byte{}, value...)
	}
	return nil
}

func (t *catalogTx) Values(bucket string) iter.Seq2[string, []byte] {
	m := t.c.values[bucket]
	keys := slices.Sorted(maps.Keys(m))
	return func(yield func(string, []byte) bool) {
		for _, k := range keys {
			if v, there := m[k]; there && !yield(k, bytes.Clone(v)) {
				return
			}
		}
	}
}
