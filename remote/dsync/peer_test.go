package dsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"dsyncfs/mirror/item"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect makes two peers of the two ends of a synchronous pipe and shakes hands.
func connect(tb interface {
	Fatal(...any)
	Cleanup(func())
}, a, b Options) (*Peer, *Peer) {
	left, right := net.Pipe()
	pa, pb := NewPeer(left, a), NewPeer(right, b)
	tb.Cleanup(func() { pa.Close(); pb.Close() })
	if err := together(pa.Handshake, pb.Handshake); err != nil {
		tb.Fatal(err)
	}
	return pa, pb
}

func together(fs ...func(context.Context) error) error {
	errs := make([]error, len(fs))
	var wg sync.WaitGroup
	for i, f := range fs {
		wg.Go(func() { errs[i] = f(context.Background()) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// sendAll sends items and flushes, in a goroutine; the channel yields what came of it.
func sendAll(p *Peer, items ...item.Item) <-chan error {
	done := make(chan error, 1)
	go func() {
		for _, it := range items {
			if err := p.Send(it); err != nil {
				done <- err
				return
			}
		}
		done <- p.Flush()
	}()
	return done
}

// closeCounter is a body that counts how often it is closed.
type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func body(content string) *closeCounter { return &closeCounter{Reader: strings.NewReader(content)} }

func TestPeersKnowEachOther(t *testing.T) {
	a, b := connect(t, Options{Name: "b"}, Options{Name: "a", Minor: 6})
	if !a.PeerIsDsyncfs() || !b.PeerIsDsyncfs() || a.PeerMinor() != 6 || b.PeerMinor() != 5 || !a.Features().AllAttributes {
		t.Errorf("%v %v %d %d", a.PeerIsDsyncfs(), b.PeerIsDsyncfs(), a.PeerMinor(), b.PeerMinor())
	}
}

func TestEveryItemGoesOverThePipe(t *testing.T) {
	a, b := connect(t, Options{}, Options{})
	for name, items := range itemGenerators {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				it := items.Draw(t, "item")
				sent := sendAll(a, it, &item.EndOfList{})
				got, err := b.Recv()
				if err != nil || !reflect.DeepEqual(got, it) {
					t.Fatalf("got %+v, %v, want %+v", got, err, it)
				}
				if dot, err := b.Recv(); err != nil || !reflect.DeepEqual(dot, &item.EndOfList{}) {
					t.Fatalf("got %+v, %v", dot, err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestBodiesAreStreamedAndClosed(t *testing.T) {
	a, b := connect(t, Options{}, Options{})
	rapid.Check(t, func(t *rapid.T) {
		content := string(contents.Draw(t, "content"))
		m, attr := body(content), body(content)
		m.Reader = iotest.HalfReader(m.Reader)
		sent := sendAll(a, &item.Mail{GUID: "g", Body: m}, &item.Attribute{Key: "k", Stream: attr}, &item.Finish{})
		it, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(it.(*item.Mail).Body); err != nil || string(got) != content {
			t.Fatalf("got %q, %v, want %q", got, err, content)
		}
		it, err = b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		stream := it.(*item.Attribute).Stream
		if rapid.Bool().Draw(t, "read") {
			stream.Read(make([]byte, 3))
		}
		if it, err := b.Recv(); err != nil || !reflect.DeepEqual(it, &item.Finish{}) { // the rest of the stream is skipped
			t.Fatalf("%+v, %v", it, err)
		}
		if err := <-sent; err != nil || m.closed != 1 || attr.closed != 1 {
			t.Fatalf("%v, closed %d and %d times", err, m.closed, attr.closed)
		}
	})
}

func TestDoneAndEndOfStream(t *testing.T) {
	a, b := connect(t, Options{}, Options{})
	sent := sendAll(a, &item.Finish{}, &item.Done{})
	for _, want := range []item.Item{&item.Finish{}, &item.Done{}} {
		if it, err := b.Recv(); err != nil || !reflect.DeepEqual(it, want) {
			t.Fatalf("%+v, %v", it, err)
		}
	}
	for range 2 { // without waiting for the peer, which is not going to say anything
		if it, err := b.Recv(); err != io.EOF {
			t.Fatalf("%+v, %v", it, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	b.Close()
	if it, err := a.Recv(); err != io.EOF {
		t.Fatalf("%+v, %v", it, err)
	}
}

func TestStockPeerSeesNoExtension(t *testing.T) {
	slave := readFile(t, "testdata/traces/01-initial-mirror/slave-to-master.bin")
	var sent bytes.Buffer
	p := NewPeer(stream{bytes.NewReader(slave)}, Options{RawOut: &sent})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p.PeerIsDsyncfs() || p.PeerMinor() != 5 {
		t.Errorf("dsyncfs %v, minor %d", p.PeerIsDsyncfs(), p.PeerMinor())
	}
	for _, it := range []item.Item{&item.Wake{}, &item.Parcel{GUID: "g", Size: 2, Data: "d"}, &item.Receipt{GUID: "g", Got: 1}} {
		if err := p.Send(it); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%T: %v", it, err)
		}
	}
	sent.Reset()
	if err := <-sendAll(p, &item.Handshake{Hostname: "h", Dsyncfs: 1, Epoch: 7}, &item.Node{Parts: []string{"a"}, Messages: 3}); err != nil {
		t.Fatal(err)
	}
	want := "Hh\nNa\tn\n" // PeerIsDsyncfs decides, and the line without our fields is the shortest
	if got := sent.String(); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestPeerOfMinorZeroHasNoAttributes(t *testing.T) {
	slave := readFile(t, "testdata/traces/01-initial-mirror/slave-to-master.bin")
	slave = bytes.Replace(slave, []byte("\t3\t5\n"), []byte("\t3\t0\n"), 1)
	slave = bytes.Replace(slave, []byte("Atype\tkey\tvalue\tstream\tdeleted\tlast_change\tmodseq\n"), nil, 1)
	var sent bytes.Buffer
	p := NewPeer(stream{bytes.NewReader(slave)}, Options{RawOut: &sent})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	sent.Reset()
	stream := body("x")
	if err := <-sendAll(p, &item.Attribute{Key: "k", Stream: stream}, &item.EndOfList{}); err != nil {
		t.Fatal(err)
	}
	if sent.String() != ".\n" || stream.closed != 1 {
		t.Errorf("sent %q, closed %d times", sent.String(), stream.closed)
	}
}

// greeting is what a good peer of ours says first.
func greeting(tb testing.TB) string {
	var out bytes.Buffer
	p := NewPeer(struct {
		io.Reader
		io.Writer
		io.Closer
	}{strings.NewReader(""), &out, io.NopCloser(nil)}, Options{})
	if err := p.Handshake(context.Background()); !errors.Is(err, io.ErrUnexpectedEOF) {
		tb.Fatal(err)
	}
	return out.String()
}

// quietConn answers a waiting Read with io.EOF when it is closed, as an ssh channel does.
type quietConn struct {
	net.Conn
	first io.Reader
}

func (c *quietConn) Read(p []byte) (int, error) {
	if n, err := c.first.Read(p); err == nil {
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

func (c *quietConn) Write(p []byte) (int, error) { return len(p), nil }

func TestOwnCloseIsNotTheEndOfTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, right := net.Pipe()
		defer right.Close()
		p := NewPeer(&quietConn{left, strings.NewReader(greeting(t))}, Options{Timeout: time.Minute})
		if err := p.Handshake(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Recv(); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v", err)
		}
	})
}

func TestLongLinesOfLongKindsPass(t *testing.T) {
	a, b := connect(t, Options{}, Options{})
	it := &item.Attribute{Key: "k", Value: strings.Repeat("\n.", longLimit/4)}
	sent := sendAll(a, it)
	if got, err := b.Recv(); err != nil || !reflect.DeepEqual(got, it) {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	it.Value = strings.Repeat("x", longLimit)
	if err := a.Send(it); !errors.Is(err, ErrInvalid) {
		t.Errorf("a line that the peer would refuse: %v", err)
	}
	sent = sendAll(a, &item.EndOfList{})
	if got, err := b.Recv(); err != nil || !reflect.DeepEqual(got, &item.EndOfList{}) {
		t.Errorf("after an item that cannot be sent: %+v, %v", got, err)
	}
	<-sent
}

func TestBodyThatCannotBeReadClosesTheConnection(t *testing.T) {
	a, b := connect(t, Options{Name: "b"}, Options{Name: "a"})
	broken := errors.New("disk is broken")
	m := &closeCounter{Reader: io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken))}
	sent := sendAll(a, &item.EndOfList{}, &item.Mail{GUID: "g", Body: m})
	if err := <-sent; !errors.Is(err, broken) || m.closed != 1 {
		t.Errorf("%v, closed %d times", err, m.closed)
	}
	if _, err := b.Recv(); err != io.EOF { // nothing of it was flushed
		t.Errorf("receiver: %v", err)
	}
	if err := a.Send(&item.Done{}); !errors.Is(err, broken) {
		t.Errorf("later: %v", err)
	}
}

func TestLostConnectionEndsSendingOnly(t *testing.T) {
	lost := errors.New("connection is lost")
	p := NewPeer(struct {
		io.Reader
		io.Writer
		io.Closer
	}{strings.NewReader(greeting(t) + "X\n"), &failingWriter{after: 1, err: lost}, io.NopCloser(nil)}, Options{Name: "far"})
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := <-sendAll(p, &item.EndOfList{}); !errors.Is(err, lost) {
		t.Errorf("send: %v", err)
	}
	if it, err := p.Recv(); err != nil || !reflect.DeepEqual(it, &item.Done{}) {
		t.Errorf("what the peer had to say: %+v, %v", it, err)
	}
}

type failingWriter struct {
	after int
	err   error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, w.err
	}
	return len(p), nil
}

func TestCloseUnblocksBothHalves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := connect(t, Options{}, Options{})
		received := make(chan error, 1)
		go func() {
			_, err := a.Recv()
			received <- err
		}()
		sent := sendAll(a, &item.Mail{GUID: "g", Body: body(strings.Repeat("x", 4*bufferSize))})
		synctest.Wait() // both wait for the peer
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if err := <-received; !errors.Is(err, ErrClosed) {
			t.Errorf("receive: %v", err)
		}
		if err := <-sent; !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
		if err := a.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

func TestHandshakeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, right := net.Pipe()
		defer right.Close()
		ctx, cancel := context.WithCancelCause(context.Background())
		reason := errors.New("user gave up")
		p := NewPeer(left, Options{Name: "far"})
		done := make(chan error, 1)
		go func() { done <- p.Handshake(ctx) }()
		synctest.Wait()
		cancel(reason)
		if err := <-done; !errors.Is(err, reason) {
			t.Errorf("%v", err)
		}
	})
}

// TestBothHalvesAtOnce has both sides send a lot at the same time, as Dovecot may, and receive in another goroutine.
func TestBothHalvesAtOnce(t *testing.T) {
	a, b := connect(t, Options{}, Options{})
	const n = 300
	content := strings.Repeat(".\n\r\n", 1000)
	talk := func(p *Peer) error {
		var items []item.Item
		for i := range n {
			items = append(items, &item.Mail{GUID: "g", POP3Order: uint32(i), Body: body(content)})
		}
		sent := sendAll(p, append(items, &item.EndOfList{})...)
		for i := range n {
			it, err := p.Recv()
			if err != nil {
				return err
			}
			m := it.(*item.Mail)
			got, err := io.ReadAll(m.Body)
			if err != nil || string(got) != content || m.POP3Order != uint32(i) {
				return fmt.Errorf("mail %d: %d bytes, %w", i, len(got), err)
			}
		}
		if it, err := p.Recv(); err != nil || !reflect.DeepEqual(it, &item.EndOfList{}) {
			return fmt.Errorf("end: %+v, %w", it, err)
		}
		return <-sent
	}
	if err := together(func(context.Context) error { return talk(a) }, func(context.Context) error { return talk(b) }); err != nil {
		t.Fatal(err)
	}
}

// TestNothingOfAMailIsLogged runs a trace at the finest level.
func TestNothingOfAMailIsLogged(t *testing.T) {
	var logged bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: levelTrace}))
	data := readFile(t, "testdata/traces/01-initial-mirror/master-to-slave.bin")
	p := NewPeer(stream{bytes.NewReader(data)}, Options{Name: "far", Logger: logger})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := p.Recv(); err != nil {
			break
		}
	}
	if n := strings.Count(logged.String(), "item=*item.Mail\n"); n != 4 {
		t.Errorf("%d mails in the log:\n%s", n, logged.String())
	}
	for _, secret := range []string{"ann@example.org", "Body of one", "1767261600.M000001P1"} {
		if strings.Contains(logged.String(), secret) {
			t.Errorf("%q was logged", secret)
		}
	}
}

func TestRawLogsAreCopies(t *testing.T) {
	data := readFile(t, "testdata/traces/15-sieve/master-to-slave.bin")
	var in, out bytes.Buffer
	p := NewPeer(stream{bytes.NewReader(data)}, Options{RawIn: &in, RawOut: &out})
	defer p.Close()
	if err := p.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := p.Recv(); err != nil {
			break
		}
	}
	if !bytes.Equal(in.Bytes(), data) || out.String() != greeting(t) {
		t.Errorf("in %d bytes, out %q", in.Len(), out.String())
	}
}

