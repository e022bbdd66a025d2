package fusefs

import (
	"log/slog"
	"sync"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// kernel is what the notifier needs of a FUSE connection.
type kernel interface {
	EntryNotify(parent uint64, name string) fuse.Status
	InodeNotify(node uint64, off, length int64) fuse.Status
	InodeNotifyStoreCache(node uint64, off int64, data []byte) fuse.Status
}

// notice is one thing that the kernel must forget: a name in a directory, or with an empty name an inode's attributes and
// pages (of a directory: its cached listing); or what do tells it.
type notice struct {
	node inode.ID
	name string
	do   func(kernel) fuse.Status
	done chan<- struct{} // closed when everything queued before is sent
}

// notifier tells the kernel what changed. Handlers only put notices into its queue: the kernel takes the directory's lock
// for one, which it holds while it waits for a handler. One goroutine sends them, in order; stop ends it.
type notifier struct {
	log   *slog.Logger
	held  *held
	mu    sync.Mutex
	queue []notice
	busy  bool // notices taken from the queue are being sent
	wake  chan struct{}
	quit  chan struct{}
	ended chan struct{}
	begun bool
	over  bool
}

func newNotifier(log *slog.Logger) *notifier {
	return &notifier{log: log, held: newHeld(), wake: make(chan struct{}, 1), quit: make(chan struct{}), ended: make(chan struct{})}
}

// start begins sending.
func (n *notifier) start(k kernel) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun || n.over {
		return
	}
	n.begun = true
	go n.run(k)
}

func (n *notifier) run(k kernel) {
	defer close(n.ended)
	for {
		n.mu.Lock()
		batch := n.queue
		n.queue = nil
		n.busy = len(batch) > 0
		n.mu.Unlock()
		for _, x := range batch {
			n.send(k, x)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-n.wake:
		case <-n.quit:
			return
		}
	}
}

// send tells one thing. ENOENT means that the kernel does not have it; after an unmount everything fails.
func (n *notifier) send(k kernel, x notice) {
	var st fuse.Status
	switch {
	case x.done != nil:
		close(x.done)
		return
	case x.do != nil:
		st = x.do(k)
	case x.name != "":
		st = k.EntryNotify(uint64(x.node), x.name)
	default:
		st = k.InodeNotify(uint64(x.node), 0, 0)
	}
	if st != fuse.OK && st != fuse.ENOENT {
		n.log.Debug("a notice did not reach the kernel", "node", x.node, "name", x.name, "err", st)
	}
}

func (n *notifier) put(x notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over || !n.begun {
		if x.done != nil {
			close(x.done)
		}
		return
	}
	n.queue = append(n.queue, x)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// entry makes the kernel look a name up again.
func (n *notifier) entry(dir inode.ID, name string) { n.put(notice{node: dir, name: name}) }

// inode makes the kernel ask for attributes, pages or the listing again.
func (n *notifier) inode(id inode.ID) { n.put(notice{node: id}) }

// flush waits until everything queued so far has been sent, or a program is held meanwhile: what is queued is sent later then.
// Never call it from a handler.
func (n *notifier) flush() {
	n.mu.Lock()
	idle := len(n.queue) == 0 && !n.busy
	n.mu.Unlock()
	if idle {
		return
	}
	done := make(chan struct{})
	n.put(notice{done: done})
	select {
	case <-done:
	case <-n.held.any():
	}
}

// stop ends the notifier; what is queued is dropped.
func (n *notifier) stop() {
	n.mu.Lock()
	if n.over {
		n.mu.Unlock()
		return
	}
	n.over = true
	begun := n.begun
	queue := n.queue
	n.queue = nil
	n.mu.Unlock()
	for _, x := range queue {
		if x.done != nil {
			close(x.done)
		}
	}
	close(n.quit)
	if begun {
		<-n.ended
	}
}
