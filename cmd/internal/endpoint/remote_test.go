package endpoint

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/store"
	"dsyncfs/remote"
)

// fakeHost is a host with sessions that can be lost.
type fakeHost struct {
	mu       sync.Mutex
	dials    int
	sessions []*fakeSession
	fail     error // of the next Start
}

func (h *fakeHost) Dial(context.Context) (remote.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dials++
	s := &fakeSession{host: h, done: make(chan struct{})}
	h.sessions = append(h.sessions, s)
	return s, nil
}

type fakeSession struct {
	host *fakeHost
	done chan struct{}
	once sync.Once
}

func (s *fakeSession) lose()                 { s.once.Do(func() { close(s.done) }) }
func (s *fakeSession) Done() <-chan struct{} { return s.done }
func (s *fakeSession) Wait() error           { <-s.done; return nil }
func (s *fakeSession) Close() error          { s.lose(); return nil }

func (s *fakeSession) Start(ctx context.Context, cmd []string) (remote.Conn, error) {
	if s.host.fail != nil {
		return nil, s.host.fail
	}
	return newFakeConn(ctx), nil
}

// fakeConn is a program that says nothing and ends when its input is closed, unless it is deaf.
type fakeConn struct {
	deaf  bool
	ended chan struct{}
	once  sync.Once
	calls []string
	mu    sync.Mutex
}

func newFakeConn(ctx context.Context) *fakeConn {
	c := &fakeConn{ended: make(chan struct{})}
	context.AfterFunc(ctx, c.end)
	return c
}

func (c *fakeConn) end() { c.once.Do(func() { close(c.ended) }) }

func (c *fakeConn) note(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call)
}

func (c *fakeConn) Read([]byte) (int, error)    { <-c.ended; return 0, io.EOF }
func (c *fakeConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *fakeConn) Wait() error                 { <-c.ended; return nil }

func (c *fakeConn) CloseWrite() error {
	c.note("CloseWrite")
	if !c.deaf {
		c.end()
	}
	return nil
}

func (c *fakeConn) Close() error {
	c.note("Close")
	c.end()
	return nil
}

func newRemote(t *testing.T, word string, o RemoteOptions) *Remote {
	t.Helper()
	o.Log = discard()
	if o.Stderr == nil {
		o.Stderr = io.Discard
	}
	r, err := NewRemote(settings(t), location(t, word), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestTheConnectionIsKeptAndMadeAnewWhenItIsLost(t *testing.T) {
	r := newRemote(t, "host", RemoteOptions{})
	h := &fakeHost{}
	r.dialer = h
	start := func(wantDials int) {
		t.Helper()
		c, err := r.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if h.dials != wantDials {
			t.Errorf("%d dials, want %d", h.dials, wantDials)
		}
	}
	if err := r.Reach(t.Context()); err != nil {
		t.Fatal(err)
	}
	start(1)
	start(1)
	h.sessions[0].lose()
	start(2)
	start(2)
	h.fail = errors.New("too many sessions")
	if _, err := r.start(t.Context()); !errors.Is(err, h.fail) {
		t.Errorf("%v", err)
	}
}

// The context of a dial bounds the start of the stream and not its life.
func TestTheStreamOutlivesTheDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSession{host: &fakeHost{}, done: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		c, err := startStream(ctx, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		conn := c.(*stream).Conn.(*fakeConn)
		select {
		case <-conn.ended:
			t.Fatal("it ended with the context of its start")
		default:
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if c, err := startStream(ctx, s, nil); err == nil || c != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
	})
}

func TestAProgramMayEndByItself(t *testing.T) {
	for _, c := range []struct {
		what string
		deaf bool
		took time.Duration
	}{{"one that ends", false, 0}, {"one that does not", true, farewell}} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := newFakeConn(context.Background())
				conn.deaf = c.deaf
				begin := time.Now()
				if err := (gentleConn{conn}).Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(begin); took != c.took {
					t.Errorf("it took %s, want %s", took, c.took)
				}
				if got := strings.Join(conn.calls, " "); got != "CloseWrite Close" {
					t.Errorf("called: %s", got)
				}
			})
		})
	}
}

