package mirror

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/store"
)

// Timing are the intervals of an Engine. Zero fields take the defaults.
type Timing struct {
	FullSync time.Duration // between rounds that look behind everybody's back; default 5 minutes
	Poll     time.Duration // between rounds with a remote that cannot tell of its changes; default 30 seconds
	Batch    time.Duration // how long a change waits for others to share its round; default 10 ms
	Settle   time.Duration // after a local change, one more look for what was still under way; default 1.2 seconds
	RetryMax time.Duration // longest pause between attempts to reach the remote; default 1 minute
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.FullSync, 5 * time.Minute}, {&t.Poll, 30 * time.Second}, {&t.Batch, 10 * time.Millisecond},
		{&t.Settle, 1200 * time.Millisecond}, {&t.RetryMax, time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Engine keeps a pair in sync for as long as Run runs. Its other methods may be called from any goroutine.
type Engine struct {
	pair    Pair
	request brain.Request
	timing  Timing
	journal *journal.Journal
	log     *slog.Logger

	kick     chan struct{}    // something changed locally; holds at most one
	retry    chan struct{}    // the remote may be there again; holds at most one
	requests chan syncRequest // rounds that somebody waits for

	mu      sync.Mutex
	status  Status
	started uint64        // rounds begun
	ended   uint64        // last round begun that succeeded and left nothing out
	turn    chan struct{} // closed and replaced when a round ends
	witness *witness
}

type syncRequest struct {
	req  brain.Request
	done chan<- syncResult
}

type syncResult struct {
	out brain.Outcome
	err error
}

// NewEngine prepares an Engine. req is what every round asks for; j may be nil for a pair without a mount.
func NewEngine(p Pair, req brain.Request, t Timing, j *journal.Journal) *Engine {
	e := &Engine{
		pair: p, request: req, timing: t.withDefaults(), journal: j, log: p.Logger,
		kick: make(chan struct{}, 1), retry: make(chan struct{}, 1), requests: make(chan syncRequest), turn: make(chan struct{}),
	}
	e.pair.Options.Live = true
	if j != nil {
		e.witness = newWitness(j)
		e.pair.Options.Witness = e.witness.saw
	}
	e.status.State = StateConnecting
	return e
}

// Notify says that something changed in the local store.
func (e *Engine) Notify() { leave(e.kick) }

// Retry says that the remote may be there again, if it was away: the next attempt is due at once.
func (e *Engine) Retry() { leave(e.retry) }

// leave puts a value into a channel that holds one, unless one is there.
func leave(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Sync has a round made now and waits for it; full looks behind everybody's back.
func (e *Engine) Sync(ctx context.Context, change func(*brain.Request)) (brain.Outcome, error) {
	req := e.request
	change(&req)
	done := make(chan syncResult, 1)
	select {
	case e.requests <- syncRequest{req, done}:
	case <-ctx.Done():
		return brain.Outcome{}, context.Cause(ctx)
	}
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
		return brain.Outcome{}, context.Cause(ctx)
	}
}

// Barrier waits until a round that began after the call has succeeded: everything done before is at the remote then.
func (e *Engine) Barrier(ctx context.Context) error {
	e.mu.Lock()
	ticket := e.started + 1
	e.mu.Unlock()
	for {
		e.Notify()
		e.mu.Lock()
		ended, turn := e.ended, e.turn
		e.mu.Unlock()
		if ended >= ticket {
			return nil
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Run makes rounds until ctx ends, and then one last one for what is still queued. The round that is under way when ctx ends
// and the last one have the time flush. It owns the connection.
func (e *Engine) Run(ctx context.Context, flush time.Duration) error {
	l := &loop{Engine: e}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(flush)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ended:
		}
	})
	defer stop()
	defer func() { l.disconnect(); l.spare.drop() }()
	for ctx.Err() == nil {
		l.step(ctx, work)
	}
	l.last(work)
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return context.Cause(ctx)
}

// loop is the state of Run.
type loop struct {
	*Engine
	master   *brain.Master
	spare    *spare // for the next round
	failures int
	lastFull time.Time
	lastLook time.Time // at every mailbox of a remote that does not tell of its changes
	here     bool      // the round looks only at what changed here
	hurry    bool      // somebody waits for the next round
	follow   bool      // one more look is due after Settle
	pushed   time.Time // when the last push ended
	open     bool      // the last round left something open, on either side
}

// last tells what was not told yet, or was under way when the last round looked: a change is journaled before it is done.
func (l *loop) last(ctx context.Context) {
	if l.failures > 0 || l.queued() == 0 && !l.follow && len(l.kick) == 0 {
		return
	}
	if l.master != nil && !l.master.Woken() && l.push(ctx, reason{}) && l.queued() == 0 {
		return
	}
	l.here = true
	l.round(ctx, l.request)
}

// step waits, not longer than ctx, for the next reason and does what it demands.
func (l *loop) step(ctx, work context.Context) {
	why := l.await(ctx)
	if ctx.Err() != nil {
		if why.push != nil {
			l.accept(work)
		}
		return
	}
	if why.request == nil && time.Since(l.lastFull) >= l.fullSync() {
		why.full = true
	}
	agreed := why.push == nil || l.accept(work)
	switch {
	case l.master == nil && why.push != nil && why.request == nil:
		// the connection was lost meanwhile
	case !agreed || why.request != nil || why.full || l.master == nil || l.master.Woken(), l.open && !why.local:
		l.byRound(work, why)
	case why.push != nil && !why.local:
		// that was it
	case !l.push(work, why):
		l.byRound(work, why)
	}
}

// byRound makes a round for a reason.
func (l *loop) byRound(work context.Context, why reason) {
	req := l.request
	if why.request != nil {
		req = why.request.req
	}
	if why.full && !l.lastFull.IsZero() && l.master == nil && l.failures == 0 {
		req.Type = item.SyncFull // a Dovecot does not tell what came to it from a third place by dsync
	}
	l.hurry = why.request != nil
	l.here = why.local && !why.full && why.request == nil && time.Since(l.lastLook) < l.timing.Poll
	out, err := l.round(work, req)
	if why.request != nil {
		why.request.done <- syncResult{out, err}
	}
	if err != nil {
		return
	}
	if !l.here {
		l.lastLook = time.Now()
	}
	if why.full || why.request != nil {
		l.lastFull = time.Now()
		l.noteFull(l.lastFull)
	}
	l.open = out.Desync || out.Undecided
	l.follow = why.local || l.open
}

// pushBatch is how long after a push the next one begins at the earliest. The changes of a flood share pushes that way, and one
// that comes alone waits for nothing.
const pushBatch = 2 * time.Millisecond

// reason says why something is due.
type reason struct {
	request *syncRequest
	push    *brain.Push // the other side tells what changed there
	local   bool
	full    bool
}

// await waits for a reason to do something.
func (l *loop) await(ctx context.Context) reason {
	pause := l.pause()
	if l.failures > 0 {
		l.noteNext(time.Now().Add(pause))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	told, stop := l.listen(ctx)
	kick := l.kick
	if l.failures > 0 {
		kick = nil // the remote is away: what changes here is journaled, and waits
	}
	var why reason
	select {
	case <-ctx.Done():
	case r := <-l.requests:
		why.request = &r
	case <-kick:
		l.batch(ctx)
		why.local = true
	case <-l.retry:
		if l.failures == 0 {
			break // it was not away
		}
		l.failures = 1
		l.log.Info("the remote is tried again at once")
	case <-told:
	case <-timer.C:
	}
	if word := stop(); word.err != nil {
		l.lost(word.err)
		if why.request == nil {
			return l.await(ctx)
		}
	} else {
		why.push = word.push
	}
	return why
}

// pause is how long to wait at most.
func (l *loop) pause() time.Duration {
	switch {
	case l.failures > 0:
		return min(l.timing.RetryMax, 250*time.Millisecond<<min(l.failures-1, 10))
	case l.lastFull.IsZero():
		return 0
	case l.follow:
		return l.timing.Settle
	case l.master == nil:
		return min(l.timing.Poll, l.timing.FullSync)
	}
	return max(0, l.fullSync()-time.Since(l.lastFull))
}

// fullSync is the time between two full syncs. A round takes along what is left of a body that goes ahead of its mail, and keeps
// everything else waiting, so it comes later then.
func (l *loop) fullSync() time.Duration {
	if l.master != nil && l.master.Ahead() {
		return 4 * l.timing.FullSync
	}
	return l.timing.FullSync
}

// word is what the other side said between two rounds. Neither: that it wants a round, or nothing.
type word struct {
	push *brain.Push
	err  error
}

// listen waits in the background for the other side's word. The channel is closed when it came. stop ends that, waits for it and
// returns the word.
func (l *loop) listen(ctx context.Context) (told <-chan struct{}, stop func() word) {
	if l.master == nil {
		return nil, func() word { return word{} }
	}
	ctx, cancel := context.WithCancel(ctx)
	var w word
	done := make(chan struct{})
	go func() {
		defer close(done)
		push, err := l.master.Idle(ctx)
		if err == nil || ctx.Err() == nil {
			w = word{push, err}
		}
	}()
	return done, func() word { cancel(); <-done; return w }
}

// batch lets changes that come close together share a round. A push is cheap, and what changes while one is under way shares
// the next.
func (l *loop) batch(ctx context.Context) {
	d := l.timing.Batch
	if l.master != nil {
		d = min(d, pushBatch-time.Since(l.pushed))
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	select {
	case <-l.kick:
	default:
	}
}

// round makes one round, with up to two more if something changed meanwhile, and notes how it went.
func (l *loop) round(ctx context.Context, req brain.Request) (brain.Outcome, error) {
	ticket := l.begin()
	out, err := l.rounds(ctx, req)
	l.end(ticket, out, err)
	return out, err
}

func (l *loop) rounds(ctx context.Context, req brain.Request) (total brain.Outcome, err error) {
	for range maxRounds {
		var out brain.Outcome
		if out, err = l.one(ctx, req); err != nil {
			l.lost(err)
			return total, err
		}
		total.Add(out)
		total.Undecided = out.Undecided
		if total.Desync = out.Desync; !out.Desync {
			break
		}
		req.Restore = nil // they are back
	}
	l.failures = 0
	return total, nil
}

func (l *loop) one(ctx context.Context, req brain.Request) (brain.Outcome, error) {
	mark := l.witness.begin()
	out, err := l.onConnection(ctx, req)
	if err != nil {
		return out, err
	}
	if !l.master.Live() {
		if l.master.Stock() {
			l.spare = l.pair.newSpare(ctx)
		}
		l.disconnect()
	}
	if out.Desync {
		return out, nil // something was left out: what the journal says does not count as sent yet
	}
	return out, l.witness.end(mark)
}

// onConnection makes one round on a connection, and on a new one if that which was made ahead turns out to be lost.
func (l *loop) onConnection(ctx context.Context, req brain.Request) (out brain.Outcome, err error) {
	for ahead := true; ahead; {
		if ahead, err = l.connect(ctx); err != nil {
			return brain.Outcome{}, err
		}
		l.master.Hurry, l.master.Here = l.hurry, l.here
		out, err = l.pair.roundWith(ctx, l.master, req)
		if err == nil || !ahead || !l.master.Lost() {
			break
		}
		l.log.Debug("the connection made ahead was lost", "err", err)
		l.disconnect()
	}
	return out, err
}

// push tells the other side what changed here. Not done: it takes a round.
func (l *loop) push(ctx context.Context, why reason) (done bool) {
	defer func() { l.pushed = time.Now() }()
	l.master.Hurry = false
	ticket, mark := l.begin(), l.witness.begin()
	l.master.Taken = func() { l.release(ticket) } // what is noted about it concerns only us
	var verdict brain.Verdict
	out, err := l.pair.with(ctx, func(s store.Store) (out brain.Outcome, err error) {
		verdict, out, err = l.master.Push(ctx, s)
		return out, err
	})
	switch {
	case err == nil && verdict == brain.NeedRound:
		l.abandon(ticket)
		return false
	case err == nil && verdict == brain.Partly:
		out.Desync = true // what the journal says does not count as sent yet
	case err == nil:
		out.Undecided = out.Undecided || l.open
		ticket.silent = verdict == brain.Settled
		l.release(ticket)
		err = l.witness.end(mark)
	}
	if err != nil {
		l.lost(err)
	}
	l.end(ticket, out, err)
	l.follow = why.local || out.Undecided
	return true
}

// accept takes what the other side pushed. Not agreed: it takes a round.
func (l *loop) accept(ctx context.Context) (agreed bool) {
	start := time.Now()
	var verdict brain.Verdict
	out, err := l.pair.with(ctx, func(s store.Store) (out brain.Outcome, err error) {
		verdict, out, err = l.master.Accept(ctx, s)
		return out, err
	})
	l.count(out, start)
	if err != nil {
		l.lost(err)
	}
	l.follow = l.follow || out.Undecided
	if out.Untold {
		l.Notify()
	}
	return err == nil && verdict == brain.Taken
}

// connect makes a connection unless there is one. ahead says that it was made some time ago and may be lost.
func (l *loop) connect(ctx context.Context) (ahead bool, err error) {
	if l.master != nil {
		return false, nil
	}
	l.master = l.spare.take()
	l.spare = nil
	if l.master != nil {
		return true, nil
	}
	peer, err := l.pair.Dial(ctx)
	if err != nil {
		return false, err
	}
	l.master = brain.NewMaster(peer, l.pair.Options)
	return false, nil
}

// lost gives up the connection after an error.
func (l *loop) lost(err error) {
	l.failures++
	l.disconnect()
	l.noteError(err)
}

func (l *loop) disconnect() {
	if l.master == nil {
		return
	}
	if err := l.master.Close(); err != nil {
		l.log.Debug("closing the connection", "err", err)
	}
	l.master = nil
}
