package remotetest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/remote"
)

// memory is a Conn that reads from in, collects what is written, and counts the size of its calls.
type memory struct {
	in, out bytes.Buffer
	largest int
	once    sync.Once
	closed  chan struct{}
}

func newMemory(in []byte) *memory {
	m := &memory{closed: make(chan struct{})}
	m.in.Write(in)
	return m
}

func (m *memory) Read(p []byte) (int, error) { m.largest = max(m.largest, len(p)); return m.in.Read(p) }
func (m *memory) Write(p []byte) (int, error) {
	m.largest = max(m.largest, len(p))
	return m.out.Write(p)
}
func (m *memory) Close() error      { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memory) CloseWrite() error { return nil }
func (m *memory) Wait() error       { <-m.closed; return nil }

func TestFaultsHitTheExactByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "content")
		side := Side{
			Split: rapid.IntRange(0, 9).Draw(t, "split"),
			Fault: rapid.SampledFrom([]Kind{None, Drop, Truncate}).Draw(t, "fault"),
			At:    rapid.Int64Range(0, 220).Draw(t, "at"),
		}
		moved, broken := len(content), false
		if side.Fault != None && side.At < int64(len(content)) {
			moved, broken = int(side.At), true
		}
		inner := newMemory(content)
		got, err := io.ReadAll(Wrap(inner, Plan{Read: side}))
		// A reader that has all asks once more, and then the drop at the very end is due.
		atEnd := side.At == int64(len(content))
		check(t, inner, side, got, content[:moved], err, (broken || atEnd) && side.Fault == Drop)

		inner, err = newMemory(nil), nil
		conn := Wrap(inner, Plan{Write: side})
		for rest := content; len(rest) > 0 && err == nil; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			_, err = conn.Write(rest[:n])
			rest = rest[n:]
		}
		check(t, inner, side, inner.out.Bytes(), content[:moved], err, broken && side.Fault == Drop)
	})
}

func check(t *rapid.T, inner *memory, side Side, got, want []byte, err error, dropped bool) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes moved, want %d", len(got), len(want))
	}
	if errors.Is(err, ErrDropped) != dropped || dropped && remote.Classify(err) != remote.ErrTransient || !dropped && err != nil {
		t.Fatalf("error %v, dropped %v", err, dropped)
	}
	if side.Split > 0 && inner.largest > side.Split {
		t.Fatalf("a call moved %d bytes, more than %d", inner.largest, side.Split)
	}
}

func TestStallLastsUntilClose(t *testing.T) {
	inner := newMemory([]byte("abcdef"))
	conn := Wrap(inner, Plan{Read: Side{Fault: Stall, At: 3}})
	if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, os.ErrClosed) {
		t.Errorf("stalled read: %v", err)
	}
}

func TestDropIsSeenByBothSidesAndWait(t *testing.T) {
	conn := Wrap(newMemory([]byte("abc")), Plan{Read: Side{Fault: Drop, At: 1}, Write: Side{Fault: Stall, At: 0}})
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write([]byte("x"))
		written <- err
	}()
	if _, err := io.ReadAll(conn); !errors.Is(err, ErrDropped) {
		t.Errorf("read: %v", err)
	}
	if err := <-written; !errors.Is(err, ErrDropped) {
		t.Errorf("stalled write: %v", err)
	}
}
