package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// live is what status says of the connection.
type live struct {
	State     string    `json:"state"`
	Queued    int       `json:"queued"`
	LastHeard time.Time `json:"last_heard"`
	NextTry   time.Time `json:"next_try"`
	LastFull  time.Time `json:"last_full"`
}

func (m *mounted) live() live {
	m.t.Helper()
	var all []live
	if err := json.Unmarshal([]byte(m.status()), &all); err != nil || len(all) != 1 {
		m.t.Fatal(err, all)
	}
	return all[0]
}

// TestNothingWaitsForTheNetwork: programs do all that they do with mail while the other side has gone, in each way in which it can go,
// and with a change on its way there that is not answered. What waited for it would wait until the connection is given up, which is
// not done as long as the state is not "offline". Everything arrives in the end, and status says when the other side was last heard.
func TestNothingWaitsForTheNetwork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		silent bool // the connection stays
		away   func(*mounted) (back func())
	}{
		"the link is cut":          {false, func(m *mounted) func() { m.link.Cut(); return m.link.Join }},
		"its server is stopped":    {true, func(m *mounted) func() { return m.remote.Freeze(false) }},
		"the host does not answer": {true, func(m *mounted) func() { return m.remote.Freeze(true) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMount(t, 100)
			m.synced()
			before := m.a.Read(t)
			want := before.Copies()
			heard := m.live().LastHeard
			back := c.away(m)
			gone := time.Now()
			done := make(chan error)
			go func() { done <- m.work(before, want) }()
			m.Eventually("programs are done", time.Minute, func() error {
				select {
				case err := <-done:
					must(t, err)
					return nil
				default:
					return fmt.Errorf("they wait")
				}
			})
			now := m.live()
			if now.Queued == 0 || now.LastHeard.Before(heard) || now.LastHeard.After(gone) {
				t.Errorf("%+v, after %s", now, heard)
			}
			if c.silent && now.State == "offline" {
				t.Error("the connection was given up before programs were done")
			}
			if out := m.Run("status", m.mount.Path).Want(0).Stdout; !strings.Contains(out, "remote last heard ") || strings.Contains(out, "last heard never") {
				t.Error(out)
			}
			back()
			m.Eventually("everything is there", time.Minute, func() error {
				if now := m.live(); now.Queued > 0 || !now.LastHeard.After(gone) {
					return fmt.Errorf("%+v", now)
				}
				return nil
			})
			m.synced()
			m.hold(want)
		})
	}
}

// work does everything that programs do with mail, and notes what the mailboxes hold then.
func (m *mounted) work(before harness.Contents, want harness.Copies) error {
	for i, name := range []string{"INBOX", "Work", "spam"} { // the first one goes on its way to the other side
		note := harness.Note("delivered into " + name + " without the other side")
		file, err := m.mount.TryDeliver(name, harness.UniqueName("quick", i, note), "", note)
		if err != nil {
			return err
		}
		want.Add(name, harness.HashOf(note.Text))
		if err := synced(file); err != nil {
			return err
		}
	}
	now, err := m.mount.Look() // lists all mailboxes and reads all mails
	if err != nil {
		return err
	}
	if got := now.Copies(); got.Len() != want.Len() {
		return fmt.Errorf("%d mails can be read, not %d", got.Len(), want.Len())
	}
	msgs := before.Mailboxes["R&D"].Messages
	if err := flagMany(m.mount.Maildir, msgs[2:], len(msgs)-2); err != nil {
		return err
	}
	at := func(i int) string { return filepath.Join(m.mount.Path, msgs[i].Path) }
	if _, err := syscall.Getxattr(at(0), "user.dsyncfs.uid", make([]byte, 64)); err != nil {
		return fmt.Errorf("attributes of a mail: %w", err)
	}
	if err := os.Remove(at(0)); err != nil {
		return err
	}
	want["R&D"][msgs[0].Hash]--
	if err := os.Rename(at(1), filepath.Join(m.mount.Dir("Entwürfe"), "cur", filepath.Base(at(1)))); err != nil {
		return err
	}
	want["R&D"][msgs[1].Hash]--
	want.Add("Entwürfe", msgs[1].Hash)
	return os.WriteFile(filepath.Join(m.mount.Path, "subscriptions"), []byte("Work\nspam\n"), 0o600)
}

// synced makes a file durable, as a delivery agent does.
func synced(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// TestWhatIsThereIsNotSentAgain: a mail of 2 MB that the other side has is moved and linked to other mailboxes, on either side. Its
// body does not pass the link again.
func TestWhatIsThereIsNotSentAgain(t *testing.T) {
	t.Parallel()
	const base = "1767261600.M1.large"
	for name, sides := range map[string]func(*mounted) (from, to harness.Maildir){
		"out": func(m *mounted) (from, to harness.Maildir) { return harness.Maildir{Path: m.mount.Path}, m.b },
		"in":  func(m *mounted) (from, to harness.Maildir) { return m.b, harness.Maildir{Path: m.mount.Path} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := prepareMount(t)
			m.a.Create(t, "INBOX", "Work", "spam")
			m.start()
			m.synced()
			from, to := sides(m)
			hash := harness.HashOf(slowDelivery(t, from, base, 2<<20))
			m.Eventually("the mail is there", time.Minute, func() error { return exists(to, "INBOX", base, "") })
			read(t, from, base)
			m.synced()
			carried := m.link.Carried()
			for _, step := range []struct {
				what, mailbox, to string
				do                func(from, to string) error
			}{{"moved", "INBOX", "Work", os.Rename}, {"linked", "Work", "INBOX", os.Link}, {"linked again", "Work", "spam", os.Link}} {
				must(t, step.do(filepath.Join(from.Dir(step.mailbox), "cur", base+":2,S"), filepath.Join(from.Dir(step.to), "cur", base+":2,S")))
				m.Eventually("it is "+step.what, time.Minute, func() error {
					there, err := to.Look()
					if err != nil {
						return err
					}
					if n := there.Copies()[step.to][hash]; n != 1 {
						return fmt.Errorf("%d in %s", n, step.to)
					}
					return nil
				})
				if n := m.link.Carried() - carried; n > 1<<20 {
					t.Errorf("%s: %d bytes passed the link", step.what, n)
				}
			}
			m.synced()
		})
	}
}
