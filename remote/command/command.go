// Package command is the transport over a local program's standard input and output: a command line the user gave as
// location, or the system's ssh. Start with New and SSH; both return a Dialer for remote's ports.
//
// It refuses to put a shell between dsyncfs and the program. Each program runs in a process group of its own, so that
// a terminal's ^C reaches dsyncfs alone, which then ends the program in order, with whatever it started; see
// Options.Terminal for the exception.
//
// Lock order: a session's mutex before a conn's.
package command

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"dsyncfs/remote"
)

// DefaultGrace is the time a program gets between TERM and KILL.
const DefaultGrace = 5 * time.Second

// Options of a Dialer. The zero value is usable.
type Options struct {
	Host   string            // the name in errors; empty: the name of the program
	Stderr func(line string) // called for each line of standard error, bounded and printable; may be nil
	Grace  time.Duration     // between TERM and KILL; 0: DefaultGrace
	// Terminal lets the program ask at the terminal (for a passphrase). It then stays in our process group, because the
	// kernel stops any other that reads there; ^C reaches it too, and ending it does not reach what it started.
	Terminal bool

	Dir string   // working directory; empty: ours
	Env []string // environment; nil: ours, unchanged (protocol reference 12.2 tells what Dovecot passes in it)
}

// Dialer starts programs. Safe for concurrent use.
type Dialer struct {
	opts Options
	// program turns the command a caller wants to run into the one that is run here.
	program  func(cmd []string) ([]string, error)
	classify func(*remote.ExitError)
}

// New returns a Dialer whose sessions run the commands given to Start on this machine.
func New(opts Options) *Dialer {
	return &Dialer{
		opts:     opts.withDefaults(),
		program:  func(cmd []string) ([]string, error) { return cmd, nil },
		classify: func(*remote.ExitError) {},
	}
}

func (o Options) withDefaults() Options {
	if o.Grace <= 0 {
		o.Grace = DefaultGrace
	}
	return o
}

// Dial makes a session. There is no connection to make, so it cannot fail unless ctx has ended.
func (d *Dialer) Dial(ctx context.Context) (remote.Session, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &session{dialer: d, conns: make(map[*conn]struct{}), done: make(chan struct{})}, nil
}

// session is a set of running programs. It is never lost, only closed.
type session struct {
	dialer *Dialer
	done   chan struct{}

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{} // running
}

func (s *session) Start(ctx context.Context, cmd []string) (remote.Conn, error) {
	argv, err := s.dialer.program(cmd)
	if err != nil {
		return nil, err
	}
	host := s.dialer.opts.Host
	if len(argv) == 0 || argv[0] == "" {
		return nil, fmt.Errorf("run %s: empty command", host)
	}
	if host == "" {
		host = filepath.Base(argv[0])
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("run %s: %w", host, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &remote.Error{Host: host, Op: "run", Class: remote.ErrTransient, Err: errors.New("session is closed")}
	}
	c, err := start(s.dialer, host, argv)
	if err != nil {
		return nil, startError(host, argv[0], err)
	}
	s.conns[c] = struct{}{}
	c.unhook = context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	go c.reap(func() { s.forget(c) })
	return c, nil
}

func (s *session) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *session) Done() <-chan struct{} { return s.done }

func (s *session) Wait() error {
	<-s.done
	return nil
}

// Close ends all programs at once, so that their graces run in parallel.
func (s *session) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	var wait sync.WaitGroup
	for c := range s.conns {
		wait.Go(func() { c.Close() })
	}
	s.mu.Unlock()
	wait.Wait()
	if !already {
		close(s.done)
	}
	return nil
}

// startError says what is wrong with a program that cannot be started. A directory is most likely a Maildir whose kind
// was left out.
func startError(host, program string, err error) error {
	switch {
	case isDir(program):
		return &remote.Error{Host: host, Op: "run", Class: remote.ErrNotFound,
			Err: fmt.Errorf("%s is a directory, not a command; for a Maildir write maildir:%s", program, program)}
	case isMissing(err):
		return &remote.Error{Host: host, Op: "run", Class: remote.ErrNotFound, Err: err}
	}
	var exe *exec.Error
	if errors.As(err, &exe) {
		return fmt.Errorf("run %s: %w", host, err)
	}
	return fmt.Errorf("run %s: %s: %w", host, program, err)
}
