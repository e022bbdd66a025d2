package sim

import (
	"errors"
	"io"
	"sync"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
)

// errCut is what both ends of a link get that was cut.
var errCut = errors.New("the connection was lost")

// link connects two replicas for one round. It can be cut after a number of items in both directions together.
type link struct {
	mu    sync.Mutex
	left  int // items until the cut; negative: never
	ended bool
	ends  []io.Closer
	wire  *wire // nil: within the process

	// drains: only the end that noticed the cut is closed. The other one gets what was under way first.
	drains bool
}

// count counts an item that one end sends and cuts the link if it was one too many.
func (l *link) count(end io.Closer) error {
	l.mu.Lock()
	if l.left > 0 {
		l.left--
	}
	cut := l.left == 0 || l.ended
	l.mu.Unlock()
	if !cut {
		return nil
	}
	if l.drains {
		end.Close()
		return errCut
	}
	l.cut()
	return errCut
}

// mend lets a link that was not cut yet hold.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		l.left = -1
	}
	if w := l.wire; w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.left > 0 {
			w.left = -1
		}
	}
}

func (l *link) cut() {
	l.mu.Lock()
	l.ended = true
	ends := l.ends
	l.mu.Unlock()
	for _, e := range ends {
		e.Close()
	}
}

// linkPeer is one end of a link, as the replica r has it.
type linkPeer struct {
	brain.Peer
	r *replica
	l *link
}

// turn waits for the turn of the caller. A dead process has no connection.
func (p *linkPeer) turn(what string) error {
	p.r.w.sched.yield(p.r.name + " " + what)
	if p.r.isDead() {
		p.l.cut()
		return errDead
	}
	return nil
}

func (p *linkPeer) Send(it item.Item) error {
	p.r.pushed.sent(it, p.r)
	err := p.turn("send")
	if err == nil {
		err = p.l.count(p.Peer)
	}
	if err != nil {
		closeBody(it)
		return err
	}
	return p.l.reason(p.Peer.Send(it))
}

func closeBody(it item.Item) {
	if m, ok := it.(*item.Mail); ok && m.Body != nil {
		m.Body.Close()
	}
}

func (p *linkPeer) Flush() error {
	if err := p.turn("flush"); err != nil {
		return err
	}
	return p.l.reason(p.Peer.Flush())
}

func (p *linkPeer) Recv() (item.Item, error) {
	it, err := p.Peer.Recv()
	if terr := p.turn("recv"); err == nil {
		err = terr
	}
	if err == nil {
		p.r.pushed.received(it, len(p.r.turn) > 0)
	}
	return it, p.l.reason(err)
}

// reason makes all errors of a link that was cut the same, whichever end noticed what first.
func (l *link) reason(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && (l.ended || l.wire != nil && l.wire.cut()) {
		return errCut
	}
	return err
}

// bytePipe returns two ends of a connection of bytes, each of which buffers what the other has not read. It is cut after
// limit bytes in both directions together; negative: never. If it drains, what was written before the cut can still be read.
func bytePipe(limit int, drains bool) (a, b *wireEnd) {
	p := &wire{left: limit, drains: drains}
	p.cond = sync.NewCond(&p.mu)
	return &wireEnd{p, 0}, &wireEnd{p, 1}
}

type wire struct {
	mu    sync.Mutex
	cond  *sync.Cond
	lanes [2][]byte // written by end 0, by end 1
	gone  [2]bool   // the end was closed
	left  int

	drains bool
}

// cut reports whether the limit was reached.
func (w *wire) cut() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left == 0
}

// laneSize is how much may be under way in one direction, in bytes.
const laneSize = 16 << 10

type wireEnd struct {
	*wire
	side int
}

func (e *wireEnd) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	from := &e.lanes[1-e.side]
	for {
		switch {
		case e.left == 0 && !e.drains:
			return 0, errCut
		case e.gone[e.side]:
			return 0, io.ErrClosedPipe
		case len(*from) > 0:
			n := copy(p, *from)
			*from = (*from)[n:]
			e.cond.Broadcast()
			return n, nil
		case e.gone[1-e.side], e.left == 0:
			return 0, io.EOF
		}
		e.cond.Wait()
	}
}

func (e *wireEnd) Write(p []byte) (n int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	to := &e.lanes[e.side]
	for len(p) > 0 {
		switch {
		case e.left == 0:
			return n, errCut
		case e.gone[e.side], e.gone[1-e.side]:
			return n, io.ErrClosedPipe
		case len(*to) >= laneSize:
			e.cond.Wait() // the reader was woken when the lane got its bytes
			continue
		}
		k := min(len(p), laneSize-len(*to))
		if e.left > 0 {
			k = min(k, e.left)
			e.left -= k
		}
		*to = append(*to, p[:k]...)
		p, n = p[k:], n+k
		e.cond.Broadcast()
	}
	return n, nil
}

func (e *wireEnd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone[e.side] = true
	e.cond.Broadcast()
	return nil
}
