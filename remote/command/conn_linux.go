package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/remote"
)

// stderrGrace is how long standard error is read after the program ended. What a program leaves running in the
// background (ssh's ControlPersist) keeps it open for ever.
const stderrGrace = time.Second

// conn is one running program. reap is its only waiter and closes ended as the last thing it does.
type conn struct {
	dialer *Dialer
	host   string
	line   string // the command, quoted for reading
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	lines  *remote.Lines
	unhook func() bool // stops watching the context; set before the conn is shared

	ended chan struct{}
	err   error // what Wait says; set before ended is closed

	mu      sync.Mutex
	gone    bool  // reaped: the process id may belong to somebody else
	closed  bool  // Close was called or the context ended
	cause   error // of the context, if that is why
	stopped bool  // the program was told to end
	kill    *time.Timer
}

// start starts argv with three pipes. They are made here, not by exec.Cmd, whose Wait closes its ends before everything
// was read.
func start(d *Dialer, host string, argv []string) (_ *conn, err error) {
	var files []*os.File
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		files = append(files, r, w)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = d.opts.Dir, d.opts.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[3], files[5]
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: !d.opts.Terminal}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	closeAll([]*os.File{files[0], files[3], files[5]})
	return &conn{
		dialer: d, host: host, line: remote.Quote(argv), cmd: cmd,
		stdin: files[1], stdout: files[2], stderr: files[4],
		lines: remote.NewLines(d.opts.Stderr), ended: make(chan struct{}),
	}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.stdout.Read(p)
	if err != nil && err != io.EOF {
		err = c.failure("read from", err)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.stdin.Write(p)
	if err != nil {
		err = c.failure("write to", err)
	}
	return n, err
}

// failure explains a pipe's error by what was done to the conn.
func (c *conn) failure(op string, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cause != nil:
		return fmt.Errorf("%s %s: %w", op, c.host, c.cause)
	case c.closed:
		return fmt.Errorf("%s %s: %w", op, c.host, os.ErrClosed)
	case errors.Is(err, unix.EPIPE):
		return fmt.Errorf("%s %s: the program has closed its input: %w", op, c.host, unix.EPIPE)
	}
	return fmt.Errorf("%s %s: %w", op, c.host, err)
}

func (c *conn) CloseWrite() error {
	if err := c.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return c.failure("write to", err)
	}
	return nil
}

func (c *conn) Wait() error {
	<-c.ended
	return c.err
}

func (c *conn) Close() error {
	c.unhook()
	c.end(nil)
	<-c.ended
	closeAll([]*os.File{c.stdin, c.stdout})
	return nil
}

// end sends TERM to the process group, and KILL after the grace. It does not wait.
func (c *conn) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.cause = true, cause
	// Whoever reads or writes now must not wait for the program to die.
	past := time.Unix(1, 0)
	c.stdin.SetDeadline(past)
	c.stdout.SetDeadline(past)
	if c.gone {
		return
	}
	c.stopped = true
	c.signal(unix.SIGTERM)
	c.kill = time.AfterFunc(c.dialer.opts.Grace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.gone {
			c.signal(unix.SIGKILL)
		}
	})
}

// signal reaches the whole process group, if it is the program's own; the caller holds mu and has checked that the leader is not reaped.
func (c *conn) signal(sig unix.Signal) {
	// ESRCH cannot happen before the leader is reaped, EPERM (a setuid program) leaves the closed pipes to end it.
	if pid := c.cmd.Process.Pid; c.dialer.opts.Terminal {
		unix.Kill(pid, sig)
	} else {
		unix.Kill(-pid, sig)
	}
}

// reap reads standard error, waits for the program and leaves no zombie. It runs once, in its own goroutine, which
// ends with the program.
func (c *conn) reap(forget func()) {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(c.lines, c.stderr)
	}()
	waitExited(c.cmd.Process.Pid)
	c.mu.Lock()
	if c.closed {
		// The leader is a zombie still, so the group's number is ours: take along what did not obey TERM.
		c.signal(unix.SIGKILL)
	}
	c.cmd.Wait()
	c.gone = true
	if c.kill != nil {
		c.kill.Stop()
	}
	c.mu.Unlock()

	c.stderr.SetReadDeadline(time.Now().Add(stderrGrace))
	<-drained
	c.stderr.Close()
	c.lines.Flush()
	c.err = c.result()
	forget()
	close(c.ended)
}

// waitExited blocks until the process has ended, without reaping it.
func waitExited(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

func (c *conn) result() error {
	c.mu.Lock()
	stopped, cause := c.stopped, c.cause
	c.mu.Unlock()
	if stopped && cause != nil {
		return fmt.Errorf("%s: %s was stopped: %w", c.host, c.line, cause)
	}
	state := c.cmd.ProcessState
	if state.Success() {
		return nil
	}
	exit := &remote.ExitError{Host: c.host, Command: c.line, Status: state.ExitCode(), Stderr: c.lines.Tail()}
	if status := state.Sys().(syscall.WaitStatus); status.Signaled() {
		exit.Signal = strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")
	}
	c.dialer.classify(exit)
	return exit
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isMissing(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}
