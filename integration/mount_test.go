package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// mounted is a Maildir a that is shown at a mount point and mirrored with b over ssh, through a link that can be cut.
type mounted struct {
	*pair
	remote *harness.Remote
	link   *harness.Link
	mount  *harness.Mount
}

// prepareMount makes all of it but the mount.
func prepareMount(t *testing.T) *mounted { return prepareMountOf(newPair(t)) }

func prepareMountOf(p *pair) *mounted {
	m := &mounted{pair: p, remote: p.NewRemote()}
	m.link = m.remote.NewLink()
	p.b = m.remote.Maildir
	p.options = append([]string{"-o", "mail_location=" + p.a.Location()}, m.link.Options(m.remote)...)
	p.other = []string{m.link.URL}
	return m
}

// newMount has mails in a and nothing in b.
func newMount(t *testing.T, mails int, options ...string) *mounted {
	m := prepareMount(t)
	harness.Build(t, m.a, "a", harness.Mails(t, mails))
	m.start(options...)
	return m
}

func (m *mounted) start(options ...string) {
	m.t.Helper()
	m.mount = m.Mount("mnt", append(append([]string{}, m.options...), options...), m.other...)
}

// synced runs a full sync through the daemon and demands that all is equal then.
func (m *mounted) synced() {
	m.t.Helper()
	m.Run("sync", m.mount.Path).Want(0)
	m.verify().Want(0)
	harness.Equal(m.t, m.a, m.b)
}

// soon waits until something that happened on one side is seen on the other.
func (m *mounted) soon(what string, cond func() error) {
	m.t.Helper()
	took := m.Eventually(what, 20*time.Second, cond)
	m.t.Logf("%s: after %s", what, took.Round(time.Millisecond))
	if limit := 2 * time.Second; took > limit {
		m.t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// exists reports whether a mail of that base name is in a mailbox, with these flags if any are named.
func exists(dir harness.Maildir, mailbox, base, flags string) error {
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir.Dir(mailbox), sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if name, info, _ := strings.Cut(e.Name(), ":2,"); name == base && (flags == "" || info == flags) {
				return nil
			}
		}
	}
	return fmt.Errorf("no %s in %s", base, dir.Dir(mailbox))
}

func missing(dir harness.Maildir, mailbox, base string) error {
	if exists(dir, mailbox, base, "") == nil {
		return fmt.Errorf("%s is still there", base)
	}
	return nil
}

