package remotetest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dsyncfs/remote"
)

// Patience is how long a test waits for what has to happen before it says that it did not.
const Patience = 20 * time.Second

// Factory makes a transport that runs programs on this machine. The suite gives it what to do with a line of the
// programs' standard error.
type Factory func(tb testing.TB, stderr func(line string)) remote.Dialer

// Limit is something a transport cannot do.
type Limit uint8

// HidesSignals: the death of a program by a signal is told as status 255, as the ssh program does.
const HidesSignals Limit = 1

// Run checks that a transport keeps the contract of remote's ports. The test's package calls Main from its TestMain.
func Run(t *testing.T, factory Factory, limits ...Limit) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"what is written comes back", testEcho},
		{"much data in both directions at once", testLarge},
		{"input ends, output goes on", testHalfClose},
		{"output ends, input goes on", testHalfOpen},
		{"exit status", testExitStatus},
		{"exit status is told again", testWaitTwice},
		{"arguments stay whole", testArguments},
		{"standard error by lines", testStderr},
		{"a program that does not exist", testNotFound},
		{"killed in the middle", testKilled},
		{"several programs at once", testSeveral},
		{"close in the middle ends the program", testClose},
		{"close ends a program that will not", testCloseDeaf},
		{"close unblocks a writer", testCloseWriter},
		{"the context's end ends the program", testCancel},
		{"a context that has ended starts nothing", testCancelled},
		{"closing the session ends its programs", testSessionClose},
		{"a closed session starts nothing", testClosedSession},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newFixture(t, factory, limits)) })
	}
}

// fixture is one session, with what was written to standard error.
type fixture struct {
	t       *testing.T
	ctx     context.Context
	session remote.Session
	limits  []Limit

	mu    sync.Mutex
	lines []string
}

func newFixture(t *testing.T, factory Factory, limits []Limit) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	f := &fixture{t: t, ctx: ctx, limits: limits}
	session, err := factory(t, f.stderr).Dial(ctx)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	f.session = session
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Errorf("close session: %v", err)
		}
	})
	return f
}

func (f *fixture) stderr(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, line)
}

func (f *fixture) start(program string, args ...string) remote.Conn {
	f.t.Helper()
	conn, err := f.session.Start(f.ctx, Helper(program, args...))
	if err != nil {
		f.t.Fatalf("start %s: %v", program, err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

// within fails the test unless what is done in time.
func (f *fixture) within(what string, do func()) {
	f.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(Patience):
		f.t.Fatalf("%s: not done within %v", what, Patience)
	}
}

func (f *fixture) wait(conn remote.Conn) (err error) {
	f.t.Helper()
	f.within("wait", func() { err = conn.Wait() })
	return err
}

func (f *fixture) wantSuccess(conn remote.Conn) {
	f.t.Helper()
	if err := f.wait(conn); err != nil {
		f.t.Errorf("wait: %v", err)
	}
}

func (f *fixture) wantExit(conn remote.Conn) *remote.ExitError {
	f.t.Helper()
	err := f.wait(conn)
	var exit *remote.ExitError
	if !errors.As(err, &exit) {
		f.t.Fatalf("wait: %v, want an exit status", err)
	}
	if exit.Host == "" || exit.Command == "" {
		f.t.Errorf("error names no host or command: %+v", exit)
	}
	return exit
}

func testEcho(t *testing.T, f *fixture) {
	conn := f.start("echo")
	for _, text := range []string{"a", "\x00\xff\r\n\x04", strings.Repeat("x", 70000)} {
		go io.WriteString(conn, text) // more than any pipe holds; joined by reading it all
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Fatalf("%d bytes came back as %q..., %v", len(text), got[:1], err)
		}
	}
	finish(t, conn)
	f.wantSuccess(conn)
}

// finish closes the input and expects the end of the output.
func finish(t *testing.T, conn remote.Conn) {
	t.Helper()
	if err := conn.CloseWrite(); err != nil {
		t.Fatalf("close input: %v", err)
	}
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Fatalf("after the input's end: %q, %v; want the end of the output", rest, err)
	}
}

func testLarge(t *testing.T, f *fixture) {
	const n = 24 << 20
	conn := f.start("echo")
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, data(7, n))
		written <- errors.Join(err, conn.CloseWrite())
	}()
	if err := equal(conn, data(7, n)); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := <-written; err != nil {
		t.Errorf("write: %v", err)
	}
	f.wantSuccess(conn)
}

