package sim

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// loss is what is gone of a mailbox, without a witness.
type loss struct {
	guard.Loss
	guid    mail.MailboxGUID
	mails   map[mail.GUID]bool // those that are missing
	strange bool               // none of its mails is in the mailbox that has its name
}

// losses counts, for each mailbox that a replica remembers, by the name that it remembers, the mails of which there is neither a
// file anywhere nor a witness. Like the store it knows a mail by the part of its name before the first comma, and goes by the
// name that a mailbox has now: one that was renamed to Trash may be emptied.
func losses(r *replica) (map[mail.Name]loss, error) {
	a, err := readAccount(r.disk, r.layout)
	if err != nil {
		return nil, err
	}
	there := make(map[string]bool)
	for _, b := range slices.Concat(a.boxes, a.setAside) {
		for _, f := range b.files {
			there[unique(f.Base)] = true
		}
	}
	held, deleted, err := witnesses(r)
	if held || err != nil {
		return nil, err
	}
	out := make(map[mail.Name]loss)
	return out, r.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			b := a.boxOf(rec)
			name := rec.Name
			if b != nil {
				name = b.name
			}
			witnessed := b == nil && deleted(rec.Status.GUID) || r.saw(name, "")
			l := loss{
				Loss: guard.Loss{Mailbox: name, Known: int(rec.Status.Messages), Gone: b == nil},
				guid: rec.Status.GUID, mails: make(map[mail.GUID]bool), strange: true,
			}
			for m := range tx.Messages(rec.Status.GUID, 0) {
				f, _ := mail.ParseFileName(m.File[len("cur/"):])
				if !there[unique(f.Base)] && !witnessed && !r.saw(name, f.Base) {
					l.Missing++
					l.mails[m.GUID] = true
				}
				l.strange = l.strange && (b == nil || b.file(f.Base) == nil)
			}
			out[rec.Name] = l
		}
		return nil
	})
}

// witnesses finds what the store left of the expunges and deletions that it carried out for the other side, where a crash or a
// failure kept it from recording them: in tmp/ (held is true if there are mails), and of mailboxes also in dovecot.mailbox.log, since
// the last sync: what it has of a mailbox that was there then is of a life before.
func witnesses(r *replica) (held bool, deleted func(mail.MailboxGUID) bool, err error) {
	root, err := r.disk.OpenDir("")
	if err != nil {
		return false, nil, err
	}
	defer root.Close()
	logged, err := deletions(root)
	if err != nil {
		return false, nil, err
	}
	trash := make(map[string]bool)
	deleted = func(guid mail.MailboxGUID) bool {
		return trash[guid.String()] || logged[guid] > r.logged[guid]
	}
	tmp, err := r.disk.OpenDir("tmp")
	if errors.Is(err, fs.ErrNotExist) {
		return false, deleted, nil
	}
	if err != nil {
		return false, nil, err
	}
	defer tmp.Close()
	err = tmp.Names(func(name string, _ vfs.Type) error {
		held = held || strings.HasPrefix(name, "dsyncfs-held-")
		if rest, ok := strings.CutPrefix(name, "dsyncfs-delete-"); ok {
			guid, _, _ := strings.Cut(rest, "-")
			trash[guid] = true
		}
		return nil
	})
	return held, deleted, err
}

// deletions counts the deletions of mailboxes in dovecot.mailbox.log. Its records have 24 bytes: a type in four (1: deleted), the
// GUID, and the time.
func deletions(root vfs.Dir) (map[mail.MailboxGUID]int, error) {
	log, err := vfs.ReadFile(root, "dovecot.mailbox.log", maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[mail.MailboxGUID]int)
	for ; len(log) >= 24; log = log[24:] {
		if log[0] == 1 {
			out[mail.MailboxGUID(log[4:20])]++
		}
	}
	return out, nil
}

// noteDeletions is called after a sync that succeeded: the mailboxes that the store knows now were there after the deletions
// in its log. It is called after a crash, too, which may have taken some of these (all is false): then it notes which are left.
func (r *replica) noteDeletions(all bool) {
	root, err := r.disk.OpenDir("")
	if err != nil {
		panic(err) // nothing fails behind the faults
	}
	defer root.Close()
	logged, err := deletions(root)
	if err != nil {
		panic(err)
	}
	if !all {
		for guid, n := range logged {
			logged[guid] = min(n, r.logged[guid])
		}
	}
	r.logged = logged
}

