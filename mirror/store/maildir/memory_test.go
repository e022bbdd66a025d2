package maildir_test

import (
	"fmt"
	"path"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/mirror/index"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// remembering is a store whose process is told of each change, and how often it listed a directory of mail.
type remembering struct {
	mem      *vfs.Mem
	cat      *index.Index
	locks    *maildir.Locks
	memory   *maildir.Memory
	listings int
	blind    bool
}

func (r *remembering) CatchUp(string) bool { return !r.blind }

func newRemembering(t *testing.T) *remembering {
	t.Helper()
	cat, err := index.Open(filepath.Join(tempDir(t), "index"), index.Options{})
	must(t, err)
	t.Cleanup(func() { cat.Close() })
	r := &remembering{mem: vfs.NewMem(time.Now), cat: cat, locks: maildir.NewLocks(maildir.LockOptions{}), memory: maildir.NewMemory()}
	r.mem.Observe(func(dir, name string) {
		if sub := path.Base(dir); sub == "new" || sub == "cur" {
			r.memory.Note(dir, name)
		}
	})
	r.memory.Track(r)
	r.round(t, func(*maildir.Store) {}) // makes the Maildir
	for i := range 5 {
		r.deliver(t, "new", fmt.Sprint("old", i))
	}
	r.look(t)
	return r
}

// round opens the store as each round does, with a look at it first.
func (r *remembering) round(t *testing.T, do func(*maildir.Store)) store.Report {
	t.Helper()
	fsys := vfs.NewFault(r.mem, func(o vfs.Op) error {
		if sub := path.Base(o.Path); o.Name == "readdir" && (sub == "new" || sub == "cur") {
			r.listings++
		}
		return nil
	})
	s, err := maildir.Open(t.Context(), fsys, r.cat, maildir.Options{Create: true, Locks: r.locks, Memory: r.memory})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	report := refresh(t, s, store.RefreshOptions{})
	do(s)
	return report
}

func (r *remembering) look(t *testing.T) store.Report {
	t.Helper()
	return r.round(t, func(*maildir.Store) {})
}

// wantLook looks and checks how many mails came, got other flags and went, and whether directories had to be listed for that.
func (r *remembering) wantLook(t *testing.T, what string, listed bool, added, flags, expunged int) {
	t.Helper()
	r.listings = 0
	got := r.look(t)
	if got.Added != added || got.Flags != flags || got.Expunged != expunged {
		t.Errorf("%s: %d came, %d got other flags, %d went; want %d, %d, %d", what, got.Added, got.Flags, got.Expunged, added, flags, expunged)
	}
	if (r.listings > 0) != listed {
		t.Errorf("%s: %d listings", what, r.listings)
	}
}

func (r *remembering) dir(t *testing.T, name string) vfs.Dir {
	t.Helper()
	d, err := r.mem.OpenDir(name)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func (r *remembering) deliver(t *testing.T, sub, name string) {
	t.Helper()
	tmp := r.dir(t, "tmp")
	f, err := tmp.Create(name, 0o600)
	must(t, err)
	_, err = f.Write([]byte("Subject: " + name + "\n"))
	must(t, err)
	must(t, f.Close())
	must(t, tmp.Rename(name, r.dir(t, sub), name))
}

func (r *remembering) rename(t *testing.T, from, to string) {
	t.Helper()
	must(t, r.dir(t, path.Dir(from)).Rename(path.Base(from), r.dir(t, path.Dir(to)), path.Base(to)))
}

func TestWhatIsToldCostsNoListing(t *testing.T) {
	r := newRemembering(t)
	r.wantLook(t, "nothing", false, 0, 0, 0)
	r.deliver(t, "new", "a")
	r.deliver(t, "cur", "b:2,S")
	if !r.memory.Pending() {
		t.Error("a delivery is no news")
	}
	r.wantLook(t, "two deliveries", false, 2, 0, 0)
	r.rename(t, "new/a", "cur/a:2,")
	r.wantLook(t, "seen by a reader", false, 0, 0, 0)
	r.rename(t, "cur/a:2,", "cur/a:2,S")
	r.rename(t, "cur/a:2,S", "cur/a:2,RS")
	r.rename(t, "cur/b:2,S", "cur/b:2,")
	r.wantLook(t, "flags", false, 0, 2, 0)
	r.deliver(t, "new", "c")
	r.rename(t, "new/c", "cur/c:2,F")
	r.wantLook(t, "delivered and flagged at once", false, 1, 0, 0)
	if r.memory.Pending() {
		t.Error("what was looked at is still news")
	}
	must(t, r.dir(t, "cur").Remove("a:2,RS"))
	r.wantLook(t, "removed", true, 0, 0, 1) // a listing makes sure
	r.deliver(t, "new", "d")
	r.wantLook(t, "after that", false, 1, 0, 0)
}

func TestWhatTheStoreDoesIsNoNews(t *testing.T) {
	r := newRemembering(t)
	r.listings = 0
	r.round(t, func(s *maildir.Store) {
		box := openBox(t, s, mail.Inbox)
		add := stageAdd(t, box, mail.Message{UID: 6, GUID: "six", Received: 1_600_000_000}, "Subject: six\n")
		apply(t, box, store.Batch{Adds: []store.Add{add}})
		apply(t, box, store.Batch{Deltas: []store.FlagChange{{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen}}}, Expunges: []store.Expunge{{UID: 2}}})
		must(t, box.Close())
	})
	if r.memory.Pending() {
		t.Error("its own batch is news")
	}
	r.wantLook(t, "after a batch", false, 0, 0, 0)
	r.deliver(t, "new", "a")
	r.wantLook(t, "a delivery", false, 1, 0, 0)
}

func TestWhatIsNotCertainIsReadAsAWhole(t *testing.T) {
	for name, disturb := range map[string]func(*remembering){
		"lost events":                         func(r *remembering) { r.memory.Note("", "") },
		"a directory of unknown state":        func(r *remembering) { r.memory.Note("cur", "") },
		"a process that is not told any more": func(r *remembering) { r.blind = true },
		"another process":                     func(r *remembering) { r.memory = maildir.NewMemory() },
		"a uidlist of somebody else": func(r *remembering) {
			f, err := r.dir(t, "").OpenAppend("dovecot-uidlist")
			must(t, err)
			_, err = f.Write([]byte("100 :never-there\n"))
			must(t, err)
			must(t, f.Close())
		},
		"a mail with two names": func(r *remembering) { must(t, r.dir(t, "new").Link("a", r.dir(t, "cur"), "a:2,S")) },
		"a mail that came back": func(r *remembering) {
			must(t, r.dir(t, "new").Remove("old1"))
			r.look(t)
			r.deliver(t, "new", "old1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemembering(t)
			r.deliver(t, "new", "a")
			disturb(r)
			r.listings = 0
			r.look(t)
			if r.listings == 0 {
				t.Error("nothing was listed")
			}
			known := 0
			r.round(t, func(s *maildir.Store) { known = len(say(t, s, mail.Inbox)) })
			if known != 6 {
				t.Errorf("%d mails are known, want 6", known)
			}
		})
	}
}
