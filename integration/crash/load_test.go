package crash

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"dsyncfs/integration/harness"
)

// mailboxes are where the load works.
var mailboxes = []string{"INBOX", "Work", "Entwürfe", "Lists/golang-nuts"}

// enough is how many mails there are at most, so that a check stays quick.
const enough = 160

// load is mail programs at work on both sides, until it is stopped: on each a delivery agent and a mail program.
type load struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
}

func (w *world) startLoad() *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for _, s := range []*side{w.near, w.far} {
		deliverer, changer := w.newRand(), w.newRand()
		l.wg.Go(func() { work(ctx, deliverer, func() error { return w.deliver(s, deliverer) }) })
		l.wg.Go(func() { work(ctx, changer, func() error { return w.change(s, changer) }) })
	}
	return l
}

// end stops the load and waits for the programs.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// work does something over and over, a few dozen times a second. Errors are what happens when a daemon is killed, or a disk
// full; the program tries something else then.
func work(ctx context.Context, r *rand.Rand, do func() error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause := time.Duration(r.IntN(15)) * time.Millisecond
		if do() != nil {
			pause += 10 * time.Millisecond
		}
		timer.Reset(pause)
	}
}

// deliver delivers a mail, as an agent does that tells its sender whether it has it.
func (w *world) deliver(s *side, r *rand.Rand) error {
	if w.ledger.size() > enough {
		return nil
	}
	box := mailboxes[r.IntN(len(mailboxes))]
	id, base, m := w.ledger.newMail(s.name, box, r)
	err := w.put(s.programs, box, base, m)
	w.ledger.note(id, func(f *fate) {
		f.happened("delivered to %s: %v", box, err)
		if err == nil {
			f.delivered, f.syncedAt = yes, time.Now()
		}
	})
	return err
}

// put writes, syncs if that is the custom, and renames.
func (w *world) put(to harness.Maildir, box, base string, m harness.Mail) error {
	if !w.synced {
		_, err := to.TryDeliver(box, base, "", m)
		return err
	}
	tmp := filepath.Join(to.Dir(box), "tmp", base)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(m.Text)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Chtimes(tmp, m.Date, m.Date)); err != nil {
		return err
	}
	dir := filepath.Join(to.Dir(box), "new")
	if err := os.Rename(tmp, filepath.Join(dir, base)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// change picks a mail and flags, moves or expunges it. Only the side that delivered it may do the last two: what the other
// one did at the same time would decide otherwise.
func (w *world) change(s *side, r *rand.Rand) error {
	box := mailboxes[r.IntN(len(mailboxes))]
	path, id, owner, err := pick(s.programs, box, r)
	if err != nil || path == "" {
		return err
	}
	n := r.IntN(10)
	switch {
	case n < 5 || owner != s.name:
		err = w.flag(s, id, path)
	case n < 7:
		err = w.move(s, id, path, box, mailboxes[r.IntN(len(mailboxes))])
	case n < 8 || w.ledger.size() > enough/2:
		err = w.expunge(id, path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody changed its name meanwhile: nothing was done
	}
	return err
}

// pick returns a mail of a mailbox, an empty path if there is none.
func pick(m harness.Maildir, box string, r *rand.Rand) (path string, id int, owner string, err error) {
	dir := filepath.Join(m.Dir(box), []string{"cur", "new"}[r.IntN(2)])
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return "", 0, "", err
	}
	name := entries[r.IntN(len(entries))].Name()
	base, _, _ := strings.Cut(name, ":2,")
	_, tail, _ := strings.Cut(base, "_")
	number, owner, ok := strings.Cut(tail, ".")
	if id, err = strconv.Atoi(number); !ok || err != nil {
		return "", 0, "", nil
	}
	return filepath.Join(dir, name), id, owner, nil
}

// flag sets the letter of its side.
func (w *world) flag(s *side, id int, path string) error {
	base, info, _ := strings.Cut(filepath.Base(path), ":2,")
	if strings.Contains(info, s.letter) {
		return nil
	}
	flags := []byte(info + s.letter)
	if s.letter == "F" { // letters are sorted
		flags = []byte(s.letter + info)
	}
	err := os.Rename(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", base+":2,"+string(flags)))
	w.ledger.note(id, func(f *fate) {
		f.happened("%s of %s flagged: %v", path, s.name, err)
		if err == nil {
			f.flags += s.letter
		}
	})
	return err
}

func (w *world) move(s *side, id int, path, from, to string) error {
	if from == to {
		return nil
	}
	name := filepath.Base(path)
	if !strings.Contains(name, ":2,") {
		name += ":2,"
	}
	w.ledger.note(id, func(f *fate) { f.place, f.moved = "", true })
	err := os.Rename(path, filepath.Join(s.programs.Dir(to), "cur", name))
	w.ledger.note(id, func(f *fate) {
		f.happened("%s moved to %s: %v", name, to, err)
		switch {
		case err == nil:
			f.place = to
		case errors.Is(err, fs.ErrNotExist):
			f.place = from
		}
	})
	return err
}

func (w *world) expunge(id int, path string) error {
	w.ledger.note(id, func(f *fate) { f.expunged = maybe })
	err := os.Remove(path)
	w.ledger.note(id, func(f *fate) {
		f.happened("%s removed: %v", path, err)
		switch {
		case err == nil:
			f.expunged = yes
		case errors.Is(err, fs.ErrNotExist):
			f.expunged = no
		}
	})
	return err
}
