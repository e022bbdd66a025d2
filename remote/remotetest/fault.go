package remotetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"dsyncfs/remote"
)

// Kind is what happens at a byte of a faulty direction.
type Kind uint8

const (
	None     Kind = iota
	Stall         // nothing moves any more, until Close
	Drop          // the connection is lost: this and every later call fails with class ErrTransient
	Truncate      // reading: io.EOF too early; writing: the rest is taken and thrown away
)

// Side is the plan for one direction.
type Side struct {
	Split int   // at most so many bytes move in one call of the inner Conn; 0: as many as asked for
	Fault Kind  // what happens
	At    int64 // after so many bytes have moved
}

// Plan is the plan for a Conn.
type Plan struct{ Read, Write Side }

// ErrDropped is the cause inside the error after a Drop.
var ErrDropped = errors.New("connection dropped by the test")

// Wrap returns conn with the faults of plan. The faults are hit at exactly the byte named, however the bytes were cut
// into calls.
func Wrap(conn remote.Conn, plan Plan) remote.Conn {
	return &faulty{Conn: conn, read: direction{Side: plan.Read}, write: direction{Side: plan.Write},
		closed: make(chan struct{}), dropped: make(chan struct{})}
}

type faulty struct {
	remote.Conn
	read  direction // used by the reader only
	write direction // used by the writer only

	closeOnce, dropOnce sync.Once
	closed, dropped     chan struct{}
}

type direction struct {
	Side
	moved int64
}

// room is how many of n bytes may move now; 0 means that the fault is due.
func (d *direction) room(n int) int {
	if d.Split > 0 {
		n = min(n, d.Split)
	}
	if d.Fault != None {
		n = int(min(int64(n), d.At-d.moved))
	}
	return n
}

func (f *faulty) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n := f.read.room(len(p))
	if n <= 0 {
		return 0, f.fault(f.read.Fault)
	}
	n, err := f.Conn.Read(p[:n])
	f.read.moved += int64(n)
	return n, f.explain(err)
}

func (f *faulty) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n := f.write.room(len(p) - done)
		if n <= 0 && f.write.Fault == Truncate {
			return len(p), nil
		}
		if n <= 0 {
			return done, f.fault(f.write.Fault)
		}
		n, err = f.Conn.Write(p[done : done+n])
		f.write.moved += int64(n)
		done += n
		if err != nil {
			return done, f.explain(err)
		}
	}
	return done, nil
}

func (f *faulty) fault(kind Kind) error {
	switch kind {
	case Truncate:
		return io.EOF
	case Drop:
		f.dropOnce.Do(func() { close(f.dropped) })
		f.Conn.Close()
		return f.lost()
	}
	select {
	case <-f.closed:
		return fmt.Errorf("stalled connection: %w", os.ErrClosed)
	case <-f.dropped:
		return f.lost()
	}
}

// explain gives the error of the other direction's Drop, if there was one.
func (f *faulty) explain(err error) error {
	select {
	case <-f.dropped:
		if err != nil {
			return f.lost()
		}
	default:
	}
	return err
}

func (f *faulty) lost() error {
	return &remote.Error{Host: "faulty connection", Class: remote.ErrTransient, Err: ErrDropped}
}

func (f *faulty) Wait() error { return f.explain(f.Conn.Wait()) }

func (f *faulty) Close() error {
	f.closeOnce.Do(func() { close(f.closed) })
	return f.Conn.Close()
}
