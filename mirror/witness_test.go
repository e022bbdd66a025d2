package mirror

import (
	"testing"
	"time"

	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// TestWitnessGoesOnWhereTheJournalWasPruned lets everything that was read be pruned: the witness once asked for the last of
// those records again, was told that it is gone, and read nothing more for ever.
func TestWitnessGoesOnWhereTheJournalWasPruned(t *testing.T) {
	j, err := journal.OpenFS(vfs.NewMem(time.Now), journal.Options{SegmentSize: 256, Retain: -1})
	if err != nil {
		t.Fatal(err)
	}
	w := newWitness(j)
	for range 20 {
		if _, err := j.Append(mail.Event{Op: mail.EventExpunge, Mailbox: "INBOX", File: "a:2,"}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a record is done with after the round that follows the one during which it was there
			mark := w.begin()
			if mark != j.Last() {
				t.Fatalf("read up to %d of %d", mark, j.Last())
			}
			if err := w.end(mark); err != nil {
				t.Fatal(err)
			}
		}
		if got := j.Mark(markSent); got != j.Last() {
			t.Fatalf("sent up to %d of %d", got, j.Last())
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// A mailbox is emptied and then renamed before anybody looked: what was seen going has a witness under either name.
func TestWitnessesFollowARename(t *testing.T) {
	j, err := journal.OpenFS(vfs.NewMem(time.Now), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	w := newWitness(j)
	for _, ev := range []mail.Event{
		{Op: mail.EventExpunge, Mailbox: "Old", File: "a:2,"},
		{Op: mail.EventExpunge, Mailbox: "Old/2026", File: "b:2,"},
		{Op: mail.EventExpunge, Mailbox: "Older", File: "c:2,"},
		{Op: mail.EventMailboxRename, Mailbox: "Old", To: "Work"},
	} {
		if _, err := j.Append(ev); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		mailbox mail.Name
		base    string
		want    bool
	}{{"Work", "a", true}, {"Work/2026", "b", true}, {"Old", "a", true}, {"Older", "c", true}, {"Work", "c", false}, {"Worker", "c", false}, {"Work", "", false}} {
		if got := w.saw(c.mailbox, c.base); got != c.want {
			t.Errorf("saw %q going from %q: %v", c.base, c.mailbox, got)
		}
	}
}
