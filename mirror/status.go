package mirror

import (
	"cmp"
	"time"

	"dsyncfs/mirror/brain"
)

// State says how a continuous mirror is doing.
type State string

// The states.
const (
	StateConnecting State = "connecting" // no round yet
	StateSyncing    State = "syncing"    // in a round, or about to look again because the last one left something open
	StateInSync     State = "in sync"    // the last round succeeded
	StateOffline    State = "offline"    // the last attempt failed; changes are queued
)

// Status is what is known of a continuous mirror.
type Status struct {
	State     State     `json:"state"`
	Queued    uint64    `json:"queued"`               // changes of mail programs that the remote does not have yet
	Rounds    uint64    `json:"rounds"`               // that succeeded
	LastRound time.Time `json:"last_round,omitzero"`  // end of the last that succeeded
	LastTook  float64   `json:"last_round_seconds"`   // how long it took
	LastHeard time.Time `json:"last_heard,omitzero"`  // when the remote last answered
	LastFull  time.Time `json:"last_full,omitzero"`   // end of the last full sync
	Error     string    `json:"error,omitempty"`      // of the last attempt
	ErrorAt   time.Time `json:"error_since,omitzero"` // since when it is so
	NextTry   time.Time `json:"next_try,omitzero"`    // while offline: when the remote is tried again at the latest
	Added     int       `json:"added"`                // messages that came from the remote
	Sent      int       `json:"sent"`                 // messages that went there
	Flags     int       `json:"flags"`                // flag changes applied here
	Expunged  int       `json:"expunged"`             // expunges applied here
	Cause     error     `json:"-"`                    // of Error
	Peer      string    `json:"-"`                    // under which the store keeps the common states; see brain.Outcome
}

// Status returns the present one.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status
	s.Queued = e.queued()
	return s
}

// queued is how many journaled changes the remote does not have.
func (e *Engine) queued() uint64 {
	if e.journal == nil {
		return 0
	}
	return e.journal.Last() - min(e.journal.Last(), e.journal.Mark(markSent))
}

// begin notes that a round starts and returns its number.
func (e *Engine) begin() roundStart {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started++
	before := e.status.State
	e.status.State = StateSyncing
	return roundStart{number: e.started, at: time.Now(), before: before}
}

type roundStart struct {
	number uint64
	at     time.Time
	before State
	silent bool // it turned out that there was nothing to say
}

// end notes how a round went and wakes who waits for it.
func (e *Engine) end(start roundStart, out brain.Outcome, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.status
	s.Peer = cmp.Or(out.Peer, s.Peer)
	e.add(out, start.at)
	if err == nil {
		now := time.Now()
		if !out.Desync {
			e.ended = start.number
		}
		s.State, s.Error, s.Cause, s.ErrorAt, s.NextTry = StateInSync, "", nil, time.Time{}, time.Time{}
		if out.Undecided || out.Desync {
			s.State = StateSyncing
		}
		s.Rounds++
		s.LastRound = now
		if !start.silent {
			s.LastHeard = now
		}
		s.LastTook = now.Sub(start.at).Seconds()
		if start.before == StateOffline {
			e.log.Info("the remote is back")
		}
	}
	e.wake()
}

// wake has those look who wait for the end of a round.
func (e *Engine) wake() {
	close(e.turn)
	e.turn = make(chan struct{})
}

// release lets those go on who wait for a round that is as good as ended.
func (e *Engine) release(start roundStart) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = start.number
	e.wake()
}

// abandon undoes begin: what began goes on as a round.
func (e *Engine) abandon(start roundStart) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.State = start.before
}

// count adds what the other side pushed.
func (e *Engine) count(out brain.Outcome, start time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.LastHeard = time.Now()
	e.add(out, start)
}

// add adds up what was done and logs it.
func (e *Engine) add(out brain.Outcome, start time.Time) {
	s := &e.status
	s.Added += out.Added
	s.Sent += out.Sent
	s.Flags += out.Flags
	s.Expunged += out.Expunged
	if out.Added+out.Sent+out.Flags+out.Expunged > 0 || out.Changed {
		e.log.Info("synced", "added", out.Added, "sent", out.Sent, "flags", out.Flags, "expunged", out.Expunged,
			"dur", time.Since(start).Round(time.Millisecond))
	}
}

// noteFull remembers when everything was looked at.
func (e *Engine) noteFull(at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.LastFull = at
}

// noteNext remembers when the remote is tried again if nothing happens before.
func (e *Engine) noteNext(at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.NextTry = at
}

// noteError remembers why the remote is away and logs it once.
func (e *Engine) noteError(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &e.status
	if s.Error != err.Error() {
		e.log.Warn("sync failed, will try again", "err", err)
	}
	if s.State != StateOffline || s.ErrorAt.IsZero() {
		s.ErrorAt = time.Now()
	}
	s.State, s.Error, s.Cause = StateOffline, err.Error(), err
}