func testHalfClose(t *testing.T, f *fixture) {
	const n = 3 << 20
	conn := f.start("sink", "5", fmt.Sprint(n))
	if _, err := io.Copy(conn, data(5, n)); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("write after CloseWrite succeeded")
	}
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "same\n" {
		t.Errorf("answer %q, %v", answer, err)
	}
	f.wantSuccess(conn)
}

func testHalfOpen(t *testing.T, f *fixture) {
	conn := f.start("halfopen")
	f.within("read to the end", func() {
		if out, err := io.ReadAll(conn); err != nil || len(out) > 0 {
			t.Errorf("read %q, %v", out, err)
		}
	})
	if _, err := io.WriteString(conn, "42\n"); err != nil {
		t.Fatal(err)
	}
	if exit := f.wantExit(conn); exit.Status != 42 {
		t.Errorf("status %d, want 42", exit.Status)
	}
}

func testExitStatus(t *testing.T, f *fixture) {
	for _, status := range []int{1, 2, 75, 254} {
		if exit := f.wantExit(f.start("exit", fmt.Sprint(status))); exit.Status != status || exit.Signal != "" {
			t.Errorf("status %d was reported as %d, signal %q", status, exit.Status, exit.Signal)
		}
	}
	f.wantSuccess(f.start("exit", "0"))
}

func testWaitTwice(t *testing.T, f *fixture) {
	conn := f.start("exit", "9")
	first := f.wait(conn)
	if err := conn.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if second := f.wait(conn); first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("first %v, then %v", first, second)
	}
}

func testArguments(t *testing.T, f *fixture) {
	args := []string{"a b", "", "'", `\`, `"`, "$HOME", "`id`", "*", "~", "!x", "-v", "ä\tö", "a;b", "&"}
	conn := f.start("args", args...)
	out, err := io.ReadAll(conn)
	if want := strings.Join(args, "\x00") + "\x00"; err != nil || string(out) != want {
		t.Errorf("arguments arrived as %q, %v; want %q", out, err, want)
	}
	f.wantSuccess(conn)
}

func testStderr(t *testing.T, f *fixture) {
	conn := f.start("stderr", "first", "", "evil \x1b[2J", strings.Repeat("long", 5000), "last, without an end")
	exit := f.wantExit(conn)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) != 5 || f.lines[0] != "first" || f.lines[1] != "" || f.lines[4] != "last, without an end" {
		t.Fatalf("%d lines: %.200q", len(f.lines), f.lines)
	}
	if strings.ContainsRune(f.lines[2], '\x1b') {
		t.Errorf("an escape sequence got through: %q", f.lines[2])
	}
	if len(f.lines[3]) > 8<<10 {
		t.Errorf("a line of %d bytes got through", len(f.lines[3]))
	}
	if exit.Status != 3 || !strings.Contains(exit.Error(), "last, without an end") || len(exit.Error()) > 4<<10 {
		t.Errorf("status %d, message of %d bytes: %.300s", exit.Status, len(exit.Error()), exit)
	}
}

// A transport may notice it at the start or at the end.
func testNotFound(t *testing.T, f *fixture) {
	conn, err := f.session.Start(f.ctx, []string{"/nonexistent/dsyncfs", "dsync-server"})
	if err == nil {
		defer conn.Close()
		err = f.wait(conn)
	}
	if !errors.Is(err, remote.ErrNotFound) || remote.Classify(err) != remote.ErrNotFound {
		t.Errorf("error %v is of class %v, want %v", err, remote.Classify(err), remote.ErrNotFound)
	}
	if err != nil && !strings.Contains(err.Error(), "/nonexistent/dsyncfs") {
		t.Errorf("error does not name the program: %v", err)
	}
}

func testKilled(t *testing.T, f *fixture) {
	const n = 1 << 20
	conn := f.start("die", fmt.Sprint(n))
	if err := equal(conn, data(0, n)); err != nil {
		t.Errorf("what was written before the death: %v", err)
	}
	exit := f.wantExit(conn)
	if slices.Contains(f.limits, HidesSignals) {
		if exit.Status != 255 {
			t.Errorf("status %d, want 255", exit.Status)
		}
		return
	}
	if exit.Signal != "KILL" {
		t.Errorf("ended by signal %q, status %d", exit.Signal, exit.Status)
	}
}

