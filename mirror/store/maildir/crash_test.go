package maildir_test

import (
	"fmt"
	"io"
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

// crashRun is a store in memory whose file system can stop at any operation.
type crashRun struct {
	mem    *vfs.Mem
	cat    *index.Index
	opened int
}

const crashBox = mail.Name("work")

var crashBoxGUID = mail.MailboxGUID{7}

// crashText is the content of the mail of a GUID.
func crashText(guid mail.GUID) string { return fmt.Sprintf("Subject: %s\n\nbody of %s\n", guid, guid) }

func (c *crashRun) open(t *testing.T, fsys vfs.FS) *maildir.Store {
	t.Helper()
	// To each store the one before is a process that died.
	c.opened++
	pid := 1<<30 + c.opened
	locks := maildir.NewLocks(maildir.LockOptions{Hostname: "crash", PID: pid})
	s, err := maildir.Open(t.Context(), fsys, c.cat, maildir.Options{Create: true, Hostname: "crash", PID: pid, Locks: locks})
	must(t, err)
	return s
}

// newCrashRun makes a mailbox with six mails, durably.
func newCrashRun(t *testing.T, state string) *crashRun {
	t.Helper()
	cat, err := index.Open(state, index.Options{})
	must(t, err)
	c := &crashRun{mem: vfs.NewMem(time.Now), cat: cat}
	s := c.open(t, c.mem)
	refresh(t, s, store.RefreshOptions{})
	must(t, s.Create(t.Context(), crashBox, crashBoxGUID, 1000))
	box, err := s.Open(t.Context(), crashBoxGUID)
	must(t, err)
	var b store.Batch
	for uid := mail.UID(1); uid <= 6; uid++ {
		guid := mail.GUID(fmt.Sprintf("old-%d", uid))
		b.Adds = append(b.Adds, stageAdd(t, box, mail.Message{UID: uid, GUID: guid, Received: 1_600_000_000}, crashText(guid)))
	}
	apply(t, box, b)
	must(t, box.Close())
	must(t, s.EndRound(t.Context()))
	must(t, s.SetBase(t.Context(), "peer", map[mail.MailboxGUID]store.State{crashBoxGUID: {UIDValidity: 1000, LastCommonUID: 6}}))
	refresh(t, s, store.RefreshOptions{})
	must(t, s.Close())
	must(t, c.mem.Sync())
	return c
}

// crashRound is the change that is cut short: what a round does.
func crashRound(t *testing.T, s *maildir.Store) error {
	box, err := s.Open(t.Context(), crashBoxGUID)
	if err != nil {
		return err
	}
	defer box.Close()
	b := store.Batch{
		Origin: "peer",
		Peer:   "peer",
		Deltas: []store.FlagChange{{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen, AddKeywords: mail.NewKeywords("k")}}},
		Expunges: []store.Expunge{
			{UID: 2, GUID: "old-2"}, {UID: 3, GUID: "old-3"},
		},
		Adds: []store.Add{{Message: mail.Message{UID: 7, GUID: "old-3", Received: 1_600_000_000}, From: store.Location{Mailbox: crashBoxGUID, UID: 3}}},
	}
	for i, guid := range crashNew {
		m := mail.Message{UID: mail.UID(8 + i), GUID: guid, Received: 1_600_000_000, Flags: mail.Flags(i % 2)}
		staged, err := box.Stage(t.Context(), m, strings.NewReader(crashText(guid)))
		if err != nil {
			return err
		}
		b.Adds = append(b.Adds, store.Add{Message: m, Staged: staged})
	}
	if _, err := box.Apply(t.Context(), b); err != nil {
		return err
	}
	return s.EndRound(t.Context())
}

// crashNew are GUIDs of new mails: some can be file names and some cannot.
var crashNew = []mail.GUID{"new-1", "with/slash", "new-3,S=1", ".dot", "new-5", "new-6"}

// inventory is what is in the mailbox, by GUID, after checking every content.
func inventory(t *testing.T, s *maildir.Store) map[mail.GUID]mail.Message {
	t.Helper()
	box := openBox(t, s, crashBox)
	defer box.Close()
	out := make(map[mail.GUID]mail.Message)
	for m, err := range box.Messages(0) {
		must(t, err)
		if _, twice := out[m.GUID]; twice {
			t.Errorf("%q is there twice", string(m.GUID))
		}
		out[m.GUID] = m
		body, err := box.Body(t.Context(), m.UID)
		must(t, err)
		data, err := io.ReadAll(body)
		must(t, err)
		must(t, body.Close())
		if string(data) != crashText(m.GUID) {
			t.Errorf("content of %q is %q", string(m.GUID), data)
		}
	}
	return out
}

// TestCrash stops a round at each of its changes of the file system, loses what was not synced, and requires that the next
// refresh finds every mail once, under its GUID, and nothing that looks like a loss.
func TestCrash(t *testing.T) {
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseTail, vfs.LoseAll} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) { crashEverywhere(t, loss, func(*testing.T, *vfs.Mem) {}) })
	}
}

// TestCrashBesideDovecot is TestCrash with a Dovecot that gives UIDs to what it finds before the next refresh.
func TestCrashBesideDovecot(t *testing.T) { crashEverywhere(t, vfs.LoseNothing, listAll) }

