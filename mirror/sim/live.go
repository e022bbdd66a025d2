package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// session is a mount of one replica for a while: the real engine with the real journal keeps it in sync with a remote, over
// connections that are kept and break, while users work through the mount, behind it and at the remote.
type session struct {
	w             *world
	step          Step
	mount, remote *replica
	rng           *rand.Rand // of users, network and inotify

	engine *mirror.Engine
	stop   context.CancelFunc
	slice  int       // bytes of a parcel; mails of users go ahead if they are larger than four of them
	ops    int       // that users still do
	clean  int       // how many are left when a user empties the fullest mailbox through the mount; negative: nobody does
	after  time.Time // when they had done all; zero before
	calm   time.Time // when no round of before that was under way any more; zero before
	hurt   bool      // the journal cannot take records any more

	rounds  uint64
	stopped bool
	crashed bool // the process of the mount ended by itself

	mu       sync.Mutex
	cuts     int // connections that still break
	conn     *link
	slaves   int // that answer now
	deciding bool
	decided  error // of the last time that the user had to confirm
	err      error
}

// sharedSource is a source of numbers for users and for an engine that dials when its time to try again has come.
type sharedSource struct {
	mu  sync.Mutex
	pcg *rand.PCG
}

func (s *sharedSource) Uint64() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pcg.Uint64()
}

// timing has the engine look at everything often enough to be seen doing it.
var timing = mirror.Timing{FullSync: time.Minute, RetryMax: 20 * time.Second}

// A session ends when nobody has done anything until after full syncs, which find what nothing told of. It may take this long
// that one succeeds: a lock that a crash left may have to be waited for in every mailbox.
const quiet = 20 * time.Minute

// live runs a session and checks that it ended in sync, if nothing kept it from that.
func (w *world) live(s Step) error {
	mount, remote := w.replicas[0], w.replicas[1]
	if s.Reversed {
		mount, remote = remote, mount
	}
	w.mounted = cmp.Or(w.mounted, mount)
	if w.mounted != mount {
		mount, remote = remote, mount // a journal is that of one pair
	}
	w.checks.before(mount, remote)
	if !mount.born {
		return nil // a mount needs a Maildir
	}
	if mount.edited || remote.edited {
		// What was written in the place of a mail is found by a full sync, and a session has none: its rounds trust the times of
		// directories.
		if err := w.sync(Step{Op: "sync", Side: 1, Seed: s.Seed, Type: "f"}); err != nil {
			return err
		}
	}
	l := &session{w: w, step: s, mount: mount, remote: remote, rng: rand.New(&sharedSource{pcg: rand.NewPCG(s.Seed, 5)}), ops: s.Users}
	if own := rand.New(rand.NewPCG(s.Seed, 8)); own.IntN(4) > 0 {
		l.clean = -1
	} else {
		l.clean = own.IntN(s.Users + 1)
	}
	if s.Cut > 0 {
		l.cuts = 1 + l.rng.IntN(3)
	}
	if err := mount.openJournal(); err != nil {
		return err
	}
	if err := l.run(); err != nil {
		return err
	}
	if !l.crashed {
		_ = l.sync() // that notes whether the engine met a failure that hurt the journal, after which nobody wrote
	}
	if err := w.checks.sent(mount, remote); err != nil {
		return err
	}
	if err := mount.closeJournal(l.crashed); err != nil {
		return fmt.Errorf("close the journal: %w", err)
	}
	if err := l.verify(); err != nil {
		return fmt.Errorf("after a session: %w", err)
	}
	return w.checks.now()
}

