package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
	"dsyncfs/mirror/vfs"
)

// world is an engine between two accounts in memory, with a remote that can be away.
type world struct {
	t             *testing.T
	local, remote *memstore.Account
	journal       *journal.Journal
	engine        *mirror.Engine
	changed       chan struct{} // the remote's store changed

	mu    sync.Mutex
	away  error // why the remote cannot be reached
	dials int

	slaves sync.WaitGroup
	stop   func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldAway(t, nil)
}

// newWorldAway is newWorld with a remote that is away from the start, unless err is nil.
func newWorldAway(t *testing.T, err error) *world {
	t.Helper()
	w := &world{t: t, away: err, local: memstore.NewAccount("local", time.Now), remote: memstore.NewAccount("remote", time.Now), changed: make(chan struct{}, 1)}
	w.journal, err = journal.OpenFS(vfs.NewMem(time.Now), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pair := mirror.Pair{
		Open: func(context.Context) (store.Store, error) { return w.local.Open(), nil },
		Dial: w.dial, Options: w.options("local"), Logger: slog.New(slog.DiscardHandler),
	}
	w.engine = mirror.NewEngine(pair, brain.Request{Type: item.SyncState}, mirror.Timing{}, w.journal)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.engine.Run(ctx, time.Second) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("engine ended with %v", err)
		}
		w.slaves.Wait()
		if err := w.journal.Close(); err != nil {
			t.Error(err)
		}
	}
	return w
}

func (w *world) options(side string) brain.Options {
	return brain.Options{
		Hostname: side, Side: side, PeerName: "peer", Guard: guard.DefaultPolicy(), Now: func() int64 { return time.Now().Unix() },
		Logger: slog.New(slog.DiscardHandler),
	}
}

func (w *world) dial(ctx context.Context) (brain.Peer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials++
	if w.away != nil {
		return nil, w.away
	}
	ours, theirs := brain.Pipe()
	slave := brain.NewSlave(w.options("remote"), func(context.Context) (store.Store, error) { return w.remote.Open(), nil },
		func(context.Context) (<-chan struct{}, error) { return w.changed, nil })
	w.slaves.Go(func() { _ = slave.Serve(context.WithoutCancel(ctx), theirs) })
	return ours, nil
}

func (w *world) setAway(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = err
}

func (w *world) dialed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// deliver puts a mail into the local INBOX as a program does through the mount.
func (w *world) deliver(text string) string {
	w.t.Helper()
	base, err := w.local.Deliver("INBOX", []byte(text), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	w.record(mail.Event{Op: mail.EventAppend, Mailbox: "INBOX", File: base})
	return base
}

func (w *world) record(ev mail.Event) {
	w.t.Helper()
	if _, err := w.journal.Append(ev); err != nil {
		w.t.Fatal(err)
	}
	w.engine.Notify()
}

func count(a *memstore.Account) int { return len(a.Files("INBOX")) }

// settle lets d pass and waits until nothing moves.
func settle(d time.Duration) {
	time.Sleep(d) // in a synctest bubble: no real time passes
	synctest.Wait()
}

func TestLocalChangeReachesTheRemoteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		settle(time.Second)
		w.deliver("one")
		settle(50 * time.Millisecond)
		if n := count(w.remote); n != 1 {
			t.Fatalf("remote has %d mails after 50 ms", n)
		}
		settle(3 * time.Second)
		if s := w.engine.Status(); s.Queued != 0 || s.State != mirror.StateInSync {
			t.Errorf("status %+v", s)
		}
	})
}

func TestRemoteChangeIsFetchedWhenTheRemoteSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		settle(time.Second)
		if _, err := w.remote.Deliver("INBOX", []byte("from there"), time.Now()); err != nil {
			t.Fatal(err)
		}
		w.changed <- struct{}{}
		settle(50 * time.Millisecond)
		if n := count(w.local); n != 1 {
			t.Fatalf("local has %d mails", n)
		}
	})
}

func TestReconnectsWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAway(t, errors.New("no route"))
		defer w.stop()
		settle(10 * time.Minute)
		if n := w.dialed(); n > 25 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		for i := range 3 {
			w.deliver(fmt.Sprint(i))
		}
		settle(time.Second)
		if s := w.engine.Status(); s.State != mirror.StateOffline || s.Queued != 3 || !strings.Contains(s.Error, "no route") {
			t.Errorf("status %+v", s)
		}
		w.setAway(nil)
		settle(2 * time.Minute)
		if n := count(w.remote); n != 3 {
			t.Errorf("remote has %d mails after it came back", n)
		}
	})
}

func TestANetworkThatComesBackIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAway(t, errors.New("no route"))
		defer w.stop()
		settle(time.Hour) // the pauses are as long as they get
		w.deliver("waits")
		w.setAway(nil)
		w.engine.Retry()
		settle(100 * time.Millisecond)
		if n := count(w.remote); n != 1 {
			t.Errorf("remote has %d mails a moment after the network came back", n)
		}
	})
}

func TestBarrierWaitsForARoundThatBeganLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		settle(time.Second)
		w.deliver("durable")
		if err := w.engine.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := count(w.remote); n != 1 {
			t.Fatal("the barrier fell before the mail was there")
		}
	})
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAway(t, errors.New("no route"))
		defer w.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.engine.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

func TestUnlinkThroughTheMountIsAWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		var bases []string
		for i := range 100 {
			bases = append(bases, w.deliver(fmt.Sprint(i)))
		}
		settle(5 * time.Second)
		for _, base := range bases {
			w.record(mail.Event{Op: mail.EventExpunge, Mailbox: "INBOX", File: base + ":2,S"})
			if err := w.local.Vanish("INBOX", base); err != nil {
				t.Fatal(err)
			}
		}
		settle(5 * time.Second)
		if n := count(w.remote); n != 0 {
			t.Errorf("remote still has %d mails; %+v", n, w.engine.Status())
		}
	})
}

func TestGuardStopsTheSyncAndDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		var bases []string
		for i := range 100 {
			bases = append(bases, w.deliver(fmt.Sprint(i)))
		}
		settle(5 * time.Second)
		for _, base := range bases {
			if err := w.local.Vanish("INBOX", base); err != nil {
				t.Fatal(err)
			}
		}
		before := w.dialed()
		_, err := w.engine.Sync(t.Context(), func(*brain.Request) {})
		if !errors.Is(err, guard.ErrMassExpunge) {
			t.Fatalf("error %v", err)
		}
		settle(time.Minute)
		if n := w.dialed() - before; n > 12 {
			t.Errorf("%d attempts in a minute", n)
		}
		if n := count(w.remote); n != 100 {
			t.Fatalf("remote has %d mails", n)
		}
		_, err = w.engine.Sync(t.Context(), func(r *brain.Request) { r.AllowExpunge = []string{"INBOX"} })
		if err != nil {
			t.Fatal(err)
		}
		if n := count(w.remote); n != 0 {
			t.Errorf("remote has %d mails after the user's word", n)
		}
	})
}

func TestWhatWasWrittenJustBeforeTheEndIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		settle(time.Second)
		w.deliver("first")
		settle(11 * time.Millisecond) // its round may be under way
		w.deliver("second")
		w.stop()
		if n := count(w.remote); n != 2 {
			t.Errorf("remote has %d mails", n)
		}
	})
}
