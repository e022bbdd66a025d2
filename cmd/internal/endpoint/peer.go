package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/remote"
	"dsyncfs/remote/dsync"
)

// localPeer waits for the slave when it is closed.
type localPeer struct {
	brain.Peer
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

// localGrace is how long a slave in this process may take to end by itself.
const localGrace = 10 * time.Second

func (p *localPeer) Close() error {
	err := p.Peer.Close()
	p.once.Do(func() {
		select {
		case <-p.done:
		case <-time.After(localGrace):
			p.cancel()
			<-p.done
		}
		p.cancel()
	})
	return err
}

// farewell is how long a remote program gets to end by itself once its input is closed.
const farewell = 2 * time.Second

// gentleConn lets the remote program end by itself before it is ended.
type gentleConn struct{ remote.Conn }

func (c gentleConn) Close() error {
	if c.CloseWrite() == nil {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = c.Wait()
		}()
		select {
		case <-ended:
		case <-time.After(farewell):
		}
		defer func() { <-ended }() // Close makes both end
	}
	return c.Conn.Close()
}

// streamPeer names the other side in errors and ends its program when closed.
type streamPeer struct {
	*dsync.Peer
	name string
	conn remote.Conn
}

// Explain says of the error of a round which side it came from, and of a program that went away in the middle how it ended.
func (p *streamPeer) Explain(err error) error {
	var said *brain.PeerError
	switch {
	case errors.As(err, &said):
		if p.PeerIsDsyncfs() {
			return err // it names itself
		}
	case errors.Is(err, dsync.ErrTimeout):
		return err
	case errors.Is(err, brain.ErrGaveUp), p.Ended():
		if exit := p.explain(nil); exit != nil {
			return &endedError{exit, err}
		}
	default:
		return err
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// endedError is that the remote program ended in the middle of a round.
type endedError struct {
	exit error // names the program and says how it ended
	at   error // what was due
}

func (e *endedError) Error() string { return fmt.Sprintf("%v (%v)", e.exit, e.at) }

// Unwrap returns both, as far as at says more than that nobody listens any more.
func (e *endedError) Unwrap() []error {
	if remote.Classify(e.at) == remote.ErrTransient {
		return []error{e.exit}
	}
	return []error{e.exit, e.at}
}

// explain adds the exit of the remote program to an error of the stream, which often is the real cause.
func (p *streamPeer) explain(err error) error {
	if errors.Is(err, dsync.ErrTimeout) {
		return err // then it is we who end the program
	}
	p.conn.CloseWrite()
	ended := make(chan error, 1)
	go func() { ended <- p.conn.Wait() }()
	select {
	case werr := <-ended:
		if werr != nil {
			return werr
		}
	case <-time.After(2 * time.Second):
		p.conn.Close()
		<-ended
	}
	return err
}