func testSeveral(t *testing.T, f *fixture) {
	conns := []remote.Conn{f.start("echo"), f.start("echo"), f.start("echo")}
	for i, conn := range conns {
		if _, err := fmt.Fprintf(conn, "to %d\n", i); err != nil {
			t.Fatal(err)
		}
	}
	for i, conn := range conns {
		line, err := bufio.NewReader(conn).ReadString('\n')
		if want := fmt.Sprintf("to %d\n", i); err != nil || line != want {
			t.Errorf("program %d answered %q, %v", i, line, err)
		}
	}
	conns[1].Close()
	finish(t, conns[0])
	f.wantSuccess(conns[0])
	f.wantSuccess(f.start("exit", "0"))
}

// Held is a remote program that runs until it is ended.
type held struct {
	remote.Conn
	fifo *os.File
}

func (f *fixture) hold(ctx context.Context, program string) held {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		f.t.Fatal(err)
	}
	conn, err := f.session.Start(ctx, Helper(program, path))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	fifo, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { fifo.Close() })
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(conn, ready); err != nil {
		f.t.Fatalf("start %s: %v", program, err)
	}
	return held{conn, fifo}
}

// wantDead waits for the end of the program, which closes its FIFO.
func (f *fixture) wantDead(h held) {
	f.t.Helper()
	f.within("the remote program's death", func() {
		if rest, err := io.ReadAll(h.fifo); err != nil || len(rest) > 0 {
			f.t.Errorf("its FIFO says %q, %v", rest, err)
		}
	})
}

func testClose(t *testing.T, f *fixture) {
	h := f.hold(f.ctx, "hold")
	read := make(chan error, 1)
	go func() {
		_, err := h.Read(make([]byte, 1))
		read <- err
	}()
	f.within("close", func() {
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	f.within("the blocked read", func() {
		if err := <-read; err == nil {
			t.Error("a read blocked in Close succeeded")
		}
	})
	f.wantDead(h)
	f.within("wait", func() { h.Wait() })
}

func testCloseDeaf(t *testing.T, f *fixture) {
	h := f.hold(f.ctx, "deaf")
	f.within("close", func() { h.Close() })
	f.within("wait", func() {
		if err := h.Wait(); err == nil {
			t.Error("a program that had to be killed ended well")
		}
	})
}

func testCloseWriter(t *testing.T, f *fixture) {
	conn := f.start("source", "1", fmt.Sprint(64<<20)) // reads nothing
	written := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, data(1, 64<<20))
		written <- err
	}()
	if _, err := io.ReadFull(conn, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	f.within("close", func() { conn.Close() })
	f.within("the blocked write", func() {
		if err := <-written; err == nil {
			t.Error("writing 64 MiB to a program that reads nothing succeeded")
		}
	})
}

var errChanged = errors.New("the user changed his mind")

func testCancel(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	h := f.hold(ctx, "hold")
	read := make(chan error, 1)
	go func() {
		_, err := h.Read(make([]byte, 1))
		read <- err
	}()
	cancel(errChanged)
	f.within("the blocked read", func() {
		if err := <-read; !errors.Is(err, errChanged) {
			t.Errorf("read: %v, want the context's cause", err)
		}
	})
	if err := f.wait(h); !errors.Is(err, errChanged) {
		t.Errorf("wait: %v, want the context's cause", err)
	}
	f.wantDead(h)
	f.wantSuccess(f.start("exit", "0")) // the session is unhurt
}

func testCancelled(t *testing.T, f *fixture) {
	ctx, cancel := context.WithCancelCause(f.ctx)
	cancel(errChanged)
	if conn, err := f.session.Start(ctx, Helper("echo")); !errors.Is(err, errChanged) {
		t.Errorf("start: %v, want the context's cause", err)
		if err == nil {
			conn.Close()
		}
	}
}

func testSessionClose(t *testing.T, f *fixture) {
	a, b := f.hold(f.ctx, "hold"), f.hold(f.ctx, "hold")
	f.within("close of the session", func() {
		if err := f.session.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for _, h := range []held{a, b} {
		f.wantDead(h)
		if _, err := h.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read after the session's end: %v, want an error", err)
		}
	}
	select {
	case <-f.session.Done():
	default:
		t.Error("not done after Close")
	}
	if err := f.session.Wait(); err != nil {
		t.Errorf("wait after Close: %v", err)
	}
}

func testClosedSession(t *testing.T, f *fixture) {
	f.session.Close()
	conn, err := f.session.Start(f.ctx, Helper("echo"))
	if err == nil {
		conn.Close()
		t.Fatal("a closed session started a program")
	}
	if bytes.ContainsRune([]byte(err.Error()), '\n') {
		t.Errorf("error has more than one line: %v", err)
	}
}
