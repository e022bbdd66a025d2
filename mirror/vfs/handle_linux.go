package vfs

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// handle is a descriptor that is closed when its last user is done, so that a Close beside a running operation never lets
// that operation act on another file that got the same number.
type handle struct {
	fd     int
	users  atomic.Int64 // the owner counts as one until Close
	closed atomic.Bool
}

func (h *handle) init(fd int) {
	h.fd = fd
	h.users.Store(1)
}

// acquire returns the descriptor, valid until release; os.ErrClosed after Close.
func (h *handle) acquire() (int, error) {
	if h.closed.Load() {
		return -1, os.ErrClosed
	}
	for {
		n := h.users.Load()
		if n == 0 {
			return -1, os.ErrClosed
		}
		if h.users.CompareAndSwap(n, n+1) {
			return h.fd, nil
		}
	}
}

func (h *handle) release() error {
	if h.users.Add(-1) == 0 {
		// Never repeated on EINTR: Linux has freed the number already.
		return unix.Close(h.fd)
	}
	return nil
}

// Close gives up the owner's share; os.ErrClosed if it was given up before.
func (h *handle) Close() error {
	if h.closed.Swap(true) {
		return os.ErrClosed
	}
	return h.release()
}

// Fd returns the descriptor, -1 after Close. It is valid only as long as the caller keeps the file or directory open.
func (h *handle) Fd() uintptr {
	if h.closed.Load() {
		return ^uintptr(0)
	}
	return uintptr(h.fd)
}

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// retryN is retry for calls with a result.
func retryN(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
