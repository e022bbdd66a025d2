package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"testing/synctest"
	"time"
)

// sched lets the goroutines of a sync run one after another: each stops at the places that matter (an operation that
// changes a disk, an item on the link) until it is chosen. The choice is a matter of the seed, not of the machine.
//
// It has to be used in a bubble of synctest, which tells when everybody stands still.
type sched struct {
	mu      sync.Mutex
	running bool
	waiting []waiter
	arrived chan struct{} // somebody began to wait; holds one
}

// waiter is a goroutine that stopped. Its key says where, so that the order of arrival does not count.
type waiter struct {
	key string
	go_ chan struct{}
}

// yield waits for the turn of the calling goroutine. No mutex may be held that another one may want.
func (s *sched) yield(key string) {
	s.mu.Lock()
	if !s.running {
		s.mu.Unlock()
		return
	}
	w := waiter{key, make(chan struct{})}
	s.waiting = append(s.waiting, w)
	s.mu.Unlock()
	select {
	case s.arrived <- struct{}{}:
	default:
	}
	<-w.go_
}

// patience is how long, in the time of the bubble, nothing may happen before a sync counts as hung: longer than every timeout
// of the code.
const patience = 30 * time.Minute

// run runs f, and the goroutines that it starts, to the end of f. between is called before each choice, while everybody
// stands still, with what was chosen; idle, if not nil, when nobody wants to be chosen, and reports whether it did something:
// if not, time passes. It returns false, with f still running, if nothing moves any more.
func (s *sched) run(rng *rand.Rand, f func(), between func(key string), idle func() bool) bool {
	s.mu.Lock()
	s.running, s.arrived = true, make(chan struct{}, 1)
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	var still time.Duration
	for {
		synctest.Wait()
		select {
		case <-done:
			s.stop()
			return true
		default:
		}
		w, ok := s.choose(rng)
		if !ok {
			if idle != nil && idle() {
				still = 0
				continue
			}
			if still > patience {
				s.stop()
				return false
			}
			still += s.await(min(max(still, time.Millisecond), time.Minute))
			continue
		}
		still = 0
		between(w.key)
		close(w.go_)
	}
}

// await lets time pass until somebody waits, but not more than a pause. It returns how much passed.
func (s *sched) await(pause time.Duration) time.Duration {
	start := time.Now()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-s.arrived:
	case <-timer.C:
	}
	return time.Since(start)
}

// stop lets everybody go.
func (s *sched) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
	for _, w := range s.waiting {
		close(w.go_)
	}
	s.waiting = nil
}

func (s *sched) choose(rng *rand.Rand) (waiter, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return waiter{}, false
	}
	slices.SortFunc(s.waiting, func(a, b waiter) int { return cmp.Compare(a.key, b.key) })
	i := rng.IntN(len(s.waiting))
	w := s.waiting[i]
	s.waiting = slices.Delete(s.waiting, i, i+1)
	return w, true
}
