package maildir_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/index"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// cutDeletion is a deletion of a mailbox that is cut short, and what happens before and after that.
type cutDeletion struct {
	layout    maildir.Layout
	below     bool   // there is a mailbox below, so that the directory stays (LAYOUT=fs)
	came      bool   // a mail came that whoever wants to delete does not know of
	meanwhile string // until the next start: "", "remade", "taken" by another mailbox, "index lost"

	mem    *vfs.Mem
	faulty *vfs.Fault // the same, until a crash
	cat    *index.Index
	state  string
	opened int
}

const (
	doomed = mail.Name("work")
	other  = mail.Name("other")
)

// TestMailThatCameWhileAMailboxWasDeletedSurvivesAKill stops a deletion at each of its changes, and the recovery from that at
// some of its own, loses what was not synced, and requires that a mail that came meanwhile is there in the end, once, with
// those that were there before, and that nothing stays in tmp/.
func TestMailThatCameWhileAMailboxWasDeletedSurvivesAKill(t *testing.T) {
	for _, c := range []cutDeletion{{layout: maildir.MaildirPlusPlus}, {layout: maildir.FS}, {layout: maildir.FS, below: true}} {
		for _, c.meanwhile = range []string{"", "remade", "taken", "index lost"} {
			for _, c.came = range []bool{false, true} {
				t.Run(fmt.Sprintf("layout %d, below %v, %s, came %v", c.layout, c.below, c.meanwhile, c.came), func(t *testing.T) {
					for first, ended := int64(1), false; !ended && !t.Failed(); first++ {
						for _, second := range []int64{0, 1 + first*7%19} { // 0: the recovery gets through
							loss := vfs.Loss((first + second) % 4)
							synctest.Test(t, func(t *testing.T) { ended = c.run(t, loss, first, second) })
						}
						if ended && first < 8 {
							t.Errorf("only %d changes", first)
						}
					}
				})
			}
		}
	}
}

func (c cutDeletion) run(t *testing.T, loss vfs.Loss, first, second int64) (ended bool) {
	t.Helper()
	c.state = tempDir(t)
	c.mem = vfs.NewMem(time.Now)
	c.openIndex(t, "index")
	defer func() { must(t, c.cat.Close()) }()
	c.prepare(t)
	where := fmt.Sprintf("loss %d, change %d, then %d", loss, first, second)

	var s *maildir.Store
	after := c.crashAfter(t, loss, first, func(fsys vfs.FS) {
		s = c.open(t, fsys)
		refresh(t, s, store.RefreshOptions{})
		if c.came {
			c.deliver(t, c.dir(doomed), "came", "cur")
		}
	}, func() error {
		rec := c.record(t, s, doomed)
		err := s.Delete(t.Context(), rec.Status.GUID)
		if c.came {
			return nil // refused
		}
		if err == nil {
			err = s.EndRound(t.Context())
		}
		return err
	})
	if ended = after == nil; ended {
		after = c.mem.Crash(loss, 0)
	}
	s.Close()
	c.mem = after
	remade := c.happens(t)

	after = c.crashAfter(t, loss, second, func(vfs.FS) {}, func() error {
		s, err := c.tryOpen(t, c.faulty)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.Refresh(t.Context(), store.RefreshOptions{}); err != nil {
			return err
		}
		return s.EndRound(t.Context())
	})
	if after != nil {
		c.mem = after
	}

	s = c.open(t, c.mem)
	var lost []store.Loss
	refresh(t, s, store.RefreshOptions{Guard: func(l []store.Loss) error { lost = l; return nil }})
	must(t, s.EndRound(t.Context()))
	must(t, s.Close())
	if len(lost) > 0 {
		t.Errorf("%s: losses %+v", where, lost)
	}
	c.check(t, where, remade)
	return ended
}

// check looks at what is there in the end.
func (c *cutDeletion) check(t *testing.T, where string, remade bool) {
	t.Helper()
	s := c.open(t, c.mem)
	refresh(t, s, store.RefreshOptions{Full: true})
	got := make(map[string]int)
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	for _, n := range nodes {
		if n.Status.GUID.IsZero() {
			continue
		}
		box := openBox(t, s, n.Name)
		for m, err := range box.Messages(0) {
			must(t, err)
			body, err := box.Body(t.Context(), m.UID)
			must(t, err)
			text, err := io.ReadAll(body)
			must(t, err)
			must(t, body.Close())
			got[string(text)]++
		}
		must(t, box.Close())
	}
	must(t, s.EndRound(t.Context()))
	must(t, s.Close())
	want := map[string]int{"in other": 1}
	if c.below {
		want["below"] = 1
	}
	if remade {
		want["remade"] = 1
	}
	if c.came {
		want["came"] = 1
	}
	if c.came || got["old 1"] > 0 {
		want["old 1"], want["old 2"] = 1, 1
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: mails %v, want %v", where, got, want)
	}
	tmp, err := c.mem.OpenDir("tmp")
	must(t, err)
	must(t, tmp.Names(func(name string, _ vfs.Type) error {
		t.Errorf("%s: left in tmp: %s", where, name)
		return nil
	}))
}

