package maildir

import (
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// cursorChunk is how many records are read in one transaction at most: a transaction must not stay open while the caller does
// what it likes, for example an Update. The first ones are smaller, as most mailboxes are.
const (
	cursorChunk      = 1024
	firstCursorChunk = 64
)

// cursor reads the messages of a mailbox by ascending UID, a chunk per transaction.
type cursor struct {
	cat   store.Catalog
	box   mail.MailboxGUID
	after mail.UID
	end   bool
	size  int // of the next chunk
	chunk []store.MessageRecord
}

func newCursor(cat store.Catalog, box mail.MailboxGUID, after mail.UID) *cursor {
	return &cursor{cat: cat, box: box, after: after, size: firstCursorChunk}
}

// next returns the next record; ok is false at the end.
func (c *cursor) next() (r store.MessageRecord, ok bool, err error) {
	if len(c.chunk) == 0 && !c.end {
		if err := c.fill(); err != nil {
			return r, false, err
		}
	}
	if len(c.chunk) == 0 {
		return r, false, nil
	}
	r, c.chunk = c.chunk[0], c.chunk[1:]
	c.after = r.UID
	return r, true, nil
}

func (c *cursor) fill() error {
	buf := make([]store.MessageRecord, 0, c.size)
	err := c.cat.View(func(tx store.CatalogTx) error {
		for r, err := range tx.Messages(c.box, c.after) {
			if err != nil {
				return err
			}
			if buf = append(buf, r); len(buf) == c.size {
				return nil
			}
		}
		return nil
	})
	c.chunk, c.end = buf, len(buf) < c.size
	c.size = min(2*c.size, cursorChunk)
	return err
}

// writer collects changes of the catalog and carries them out in transactions of bounded size.
type writer struct {
	cat store.Catalog
	ops []func(store.CatalogTx) error

	// progress is the record of the mailbox that is being scanned, as far as it has come. It goes into the same transaction
	// as the messages, so that the catalog agrees with itself whenever the process ends.
	progress func() store.MailboxRecord

	// unsynced is how many new mails, and removed mailboxes, are recorded among ops of which nobody has made sure that they are on
	// disk. They must be before the record is: a later refresh, after an error or a kill, takes such mails for known; and what a
	// power cut brings back of a mailbox that nobody knows any more is another mailbox, with mails that the other side has too.
	unsynced int
	sync     func() error // everything
}

// writerBatch is how many changes make a transaction.
const writerBatch = 4096

func (w *writer) add(op func(store.CatalogTx) error) error {
	w.ops = append(w.ops, op)
	if len(w.ops) >= writerBatch {
		return w.flush()
	}
	return nil
}

func (w *writer) putMessage(box mail.MailboxGUID, r store.MessageRecord) error {
	return w.add(func(tx store.CatalogTx) error { return tx.PutMessage(box, r) })
}

func (w *writer) putMailbox(r store.MailboxRecord) error {
	return w.add(func(tx store.CatalogTx) error { return tx.PutMailbox(r) })
}

// flush carries out what was collected, if anything.
func (w *writer) flush() error {
	if len(w.ops) == 0 {
		return nil
	}
	if w.unsynced > 0 {
		if err := w.sync(); err != nil {
			return err
		}
		w.unsynced = 0
	}
	err := w.cat.Update(func(tx store.CatalogTx) error {
		for _, op := range w.ops {
			if err := op(tx); err != nil {
				return err
			}
		}
		if w.progress != nil {
			return tx.PutMailbox(w.progress())
		}
		return nil
	})
	clear(w.ops)
	w.ops = w.ops[:0]
	return err
}
