package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	bolt "go.etcd.io/bbolt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// fill is how full bbolt packs the pages of messages and logs, which grow at their ends.
const fill = 0.9

// tx is one transaction. It is used by one goroutine at a time.
type tx struct {
	bt                                   *bolt.Tx
	writable                             bool
	ended                                bool
	broken                               error // the first sign of damage
	names, guids, messages, logs, values *bolt.Bucket
	writes                               int         // so far; a cursor that is older looks for its place again
	last                                 *boxBuckets // the mailbox used last
	shared                               keywordSets
}

// boxBuckets are the buckets of one mailbox.
type boxBuckets struct {
	guid     mail.MailboxGUID
	id       uint32
	messages *bolt.Bucket
	log      *bolt.Bucket
	highest  mail.ModSeq // of the log, once known
	logRead  bool
}

var _ store.CatalogTx = (*tx)(nil)

func newTx(bt *bolt.Tx, writable bool) (*tx, error) {
	t := &tx{bt: bt, writable: writable}
	return t, t.read("begin", func() error {
		t.names, t.guids, t.values = bt.Bucket(bucketNames), bt.Bucket(bucketGUIDs), bt.Bucket(bucketValues)
		t.messages, t.logs = bt.Bucket(bucketMessages), bt.Bucket(bucketLog)
		if t.names == nil || t.guids == nil || t.values == nil || t.messages == nil || t.logs == nil {
			return fmt.Errorf("%w: a bucket is missing", ErrCorrupt)
		}
		return nil
	})
}

func (t *tx) finish() { t.ended = true }

// read runs f on the file. Damage is noted, so that it is not lost if the caller drops the error.
func (t *tx) read(op string, f func() error) error {
	if t.ended {
		return fmt.Errorf("%s: %w", op, errEnded)
	}
	err := guard(op, f)
	if errors.Is(err, ErrCorrupt) && t.broken == nil {
		t.broken = err
	}
	return err
}

// write is read for what changes the file.
func (t *tx) write(op string, f func() error) error {
	if !t.writable {
		return fmt.Errorf("%s: %w", op, errReadOnly)
	}
	t.writes++
	return t.read(op, f)
}

// box returns the buckets of a mailbox, nil if it is not known.
func (t *tx) box(guid mail.MailboxGUID) (*boxBuckets, error) {
	if t.last != nil && t.last.guid == guid {
		return t.last, nil
	}
	name, ok, err := t.nameOf(guid)
	if err != nil || !ok {
		return nil, err
	}
	id, _, err := t.record(nameKey(name, guid))
	if err != nil {
		return nil, err
	}
	b := &boxBuckets{guid: guid, id: id, messages: t.messages.Bucket(idKey(id)), log: t.logs.Bucket(idKey(id))}
	if b.messages == nil || b.log == nil {
		return nil, fmt.Errorf("%w: mailbox %v has no messages or no log", ErrCorrupt, guid)
	}
	b.messages.FillPercent, b.log.FillPercent = fill, fill
	t.last = b
	return b, nil
}

// known is box for what needs the mailbox.
func (t *tx) known(guid mail.MailboxGUID) (*boxBuckets, error) {
	b, err := t.box(guid)
	if err == nil && b == nil {
		err = fmt.Errorf("mailbox %v: %w", guid, store.ErrNotFound)
	}
	return b, err
}

func (t *tx) nameOf(guid mail.MailboxGUID) (mail.Name, bool, error) {
	value := t.guids.Get(guid[:])
	if value == nil {
		return "", false, nil
	}
	name, err := unseal(kindGUID, 0, guid[:], value)
	return mail.Name(name), err == nil, err
}

// record reads the mailbox record of a key of names.
func (t *tx) record(key []byte) (uint32, store.MailboxRecord, error) {
	value := t.names.Get(key)
	if value == nil {
		return 0, store.MailboxRecord{}, fmt.Errorf("%w: mailbox record %q is missing", ErrCorrupt, key)
	}
	return parseMailbox(key, value)
}