// run runs the engine until users have been quiet for long enough, or the process of the mount has ended.
func (l *session) run() error {
	plans := [2]Fault{}
	if f := l.step.Fault; f != nil {
		l.w.calm = false
		i := 0
		if f.Second {
			i = 1
		}
		plans[i] = *f
	}
	l.w.moved = make(map[string]bool)
	l.mount.begin(plans[0])
	l.remote.begin(plans[1])
	l.mount.clean, l.remote.clean = false, false
	options := l.mount.options(l.remote)
	options.Witness = nil // the engine asks the journal
	l.slice = []int{0, 60, 500, 500, 4000}[l.rng.IntN(5)]
	options.Slice = l.slice
	l.engine = mirror.NewEngine(mirror.Pair{
		Open: l.mount.open, Dial: l.dial, Options: options, Logger: options.Logger,
	}, brain.Request{Type: item.SyncState}, timing, l.mount.journal)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.stop = cancel
	var tasks sync.WaitGroup
	l.w.tasks = &tasks
	ended := l.w.sched.run(l.rng, func() {
		if err := l.engine.Run(ctx, 15*time.Second); err != nil {
			l.fail(fmt.Errorf("the engine ended: %w", err))
		}
		tasks.Wait()
	}, l.between, l.idle)
	if !ended {
		stacks := make([]byte, 1<<20)
		return fmt.Errorf("the session hangs\n%s", stacks[:runtime.Stack(stacks, true)])
	}
	l.mount.end()
	l.remote.end()
	l.crashed = l.mount.isDead()
	l.mount.recover()
	l.remote.recover()
	return l.err
}

// fail keeps the first error.
func (l *session) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// between lets users act while rounds are under way.
func (l *session) between(string) {
	if err := l.w.checks.sent(l.mount, l.remote); err != nil {
		l.fail(err)
	}
	if l.ops > 0 && l.rng.IntN(40) == 0 && !l.mount.isDead() {
		l.act()
	}
}

// note notes something with the time.
func (l *session) note(format string, args ...any) {
	l.w.note("  %s "+format, append([]any{l.mount.now().Format("15:04:05.000")}, args...)...)
}

// idle is called when nothing moves: users act, a machine that crashed comes up again, or the session ends.
func (l *session) idle() bool {
	switch {
	case l.stopped:
	case l.mount.isDead():
		l.stopped = true
		l.stop()
	case l.remote.isDead() && l.answering() == 0:
		l.w.note("  %s comes up again", l.remote.name)
		l.remote.recover()
		return true
	case l.ops > 0 && l.rng.IntN(2) == 0:
		l.act()
		return true
	case l.ops == 0 && l.after.IsZero():
		l.after = time.Now()
		l.mount.end()
		l.remote.end()
		l.mend()
		return true
	case !l.after.IsZero() && l.decide():
		return true
	case !l.after.IsZero() && l.settled():
		l.stopped = true
		l.stop()
	}
	return false
}

// mend lets the network hold from now on.
func (l *session) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cuts = 0
	if l.conn != nil {
		l.conn.mend()
	}
}

// settled reports whether the session may end: after two full syncs that began when users had done all, as some things are
// believed in a second look.
func (l *session) settled() bool {
	const follow = 5 * time.Second
	st := l.engine.Status()
	if st.Rounds != l.rounds {
		l.rounds = st.Rounds
		l.note("round %d: %s", st.Rounds, st.State)
	}
	if st.State == mirror.StateInSync && l.calm.IsZero() {
		l.calm = time.Now()
	}
	return time.Since(l.after) > quiet ||
		st.State == mirror.StateInSync && st.LastFull.After(l.calm.Add(timing.FullSync+follow)) && time.Since(st.LastFull) > follow
}

func (l *session) answering() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slaves
}

// liveOps are what users do in a session.
var liveOps = append([]string{"delete", "recreate", "empty"}, calmOps...)

// act lets a user do something: through the mount, behind it, or at the remote.
func (l *session) act() {
	l.ops--
	op, seed := liveOps[l.rng.IntN(len(liveOps))], l.rng.Uint64()
	r, how := l.mount, l
	switch l.rng.IntN(8) {
	case 0:
		how = nil
	case 1, 2, 3:
		r, how = l.remote, nil
	}
	if l.ops == l.clean {
		op, r, how = "cleanup", l.mount, l
	}
	if op == "wait" || r.isDead() || op == "rename" && l.w.newGUIDs {
		return
	}
	if len(l.w.replicas) > 2 && slices.Contains([]string{"create", "delete", "recreate"}, op) {
		return // see Generate
	}
	if how == nil {
		l.note("meanwhile %s of %s", op, r.name)
	} else {
		l.note("meanwhile %s of %s, through the mount", op, r.name)
	}
	l.w.calm = l.w.calm && slices.Contains(calmOps, op)
	if how == nil {
		l.w.unseen = l.w.unseen || removes(op)
	}
	if err := l.w.actAs(how, r, op, seed); err != nil {
		l.fail(fmt.Errorf("%s: %w", op, err)) // users act past all faults
	}
	l.w.checks.before(l.mount, l.remote)
	// Now and then inotify says nothing: too much happened at once, or the directory was not watched yet.
	if how == nil && l.rng.IntN(4) > 0 {
		if r == l.remote {
			r.changed()
		} else {
			l.engine.Notify()
		}
	}
}

