package dsync

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/item"
)

// letter is what a mail of so many bytes may look like: text with a base64 part.
func letter(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "Received: by host%d.example.org with ESMTP id %x; Mon, 5 Jan 2026\n.a line with a dot\n", i%7, i*7919)
	}
	return b.Bytes()[:size]
}

// passed counts the bytes that go through a connection and can slow them down.
type passed struct {
	net.Conn
	n     int
	every time.Duration // for each KiB
}

func (c *passed) Write(p []byte) (int, error) {
	c.n += len(p)
	time.Sleep(c.every * time.Duration(len(p)) / 1024)
	return c.Conn.Write(p)
}

// pairOf connects two peers, of which a's side is counted.
func pairOf(t *testing.T, a, b Options, every time.Duration) (pa, pb *Peer, out, back *passed) {
	t.Helper()
	left, right := net.Pipe()
	out, back = &passed{Conn: left, every: every}, &passed{Conn: right}
	pa, pb = NewPeer(out, a), NewPeer(back, b)
	t.Cleanup(func() { pa.Close(); pb.Close() })
	if err := together(pa.Handshake, pb.Handshake); err != nil {
		t.Fatal(err)
	}
	out.n, back.n = 0, 0
	return pa, pb, out, back
}

// carry sends a mail and a request from a to b and compares what arrives.
func carry(t *testing.T, a, b *Peer, mail []byte) {
	t.Helper()
	q := &item.Request{GUID: "g", UID: 7}
	done := sendAll(a, &item.Mail{GUID: "m", Body: body(string(mail))}, q)
	it, err := b.Recv()
	m, ok := it.(*item.Mail)
	if err != nil || !ok {
		t.Fatalf("%T, %v", it, err)
	}
	if got, err := io.ReadAll(m.Body); err != nil || !bytes.Equal(got, mail) {
		t.Fatalf("%d bytes of %d, %v", len(got), len(mail), err)
	}
	if it, err = b.Recv(); err != nil || !reflect.DeepEqual(it, q) {
		t.Fatalf("%+v, %v", it, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestCompressionInBothDirections(t *testing.T) {
	mail := letter(300_000)
	for name, c := range map[string]struct {
		a, b Compression
		want bool
	}{
		"one side wants it":          {CompressAlways, CompressSlow, true},
		"both want it":               {CompressAlways, CompressAlways, true},
		"nobody wants it yet":        {CompressSlow, CompressSlow, false},
		"one side wants none":        {CompressAlways, CompressNever, false},
		"the other side wants none":  {CompressNever, CompressAlways, false},
		"the other side has no wish": {CompressSlow, CompressAlways, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b, out, back := pairOf(t, Options{Compress: c.a}, Options{Compress: c.b}, 0)
			for range 2 {
				carry(t, a, b, mail)
				carry(t, b, a, mail)
			}
			for way, n := range map[string]int{"out": out.n, "back": back.n} {
				if compressed := n < len(mail); compressed != c.want {
					t.Errorf("%s: %d bytes for two mails of %d", way, n, len(mail))
				}
			}
		})
	}
}

// meet exchanges the handshakes of a round, with so long a round trip.
func meet(t *testing.T, a, b *Peer, trip time.Duration) {
	t.Helper()
	for _, p := range [][2]*Peer{{a, b}, {b, a}} {
		time.Sleep(trip)
		done := sendAll(p[0], &item.Handshake{Hostname: "h", Dsyncfs: 3})
		if _, err := p[1].Recv(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(trip)
	done := sendAll(a, &item.EndOfList{})
	if _, err := b.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestSlowConnectionIsCompressed once that is known, and the other side follows. A fast one is not.
func TestSlowConnectionIsCompressed(t *testing.T) {
	mail := letter(1200 << 10)
	for name, c := range map[string]struct {
		every, trip time.Duration
		want        bool
	}{
		"slow and far":  {time.Millisecond, 20 * time.Millisecond, true},
		"slow and near": {time.Millisecond, time.Millisecond, false},
		"fast and far":  {10 * time.Microsecond, 20 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, out, back := pairOf(t, Options{Timeout: -1}, Options{Timeout: -1}, c.every)
				meet(t, a, b, c.trip)
				carry(t, a, b, mail)
				if out.n < len(mail) {
					t.Errorf("%d bytes: compressed before anything was known", out.n)
				}
				out.n = 0
				carry(t, a, b, mail)
				carry(t, b, a, mail)
				if compressed := out.n < len(mail)/2 && back.n < len(mail)/2; compressed != c.want {
					t.Errorf("%d bytes there and %d back for mails of %d", out.n, back.n, len(mail))
				}
			})
		})
	}
}

// TestParcelsTellOfASlowConnection: no write ever waits for them.
func TestParcelsTellOfASlowConnection(t *testing.T) {
	for name, c := range map[string]struct {
		trip time.Duration
		want bool
	}{"slow": {100 * time.Millisecond, true}, "fast": {time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, out, _ := pairOf(t, Options{Timeout: -1}, Options{Timeout: -1}, 0)
				meet(t, a, b, 20*time.Millisecond)
				out.n = 0
				slice := string(letter(64 << 10))
				const count = 20
				for i := range count {
					p := &item.Parcel{GUID: "g", Offset: uint64(i * len(slice)), Size: uint64(count * len(slice)), Data: slice}
					done := sendAll(a, p)
					if _, err := b.Recv(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(c.trip)
					back := sendAll(b, &item.Receipt{GUID: "g", Got: p.Offset + uint64(len(slice))})
					if _, err := a.Recv(); err != nil {
						t.Fatal(err)
					}
					if err := errors.Join(<-done, <-back); err != nil {
						t.Fatal(err)
					}
				}
				if compressed := out.n < count*len(slice); compressed != c.want {
					t.Errorf("%d bytes for %d", out.n, count*len(slice))
				}
			})
		})
	}
}

