package fusefs

import (
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ownOp is an operation that the engine is about to make through the mount's own path, so that watchers wake and the
// kernel's caches follow. Paths are below the root. A link is known by its new name.
type ownOp struct{ op, dir, name, toDir, toName string }

// ownOps is the register of such operations. Their handler neither journals nor locks: the engine did.
type ownOps struct {
	pending atomic.Int32 // handlers look no further while it is 0
	mu      sync.Mutex
	ops     map[ownOp]*ownCall
	over    bool           // nothing begins any more
	calls   sync.WaitGroup // those that may not be waited for by who began them
}

// ownCall is one registered operation.
type ownCall struct {
	flags uint // of renameat2, which the kernel is not told so that it does not judge by its cache
	seen  bool // the handler had it
	late  bool // it was made behind the mount before the handler had it
}

func newOwnOps() *ownOps { return &ownOps{ops: map[ownOp]*ownCall{}} }

// expect registers an operation until forget. One of the same names that is registered already is replaced: the engine
// makes one change of a name at a time.
func (o *ownOps) expect(op ownOp, flags uint) *ownCall {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ops[op] == nil {
		o.pending.Add(1)
	}
	c := &ownCall{flags: flags}
	o.ops[op] = c
	return c
}

// take returns the registered operation that a request is, nil if it is a program's. late says that it was made meanwhile: there
// is nothing left to do.
func (o *ownOps) take(op ownOp) (c *ownCall, late bool) {
	if o.pending.Load() == 0 {
		return nil, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if c = o.ops[op]; c == nil {
		return nil, false
	}
	c.seen = true
	o.drop(op)
	return c, c.late
}

// overtake says that an operation is made behind the mount. It returns false if the handler had it already.
func (o *ownOps) overtake(c *ownCall) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	c.late = !c.seen
	return c.late
}

// forget ends the registration and reports whether the handler had the operation, or it was made behind the mount.
func (o *ownOps) forget(op ownOp, c *ownCall) (done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ops[op] == c {
		o.drop(op)
	}
	return c.seen || c.late
}

// begin runs a call that its caller may leave behind. It returns false if the mount is gone.
func (o *ownOps) begin(call func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over {
		o.calls.Go(call)
	}
	return !o.over
}

// end waits for the calls that were left behind. The mount is gone, so that they come to an end.
func (o *ownOps) end() {
	o.mu.Lock()
	o.over = true
	o.mu.Unlock()
	o.calls.Wait()
}

func (o *ownOps) drop(op ownOp) {
	delete(o.ops, op)
	o.pending.Add(-1)
}

// own makes a change through the mount's path. What the handler never saw (the mount is gone, or the kernel answered from
// its cache) is made behind the mount. What it saw when the connection broke may have been made or not: it is made
// again, and that it is no longer to be made is no error.
func (m *Mount) own(op ownOp, flags uint, direct, call func() error) error {
	if !m.alive.Load() {
		return direct()
	}
	c := m.fs.own.expect(op, flags)
	ended := func() error {
		err := call()
		done := m.fs.own.forget(op, c)
		switch {
		case err == nil:
			m.fs.notices.flush() // of what else it changed: a promise of the mail in another directory
			return nil
		case !done:
			return direct()
		case errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED):
			if err := direct(); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
				return err
			}
			return nil
		}
		return err
	}
	if !m.fs.opts.CommitDeliveries {
		return ended()
	}
	result := make(chan error, 1)
	if !m.fs.own.begin(func() { result <- ended() }) {
		m.fs.own.forget(op, c)
		return direct()
	}
	return m.awaitOwn(c, result, direct)
}

// heldUp is how long a call through the mount may take while a program is held, until it counts as held up by that: some hundred
// times what it takes else.
const heldUp = 20 * time.Millisecond

// awaitOwn waits for a call through the mount. One that hangs in the kernel, on the lock of a directory that this keeps for a program
// which waits for the engine, is left there, and the change is made behind the mount. Watchers of the directory hear of the program's
// own change when that is answered, and find both.
func (m *Mount) awaitOwn(c *ownCall, result <-chan error, direct func() error) error {
	select {
	case err := <-result:
		return err
	case <-m.fs.notices.held.any():
	}
	timer := time.NewTimer(heldUp)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
	}
	if !m.fs.own.overtake(c) {
		return <-result
	}
	return direct()
}
