package mirror

import (
	"maps"
	"sync"

	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
)

// The journal's marks.
const (
	markIndexed = "indexed" // changes up to here have been taken notice of: their witnesses are not needed again
	markSent    = "sent"    // the remote has the changes up to here
)

// witness knows from the journal which mails and mailboxes a program removed through the mount: such an expunge was seen.
//
// A change is journaled before it is carried out, so a round may see the journal ahead of the store. What was journaled
// counts as taken notice of only after the round that follows the one during which it was there, so nothing under way loses
// its witness.
type witness struct {
	journal *journal.Journal

	mu     sync.Mutex
	read   uint64 // journal read up to here
	before uint64 // end of the journal when the last successful round began
	mails  map[witnessed]uint64
}

// witnessed is one mail, or with an empty base a mailbox.
type witnessed struct {
	mailbox mail.Name
	base    string
}

func newWitness(j *journal.Journal) *witness {
	from := j.Mark(markIndexed)
	return &witness{journal: j, read: from, before: from, mails: make(map[witnessed]uint64)}
}

// begin reads what was journaled meanwhile and returns where the journal ends.
func (w *witness) begin() uint64 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.catchUp()
	return w.read
}

// catchUp reads what was journaled since the last time. What cannot be read is no witness.
func (w *witness) catchUp() {
	if w.journal.Last() == w.read {
		return
	}
	for rec, err := range w.journal.Read(w.read + 1) { // the record before may be pruned by now
		if err != nil {
			return
		}
		w.note(rec.Seq, rec.Event)
		w.read = rec.Seq
	}
}

func (w *witness) note(seq uint64, ev mail.Event) {
	switch ev.Op {
	case mail.EventExpunge, mail.EventReplace, mail.EventMove:
		if f, ok := mail.ParseFileName(ev.File); ok {
			w.mails[witnessed{ev.Mailbox, f.Base}] = seq
		}
	case mail.EventMailboxDelete:
		w.mails[witnessed{ev.Mailbox, ""}] = seq
	case mail.EventMailboxRename:
		w.rename(seq, ev.Mailbox, ev.To)
	}
}

// rename has what was seen going from a mailbox, and from those below it, be known under the new name, too.
func (w *witness) rename(seq uint64, from, to mail.Name) {
	for key := range maps.Clone(w.mails) {
		if name, moved := key.mailbox.Moved(from, to); moved && key.base != "" {
			w.mails[witnessed{name, key.base}] = seq
		}
	}
	w.mails[witnessed{from, ""}] = seq
}

// end notes that the round which began at mark succeeded.
func (w *witness) end(mark uint64) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, seq := range w.mails {
		if seq <= w.before {
			delete(w.mails, key)
		}
	}
	if err := w.journal.SetMarks(map[string]uint64{markIndexed: w.before, markSent: mark}); err != nil {
		return err
	}
	w.before = mark
	return nil
}

// saw implements store.RefreshOptions.Witness. A mailbox that was deleted or renamed takes everything in and below it along.
// What is missing may have been removed since the round began, and is in the journal then, as that comes first.
func (w *witness) saw(mailbox mail.Name, base string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.knows(mailbox, base) {
		return true
	}
	w.catchUp()
	return w.knows(mailbox, base)
}

func (w *witness) knows(mailbox mail.Name, base string) bool {
	if _, ok := w.mails[witnessed{mailbox, base}]; ok {
		return true
	}
	for name := mailbox; name != ""; name = name.Parent() {
		if _, ok := w.mails[witnessed{name, ""}]; ok {
			return true
		}
	}
	return false
}