// TestFlushedItemsArriveAtOnce: nothing stays behind in a compressor while both sides wait.
func TestFlushedItemsArriveAtOnce(t *testing.T) {
	a, b, _, _ := pairOf(t, Options{Compress: CompressAlways}, Options{}, 0)
	for i := range 200 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		done := sendAll(from, &item.Wake{})
		if it, err := to.Recv(); err != nil || !reflect.DeepEqual(it, &item.Wake{}) {
			t.Fatalf("%T, %v", it, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// compressedStream is what a side sends that compresses from the start.
func compressedStream(t testing.TB, items ...item.Item) []byte {
	t.Helper()
	var sent bytes.Buffer
	said := greeting(t)
	p := NewPeer(stream{strings.NewReader(said)}, Options{Compress: CompressAlways, RawOut: &sent})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-sendAll(p, items...); err != nil {
		t.Fatal(err)
	}
	return sent.Bytes()
}

// TestEndOfACompressedConnection: between two items it is an end in good order, elsewhere it is none.
func TestEndOfACompressedConnection(t *testing.T) {
	whole := compressedStream(t, &item.Request{GUID: "g", UID: 7})
	if !bytes.Contains(whole, []byte("\nZ\n")) {
		t.Fatalf("%q", whole)
	}
	items, _, err := receive(whole)
	if len(items) != 1 || err != io.EOF {
		t.Errorf("%d items, %v", len(items), err)
	}
	long := compressedStream(t, &item.Mail{GUID: "m", Body: body(string(letter(200_000)))})
	for _, n := range []int{len(long) - 1, len(long) - 100, len(long) / 2} {
		if _, _, err := receive(long[:n]); n < len(long)-10 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v", n, len(long), err)
		}
	}
}

func TestBrokenCompressionIsRefused(t *testing.T) {
	whole := compressedStream(t, &item.Request{GUID: "g", UID: 7})
	start := bytes.Index(whole, []byte("\nZ\n")) + 3
	for name, c := range map[string]string{
		"garbage":           "\xff\xff\xff\xff\xff\xff\xff\xff",
		"an end of its own": "\x03\x00", // an empty final block
		"twice":             "\x00\x02\x00\xfd\xffZ\n",
	} {
		_, _, err := receive(append(bytes.Clone(whole[:start]), c...))
		if !errors.Is(err, ErrProtocol) || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := NewPeer(stream{bytes.NewReader(whole)}, Options{Compress: CompressNever})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if it, err := p.Recv(); !errors.Is(err, ErrProtocol) {
		t.Errorf("not announced: %T, %v", it, err)
	}
}

// TestBombIsBounded: of a line of 32 MiB in 50 KiB no more is taken than of one that is not compressed.
func TestBombIsBounded(t *testing.T) {
	whole := compressedStream(t, &item.Request{GUID: "g", UID: 7})
	bomb := bytes.NewBuffer(whole[:bytes.Index(whole, []byte("\nZ\n"))+3])
	w, err := flate.NewWriter(bomb, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(bytes.Repeat([]byte("R"), 32<<20))
	w.Flush()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err = receive(bomb.Bytes())
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("%v", err)
	}
	n := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d bytes were allocated for %d", n, bomb.Len())
	if n > 12<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// FuzzInflate holds that no compressed stream makes a Peer panic or hang, and that it ends with io.EOF or an error of a known
// kind.
func FuzzInflate(f *testing.F) {
	whole := compressedStream(f, &item.Request{GUID: "g", UID: 7}, &item.Mail{GUID: "m", Body: body("a\n.b\n")}, &item.Done{})
	start := bytes.Index(whole, []byte("\nZ\n")) + 3
	head := bytes.Clone(whole[:start])
	f.Add(bytes.Clone(whole[start:]))
	f.Add(bytes.Clone(whole[start : len(whole)-3]))
	f.Fuzz(func(t *testing.T, data []byte) {
		items, bodies, err := receive(append(bytes.Clone(head), data...))
		if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) {
			t.Fatalf("%d items, %d bodies, %v", len(items), len(bodies), err)
		}
	})
}
