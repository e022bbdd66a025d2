package brain

import (
	"io"
	"sync"

	"dsyncfs/mirror/item"
)

// pipeDepth bounds the items under way in one direction of a Pipe; bodies are opened files, so it also bounds those.
const pipeDepth = 128

// Pipe returns two Peers that are connected within the process. Bodies are handed over as they are, without a copy.
func Pipe() (Peer, Peer) {
	ab, ba := newLane(), newLane()
	return &pipePeer{in: ba, out: ab}, &pipePeer{in: ab, out: ba}
}

// lane is one direction. Each end can close it once: the sender after its last item, the receiver when it stops reading.
type lane struct {
	items    chan item.Item
	sender   closer
	receiver closer
}

func newLane() *lane {
	return &lane{items: make(chan item.Item, pipeDepth), sender: newCloser(), receiver: newCloser()}
}

type closer struct {
	once *sync.Once
	done chan struct{}
}

func newCloser() closer { return closer{new(sync.Once), make(chan struct{})} }

func (c closer) close() { c.once.Do(func() { close(c.done) }) }

type pipePeer struct {
	in, out *lane
	body    io.Closer // of the item received last
}

func (p *pipePeer) Send(it item.Item) error {
	select {
	case <-p.out.sender.done:
	case <-p.out.receiver.done:
	default:
		select {
		case <-p.out.sender.done:
		case <-p.out.receiver.done:
		case p.out.items <- it:
			return nil
		}
	}
	closeBody(bodyOf(it))
	return io.ErrClosedPipe
}

func (p *pipePeer) Flush() error { return nil }

func (p *pipePeer) Recv() (item.Item, error) {
	closeBody(p.body)
	p.body = nil
	select {
	case it := <-p.in.items:
		p.body = bodyOf(it)
		return it, nil
	default:
	}
	select {
	case it := <-p.in.items:
		p.body = bodyOf(it)
		return it, nil
	case <-p.in.receiver.done:
		return nil, io.ErrClosedPipe
	case <-p.in.sender.done:
	}
	select { // what was sent before the close
	case it := <-p.in.items:
		p.body = bodyOf(it)
		return it, nil
	default:
		return nil, io.EOF
	}
}

func (p *pipePeer) Close() error {
	p.out.sender.close()
	p.in.receiver.close()
	for {
		select {
		case it := <-p.in.items:
			closeBody(bodyOf(it))
		default:
			return nil
		}
	}
}

func bodyOf(it item.Item) io.Closer {
	switch it := it.(type) {
	case *item.Mail:
		if it.Body != nil {
			return it.Body
		}
	case *item.Attribute:
		if it.Stream != nil {
			return it.Stream
		}
	}
	return nil
}

func closeBody(b io.Closer) {
	if b != nil {
		b.Close()
	}
}