// listAll adds a line to the uidlist for each mail that has none, as a Dovecot does: it knows nothing but the names.
func listAll(t *testing.T, fsys *vfs.Mem) {
	t.Helper()
	box, err := fsys.OpenDir(".work")
	must(t, err)
	defer box.Close()
	list, err := vfs.ReadFile(box, "dovecot-uidlist", 1<<20)
	must(t, err)
	text, uid := string(list), 100
	for _, sub := range []string{"new", "cur"} {
		d, err := fsys.OpenDir(".work/" + sub)
		must(t, err)
		must(t, d.Names(func(name string, _ vfs.Type) error {
			base, _, _ := strings.Cut(name, ":")
			if !strings.Contains(text, ":"+base+"\n") {
				text += fmt.Sprintf("%d :%s\n", uid, base)
				uid++
			}
			return nil
		}))
		must(t, d.Close())
	}
	must(t, vfs.WriteFile(box, "dovecot-uidlist", 0o600, []byte(text)))
}

// crashEverywhere stops a round at each of its changes, and then lets another program act.
func crashEverywhere(t *testing.T, loss vfs.Loss, then func(*testing.T, *vfs.Mem)) {
	for stop, ended := int64(1), false; !ended && !t.Failed(); stop++ {
		// In a bubble it takes no time until a lock that a crash left is stale.
		synctest.Test(t, func(t *testing.T) { ended = crashAt(t, loss, stop, then) })
		if ended && stop < 20 {
			t.Errorf("only %d changes", stop)
		}
	}
}

// crashAt runs the round up to its stop-th change, and reports whether it came to its end before.
func crashAt(t *testing.T, loss vfs.Loss, stop int64, then func(*testing.T, *vfs.Mem)) (ended bool) {
	t.Helper()
	c := newCrashRun(t, filepath.Join(tempDir(t), "index"))
	defer func() { must(t, c.cat.Close()) }()
	var after *vfs.Mem
	var changes int64
	armed := false
	var at vfs.Op
	s := c.open(t, vfs.NewFault(c.mem, func(o vfs.Op) error {
		if after == nil && armed && o.Changes() {
			if changes++; changes == stop {
				after, at = c.mem.Crash(loss, uint64(stop)), o
			}
		}
		if after != nil {
			return syscall.EIO
		}
		return nil
	}))
	refresh(t, s, store.RefreshOptions{})
	armed = true
	err := crashRound(t, s)
	s.Close()
	if after == nil {
		must(t, err)
		after = c.mem.Crash(loss, 0)
	}
	then(t, after)

	s = c.open(t, after)
	defer func() { must(t, s.Close()) }()
	var losses []store.Loss
	r := refresh(t, s, store.RefreshOptions{Guard: func(l []store.Loss) error { losses = l; return nil }})
	if len(losses) > 0 {
		t.Errorf("stopped at change %d, %+v: losses %+v", stop, at, losses)
	}
	got := inventory(t, s)
	checkUnsettled(t, s, got)
	for _, guid := range []mail.GUID{"old-1", "old-3", "old-4", "old-5", "old-6"} {
		if _, there := got[guid]; !there {
			t.Errorf("stopped at change %d, %+v: %q is lost; report %+v", stop, at, string(guid), r)
		}
		delete(got, guid)
	}
	delete(got, "old-2")
	for _, guid := range crashNew {
		delete(got, guid)
	}
	if len(got) > 0 {
		t.Errorf("stopped at change %d, %+v: unknown mails %q", stop, at, slices.Collect(maps.Keys(got)))
	}
	if r := refresh(t, s, store.RefreshOptions{Full: true}); r.Added+r.Expunged+r.Flags > 0 {
		t.Errorf("stopped at change %d, %+v: a second refresh found %+v", stop, at, r)
	}
	must(t, s.EndRound(t.Context()))
	for _, dir := range []string{"tmp", ".work/tmp"} {
		d, err := after.OpenDir(dir)
		must(t, err)
		must(t, d.Names(func(name string, _ vfs.Type) error {
			t.Errorf("stopped at change %d, %+v: left in %s: %s", stop, at, dir, name)
			return nil
		}))
		must(t, d.Close())
	}
	if err == nil {
		if final := inventory(t, s); len(final) != 5+len(crashNew) {
			t.Errorf("after the whole round: %q", slices.Collect(maps.Keys(final)))
		}
	}
	return err == nil
}

// checkUnsettled requires that it is known of each new mail that the peer brought it, and of none else.
func checkUnsettled(t *testing.T, s *maildir.Store, got map[mail.GUID]mail.Message) {
	t.Helper()
	states, err := s.Base(t.Context(), "peer")
	must(t, err)
	unsettled := states[crashBoxGUID].Unsettled
	brought, err := unsettled.Brought.Parse()
	must(t, err)
	renumbered, err := unsettled.Renumbered.Parse()
	must(t, err)
	for guid, m := range got {
		if isNew := slices.Contains(crashNew, guid); brought.Has(m.UID) != isNew {
			t.Errorf("%q has UID %d, and %q were brought", string(guid), m.UID, unsettled.Brought)
		}
	}
	if renumbered.Has(3) != (got["old-3"].UID != 3) {
		t.Errorf("UID 3 is %d now, and %q were renumbered", got["old-3"].UID, unsettled.Renumbered)
	}
}