func parseMailbox(key, value []byte) (uint32, store.MailboxRecord, error) {
	payload, err := unseal(kindMailbox, 0, key, value)
	if err != nil {
		return 0, store.MailboxRecord{}, err
	}
	id, r, err := decodeMailbox(payload)
	name := len(key) - len(r.Status.GUID) - 1
	if err != nil || name < 0 {
		return 0, store.MailboxRecord{}, fmt.Errorf("%w: mailbox record %q", ErrCorrupt, key)
	}
	r.Name = mail.Name(key[:name])
	copy(r.Status.GUID[:], key[name+1:])
	return id, r, nil
}

// nameKey sorts by name: no name holds a NUL.
func nameKey(name mail.Name, guid mail.MailboxGUID) []byte {
	key := make([]byte, 0, len(name)+1+len(guid))
	return append(append(append(key, name...), 0), guid[:]...)
}

func idKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

// Mailboxes implements [store.CatalogTx].
func (t *tx) Mailboxes() iter.Seq2[store.MailboxRecord, error] {
	return scan(t, "read mailboxes", nil,
		func() (*bolt.Bucket, error) { return t.names, nil },
		func(key, value []byte) (store.MailboxRecord, error) {
			_, r, err := parseMailbox(key, value)
			return r, err
		})
}

// Mailbox implements [store.CatalogTx].
func (t *tx) Mailbox(guid mail.MailboxGUID) (r store.MailboxRecord, found bool, err error) {
	err = t.read("read mailbox", func() error {
		name, ok, err := t.nameOf(guid)
		if err != nil || !ok {
			return err
		}
		_, r, err = t.record(nameKey(name, guid))
		found = err == nil
		return err
	})
	return r, found, err
}

// PutMailbox implements [store.CatalogTx].
func (t *tx) PutMailbox(r store.MailboxRecord) error {
	guid := r.Status.GUID
	if guid.IsZero() || strings.ContainsRune(string(r.Name), 0) || len(r.Name) > mail.MaxName {
		return fmt.Errorf("put mailbox %q %v: %w", r.Name, guid, store.ErrName)
	}
	return t.write("put mailbox", func() error {
		b, err := t.box(guid)
		if err != nil {
			return err
		}
		if b == nil {
			return t.newMailbox(r)
		}
		return t.replaceMailbox(b.id, guid, r)
	})
}

func (t *tx) newMailbox(r store.MailboxRecord) error {
	n, err := t.guids.NextSequence()
	if err != nil {
		return err
	}
	if n > math.MaxUint32 {
		return fmt.Errorf("put mailbox %q: no more IDs", r.Name)
	}
	id := uint32(n)
	if _, err := t.messages.CreateBucket(idKey(id)); err != nil {
		return err
	}
	if _, err := t.logs.CreateBucket(idKey(id)); err != nil {
		return err
	}
	return t.putRecord(id, r)
}

// replaceMailbox puts r in the place of the record of a GUID.
func (t *tx) replaceMailbox(id uint32, guid mail.MailboxGUID, r store.MailboxRecord) error {
	name, _, err := t.nameOf(guid)
	if err != nil {
		return err
	}
	if name != r.Name || guid != r.Status.GUID {
		if err := t.names.Delete(nameKey(name, guid)); err != nil {
			return err
		}
	}
	if guid != r.Status.GUID {
		if err := t.guids.Delete(guid[:]); err != nil {
			return err
		}
	}
	return t.putRecord(id, r)
}

func (t *tx) putRecord(id uint32, r store.MailboxRecord) error {
	guid := r.Status.GUID
	key := nameKey(r.Name, guid)
	if err := t.names.Put(key, seal(kindMailbox, 0, key, appendMailbox(nil, id, r))); err != nil {
		return err
	}
	return t.guids.Put(guid[:], seal(kindGUID, 0, guid[:], []byte(r.Name)))
}

