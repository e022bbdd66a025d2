package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"dsyncfs/remote"
)

// session is a logged-in connection. Its goroutines (watch, keepalive, those of streams) end with the connection, and
// Close waits for them.
//
// What ends a connection closes the wires, outermost first: closing an ssh channel, which is what the wire of an inner
// hop is, waits for its peer, and that may be dead.
type session struct {
	host     string
	opts     Options
	interval time.Duration // of keepalives
	hops     []*link
	client   *ssh.Client // of the last hop
	wire     *wire
	done     chan struct{}
	work     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	cause   error // why the connection was lost; nil before, and after Close
	streams map[*stream]struct{}
}

func newSession(d *Dialer, t *target, hops []*link) *session {
	l := hops[len(hops)-1]
	s := &session{host: t.name, opts: d.opts, interval: d.opts.KeepaliveInterval, hops: hops, client: l.client, wire: l.wire,
		done: make(chan struct{}), streams: make(map[*stream]struct{})}
	// The configuration may ask for more keepalives, not for fewer: a dead peer is noticed within our own time.
	if t.aliveInterval > 0 && t.aliveInterval < s.interval {
		s.interval = t.aliveInterval
	}
	s.work.Go(s.keepalive)
	go s.watch()
	return s
}

// watch waits for the end of the connection and closes done as its last act.
func (s *session) watch() {
	err := s.client.Wait()
	if errors.Is(err, io.EOF) {
		err = errors.New("closed by the other end")
	}
	s.fail(err)
	closeLinks(s.hops)
	close(s.done)
}

// fail ends the connection for a reason. The first reason counts.
func (s *session) fail(cause error) {
	s.mu.Lock()
	if s.cause == nil && !s.closed {
		s.cause = &remote.Error{Host: s.host, Class: remote.ErrTransient, Err: fmt.Errorf("connection lost: %w", cause)}
	}
	s.mu.Unlock()
	closeWires(s.hops)
}

// keepalive asks a silent peer for an answer and gives it up after the timeout. sshd answers a request it does not know
// with a failure, which is an answer (OpenSSH clientloop.c: server_alive_check).
func (s *session) keepalive() {
	limit := s.opts.KeepaliveTimeout
	var asking atomic.Bool
	timer := time.NewTimer(s.interval)
	defer timer.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-timer.C:
		}
		silence := s.wire.silence()
		if silence >= limit {
			s.fail(fmt.Errorf("no answer for %v", silence.Round(time.Millisecond)))
			return
		}
		next := s.interval - silence
		if next <= 0 {
			next = min(s.interval, limit-silence)
			if asking.CompareAndSwap(false, true) {
				s.work.Go(func() {
					s.alive()
					asking.Store(false)
				})
			}
		}
		timer.Reset(next)
	}
}

// alive asks the peer for an answer and says whether one came before the connection ended. After false, Done is near.
func (s *session) alive() bool {
	_, _, err := s.client.SendRequest("keepalive@openssh.com", true, nil)
	if err != nil {
		closeWires(s.hops) // a broken line may be noticed in one direction only
	}
	return err == nil
}

// Probe implements [remote.Prober].
func (s *session) Probe(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.work.Go(func() {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		s.work.Go(func() { s.alive() })
		select {
		case <-s.done:
		case <-timer.C:
			if silence := s.wire.silence(); silence >= limit {
				s.fail(fmt.Errorf("no answer for %v", silence.Round(time.Millisecond)))
			}
		}
	})
}

func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Wait() error {
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// lost is the error of an operation that failed because the connection ended.
func (s *session) lost() error {
	if err := s.Wait(); err != nil {
		return err
	}
	return &remote.Error{Host: s.host, Class: remote.ErrTransient, Err: fmt.Errorf("session is closed: %w", os.ErrClosed)}
}

func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	var wait sync.WaitGroup
	for st := range s.streams {
		wait.Go(func() { st.Close() })
	}
	s.mu.Unlock()
	wait.Wait()
	closeWires(s.hops)
	<-s.done
	s.work.Wait()
	return nil
}

func (s *session) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// channel is an opened ssh channel of type "session".
type channel struct {
	ssh.Channel
	requests <-chan *ssh.Request
	err      error
}

func (s *session) Start(ctx context.Context, cmd []string) (remote.Conn, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("run on %s: %w", s.host, err)
	}
	if len(cmd) == 0 || cmd[0] == "" {
		return nil, fmt.Errorf("run on %s: empty command", s.host)
	}
	if s.isClosed() {
		return nil, s.lost()
	}
	line := remote.Quote(cmd)
	opened := make(chan channel, 1)
	s.work.Go(func() { opened <- s.open(line) })
	select {
	case c := <-opened:
		return s.stream(ctx, line, c)
	case <-ctx.Done():
		// Nobody waits for the channel any more; it is closed when it comes, or with the connection.
		s.work.Go(func() {
			if c := <-opened; c.err == nil {
				c.Close()
				ssh.DiscardRequests(c.requests)
			}
		})
		return nil, fmt.Errorf("run on %s: %w", s.host, context.Cause(ctx))
	}
}

// open opens a channel and has the server run line there.
func (s *session) open(line string) channel {
	ch, requests, err := s.client.OpenChannel("session", nil)
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return channel{err: &remote.Error{Host: s.host, Op: "run on", Class: remote.ErrRefused, Err: fmt.Errorf("no session: %s", refused.Message)}}
		}
		return channel{err: s.unanswered()}
	}
	ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{line}))
	if err == nil && ok {
		return channel{Channel: ch, requests: requests}
	}
	if err != nil {
		return channel{err: s.unanswered()}
	}
	ch.Close()
	s.work.Go(func() { ssh.DiscardRequests(requests) })
	return channel{err: &remote.Error{Host: s.host, Op: "run on", Class: remote.ErrRefused, Err: errors.New("the server does not run commands")}}
}

// unanswered says why a request got no answer: the server closed the channel, or the connection ended.
func (s *session) unanswered() error {
	if !s.alive() {
		return s.lost()
	}
	return &remote.Error{Host: s.host, Op: "run on", Class: remote.ErrRefused, Err: errors.New("the server closed the session")}
}

func (s *session) stream(ctx context.Context, line string, c channel) (remote.Conn, error) {
	if c.err != nil {
		return nil, c.err
	}
	st := newStream(s, line, c)
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.streams[st] = struct{}{}
	}
	s.mu.Unlock()
	st.run(ctx)
	if closed {
		st.Close()
		return nil, s.lost()
	}
	return st, nil
}

func (s *session) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}
