package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"dsyncfs/remote"
)

// stream is one program at the other end. Between its user and the channel stand two pipes, because a channel's Read and
// Write cannot be interrupted; closing a pipe interrupts its user at once, whatever the peer does.
//
// Goroutines: stdin and stdout move the bytes, stderr the lines, and reap, which waits for the others, follows the
// program to its end.
type stream struct {
	s       *session
	line    string
	channel channel
	lines   *remote.Lines
	unhook  func() bool // stops watching the context; set by run

	in      *io.PipeReader // what the user wrote
	inUser  *io.PipeWriter
	outUser *io.PipeReader
	out     *io.PipeWriter // what the user will read
	exited  chan struct{}  // closed when the program's status is known
	ended   chan struct{}  // closed when all is over
	closing sync.Once
	err     error // what Wait says; set before ended is closed

	mu      sync.Mutex
	stopped bool
	cause   error // of the context, if that ended it
}

func newStream(s *session, line string, c channel) *stream {
	st := &stream{s: s, line: line, channel: c, lines: remote.NewLines(s.opts.Stderr), exited: make(chan struct{}), ended: make(chan struct{})}
	st.in, st.inUser = io.Pipe()
	st.outUser, st.out = io.Pipe()
	return st
}

func (st *stream) run(ctx context.Context) {
	st.unhook = context.AfterFunc(ctx, func() {
		cause := fmt.Errorf("%s: %w", st.s.host, context.Cause(ctx))
		st.stop(cause)
		st.finish()
	})
	st.s.work.Go(st.stdin)
	st.s.work.Go(st.stdout)
	st.s.work.Go(st.reap)
}

func (st *stream) Read(p []byte) (int, error) { return st.outUser.Read(p) }

func (st *stream) Write(p []byte) (int, error) { return st.inUser.Write(p) }

func (st *stream) CloseWrite() error { return st.inUser.Close() }

func (st *stream) Wait() error {
	<-st.ended
	return st.err
}

func (st *stream) Close() error {
	st.unhook()
	st.stop(fmt.Errorf("%s: %w", st.s.host, os.ErrClosed))
	st.finish()
	<-st.ended
	st.s.forget(st)
	return nil
}

// stop cuts the user off. What the program still writes is read and dropped, so that it does not block on it.
func (st *stream) stop(cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.stopped {
		return
	}
	st.stopped = true
	if !st.hasExited() {
		st.cause = cause
	}
	st.out.CloseWithError(cause)
	st.in.CloseWithError(cause)
}

// finish ends the program: TERM and the end of its input, KILL and the end of its output after the grace, the end of the
// connection after another one. A forced command ignores the signals, a dead peer all of it. Only the first call acts.
func (st *stream) finish() {
	st.closing.Do(func() {
		grace := time.AfterFunc(2*st.s.opts.Grace, func() {
			st.s.fail(errors.New("the end of a program was not confirmed"))
		})
		defer grace.Stop()
		st.signal(ssh.SIGTERM)
		select {
		case <-st.ended:
			return
		case <-time.After(st.s.opts.Grace):
		}
		st.signal(ssh.SIGKILL)
		st.channel.Close()
		<-st.ended
	})
}

func (st *stream) signal(sig ssh.Signal) {
	st.channel.SendRequest("signal", false, ssh.Marshal(struct{ Signal string }{string(sig)}))
}

// stdin moves what the user writes, to its end or until the user was cut off. It alone writes to the channel, which does
// not bear CloseWrite beside a Write.
func (st *stream) stdin() {
	_, err := io.Copy(channelWriter{st}, st.in)
	st.channel.CloseWrite()
	st.in.CloseWithError(err)
}

// channelWriter explains why a channel takes no more.
type channelWriter struct{ st *stream }

func (w channelWriter) Write(p []byte) (int, error) {
	n, err := w.st.channel.Write(p)
	if err == nil {
		return n, nil
	}
	if !w.st.hasExited() && !w.st.s.alive() {
		return n, w.st.s.lost()
	}
	return n, fmt.Errorf("%s: the program has closed its input: %w", w.st.s.host, syscall.EPIPE)
}

// stdout moves what the program writes. A channel ends in the same way when the program closes its output and when the
// connection breaks; only a peer that still answers, or has told the exit status, makes it the former.
func (st *stream) stdout() {
	_, err := io.Copy(st.out, st.channel)
	if err == nil && !st.hasExited() && !st.s.alive() {
		err = st.s.lost()
	}
	st.out.CloseWithError(err) // nil is io.EOF
	io.Copy(io.Discard, st.channel)
}

func (st *stream) hasExited() bool {
	select {
	case <-st.exited:
		return true
	default:
		return false
	}
}

// reap follows the channel's requests to its end.
func (st *stream) reap() {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(st.lines, st.channel.Stderr())
		st.lines.Flush()
	}()
	exit := st.follow()
	<-drained
	st.err = st.result(exit)
	closed := st.err
	if exit != nil {
		closed = fmt.Errorf("%s: the program has ended: %w", st.s.host, syscall.EPIPE)
	}
	st.in.CloseWithError(closed) // its user may have been cut off already; the first error counts
	close(st.ended)
}

// follow returns the status the server reports, nil if it reports none. It returns when the channel is closed.
func (st *stream) follow() (exit *remote.ExitError) {
	for request := range st.channel.requests {
		e := st.exitOf(request)
		if e != nil && exit == nil {
			exit = e
			close(st.exited)
		}
		if e == nil && request.WantReply {
			request.Reply(false, nil)
		}
	}
	return exit
}

// exitOf reads RFC 4254 section 6.10; nil if the request is another one or malformed.
func (st *stream) exitOf(request *ssh.Request) *remote.ExitError {
	exit := &remote.ExitError{Host: st.s.host, Command: st.line}
	switch request.Type {
	case "exit-status":
		if len(request.Payload) != 4 {
			return nil
		}
		exit.Status = int(int32(binary.BigEndian.Uint32(request.Payload)))
		return exit
	case "exit-signal":
		var sent struct {
			Signal     string
			CoreDumped bool
			Message    string
			Language   string
		}
		if ssh.Unmarshal(request.Payload, &sent) != nil {
			return nil
		}
		exit.Status, exit.Signal = -1, sent.Signal
		return exit
	}
	return nil
}

func (st *stream) result(exit *remote.ExitError) error {
	st.mu.Lock()
	cause := st.cause
	st.mu.Unlock()
	switch {
	case cause != nil:
		return fmt.Errorf("%s was stopped: %w", st.line, cause)
	case exit != nil && exit.Status == 0 && exit.Signal == "":
		return nil
	case exit != nil:
		exit.Stderr = st.lines.Tail()
		return exit
	case !st.s.alive():
		return st.s.lost()
	}
	return &remote.Error{Host: st.s.host, Class: remote.ErrTransient, Err: fmt.Errorf("%s ended without an exit status", st.line)}
}