// DropMailbox implements [store.CatalogTx]. A mailbox that is not known is no error.
func (t *tx) DropMailbox(guid mail.MailboxGUID) error {
	return t.write("drop mailbox", func() error {
		b, err := t.box(guid)
		if err != nil || b == nil {
			return err
		}
		t.last = nil
		name, _, err := t.nameOf(guid)
		if err != nil {
			return err
		}
		if err := t.dropValues(guid); err != nil {
			return err
		}
		return errors.Join(
			t.messages.DeleteBucket(idKey(b.id)), t.logs.DeleteBucket(idKey(b.id)),
			t.names.Delete(nameKey(name, guid)), t.guids.Delete(guid[:]))
	})
}

// Rekey implements [store.CatalogTx]. The errors are [store.ErrNotFound] and [store.ErrExists].
func (t *tx) Rekey(from, to mail.MailboxGUID) error {
	return t.write("rekey mailbox", func() error {
		b, err := t.known(from)
		if err != nil || from == to {
			return err
		}
		if taken, err := t.box(to); err != nil || taken != nil || to.IsZero() {
			return errors.Join(err, fmt.Errorf("mailbox %v: %w", to, store.ErrExists))
		}
		t.last = nil
		name, _, err := t.nameOf(from)
		if err != nil {
			return err
		}
		_, r, err := t.record(nameKey(name, from))
		if err != nil {
			return err
		}
		r.Status.GUID = to
		if err := t.replaceMailbox(b.id, from, r); err != nil {
			return err
		}
		return t.renameValues(from, to)
	})
}

// Messages implements [store.CatalogTx].
func (t *tx) Messages(guid mail.MailboxGUID, after mail.UID) iter.Seq2[store.MessageRecord, error] {
	if after == math.MaxUint32 {
		return func(func(store.MessageRecord, error) bool) {}
	}
	var b *boxBuckets
	return scan(t, "read messages", uidKey(after+1),
		func() (_ *bolt.Bucket, err error) {
			if b, err = t.box(guid); b == nil {
				return nil, err
			}
			return b.messages, err
		},
		func(key, value []byte) (store.MessageRecord, error) { return t.parseMessage(b.id, key, value) })
}

func uidKey(uid mail.UID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(uid)) }

func (t *tx) parseMessage(box uint32, key, value []byte) (store.MessageRecord, error) {
	payload, err := unseal(kindMessage, box, key, value)
	if err != nil {
		return store.MessageRecord{}, err
	}
	if len(key) != 4 {
		return store.MessageRecord{}, fmt.Errorf("%w: key %x of a message", ErrCorrupt, key)
	}
	return decodeMessage(payload, mail.UID(binary.BigEndian.Uint32(key)), &t.shared)
}

// Message implements [store.CatalogTx].
func (t *tx) Message(guid mail.MailboxGUID, uid mail.UID) (r store.MessageRecord, found bool, err error) {
	err = t.read("read message", func() error {
		b, err := t.box(guid)
		if err != nil || b == nil {
			return err
		}
		key := uidKey(uid)
		value := b.messages.Get(key)
		if value == nil {
			return nil
		}
		r, err = t.parseMessage(b.id, key, value)
		found = err == nil
		return err
	})
	return r, found, err
}

// PutMessage implements [store.CatalogTx]. The mailbox must be known, the UID not 0.
func (t *tx) PutMessage(guid mail.MailboxGUID, r store.MessageRecord) error {
	return t.write("put message", func() error {
		b, err := t.known(guid)
		if err != nil {
			return err
		}
		if r.UID == 0 {
			return fmt.Errorf("message %q has no UID", r.File)
		}
		// One allocation for key and value, which bbolt keeps until the commit.
		buf := make([]byte, 4, 64+len(r.File))
		binary.BigEndian.PutUint32(buf, uint32(r.UID))
		buf = appendMessage(buf, &r)
		key := buf[:4:4]
		sum := checksum(kindMessage, b.id, key, buf[4:])
		buf = binary.LittleEndian.AppendUint32(buf, sum)
		return b.messages.Put(key, buf[4:])
	})
}

