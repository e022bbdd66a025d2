package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// rounds is how often each kill test kills.
func rounds(t *testing.T, normally int) int {
	if s := os.Getenv("DSYNCFS_TEST_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		must(t, err)
		return n
	}
	return normally
}

// Promises 1 and 2: a sync that is killed anywhere, and repeated, loses nothing, doubles nothing, and does not send again
// what had arrived.
func TestMirrorKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		newPair func(t *testing.T) *pair
		rounds  int
		victim  string // whose process is killed: "ours", or "theirs" at the other end
	}{
		{"local", newPair, 10, "ours"},
		{"ssh", func(t *testing.T) *pair { p, _ := newSSHPair(t); return p }, 4, "ours"},
		{"the server at the other end of ssh", func(t *testing.T) *pair { p, _ := newSSHPair(t); return p }, 4, "theirs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.newPair(t)
			originalA := harness.Build(t, p.Maildir("original-a"), "a", harness.Mails(t, 300))
			originalB := harness.Build(t, p.Maildir("original-b"), "b", harness.Mails(t, 500)[200:])
			p.Must("cp", "-a", originalA.Path, p.a.Path)
			p.Must("cp", "-a", originalB.Path, p.b.Path)
			want := p.union()
			start := time.Now()
			p.mirror().Want(0)
			whole := time.Since(start)
			for i := range rounds(t, c.rounds) {
				p.reset(originalA, originalB)
				after := time.Duration(rand.Int64N(int64(whole)))
				p.killedRound(fmt.Sprintf("round %d, killed after %s of %s", i, after, whole), c.victim, after, want)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// reset puts both sides back to what they were before any sync.
func (p *pair) reset(originalA, originalB harness.Maildir) {
	p.t.Helper()
	for _, path := range []string{p.a.Path, p.b.Path, p.StateDir(), filepath.Join(filepath.Dir(p.b.Path), "state")} {
		must(p.t, os.RemoveAll(path))
	}
	must(p.t, os.MkdirAll(p.Path("state"), 0o700))
	p.Must("cp", "-a", originalA.Path, p.a.Path)
	p.Must("cp", "-a", originalB.Path, p.b.Path)
}

func (p *pair) killedRound(what, victim string, after time.Duration, want harness.Copies) {
	p.t.Helper()
	run := p.Start(p.args("mirror")...)
	select {
	case <-run.Done():
	case <-time.After(after):
	}
	if victim == "ours" {
		run.Kill()
	} else {
		for _, pid := range p.Servers() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		run.Wait()
	}
	p.Eventually("the other end notices", 30*time.Second, func() error {
		if left := p.Servers(); len(left) > 0 {
			return fmt.Errorf("still there: %v", left)
		}
		return nil
	})
	arrived := p.a.Read(p.t).Copies().Len() + p.b.Read(p.t).Copies().Len()
	ours, theirs := p.a.Inodes(p.t), p.b.Inodes(p.t)
	missing := 2*want.Len() - arrived
	r := p.mirror("-v").Want(0)
	if n := moved(p.t, r); n != missing {
		p.t.Errorf("%s: %d mails were sent, %d were missing: %s", what, n, missing, r.Stderr)
	}
	p.a.NotRewritten(p.t, ours)
	p.b.NotRewritten(p.t, theirs)
	p.hold(want)
	p.equal()
	noRemains(p.t, p.a)
	noRemains(p.t, p.b)
	if p.t.Failed() {
		p.t.Log(what)
	}
}

// noRemains demands that a killed run left no lock behind once another has run.
func noRemains(t *testing.T, m harness.Maildir) {
	t.Helper()
	for _, pattern := range []string{"*.lock", "*/*.lock", "*.tmp", "*/*.tmp"} {
		left, err := filepath.Glob(filepath.Join(m.Path, pattern))
		must(t, err)
		for _, path := range left {
			t.Errorf("left behind: %s", path)
		}
	}
}

// The same for the syncs that follow the first: changes of all kinds on both sides.
func TestLaterMirrorKilledAnywhere(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 300))
	p.settled()
	for i := range rounds(t, 8) {
		want := p.a.Read(t).Copies()
		inbox, work := p.a.Read(t).Mailboxes["INBOX"].Messages, p.a.Read(t).Mailboxes["Work"].Messages
		for side, m := range map[string]harness.Maildir{"a": p.a, "b": p.b} {
			for h := range deliverMany(t, m, "spam", fmt.Sprintf("round-%d-%s", i, side), 40)["spam"] {
				want.Add("spam", h)
			}
		}
		remove(t, p.a, inbox[0])
		delete(want["INBOX"], inbox[0].Hash)
		remove(t, p.b, inbox[1])
		delete(want["INBOX"], inbox[1].Hash)
		move(t, p.b, work[0], "Entwürfe")
		delete(want["Work"], work[0].Hash)
		want.Add("Entwürfe", work[0].Hash)
		reflag(t, p.a, inbox[2], "FS")
		reflag(t, p.b, inbox[3], "RS")

		after := time.Duration(rand.Int64N(int64(400 * time.Millisecond)))
		run := p.Start(p.args("mirror")...)
		select {
		case <-run.Done():
		case <-time.After(after):
		}
		run.Kill()
		p.mirror().Want(0)
		p.hold(want)
		p.equal()
		if t.Failed() {
			t.Fatalf("in round %d, killed after %s", i, after)
		}
	}
}

// The connection is cut, not the processes: exit status 75, and the next run completes it.
func TestMirrorWithTheConnectionCut(t *testing.T) {
	t.Parallel()
	p, r := newSSHPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 800))
	want := p.a.Read(t).Copies()
	run := p.Start(p.args("mirror")...)
	p.Eventually("the first mails have arrived", 60*time.Second, func() error {
		if _, err := os.Stat(filepath.Join(p.b.Path, "cur")); err != nil {
			return err
		}
		return nil
	})
	for _, pid := range r.Sessions() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // of sshd, for this connection; it may have ended
	}
	if status := run.Wait(); status != 75 && status != 0 {
		t.Errorf("exit status %d, want 75: %s", status, run.Output())
	}
	p.Eventually("the other end notices", 30*time.Second, func() error {
		if left := p.Servers(); len(left) > 0 {
			return fmt.Errorf("still there: %v", left)
		}
		return nil
	})
	theirs := p.b.Inodes(t)
	p.settled()
	p.b.NotRewritten(t, theirs)
	p.hold(want)
}