// prepare makes the mailboxes, durably.
func (c *cutDeletion) prepare(t *testing.T) {
	t.Helper()
	s := c.open(t, c.mem)
	refresh(t, s, store.RefreshOptions{})
	names := []mail.Name{doomed, other}
	if c.below {
		names = append(names, doomed+"/below")
	}
	for i, name := range names {
		must(t, s.Create(t.Context(), name, mail.MailboxGUID{byte(i + 1)}, 1000))
	}
	c.deliver(t, c.dir(doomed), "old 1", "cur")
	c.deliver(t, c.dir(doomed), "old 2", "new")
	c.deliver(t, c.dir(other), "in other", "cur")
	if c.below {
		c.deliver(t, c.dir(doomed+"/below"), "below", "cur")
	}
	time.Sleep(time.Minute)
	refresh(t, s, store.RefreshOptions{})
	must(t, s.EndRound(t.Context()))
	must(t, s.Close())
	must(t, c.mem.Sync())
}

// happens lets others do something while nothing of ours runs, and reports whether a mailbox of the name was made with a mail.
func (c *cutDeletion) happens(t *testing.T) (remade bool) {
	t.Helper()
	dir := c.dir(doomed)
	switch c.meanwhile {
	case "remade":
		root, err := c.mem.OpenDir("")
		must(t, err)
		if cur, err := c.mem.OpenDir(dir + "/cur"); err == nil {
			must(t, cur.Close())
			return false
		}
		must(t, ignoreExist(root.Mkdir(dir, 0o700)))
		box, err := c.mem.OpenDir(dir)
		must(t, err)
		for _, sub := range []string{"cur", "new", "tmp"} {
			must(t, ignoreExist(box.Mkdir(sub, 0o700)))
		}
		c.deliver(t, dir, "remade", "cur")
		remade = true
	case "taken":
		root, err := c.mem.OpenDir("")
		must(t, err)
		must(t, ignoreExist(root.RenameNew(c.dir(other), root, dir)))
	case "index lost":
		must(t, c.cat.Close())
		c.openIndex(t, "another")
	}
	must(t, c.mem.Sync())
	return remade
}

func ignoreExist(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// crashAfter does something on the disk and returns what a crash at its stop-th change leaves, nil if it ended before.
func (c *cutDeletion) crashAfter(t *testing.T, loss vfs.Loss, stop int64, before func(vfs.FS), do func() error) (after *vfs.Mem) {
	t.Helper()
	var changes int64
	armed := false
	c.faulty = vfs.NewFault(c.mem, func(o vfs.Op) error {
		if after == nil && armed && o.Changes() {
			if changes++; changes == stop {
				after = c.mem.Crash(loss, uint64(stop))
			}
		}
		if after != nil {
			return syscall.EIO
		}
		return nil
	})
	before(c.faulty)
	armed = true
	err := do()
	if after == nil {
		must(t, err)
	}
	return after
}

func (c *cutDeletion) dir(name mail.Name) string {
	dir, err := c.layout.DirOf(name)
	if err != nil {
		panic(err)
	}
	return dir
}

// deliver puts a mail into a mailbox, durably.
func (c *cutDeletion) deliver(t *testing.T, dir, text, sub string) {
	t.Helper()
	d, err := c.mem.OpenDir(dir + "/" + sub)
	must(t, err)
	must(t, vfs.WriteFile(d, strings.ReplaceAll(text, " ", "-")+":2,S", 0o600, []byte(text)))
}

func (c *cutDeletion) openIndex(t *testing.T, name string) {
	t.Helper()
	var err error
	c.cat, err = index.Open(filepath.Join(c.state, name), index.Options{})
	must(t, err)
}

func (c *cutDeletion) open(t *testing.T, fsys vfs.FS) *maildir.Store {
	t.Helper()
	s, err := c.tryOpen(t, fsys)
	must(t, err)
	return s
}

// tryOpen opens the store as a process that has another id than those before.
func (c *cutDeletion) tryOpen(t *testing.T, fsys vfs.FS) (*maildir.Store, error) {
	c.opened++
	pid := 1<<30 + c.opened
	locks := maildir.NewLocks(maildir.LockOptions{Hostname: "crash", PID: pid})
	return maildir.Open(t.Context(), fsys, c.cat, maildir.Options{Layout: c.layout, Create: true, Hostname: "crash", PID: pid, Locks: locks})
}

func (c *cutDeletion) record(t *testing.T, s *maildir.Store, name mail.Name) mail.Mailbox {
	t.Helper()
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	return nodes[slices.IndexFunc(nodes, func(n mail.Mailbox) bool { return n.Name == name })]
}
