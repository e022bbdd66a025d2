package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"

	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/store"
	"dsyncfs/remote/dsync"
)

// reset notes that a user made the UIDs of a mailbox begin anew.
func (w *world) reset(r *replica, dir string) { w.checks.excuse(r, dir) }

// sync carries out one sync, with up to three rounds as the program does, and what goes wrong in it.
func (w *world) sync(s Step) error {
	master, slave := w.replicas[0], w.replicas[s.Side]
	if s.Reversed {
		master, slave = slave, master
	}
	w.checks.before(master, slave)
	if master.edited || slave.edited {
		s.Type = "f" // only that looks at the mails themselves
	}
	gone, err := w.mustStop(master, slave)
	if err != nil {
		return err
	}
	out, err := w.syncSource(s, master, slave, brain.Request{})
	w.note("  %s with %s: %s", master.name, slave.name, outcome(out, err))
	if herr := w.checkError(s, master, slave, err); herr != nil {
		return herr
	}
	if err := w.checkGuard(s, gone, err, master, slave); err != nil {
		return err
	}
	if isGuard(err) {
		w.calm = w.calm && !s.Restore
		req := brain.Request{AllowExpunge: []string{"*"}}
		var wanted map[*replica]map[string]int
		if s.Restore && w.backup == nil {
			req = brain.Request{Restore: []string{"*"}}
			if wanted, err = w.wanted(master, slave); err != nil {
				return err
			}
		}
		again := Step{Op: "sync", Side: s.Side, Seed: s.Seed + 1, Type: s.Type, Reversed: s.Reversed}
		out, err = w.syncSource(again, master, slave, req)
		w.note("  decided: %s", outcome(out, err))
		if err != nil {
			return fmt.Errorf("after the user's decision: %w", err)
		}
		if err := restored(wanted); err != nil {
			return err
		}
	}
	master.clean, slave.clean = err == nil, err == nil
	if err == nil {
		master.noteDeletions(true)
		slave.noteDeletions(true)
		master.lostList, slave.lostList = false, false
		if len(w.replicas) == 2 && s.Users == 0 && s.Edits == 0 {
			w.unseen = false
		}
	}
	if err == nil && s.Type == "f" && s.Users == 0 && s.Edits == 0 {
		master.edited, slave.edited = false, false
	}
	return w.checks.now()
}

func outcome(out brain.Outcome, err error) string {
	text := fmt.Sprintf("added %d, flags %d, expunged %d, renumbered %d, matched %d, sent %d, desync %v, changed %v",
		out.Added, out.Flags, out.Expunged, out.Renumbered, out.Matched, out.Sent, out.Desync, out.Changed)
	if len(out.Notes) > 0 {
		text += " notes " + strings.Join(out.Notes, "; ")
	}
	if err != nil {
		text += " error " + err.Error()
	}
	return text
}

func isGuard(err error) bool {
	var g *brain.GuardError
	return errors.Is(err, guard.ErrMassExpunge) || errors.As(err, &g)
}

// mustStop returns a mailbox for which a guard has to stop the sync of two replicas, with the replica; "" if there is none.
func (w *world) mustStop(sides ...*replica) (string, error) {
	for _, r := range sides {
		if r == w.backup {
			continue // what it lost is put back
		}
		name, err := vanished(r)
		if err != nil {
			return "", err
		}
		if name != "" {
			return fmt.Sprintf("%q of %s", string(name), r.name), nil
		}
	}
	return "", nil
}

