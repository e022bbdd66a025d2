package dsync

import (
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// watch notices that a connection makes no progress. Only time in which a read or a write waits for the peer counts: a side
// that works on its own store is not silent.
type watch struct {
	expired func(after time.Duration) // called once, from the timer's goroutine

	mu      sync.Mutex
	timeout time.Duration // 0: none
	timer   *time.Timer   // nil until the first wait
	armed   bool
	stopped bool
	waits   int       // reads and writes that wait
	last    time.Time // begin or end of the last read or write
}

// begin notes that a read or write starts to wait, end that it made progress.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits++
	w.last = time.Now()
	w.arm()
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits--
	w.last = time.Now()
}

func (w *watch) setTimeout(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timeout = d
	w.last = time.Now()
	w.armed = false
	w.arm()
}

// arm starts the timer if it has something to wait for. It is called with mu held.
func (w *watch) arm() {
	if w.armed || w.stopped || w.timeout <= 0 || w.waits == 0 {
		return
	}
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(w.timeout, w.check)
		return
	}
	w.timer.Reset(w.timeout)
}

// check runs when the timer fires: the last progress may be more recent than its start.
func (w *watch) check() {
	w.mu.Lock()
	idle := time.Since(w.last)
	switch {
	case w.stopped || !w.armed:
	case w.timeout <= 0 || w.waits == 0:
		w.armed = false
	case idle < w.timeout:
		w.timer.Reset(w.timeout - idle)
	default:
		w.stopped = true
		after := w.timeout
		w.mu.Unlock()
		w.expired(after)
		return
	}
	w.mu.Unlock()
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// watchedReader and watchedWriter are the two directions of a connection under a watch, each copied to a raw log if there
// is one.
type watchedReader struct {
	io.Reader
	watch *watch
	raw   io.Writer
	ended *atomic.Bool
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.watch.begin()
	n, err := r.Reader.Read(p)
	r.watch.end()
	if err == io.EOF {
		r.ended.Store(true)
	}
	if r.raw != nil {
		r.raw.Write(p[:n])
	}
	return n, err
}

type watchedWriter struct {
	io.Writer
	watch *watch
	raw   io.Writer
	wrote func(n int, took time.Duration)
}

// Write hands p on in pieces, so that a long line over a slow connection is progress.
func (w *watchedWriter) Write(p []byte) (total int, err error) {
	for len(p) > 0 && err == nil {
		piece := p[:min(len(p), bufferSize)]
		if w.raw != nil {
			w.raw.Write(piece)
		}
		var n int
		w.watch.begin()
		start := time.Now()
		n, err = w.Writer.Write(piece)
		w.wrote(n, time.Since(start))
		w.watch.end()
		total += n
		p = p[n:]
	}
	return total, err
}
