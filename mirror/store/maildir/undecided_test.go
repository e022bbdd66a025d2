package maildir_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
)

// Two mails go from a mailbox, one of them into another. The loss of the one is not believed yet; but as long as the other one
// counted as there, too, a mail that someone puts there would be taken for it.
func TestWhatMovedDoesNotWaitForWhatVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrashRun(t, filepath.Join(tempDir(t), "index"))
		defer func() { must(t, c.cat.Close()) }()
		s := c.open(t, c.mem)
		defer func() { must(t, s.Close()) }()
		look := func() store.Report {
			return refresh(t, s, store.RefreshOptions{Patience: time.Second, Guard: func([]store.Loss) error { return nil }})
		}
		look()

		from, err := c.mem.OpenDir(".work/new")
		must(t, err)
		to, err := c.mem.OpenDir("new")
		must(t, err)
		must(t, from.Rename("old-2", to, "old-2"))
		must(t, from.Remove("old-4"))
		must(t, from.Close())
		must(t, to.Close())

		if r := look(); !r.Undecided || r.Expunged != 1 {
			t.Errorf("at once: %+v", r)
		}
		got := inventoryUnread(t, s)
		if _, there := got["old-2"]; there || len(got) != 5 {
			t.Errorf("at once %d mails are there, the moved one: %t", len(got), there)
		}
		time.Sleep(2 * time.Second)
		if r := look(); r.Undecided || r.Expunged != 1 {
			t.Errorf("after a while: %+v", r)
		}
		if got := inventoryUnread(t, s); len(got) != 4 {
			t.Errorf("after a while %d mails are there", len(got))
		}
	})
}

// inventoryUnread is what is known of the mailbox, by GUID.
func inventoryUnread(t *testing.T, s *maildir.Store) map[mail.GUID]mail.UID {
	t.Helper()
	box := openBox(t, s, crashBox)
	defer box.Close()
	out := make(map[mail.GUID]mail.UID)
	for m, err := range box.Messages(0) {
		must(t, err)
		out[m.GUID] = m.UID
	}
	return out
}
