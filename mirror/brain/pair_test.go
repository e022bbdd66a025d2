package brain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
	"dsyncfs/remote/dsync"
)

// clock is the time of both accounts of a test. It stands while a round runs, so that histories are the same every time.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Unix(1_767_261_600, 0)} }

func (c *clock) time() time.Time { return c.now }

// tick lets a second pass.
func (c *clock) tick() time.Time {
	c.now = c.now.Add(time.Second)
	return c.now
}

func options(side, host string, c *clock) brain.Options {
	return brain.Options{
		Hostname: host, Side: side, PeerName: "peer of " + host, Guard: guard.Policy{MaxMissingPercent: 20, MaxMissingMails: 50},
		Now: func() int64 { return c.now.Unix() }, Logger: slog.New(slog.DiscardHandler),
	}
}

// link connects two brains: in the process, or by the wire format over a pipe of bytes.
type link func() (master, slave brain.Peer, err error)

func inProcess() (brain.Peer, brain.Peer, error) {
	a, b := brain.Pipe()
	return a, b, nil
}

func overWire() (brain.Peer, brain.Peer, error) {
	a, b := bytePipe()
	m, s := dsync.NewPeer(a, dsync.Options{Name: "slave"}), dsync.NewPeer(b, dsync.Options{Name: "master"})
	errs := make(chan error, 1)
	go func() { errs <- s.Handshake(context.Background()) }()
	return m, s, errors.Join(m.Handshake(context.Background()), <-errs)
}

// bytePipe connects two ends as a pipe of the system does: what is written waits until it is read, some of it.
func bytePipe() (io.ReadWriteCloser, io.ReadWriteCloser) {
	a, b := net.Pipe()
	return newBuffered(a), newBuffered(b)
}

// buffered writes behind the back of the writer.
type buffered struct {
	net.Conn
	out   chan []byte
	close func()
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 16)}
	ended := make(chan struct{})
	b.close = sync.OnceFunc(func() { close(ended) })
	go func() {
		defer c.Close()
		for {
			select {
			case chunk := <-b.out:
				_, _ = c.Write(chunk) // the reader finds out
			case <-ended:
				for len(b.out) > 0 {
					_, _ = c.Write(<-b.out)
				}
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error {
	b.close()
	_ = b.SetDeadline(time.Now().Add(time.Second)) // unless it is closed by now
	return nil
}

// side is an account with the options of its brain.
type side struct {
	account *memstore.Account
	options brain.Options
}

// syncOnce makes one round with a as master and returns both sides' errors.
func syncOnce(a, b side, l link, req brain.Request) (brain.Outcome, error, error) {
	m, s, err := l()
	if err != nil {
		return brain.Outcome{}, err, nil
	}
	slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return b.account.Open(), nil }, nil)
	served := make(chan error, 1)
	go func() { served <- slave.Serve(context.Background(), s) }()
	master := brain.NewMaster(m, a.options)
	st := a.account.Open()
	out, err := master.Round(context.Background(), st, req)
	err = errors.Join(err, master.Close(), st.Close())
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	return out, err, <-served
}

func twoWay() brain.Request { return brain.Request{Type: item.SyncState} }

func pair(t testing.TB, c *clock) (side, side) {
	t.Helper()
	a := side{memstore.NewAccount("a", c.time), options("a", "a.example", c)}
	b := side{memstore.NewAccount("b", c.time), options("b", "b.example", c)}
	return a, b
}

// contents is what an account holds as others see it: one line per mailbox and message.
func contents(t rapid.TB, s side) string {
	t.Helper()
	st := s.account.Open()
	ctx := context.Background()
	if _, err := st.Refresh(ctx, store.RefreshOptions{Witness: func(mail.Name, string) bool { return true }}); err != nil {
		t.Fatalf("refresh %s: %v", s.options.Side, err)
	}
	boxes, _, err := st.Tree(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, box := range boxes {
		if box.Status.GUID.IsZero() && !box.Subscribed {
			continue // whether a level of hierarchy exists by itself depends on the store
		}
		st := box.Status
		fmt.Fprintf(&b, "%s guid=%s validity=%d next=%d n=%d subscribed=%v\n",
			box.Name, st.GUID, st.UIDValidity, st.UIDNext, st.Messages, box.Subscribed)
		if st.GUID.IsZero() {
			continue
		}
		writeMessages(t, &b, s, st.GUID)
	}
	return b.String()
}

func writeMessages(t rapid.TB, b *strings.Builder, s side, guid mail.MailboxGUID) {
	ctx := context.Background()
	mb, err := s.account.Open().Open(ctx, guid)
	if err != nil {
		t.Fatal(err)
	}
	defer mb.Close()
	for m, err := range mb.Messages(0) {
		if err != nil {
			t.Fatal(err)
		}
		body, err := mb.Body(ctx, m.UID)
		if err != nil {
			t.Fatalf("body of %d: %v", m.UID, err)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
		fmt.Fprintf(b, "  %d %s [%s] %v %d %q\n", m.UID, m.GUID, m.Flags, m.Keywords, m.Received, text)
	}
}

// bodies counts each content of an account.
func bodies(t rapid.TB, s side) map[string]int {
	n := map[string]int{}
	for _, line := range strings.Split(contents(t, s), "\n") {
		if i := strings.IndexByte(line, '"'); i >= 0 {
			n[line[i:]]++
		}
	}
	return n
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiet syncs until nothing changes and requires that both sides are equal then.
func quiet(t rapid.TB, a, b side, l link) {
	t.Helper()
	for range 4 {
		out, err, serr := syncOnce(a, b, l, twoWay())
		must(t, errors.Join(err, serr))
		if !out.Changed && !out.Desync {
			break
		}
	}
	ca, cb := contents(t, a), contents(t, b)
	if ca != cb {
		t.Fatalf("sides differ:\n--- a\n%s--- b\n%s", ca, cb)
	}
	out, err, serr := syncOnce(a, b, l, twoWay())
	must(t, errors.Join(err, serr))
	if out.Changed || out.Desync || out.Added+out.Sent+out.Flags+out.Expunged > 0 {
		t.Fatalf("a sync of equal sides did something: %+v", out)
	}
}