func unique(base string) string {
	before, _, _ := strings.Cut(base, ",")
	return before
}

// vanished returns a mailbox for which the guard has to stop the next sync of a replica, "" if there is none.
func vanished(r *replica) (mail.Name, error) {
	all, err := losses(r)
	for _, l := range all {
		if l.Known >= 10 && l.Missing == l.Known && !guard.Disposable(l.Mailbox) {
			return l.Mailbox, err
		}
	}
	return "", err
}

// justified checks the word of a guard against the files. What it says of mails whose files are here concerns what the other
// side asked for.
func justified(r *replica, stopped *guard.Error) error {
	all, err := losses(r)
	if err != nil || all == nil {
		return err
	}
	var own []loss
	for _, s := range stopped.Stops {
		l, known := meant(all, s)
		if !known || l.Missing == 0 {
			return nil
		}
		if s.Missing > l.Missing {
			return fmt.Errorf("%s: the guard says that %d mails of %q are gone without a witness, but only %d are", r.name, s.Missing, string(s.Mailbox), l.Missing)
		}
		l.Gone = l.Gone || s.Gone && l.strange
		own = append(own, l)
	}
	if !tooMany(own) {
		return fmt.Errorf("%s: the guard stopped a sync without need: %v", r.name, stopped)
	}
	return nil
}

// meant returns the loss of which a guard speaks. A mailbox that is gone had the name that is remembered of it; another one may
// have that now.
func meant(all map[mail.Name]loss, s guard.Stop) (loss, bool) {
	for _, l := range all {
		if !s.Gone && l.Mailbox == s.Mailbox {
			return l, true
		}
	}
	l, known := all[s.Mailbox]
	return l, known
}

// wanted is what the user wants back of what the guards stopped: the mails that are missing from mailboxes, as the other side has
// them, by content.
func (w *world) wanted(sides ...*replica) (map[*replica]map[string]int, error) {
	out := make(map[*replica]map[string]int)
	for i, r := range sides {
		if w.stopped[i] == nil {
			continue
		}
		all, err := losses(r)
		if err != nil {
			return nil, err
		}
		other := sides[1-i]
		a, err := readAccount(other.disk, other.layout)
		if err != nil {
			return nil, err
		}
		out[other] = make(map[string]int)
		for _, s := range w.stopped[i].Stops {
			l, _ := meant(all, s)
			for _, b := range a.boxes {
				if b.guid == l.guid.String() {
					b.count(l.mails, out[other])
				}
			}
		}
	}
	return out, nil
}

// count counts the mails of some GUIDs by content.
func (b *boxView) count(guids map[mail.GUID]bool, into map[string]int) {
	guid := make(map[string]string) // by base name, if it is another one
	for _, row := range b.list {
		guid[row.base] = row.fields['G']
	}
	for _, f := range b.files {
		if guids[mail.GUID(cmp.Or(guid[f.Base], f.Base))] {
			into[f.content]++
		}
	}
}

// restored checks that what the user wanted back is still where it was.
func restored(wanted map[*replica]map[string]int) error {
	for r, mails := range wanted {
		a, err := readAccount(r.disk, r.layout)
		if err != nil {
			return err
		}
		there := make(map[string]int)
		for _, b := range a.boxes {
			for _, f := range b.files {
				there[f.content]++
			}
		}
		for content, n := range mails {
			if there[content] < n {
				return fmt.Errorf("the user wanted a mail back, and it went from %s too: %.40q", r.name, content)
			}
		}
	}
	return nil
}

// tooMany is promise 7 in the words of docs/guarantees.md, without the code of the guard: whether losses without a witness are to
// stop a sync.
func tooMany(losses []loss) bool {
	small := 0 // mails of mailboxes with fewer than ten that lost all
	for _, l := range losses {
		bin := !l.Gone && guard.Disposable(l.Mailbox)
		switch all := l.Gone || l.Missing == l.Known; {
		case bin || l.Known == 0:
		case all && l.Known >= 10:
			return true
		case all:
			small += l.Missing
		case l.Missing > policy.MaxMissingMails && 100*l.Missing > policy.MaxMissingPercent*l.Known:
			return true
		}
	}
	return small > policy.MaxMissingMails
}
