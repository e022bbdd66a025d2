package brain

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
)

// Peer carries items to and from the other side. Send and Recv may be called by two goroutines at once. Send may keep an
// item until Flush and takes over its body. Recv returns io.EOF when the other side closed in good order; the body of an
// item is read before the next Recv and closed by the receiver. Close unblocks both.
type Peer interface {
	Send(item.Item) error
	Flush() error
	Recv() (item.Item, error)
	Close() error
}

// ErrProtocol is wrapped by errors about a peer that says what is not due.
var ErrProtocol = errors.New("protocol error")

// ErrPeer is wrapped by errors that the other side reported.
var ErrPeer = errors.New("the other side failed")

// ErrGaveUp is wrapped by the error about a peer that gave up without a reason. A Dovecot that is the destination of a backup
// and has deleted a mailbox, to make it anew in the next round, does that.
var ErrGaveUp = fmt.Errorf("%w and gave up", ErrPeer)

// readyPeer is a Peer that can tell that Recv would not wait. Items of long lists then need no other goroutine.
type readyPeer interface {
	Peer
	// Ready reports whether the next Recv returns at once with an item or an error. It is false while a body is to be read.
	Ready() bool
}

// conversation is a Peer whose next item can be waited for together with other events.
type conversation struct {
	peer    Peer
	ready   func() bool // of a readyPeer; nil: it cannot tell
	demand  chan struct{}
	items   chan received
	waiting bool // an item was demanded and not delivered yet
	woken   bool // the other side said that it changed, while something else was going on
	done    chan struct{}

	aside func(item.Item) (taken bool, err error) // takes items that are due anywhere; may be nil
}

type received struct {
	item item.Item
	err  error
}

func newConversation(p Peer) *conversation {
	c := &conversation{peer: p, demand: make(chan struct{}), items: make(chan received, 1), done: make(chan struct{})}
	if r, ok := p.(readyPeer); ok {
		c.ready = r.Ready
	}
	go c.read()
	return c
}

// read delivers one item per demand, so that a body is drained before the next item is read. It ends when demand is closed.
func (c *conversation) read() {
	defer close(c.done)
	for range c.demand {
		it, err := c.peer.Recv()
		c.items <- received{it, err}
	}
}

// next returns the channel on which the next item will come.
func (c *conversation) next() <-chan received {
	if !c.waiting {
		c.waiting = true
		c.demand <- struct{}{}
	}
	return c.items
}

// recv waits for the next item.
func (c *conversation) recv(ctx context.Context) (item.Item, error) {
	for {
		r, err := c.receive(ctx)
		if err != nil {
			return nil, err
		}
		if r.err != nil {
			return nil, r.err
		}
		if _, wake := r.item.(*item.Wake); wake {
			c.woken = true
			continue
		}
		if taken, err := c.takeAside(r.item); taken || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		return r.item, nil
	}
}

// receive waits for what the Peer delivers next. What has come already is taken here: handing each message of a long list from one
// goroutine to another would cost more than decoding it.
func (c *conversation) receive(ctx context.Context) (received, error) {
	if !c.waiting && ctx.Err() == nil && c.ready != nil && c.ready() {
		it, err := c.peer.Recv()
		return received{it, err}, nil
	}
	select {
	case <-ctx.Done():
		return received{}, context.Cause(ctx)
	case r := <-c.next():
		c.waiting = false
		return r, nil
	}
}

// awaitAside waits until done is closed and meanwhile takes items that are due anywhere. Any other is left for recv.
func (c *conversation) awaitAside(ctx context.Context, done <-chan struct{}) error {
	for c.aside != nil {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case got := <-c.next():
			if got.err == nil {
				if taken, err := c.aside(got.item); err != nil {
					c.waiting = false
					return err
				} else if taken {
					c.waiting = false
					continue
				}
			}
			c.items <- got // there is room, as nothing more was demanded
			return await(ctx, done)
		}
	}
	return await(ctx, done)
}

// takeAside takes an item that is due anywhere.
func (c *conversation) takeAside(it item.Item) (taken bool, err error) {
	if c.aside == nil {
		return false, nil
	}
	return c.aside(it)
}

// idle tells a Peer that can know when silence is no error.
func (c *conversation) idle(idle bool) {
	if p, ok := c.peer.(interface{ Idle(bool) }); ok {
		p.Idle(idle)
	}
}

// explain asks a Peer about an error that came from the other side: it may know its name, and how its program ended.
func (c *conversation) explain(err error) error {
	p, ok := c.peer.(interface{ Explain(error) error })
	var sending *sendError
	if ok && (errors.Is(err, ErrPeer) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &sending)) {
		return p.Explain(err)
	}
	return err
}

func (c *conversation) send(items ...item.Item) error {
	for _, it := range items {
		if err := c.peer.Send(it); err != nil {
			return &sendError{err}
		}
	}
	return nil
}

func (c *conversation) flush() error {
	if err := c.peer.Flush(); err != nil {
		return &sendError{err}
	}
	return nil
}

// sendError is an error of sending. That the other side does not listen any more is seldom the cause: it may have said why.
type sendError struct{ err error }

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

// close ends the conversation and waits for its reader.
func (c *conversation) close() error {
	err := c.peer.Close()
	close(c.demand)
	if c.waiting {
		<-c.items
	}
	<-c.done
	return err
}

// expect receives an item of type T. A peer that gave up sends Done instead.
func expect[T item.Item](ctx context.Context, c *conversation, what string) (T, error) {
	var zero T
	it, err := c.recv(ctx)
	if err != nil {
		return zero, fmt.Errorf("waiting for %s: %w", what, unexpectedEOF(err))
	}
	got, ok := it.(T)
	if f, gaveUp := it.(*item.Finish); gaveUp && !ok && f.Error != "" {
		return zero, finishError(f)
	}
	if !ok {
		return zero, fmt.Errorf("waiting for %s: %w", what, unexpected(it))
	}
	return got, nil
}

// list receives items of type T up to the end of their list and hands each to f.
func list[T item.Item](ctx context.Context, c *conversation, what string, f func(T) error) error {
	for {
		it, err := c.recv(ctx)
		if err != nil {
			return fmt.Errorf("receiving %s: %w", what, unexpectedEOF(err))
		}
		switch it := it.(type) {
		case T:
			if err := f(it); err != nil {
				return fmt.Errorf("receiving %s: %w", what, err)
			}
		case *item.EndOfList:
			return nil
		case *item.Finish:
			if it.Error != "" {
				return finishError(it)
			}
			return fmt.Errorf("receiving %s: %w", what, unexpected(it))
		default:
			return fmt.Errorf("receiving %s: %w", what, unexpected(it))
		}
	}
}

// unexpected says what an item means at a place where another one was due.
func unexpected(it item.Item) error {
	switch it.(type) {
	case *item.Done:
		return ErrGaveUp
	}
	return fmt.Errorf("%w: unexpected %T", ErrProtocol, it)
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
