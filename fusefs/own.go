package fusefs

import (
	"sync"
	"sync/atomic"
)

// ownOp is an operation that the engine is about to make through the mount's own path, so that watchers wake and the
// kernel's caches follow. Paths are below the root. A link is known by its new name.
type ownOp struct{ op, dir, name, toDir, toName string }

// ownOps is the register of such operations. Their handler neither journals nor locks: the engine did.
type ownOps struct {
	pending atomic.Int32 // handlers look no further while it is 0
	mu      sync.Mutex
	ops     map[ownOp]*ownCall
}

// ownCall is one registered operation.
type ownCall struct {
	flags uint // of renameat2, which the kernel is not told so that it does not judge by its cache
	seen  bool // the handler had it
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

// take returns the registered operation that a request is, nil if it is a program's.
func (o *ownOps) take(op ownOp) *ownCall {
	if o.pending.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.ops[op]
	if c == nil {
		return nil
	}
	c.seen = true
	o.drop(op)
	return c
}

// forget ends the registration and reports whether the handler had the operation.
func (o *ownOps) forget(op ownOp, c *ownCall) (seen bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ops[op] == c {
		o.drop(op)
	}
	return c.seen
}

func (o *ownOps) drop(op ownOp) {
	delete(o.ops, op)
	o.pending.Add(-1)
}