// A side that reads as long as something is ready never waits, and misses nothing that came in one piece.
func TestReadyMeansThatNothingHasToBeWaitedFor(t *testing.T) {
	a, b := connect(t, Options{}, Options{Compress: CompressAlways})
	expect := func(when string, want bool) {
		t.Helper()
		if b.Ready() != want {
			t.Errorf("%s: ready is %v", when, !want)
		}
	}
	receive := func(want item.Item) item.Item {
		t.Helper()
		it, err := b.Recv()
		if err != nil || want != nil && !reflect.DeepEqual(it, want) {
			t.Fatalf("%+v, %v", it, err)
		}
		return it
	}
	expect("before anything came", false)
	sent := sendAll(a, &item.EndOfList{}, &item.EndOfList{}, &item.Mail{GUID: "g", UID: 1, Body: body("text\n")}, &item.EndOfList{}, &item.Done{})
	receive(&item.EndOfList{})
	expect("with a list to its end", true)
	receive(&item.EndOfList{})
	expect("with a mail", true)
	m := receive(nil).(*item.Mail)
	expect("while its body is to be read", false)
	if text, err := io.ReadAll(m.Body); err != nil || string(text) != "text\n" {
		t.Errorf("%q, %v", text, err)
	}
	receive(&item.EndOfList{})
	expect("before the end", true)
	receive(&item.Done{})
	expect("after it", true)
	if _, err := b.Recv(); err != io.EOF {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}

	half := NewPeer(stream{io.MultiReader(strings.NewReader(greeting(t)), strings.NewReader("X\nX"), iotest.ErrReader(io.ErrNoProgress))}, Options{})
	defer half.Close()
	if err := half.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	if half.Ready() {
		t.Error("ready before the line was read from the connection")
	}
}