func TestTheCommandOfARemote(t *testing.T) {
	for word, want := range map[string]string{
		"host":                     "dsyncfs dsync-server",
		"ann@host":                 "dsyncfs dsync-server -u ann",
		"ssh://host/x%20-o%20a=b":  "x -o a=b dsync-server",
		"/usr/bin/x dsync-server":  "/usr/bin/x dsync-server",
		"remote:login@mail.server": "dsyncfs dsync-server",
	} {
		if r := newRemote(t, word, RemoteOptions{}); strings.Join(r.cmd, " ") != want {
			t.Errorf("%s runs %q, want %q", word, r.cmd, want)
		}
	}
	c := settings(t)
	c.RemoteCmd = "ssh -l%{login} %{host} doveadm dsync-server -u%{user}"
	for word, want := range map[string]string{
		"host": "ssh host doveadm dsync-server", "ann@host": "ssh host doveadm dsync-server -uann",
		"remote:bob@host": "ssh -lbob host doveadm dsync-server",
	} {
		r, err := NewRemote(c, location(t, word), RemoteOptions{Log: discard(), Stderr: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.cmd, " "); got != want {
			t.Errorf("%s runs %q, want %q", word, got, want)
		}
	}
}

func TestAProgramThatIsNotThereIsMissedEarly(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile(filepath.Join(dir, "here"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	here := newRemote(t, "./here dsync-server", RemoteOptions{})
	t.Chdir("/")
	if err := here.Reach(t.Context()); err != nil {
		t.Errorf("a program relative to where it was named: %v", err)
	}
	if err := newRemote(t, "./not-here dsync-server", RemoteOptions{}).Reach(t.Context()); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("%v", err)
	}
}

// What a program at the other end has to say is shown with its name, and its exit is the cause of a conversation that fails.
func TestTheWordsOfAProgram(t *testing.T) {
	var out bytes.Buffer
	r, err := NewRemote(settings(t), location(t, "sh -c false"), RemoteOptions{Log: discard(), Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.cmd = []string{"sh", "-c", "echo alas >&2; exit 3"}
	var exit *remote.ExitError
	if _, err := r.Dial(t.Context()); !errors.As(err, &exit) || exit.Status != 3 {
		t.Errorf("%v", err)
	}
	if out.String() != "sh: alas\n" {
		t.Errorf("%q", out.String())
	}
}

// A second location on this machine: a whole round with a slave in this process, which is gone when the peer is closed.
func TestASecondLocationHere(t *testing.T) {
	c := settings(t)
	a := openLocal(t, c, "maildir:"+makeMaildir(t, filepath.Join(t.TempDir(), "a"), 3), false)
	opts := brain.Options{
		Hostname: "host", Side: "local", PeerName: "b", Guard: guard.DefaultPolicy(), Logger: discard(), Live: true,
		Now: func() int64 { return time.Now().Unix() },
	}
	path := filepath.Join(t.TempDir(), "b")
	r, err := NewRemote(c, location(t, "maildir:"+path), RemoteOptions{MayCreate: true, Slave: opts, Log: discard(), Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Reach(t.Context()); err != nil {
		t.Error(err)
	}
	peer, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	master := brain.NewMaster(peer, opts)
	s, err := a.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := master.Round(t.Context(), s, brain.Request{Type: item.SyncFull})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if out.Sent != 3 || !master.Live() {
		t.Errorf("%d mails were sent, live: %v", out.Sent, master.Live())
	}
	// It watches: a delivery there wakes us.
	addMail(t, path, 77)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := master.Idle(ctx); err != nil {
		t.Errorf("no word of the delivery: %v", err)
	}
	if err := errors.Join(master.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	var known int
	b := openLocal(t, c, "maildir:"+path, false)
	if err := b.View(t.Context(), func(tx store.CatalogTx) error {
		for range tx.Mailboxes() {
			known++
		}
		return nil
	}); err != nil || known != 1 {
		t.Errorf("%d mailboxes are known there, %v", known, err)
	}
}
