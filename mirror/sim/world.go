package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// world is one simulation under way.
type world struct {
	replicas []*replica
	sched    sched
	ledger   *ledger
	checks   *checks

	deliveries int
	loose      map[string]bool // names of files that a power cut may leave in tmp/ of a program, not of us
	newGUIDs   bool            // of mailboxes come in this history, and so no renames; see resetGUID
	validity   uint64          // highest that a user drew
	stopped    [2]*guard.Error // what the guards of master and slave said in the last sync
	mounted    *replica        // the one that gets mounted in this history
	tasks      *sync.WaitGroup // of the session under way
	unseen     bool            // a user removed something that no journal knows of
	gone       bool            // the slave of the last sync missed a mailbox
	backup     *replica        // the one that is a backup; nil in most histories
	moved      map[string]bool // mails that users moved in the session under way, by content
	kept       *kept           // what a user has of a mailbox from before; nil: nothing
	calm       bool            // nothing has happened that may undo what users did

	mu    sync.Mutex
	trace []string
}

// note adds a line to the course of the simulation.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// seed32 makes a seed of a word, for what is the same in every simulation.
func (w *world) seed32(word string) (out [32]byte) {
	h := fnv.New128a()
	h.Write([]byte(word))
	copy(out[:], h.Sum(nil))
	return out
}

// Violation is what a simulation found.
type Violation struct {
	Err   error
	Trace []string
}

func (v *Violation) Error() string { return v.Err.Error() }

// Run runs a history. The error is a [*Violation].
func Run(t *testing.T, h History) (err error) {
	_, err = run(t, h)
	return err
}

// run also returns the course.
func run(t *testing.T, h History) (trace []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Hour) // not everything happens at midnight of a new year
		w := newWorld(h)
		if rerr := w.runHistory(h); rerr != nil {
			err = &Violation{rerr, w.trace}
		}
		trace = w.trace
	})
	return trace, err
}

func newWorld(h History) *world {
	w := &world{ledger: newLedger(), loose: make(map[string]bool), moved: make(map[string]bool), calm: len(h.Replicas) == 2} // a third one's first contact makes the others compare from scratch
	w.checks = newChecks(w)
	for i, l := range h.Replicas {
		layout := maildir.MaildirPlusPlus
		if l == "fs" {
			layout = maildir.FS
		}
		w.replicas = append(w.replicas, newReplica(w, string(rune('A'+i)), layout))
	}
	if h.Backup {
		w.backup, w.calm = w.replicas[1], false
	}
	return w
}

func (w *world) runHistory(h History) error {
	if w.backup != nil { // of something
		u := &user{w: w, r: w.replicas[0]}
		if err := u.makeBox("", mail.Inbox); err != nil {
			return err
		}
		u.r.born = true
	}
	w.newGUIDs = slices.ContainsFunc(h.Steps, func(s Step) bool { return s.Op == "resetguid" })
	for i, s := range h.Steps {
		err := w.step(s)
		w.show()
		if err != nil {
			return fmt.Errorf("step %d (%s of %s): %w", i+1, s.Op, w.replicas[s.Side].name, err)
		}
	}
	return w.settle()
}

// Verbose lets the course show all mailboxes after each step.
var Verbose = false

func (w *world) show() {
	if !Verbose {
		return
	}
	for _, r := range w.replicas {
		if a, err := readAccount(r.disk, r.layout); err == nil {
			w.note("    %s:\n%s", r.name, a)
		}
	}
}

func (w *world) step(s Step) error {
	time.Sleep(time.Duration(1+s.Seed%7) * 400 * time.Millisecond)
	r := w.replicas[s.Side]
	w.note("- %s of %s", s.Op, r.name)
	switch s.Op {
	case "sync":
		return w.sync(s)
	case "live":
		return w.live(s)
	case "wait":
		time.Sleep(time.Duration(s.Seed%90) * time.Second)
		return nil
	case "clock":
		w.calm = false
		step := time.Duration(int64(s.Seed%7200)-3600) * time.Second // an hour, or 1000 days
		if s.Seed>>32%4 == 0 {
			step *= 24_000
		}
		r.offset += step
		return nil
	case "forget":
		if r.edited || r.lostList {
			return nil // nobody could know what was edited, or which mailbox that was
		}
		w.calm = false
		r.forget()
		return nil
	case "crash":
		w.calm = false
		r.crash(vfs.Loss(s.Seed%4), s.Seed)
		return w.checks.now()
	}
	w.calm = w.calm && slices.Contains(calmOps, s.Op)
	w.unseen = w.unseen || removes(s.Op)
	return w.act(r, s.Op, s.Seed)
}

// settle brings everything to rest and looks at it.
func (w *world) settle() error {
	time.Sleep(time.Minute) // a second name of a mail counts as forgotten then
	for n := 0; ; n++ {
		changed, err := w.syncAll("f")
		if err != nil {
			w.show()
			return fmt.Errorf("at the end: %w", err)
		}
		if !changed {
			break
		}
		if n == 8 {
			return errors.New("at the end: the syncs do not stop changing something")
		}
		time.Sleep(time.Minute)
	}
	w.show()
	if err := w.checks.equal(); err != nil {
		return fmt.Errorf("at rest: %w", err)
	}
	return w.rest()
}

// rest checks that nothing moves any more, and that nothing of ours is left after the time for recovery.
func (w *world) rest() error {
	// What is left over is removed when it is a day old. The removal of one of two links makes the other one young again.
	for _, typ := range []string{"f", "s", "f", "s"} {
		time.Sleep(50 * time.Hour) // clocks were set by some hours
		if _, err := w.syncAll(typ); err != nil {
			return fmt.Errorf("a day later: %w", err)
		}
	}
	time.Sleep(10 * time.Second)
	for _, typ := range []string{"s", "f"} {
		if err := w.checks.still(func() error { _, err := w.syncAll(typ); return err }); err != nil {
			return fmt.Errorf("one more sync (%s): %w", typ, err)
		}
	}
	if err := w.checks.equal(); err != nil {
		return fmt.Errorf("a day later: %w", err)
	}
	return w.checks.leftovers()
}

// syncAll syncs every pair without faults.
func (w *world) syncAll(typ string) (changed bool, err error) {
	for i := range w.replicas[1:] {
		s := Step{Op: "sync", Side: i + 1, Seed: uint64(i), Type: typ}
		a, b := w.replicas[0], w.replicas[i+1]
		w.checks.before(a, b)
		out, err := w.syncSource(s, a, b, brain.Request{})
		if isGuard(err) {
			out, err = w.syncSource(s, a, b, brain.Request{AllowExpunge: []string{"*"}})
			changed = true
		}
		w.note("  %s with %s: %s", a.name, b.name, outcome(out, err))
		if err != nil {
			return false, err
		}
		a.clean, b.clean = true, true
		if err := w.checks.now(); err != nil {
			return false, err
		}
		changed = changed || out.Changed || out.Desync
	}
	return changed, nil
}
