package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAReconnectGoesOnWhereItStopped: after a cut, also one in the middle of a push, both sides tell each other what changed since, and
// not what each of them has, which would cost more bytes, nor look for it, which status would say. They do if one has forgotten where
// that was.
func TestAReconnectGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	m.a.Create(t, "INBOX", "Work", "R&D", "spam")
	deliverMany(t, m.a, "spam", "old", 1000)
	m.start()
	m.synced()
	listing := m.costs(func() { m.verify().Want(0) })
	for i, c := range []struct {
		name string
		away func() (back func())
		less bool
	}{
		{"a cut while all is quiet", func() func() { m.link.Cut(); return m.link.Join }, true},
		{"a cut in the middle of a push", func() func() { fired := m.link.CutAfter(2000); return func() { <-fired } }, true},
		{"a remote that forgot", m.forget, false},
	} {
		full := m.live().LastFull
		cost := m.costs(func() { m.changeWhile(c.away, i) })
		t.Logf("%s: %d bytes passed the link, a listing has %d", c.name, cost, listing)
		if less := cost < listing/3; less != c.less {
			t.Errorf("%s: %d bytes passed the link; what is there can be told in %d", c.name, cost, listing)
		}
		if now := m.live().LastFull; c.less && !now.Equal(full) {
			t.Errorf("%s: a full sync at %s", c.name, now)
		}
	}
	m.synced()
}

// forget has the remote lose its state while it is away.
func (m *mounted) forget() (back func()) {
	m.t.Helper()
	m.link.Cut()
	m.serversEnd()
	must(m.t, os.RemoveAll(m.remote.StateHome()))
	return m.link.Join
}

// serversEnd waits until no dsync server runs at the remote.
func (m *mounted) serversEnd() {
	m.t.Helper()
	m.Eventually("servers end", 20*time.Second, func() error {
		if n := len(m.Servers()); n > 0 {
			return fmt.Errorf("%d are there", n)
		}
		return nil
	})
}

// changeWhile changes flags, expunges and delivers on both sides while the remote is away or goes away, and waits until both have
// everything.
func (m *mounted) changeWhile(away func() (back func()), i int) {
	m.t.Helper()
	have := m.a.Read(m.t)
	want := have.Copies()
	old := have.Mailboxes["spam"].Messages
	back := away()
	must(m.t, flagMany(m.mount.Maildir, old[100*i+1:], 40))
	must(m.t, os.Remove(filepath.Join(m.mount.Path, old[0].Path)))
	want["spam"][old[0].Hash]--
	want = want.Union(deliverMany(m.t, m.mount.Maildir, "Work", fmt.Sprint("here", i), 5)).Union(deliverMany(m.t, m.b, "R&D", fmt.Sprint("there", i), 5))
	back()
	m.Eventually("everything is on both sides", time.Minute, func() error {
		here, err := m.a.Look()
		if err != nil {
			return err
		}
		there, err := m.b.Look()
		if err != nil {
			return err
		}
		now := m.live()
		if h, t := here.Copies().Len(), there.Copies().Len(); h != want.Len() || t != want.Len() || now.State != "in sync" || now.Queued > 0 {
			return fmt.Errorf("%d and %d of %d mails; %+v", h, t, want.Len(), now)
		}
		return nil
	})
	m.hold(want)
}

// costs is how many bytes pass the link while do runs.
func (m *mounted) costs(do func()) int64 {
	before := m.link.Carried()
	do()
	return m.link.Carried() - before
}