// removes reports whether an op of users may make a mail go away, or look like it.
func removes(op string) bool {
	return !slices.Contains([]string{"deliver", "burst", "see", "flag", "keyword", "manykeywords", "create", "copy", "subscribe", "unsubscribe", "wait"}, op)
}

// record journals what a user does through the mount.
func (l *session) record(ev mail.Event, content string) error {
	seq, err := l.mount.journal.Append(ev)
	if err != nil {
		l.hurt = true
		return errRefused
	}
	l.mount.journaled[seq] = journaled{ev, content}
	l.engine.Notify()
	return nil
}

// errRefused is what a user gets whose change cannot be journaled.
var errRefused = errors.New("the mount could not record the change")

// sync makes what was journaled durable, as fsync on the mount does.
func (l *session) sync() error {
	last := l.mount.journal.Last()
	if err := l.mount.journal.Sync(context.Background(), last); err != nil {
		l.hurt = true
		return errRefused
	}
	l.mount.durable = max(l.mount.durable, last)
	return nil
}

// decide lets the user confirm what a guard stopped. It reports whether that is under way.
func (l *session) decide() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deciding || !isGuard(l.engine.Status().Cause) {
		return false
	}
	if !l.w.unseen && len(l.w.replicas) == 2 && l.err == nil {
		l.err = fmt.Errorf("a guard stopped the engine, though everything that went was seen going: %w", l.engine.Status().Cause)
	}
	l.deciding = true
	l.w.note("  the user confirms")
	l.w.tasks.Go(func() {
		out, err := l.engine.Sync(context.Background(), func(r *brain.Request) { r.AllowExpunge = []string{"*"} })
		l.w.note("  decided: %s", outcome(out, err))
		l.mu.Lock()
		defer l.mu.Unlock()
		l.deciding, l.decided = false, err
	})
	return true
}

// dial connects the mount with a new slave at the remote.
func (l *session) dial(ctx context.Context) (brain.Peer, error) {
	if l.mount.isDead() || l.remote.isDead() {
		return nil, errDead
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &link{left: -1, drains: l.rng.IntN(2) == 0}
	limit := -1
	if l.cuts > 0 {
		l.cuts--
		l.w.calm = false
		c.left = 1 + l.rng.IntN(2*l.step.Cut)
		limit = 40 * c.left
	}
	l.slaves++
	l.conn = c
	l.note("%s dials", l.mount.name)
	watch := func(ctx context.Context) (<-chan struct{}, error) { return l.remote.wake, nil }
	serve := func(p brain.Peer, err error) {
		if err == nil {
			options := l.remote.options(l.mount)
			options.Slice = l.slice
			err = brain.NewSlave(options, l.remote.open, watch).Serve(ctx, &linkPeer{p, l.remote, c})
		}
		if err != nil {
			l.w.note("  the slave %s: %v", l.remote.name, err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.slaves--
	}
	return l.w.connect(ctx, l.step.Wire, limit, c, l.mount, l.w.tasks, serve)
}

// verify holds the journal's marks to what the remote has, and the replicas to each other if nothing kept the session from
// bringing them in line.
func (l *session) verify() error {
	st := l.engine.Status()
	l.w.note("  session: %s, %d rounds, queued %d, error %q", st.State, st.Rounds, st.Queued, st.Error)
	if l.crashed || l.hurt || l.decided != nil {
		return nil
	}
	if st.Error != "" {
		return fmt.Errorf("the engine did not recover: %s", st.Error)
	}
	if st.Queued > 0 {
		return fmt.Errorf("%d changes are still queued", st.Queued)
	}
	l.mount.clean, l.remote.clean = true, true
	l.w.unseen = false
	if len(l.w.replicas) > 2 || l.mount.edited || l.remote.edited {
		return nil
	}
	return l.w.checks.equal()
}