// Changes pass in both directions within two seconds, and watchers on the mount see those of the remote.
func TestChangesPassThroughTheMountAtOnce(t *testing.T) {
	m := newMount(t, 60)
	m.synced()
	watch := m.StartProgram("inotifywait", "-m", "-r", "--format", "%e %w%f", m.mount.Path)
	m.Eventually("inotifywait watches", 20*time.Second, func() error {
		if !strings.Contains(watch.Output(), "Watches established") {
			return fmt.Errorf("%s", watch.Output())
		}
		return nil
	})
	seen := func(event, file string) func() error {
		return func() error {
			for line := range strings.Lines(watch.Output()) {
				if strings.HasPrefix(line, event) && strings.Contains(line, file) {
					return nil
				}
			}
			return fmt.Errorf("no %s of %s", event, file)
		}
	}
	note := harness.Note("from the remote")
	m.b.Deliver(t, "Work", "1.M1.remote", "", note)
	m.soon("a mail delivered at the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "1.M1.remote", "") })
	m.soon("a watcher sees the mail of the remote", seen("MOVED_TO", "1.M1.remote"))
	text, err := os.ReadFile(filepath.Join(m.mount.Dir("Work"), "new", "1.M1.remote"))
	must(t, err)
	if !bytes.Equal(text, note.Text) {
		t.Error("it has other bytes")
	}
	old := filepath.Join(m.b.Dir("Work"), "new", "1.M1.remote")
	must(t, os.Rename(old, filepath.Join(m.b.Dir("Work"), "cur", "1.M1.remote:2,FS")))
	m.soon("a flag set at the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "1.M1.remote", "FS") })
	must(t, os.Remove(filepath.Join(m.b.Dir("Work"), "cur", "1.M1.remote:2,FS")))
	m.soon("a mail expunged at the remote is gone from the mount", func() error { return missing(m.mount.Maildir, "Work", "1.M1.remote") })
	m.soon("a watcher sees the expunge", seen("DELETE", "1.M1.remote"))
	m.b.Create(t, "Fresh/there")
	m.b.Deliver(t, "Fresh/there", "3.M3.remote", "", note)
	m.soon("a mailbox created at the remote is in the mount, with its mail", func() error {
		return exists(m.mount.Maildir, "Fresh/there", "3.M3.remote", "")
	})

	m.mount.Deliver(t, "INBOX", "2.M2.mount", "", note)
	m.soon("a mail delivered in the mount is at the remote", func() error { return exists(m.b, "INBOX", "2.M2.mount", "") })
	must(t, os.Rename(filepath.Join(m.mount.Path, "new", "2.M2.mount"), filepath.Join(m.mount.Path, "cur", "2.M2.mount:2,RS")))
	m.soon("a flag set in the mount is at the remote", func() error { return exists(m.b, "INBOX", "2.M2.mount", "RS") })
	must(t, os.Rename(filepath.Join(m.mount.Path, "cur", "2.M2.mount:2,RS"), filepath.Join(m.mount.Dir("Work"), "cur", "2.M2.mount:2,RS")))
	m.soon("a mail moved in the mount is moved at the remote", func() error {
		return errors.Join(exists(m.b, "Work", "2.M2.mount", "RS"), missing(m.b, "INBOX", "2.M2.mount"))
	})
	must(t, os.Remove(filepath.Join(m.mount.Dir("Work"), "cur", "2.M2.mount:2,RS")))
	m.soon("a mail unlinked in the mount is gone at the remote", func() error { return missing(m.b, "Work", "2.M2.mount") })
	m.mount.Create(t, "Fresh/here")
	m.mount.Deliver(t, "Fresh/here", "4.M4.mount", "", note)
	m.soon("a mailbox created in the mount is at the remote, with its mail", func() error { return exists(m.b, "Fresh/here", "4.M4.mount", "") })
	m.synced()
}

// daemonLog is what the daemon has logged.
func (m *mounted) daemonLog() string {
	m.t.Helper()
	return harness.DaemonLog(m.t, m.StateDir())
}

// status is what the tests use of status --json.
func (m *mounted) status() string {
	m.t.Helper()
	r := m.Run("status", m.mount.Path, "--json") // its exit status tells of what stopped the mirror
	if !json.Valid([]byte(r.Stdout)) {
		m.t.Fatalf("status --json is no JSON: %s", r.Stdout)
	}
	return r.Stdout
}

// Without the remote the mount works in full and queues; everything arrives when the remote is back, also what was
// changed in between at the other end and over a restart of the daemon.
func TestOfflineQueuesAndCatchesUp(t *testing.T) {
	t.Parallel()
	m := newMount(t, 100)
	m.synced()
	before := m.a.Read(t)
	want := before.Copies()
	m.link.Cut()
	for h := range deliverMany(t, m.mount.Maildir, "Work", "offline", 30)["Work"] {
		want.Add("Work", h)
	}
	for _, msg := range before.Mailboxes["spam"].Messages[:5] {
		must(t, os.Remove(filepath.Join(m.mount.Path, msg.Path)))
		delete(want["spam"], msg.Hash)
	}
	must(t, flagMany(m.mount.Maildir, before.Mailboxes["INBOX"].Messages, 10))
	for h := range deliverMany(t, m.b, "Entwürfe", "meanwhile", 20)["Entwürfe"] {
		want.Add("Entwürfe", h)
	}
	m.status()
	m.Run("sync", m.mount.Path).Want(75).ClearError()
	m.mount.Umount()
	m.mount.Again() // the remote is away: no reason not to mount
	for h := range deliverMany(t, m.mount.Maildir, "R&D", "still-offline", 10)["R&D"] {
		want.Add("R&D", h)
	}
	m.link.Join()
	// It reconnects by itself.
	m.Eventually("the queue arrives", 60*time.Second, func() error {
		there, err := m.b.Look()
		if err != nil {
			return err
		}
		if n := there.Copies().Len(); n != want.Len() {
			return fmt.Errorf("%d mails at the remote, %d are to come", n, want.Len())
		}
		return nil
	})
	m.synced()
	m.hold(want)
}

// status and log say what happened, for people and for programs.
func TestStatusAndLogOfAMount(t *testing.T) {
	m := newMount(t, 20)
	m.synced()
	m.mount.Deliver(t, "Work", "1.M1.mount", "", harness.Note("logged"))
	m.soon("it is at the remote", func() error { return exists(m.b, "Work", "1.M1.mount", "") })
	for _, args := range [][]string{{"status"}, {"status", m.mount.Path}} {
		if r := m.Run(args...).Want(0); !strings.Contains(r.Stdout, m.mount.Path) {
			t.Errorf("%s does not name the mount: %q", strings.Join(args, " "), r.Stdout)
		}
	}
	m.status()
	m.Eventually("the log says that it was sent", 10*time.Second, func() error {
		r := m.Run("log", m.mount.Path).Want(0)
		for line := range strings.Lines(r.Stdout) {
			if strings.Contains(line, "1.M1.mount") && strings.Contains(line, "Work") && strings.Contains(line, "sent") {
				return nil
			}
		}
		return fmt.Errorf("%q", r.Stdout)
	})
	m.mount.Umount()
	if r := m.Run("status", m.mount.Path); r.Status == 0 && strings.Contains(r.Stdout, "running") {
		t.Errorf("status of what is not mounted: %q", r.Stdout)
	}
}

// With commit=remote a delivery returns when the remote has the mail, and fails when it cannot get it.
func TestCommitRemote(t *testing.T) {
	m := newMount(t, 20, "-o", "commit=remote,commit_timeout=3s")
	m.synced()
	for i := range 10 {
		base := fmt.Sprintf("%d.M1.mount", i)
		m.mount.Deliver(t, "Work", base, "", harness.Note(base))
		if err := exists(m.b, "Work", base, ""); err != nil {
			t.Fatalf("the delivery returned, but: %v", err)
		}
	}
	m.link.Cut()
	start := time.Now()
	_, err := m.mount.TryDeliver("Work", "99.M1.mount", "", harness.Note("lost?"))
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("a delivery without the remote: %v, want an I/O error", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s to fail, 3s were asked for", took)
	}
	m.link.Join()
	m.Eventually("the remote is back", 60*time.Second, func() error {
		if r := m.Run("sync", m.mount.Path); r.Status != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	m.synced()
}