// checkGuard holds the guards to what there was before the sync and, as they stop it before anything is recorded, is now.
func (w *world) checkGuard(s Step, gone string, err error, sides ...*replica) error {
	if s.Users > 0 || s.Edits > 0 || s.Cut > 0 || s.Fault != nil {
		return nil // it may have been another state that they saw, or none
	}
	if err == nil && gone != "" {
		return fmt.Errorf("the guard let the loss of mailbox %s pass", gone)
	}
	for i, r := range sides {
		if w.stopped[i] != nil && r != w.backup {
			if err := justified(r, w.stopped[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkError refuses errors without a fault as their cause.
func (w *world) checkError(s Step, master, slave *replica, err error) error {
	switch {
	case err == nil, isGuard(err), s.Cut > 0, s.Fault != nil && s.Fault.What != "" && (master.hit || slave.hit):
		return nil
	case s.Users+s.Edits > 0 && (errors.Is(err, store.ErrNotFound) || w.gone):
		return nil // a mailbox that was renamed or deleted while the round was in it
	}
	return fmt.Errorf("a sync without a fault failed: %w", err)
}

// syncSource is syncOnce, which must not touch the source of a backup.
func (w *world) syncSource(s Step, master, slave *replica, req brain.Request) (brain.Outcome, error) {
	if w.backup == nil {
		return w.syncOnce(s, master, slave, req)
	}
	// The flags are meant from the slave's point of view.
	req.BackupReceive, req.BackupSend = slave == w.backup, master == w.backup
	source := w.replicas[0]
	before, err := contents(source.disk)
	if err != nil {
		return brain.Outcome{}, err
	}
	out, serr := w.syncOnce(s, master, slave, req)
	if s.Users > 0 || s.Edits > 0 || source.hit {
		return out, serr
	}
	after, err := contents(source.disk)
	if err != nil {
		return out, err
	}
	if err := difference(before, after); err != nil {
		return out, fmt.Errorf("the source of a backup changed: %w", err)
	}
	return out, serr
}

// syncOnce runs one sync with its fault, and starts whoever crashed anew.
func (w *world) syncOnce(s Step, master, slave *replica, req brain.Request) (out brain.Outcome, err error) {
	req.Type = item.SyncState
	if s.Type != "" {
		req.Type = item.SyncType(s.Type[0])
	}
	plans := [2]Fault{}
	if s.Fault != nil {
		w.calm = false
		i := 0
		if s.Fault.Second {
			i = 1
		}
		plans[i] = *s.Fault
	}
	master.begin(plans[0])
	slave.begin(plans[1])
	rng := rand.New(rand.NewPCG(s.Seed, 3))
	users := w.usersDuring(s, master, slave)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := &link{left: -1}
	ended := w.sched.run(rng, func() { out, err = w.converse(ctx, s, l, master, slave, req) }, users, nil)
	if !ended {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return out, fmt.Errorf("the sync hangs\n%s", stacks)
	}
	master.end()
	slave.end()
	master.recover()
	slave.recover()
	return out, err
}

// editsDuring is usersDuring for those who write in the place of mails.
func (w *world) editsDuring(s Step, sides ...*replica) func(string) {
	left := s.Edits
	rng := rand.New(rand.NewPCG(s.Seed, 7))
	return func(string) {
		if left == 0 || rng.IntN(20) != 0 {
			return
		}
		left--
		r, seed := sides[rng.IntN(len(sides))], rng.Uint64()
		if r.isDead() {
			return
		}
		w.note("  meanwhile edit of %s", r.name)
		w.calm = false
		if err := w.act(r, "editone", seed); err != nil {
			panic(fmt.Sprintf("edit: %v", err)) // users act past all faults
		}
	}
}

// usersDuring returns what is called between the turns of a sync: users who go on working.
func (w *world) usersDuring(s Step, sides ...*replica) func(string) {
	left := s.Users
	rng := rand.New(rand.NewPCG(s.Seed, 4))
	edits := w.editsDuring(s, sides...)
	return func(key string) {
		edits(key)
		if left == 0 || rng.IntN(40) != 0 {
			return
		}
		left--
		op := calmOps[rng.IntN(len(calmOps))]
		r := sides[rng.IntN(len(sides))]
		if op == "wait" || r.isDead() || op == "rename" && w.newGUIDs || op == "create" && len(w.replicas) > 2 && r != w.replicas[0] {
			return // see Generate
		}
		w.note("  meanwhile %s of %s", op, r.name)
		w.unseen = w.unseen || removes(op)
		if err := w.act(r, op, rng.Uint64()); err != nil {
			panic(fmt.Sprintf("%s: %v", op, err)) // users act past all faults
		}
		w.checks.before(sides[0], sides[1])
	}
}

// converse makes the rounds of a sync.
func (w *world) converse(ctx context.Context, s Step, l *link, master, slave *replica, req brain.Request) (brain.Outcome, error) {
	var serving sync.WaitGroup
	var served error
	pair := mirror.Pair{
		Open:    master.open,
		Options: master.options(slave),
		Logger:  master.options(slave).Logger,
		Dial: func(ctx context.Context) (brain.Peer, error) {
			if master.isDead() {
				return nil, errDead
			}
			return w.dial(ctx, s, l, master, slave, &serving, &served)
		},
	}
	out, err := pair.Sync(ctx, req)
	serving.Wait()
	if served != nil {
		w.note("  the slave %s: %v", slave.name, served)
	}
	w.gone = errors.Is(served, store.ErrNotFound)
	w.stopped = [2]*guard.Error{}
	errors.As(err, &w.stopped[0])
	errors.As(served, &w.stopped[1])
	return out, err
}

// dial connects both and lets the slave answer.
func (w *world) dial(ctx context.Context, s Step, l *link, master, slave *replica, serving *sync.WaitGroup, served *error) (brain.Peer, error) {
	l.drains = s.Seed&1 == 1
	limit := -1
	if s.Cut > 0 {
		l.left, limit = s.Cut, 40*s.Cut
	}
	serve := func(p brain.Peer, err error) {
		if *served = err; err == nil {
			*served = brain.NewSlave(slave.options(master), slave.open, nil).Serve(ctx, &linkPeer{p, slave, l})
		}
	}
	return w.connect(ctx, s.Wire, limit, l, master, serving, serve)
}

// connect makes a connection, within the process or through the wire format, and has the slave answer on it. Through the wire
// the limit counts bytes, within the process l.left counts items.
func (w *world) connect(ctx context.Context, wire bool, limit int, l *link, master *replica, serving *sync.WaitGroup, serve func(brain.Peer, error)) (brain.Peer, error) {
	if !wire {
		a, b := brain.Pipe()
		l.ends = append(l.ends, a, b)
		serving.Go(func() { serve(b, nil) })
		return &linkPeer{a, master, l}, nil
	}
	l.left = -1
	a, b := bytePipe(limit, l.drains)
	l.wire = a.wire
	pa, pb := dsync.NewPeer(a, dsync.Options{Timeout: -1}), dsync.NewPeer(b, dsync.Options{Timeout: -1})
	l.ends = append(l.ends, pa, pb)
	serving.Go(func() {
		err := pb.Handshake(ctx)
		if err != nil {
			pb.Close()
		}
		serve(pb, l.reason(err))
	})
	if err := pa.Handshake(ctx); err != nil {
		return nil, l.reason(errors.Join(err, pa.Close()))
	}
	return &linkPeer{pa, master, l}, nil
}