// DropMessage implements [store.CatalogTx]. A message that is not known is no error.
func (t *tx) DropMessage(guid mail.MailboxGUID, uid mail.UID) error {
	return t.write("drop message", func() error {
		b, err := t.known(guid)
		if err != nil {
			return err
		}
		return b.messages.Delete(uidKey(uid))
	})
}

// Log implements [store.CatalogTx].
func (t *tx) Log(guid mail.MailboxGUID, since mail.ModSeq) iter.Seq2[store.LogEntry, error] {
	if since == math.MaxUint64 {
		return func(func(store.LogEntry, error) bool) {}
	}
	var b *boxBuckets
	return scan(t, "read log", modSeqKey(since+1),
		func() (_ *bolt.Bucket, err error) {
			if b, err = t.box(guid); b == nil {
				return nil, err
			}
			return b.log, err
		},
		func(key, value []byte) (store.LogEntry, error) {
			payload, err := unseal(kindLog, b.id, key, value)
			if err != nil {
				return store.LogEntry{}, err
			}
			if len(key) != 8 {
				return store.LogEntry{}, fmt.Errorf("%w: key %x of a log", ErrCorrupt, key)
			}
			return decodeLogEntry(payload, mail.ModSeq(binary.BigEndian.Uint64(key)), &t.shared)
		})
}

func modSeqKey(m mail.ModSeq) []byte { return binary.BigEndian.AppendUint64(nil, uint64(m)) }

// AppendLog implements [store.CatalogTx].
func (t *tx) AppendLog(guid mail.MailboxGUID, e store.LogEntry) error {
	return t.write("append to log", func() error {
		b, err := t.known(guid)
		if err != nil {
			return err
		}
		b.readHighest()
		if e.ModSeq <= b.highest {
			return fmt.Errorf("log of mailbox %v: modseq %d is not above %d", guid, e.ModSeq, b.highest)
		}
		if !validKind(e.Kind) {
			return fmt.Errorf("log of mailbox %v: kind %d", guid, e.Kind)
		}
		key := modSeqKey(e.ModSeq)
		if err := b.log.Put(key, seal(kindLog, b.id, key, appendLogEntry(nil, &e))); err != nil {
			return err
		}
		b.highest = e.ModSeq
		return nil
	})
}

func (b *boxBuckets) readHighest() {
	if b.logRead {
		return
	}
	if key, _ := b.log.Cursor().Last(); len(key) == 8 {
		b.highest = mail.ModSeq(binary.BigEndian.Uint64(key))
	}
	b.logRead = true
}

// TrimLog implements [store.CatalogTx].
func (t *tx) TrimLog(guid mail.MailboxGUID, upTo mail.ModSeq) error {
	return t.write("trim log", func() error {
		b, err := t.known(guid)
		if err != nil {
			return err
		}
		b.readHighest()
		if upTo >= b.highest { // all of it; what was highest stays, so that modseqs cannot run backwards in this transaction
			if err := t.logs.DeleteBucket(idKey(b.id)); err != nil {
				return err
			}
			if b.log, err = t.logs.CreateBucket(idKey(b.id)); err != nil {
				return err
			}
			b.log.FillPercent = fill
			return nil
		}
		// Deleting under a cursor makes it skip, so the keys are gathered first.
		var keys []byte
		end := modSeqKey(upTo)
		c := b.log.Cursor()
		for key, _ := c.First(); key != nil && bytes.Compare(key, end) <= 0; key, _ = c.Next() {
			keys = append(keys, key...)
		}
		for ; len(keys) >= 8; keys = keys[8:] {
			if err := b.log.Delete(keys[:8]); err != nil {
				return err
			}
		}
		return nil
	})
}
