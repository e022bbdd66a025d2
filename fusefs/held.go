package fusefs

import (
	"context"
	"sync"
)

// held counts the programs whose calls wait for [Engine.Durable]. With commit=remote they wait for the engine, and the kernel keeps
// the locks of their directories for them: the engine must not wait for the kernel to take a notice about these meanwhile.
type held struct {
	mu    sync.Mutex
	n     int
	began chan struct{} // closed while there are any
}

func newHeld() *held { return &held{began: make(chan struct{})} }

// awaitDurable is [Engine.Durable] for a program.
func (f *fileSystem) awaitDurable(ctx context.Context) error {
	if f.opts.CommitDeliveries {
		f.notices.held.enter()
		defer f.notices.held.leave()
	}
	return f.engine.Durable(ctx)
}

func (h *held) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n++; h.n == 1 {
		close(h.began)
	}
}

func (h *held) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n--; h.n == 0 {
		h.began = make(chan struct{})
	}
}

// any returns a channel that is closed as soon as there is one.
func (h *held) any() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.began
}
