package mirror

import (
	"context"
	"time"

	"dsyncfs/mirror/brain"
)

// spare is a connection made ahead, to a remote that ends each with its round: to start a program there takes longer than to tell
// it of a mail.
type spare struct {
	ready   chan *brain.Master // closed if there is none
	dropped chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

// spareAge is how long a connection is kept for a round. A Dovecot gives up one that is silent for ten minutes.
const spareAge = 5 * time.Minute

// newSpare begins to make one. It must be taken or dropped.
func (p Pair) newSpare(ctx context.Context) *spare {
	ctx, cancel := context.WithCancel(ctx)
	s := &spare{ready: make(chan *brain.Master), dropped: make(chan struct{}), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer close(s.ready)
		peer, err := p.Dial(ctx)
		if err != nil {
			p.Logger.Debug("no connection ahead", "err", err)
			return
		}
		m := brain.NewMaster(peer, p.Options)
		old := time.NewTimer(spareAge)
		defer old.Stop()
		select {
		case s.ready <- m:
			return
		case <-s.dropped:
		case <-ctx.Done():
		case <-old.C:
		}
		if err := m.Close(); err != nil {
			p.Logger.Debug("closing the connection made ahead", "err", err)
		}
	}()
	return s
}

// take returns the connection, nil if there is none (any more). s may be nil.
func (s *spare) take() *brain.Master {
	if s == nil {
		return nil
	}
	defer s.drop()
	return <-s.ready
}

// dropTime is how long one that is being made may take to come to be, to be ended in good order.
const dropTime = 2 * time.Second

// drop ends the connection if it was not taken. s may be nil.
func (s *spare) drop() {
	if s == nil {
		return
	}
	close(s.dropped)
	timer := time.NewTimer(dropTime)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
	}
	s.cancel()
	<-s.done
}
