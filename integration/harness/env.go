package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience bounds every program that a test starts. It is far above what any of them takes; who exceeds it hangs.
const patience = 120 * time.Second

// Env is where one test runs dsyncfs: a directory of its own with the home, the settings, the state and the mail.
type Env struct {
	TB   testing.TB
	Dir  string
	Home string

	vars   []string
	within *Network // nil: this machine's
}

// New makes an environment that ends with the test: what still runs in it is then an error.
func New(tb testing.TB) *Env {
	tb.Helper()
	base, err := runDir()
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp(base, "t")
	if err != nil {
		tb.Fatal(err)
	}
	e := &Env{TB: tb, Dir: dir, Home: filepath.Join(dir, "home")}
	for _, sub := range []string{"home", "state", "config", "run"} {
		if err := os.Mkdir(e.Path(sub), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	e.vars = []string{
		"HOME=" + e.Home, "USER=test", "XDG_STATE_HOME=" + e.Path("state"), "XDG_CONFIG_HOME=" + e.Path("config"),
		"XDG_RUNTIME_DIR=" + e.Path("run"), "PATH=" + filepath.Dir(Binary(tb)) + ":" + os.Getenv("PATH"),
		"TMPDIR=" + dir, "LANG=C.UTF-8", "TZ=UTC", "GORACE=atexit_sleep_ms=0 log_path=" + e.Path("race"), marker + "=" + dir,
	}
	tb.Cleanup(e.close)
	return e
}

// Path returns a path in the environment's directory.
func (e *Env) Path(elem ...string) string { return filepath.Join(append([]string{e.Dir}, elem...)...) }

// StateDir is where dsyncfs keeps what it knows.
func (e *Env) StateDir() string { return e.Path("state", "dsyncfs") }

// DaemonLog is what the daemons logged that have their state in a directory like [Env.StateDir]. It is also asked for to explain a
// failure, so one that cannot be read is an error, and no end.
func DaemonLog(tb testing.TB, state string) string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(state, "mounts", "*", "log"))
	if err != nil {
		tb.Error(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			tb.Error(err)
		}
		all.Write(text)
	}
	return all.String()
}

// Maildir is one at a path in the environment.
func (e *Env) Maildir(name string) Maildir { return Maildir{Path: e.Path(name)} }

// close looks for mounts and processes that outlived the test and for what the race detector saw.
func (e *Env) close() {
	for _, m := range mountsBelow(e.Dir) {
		e.TB.Errorf("left over: mount %s (%s)", m.Point, m.Type)
		m.force()
	}
	for _, p := range markedProcesses(e.Dir) {
		e.TB.Errorf("left over: process %d: %s", p.PID, p.Command)
		p.kill()
	}
	races, _ := filepath.Glob(e.Path("race.*"))
	for _, r := range races {
		text, _ := os.ReadFile(r)
		e.TB.Errorf("data race:\n%s", head(string(text), 8000))
	}
	if e.TB.Failed() && os.Getenv("DSYNCFS_TEST_KEEP") != "" {
		return
	}
	if err := os.RemoveAll(e.Dir); err != nil {
		e.TB.Errorf("remove the test's directory: %v", err)
	}
}

// Command prepares a program in this environment. It is killed with its children when ctx ends.
func (e *Env) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	program, args = e.within.command(program, args)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = e.Dir
	cmd.Env = e.vars
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Setenv gives the programs of this environment one more variable.
func (e *Env) Setenv(name, value string) { e.vars = append(e.vars, name+"="+value) }

// Vars are what a program that starts with an empty environment needs to run dsyncfs in this one, as NAME=VALUE: where state
// and settings are, and what the race detector does, which else makes every run a second longer.
func (e *Env) Vars() []string {
	return slices.DeleteFunc(slices.Clone(e.vars), func(v string) bool {
		return !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "GORACE=") && !strings.HasPrefix(v, marker+"=")
	})
}

// Result is how a run of dsyncfs ended.
type Result struct {
	tb             testing.TB
	Args           []string
	Status         int
	Stdout, Stderr string
	Took           time.Duration
	MaxRSS         int64 // bytes; as last seen, up to 5 ms before the end
}

// Run runs dsyncfs to its end.
func (e *Env) Run(args ...string) Result {
	e.TB.Helper()
	return e.run(Binary(e.TB), args...)
}

// RunAs is Run as another user; only root can.
func (e *Env) RunAs(uid uint32, args ...string) Result {
	e.TB.Helper()
	return e.runAs(&syscall.Credential{Uid: uid, Gid: uid}, Binary(e.TB), args...)
}

// runWatched runs a command and watches its peak RSS. What wait4 counts begins with the peak of who started it, which is large.
func runWatched(cmd *exec.Cmd) (peak int64, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return peak, err
		case <-tick.C:
			peak = max(peak, peakRSS(cmd.Process.Pid))
		}
	}
}

// peakRSS is the VmHWM of a process in bytes, 0 if it is gone.
func peakRSS(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0
	}
	return kib << 10
}

func (e *Env) run(program string, args ...string) Result {
	e.TB.Helper()
	return e.runAs(nil, program, args...)
}

func (e *Env) runAs(who *syscall.Credential, program string, args ...string) Result {
	e.TB.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := e.Command(ctx, program, args...)
	cmd.SysProcAttr.Credential = who
	cmd.Cancel = func() error { // all of them show where they hang
		for _, p := range markedProcesses(e.Dir) {
			if strings.Contains(p.Command, "dsyncfs") {
				_ = syscall.Kill(p.PID, syscall.SIGQUIT)
			}
		}
		return syscall.Kill(cmd.Process.Pid, syscall.SIGQUIT)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	peak, err := runWatched(cmd)
	r := Result{tb: e.TB, Args: args, Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.TB.Fatalf("run %s: %v\n%s", strings.Join(args, " "), err, head(r.Stderr, 8000))
	}
	r.Status = cmd.ProcessState.ExitCode()
	r.MaxRSS = peak
	if ctx.Err() != nil || strings.Contains(r.Stderr, "\ngoroutine ") {
		e.TB.Fatalf("%s hung or panicked:\n%s", strings.Join(args, " "), head(r.Stderr, 16000))
	}
	return r
}

// Want ends the test unless the run ended with that status.
func (r Result) Want(status int) Result {
	r.tb.Helper()
	if r.Status != status {
		r.tb.Fatalf("dsyncfs %s: exit status %d, want %d\nstdout: %s\nstderr: %s",
			strings.Join(r.Args, " "), r.Status, status, head(r.Stdout, 2000), head(r.Stderr, 4000))
	}
	return r
}

// Says fails the test unless stderr has each of the texts.
func (r Result) Says(texts ...string) Result {
	r.tb.Helper()
	for _, text := range texts {
		if !strings.Contains(r.Stderr, text) {
			r.tb.Errorf("dsyncfs %s: stderr does not say %q: %s", strings.Join(r.Args, " "), text, head(r.Stderr, 2000))
		}
	}
	return r
}

// ClearError fails the test unless stderr is what a person can use: a line for each thing that is wrong, with its sender, and no dump.
func (r Result) ClearError() Result {
	r.tb.Helper()
	lines := strings.Split(strings.TrimSuffix(r.Stderr, "\n"), "\n")
	if len(lines) > 8 {
		r.tb.Errorf("dsyncfs %s: %d lines of error:\n%s", strings.Join(r.Args, " "), len(lines), head(r.Stderr, 3000))
	}
	for _, line := range lines {
		if prefix, text, ok := strings.Cut(line, ": "); !ok || prefix == "" || len(text) < 5 || len(line) > 1000 {
			r.tb.Errorf("dsyncfs %s: this is no clear error: %q", strings.Join(r.Args, " "), head(line, 1500))
		}
	}
	return r
}

// Process is dsyncfs, or another program, in the background.
type Process struct {
	env    *Env
	cmd    *exec.Cmd
	name   string
	stderr string // path
	done   chan struct{}
}

// Start starts dsyncfs and does not wait for it. It is killed with the test.
func (e *Env) Start(args ...string) *Process {
	e.TB.Helper()
	return e.StartProgram(Binary(e.TB), args...)
}

// StartProgram is Start for any program.
func (e *Env) StartProgram(program string, args ...string) *Process {
	e.TB.Helper()
	log, err := os.CreateTemp(e.Dir, "stderr-")
	if err != nil {
		e.TB.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := e.Command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		cancel()
		e.TB.Fatalf("start %s: %v", program, err)
	}
	p := &Process{env: e, cmd: cmd, name: filepath.Base(program) + " " + strings.Join(args, " "), stderr: log.Name(), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the status is in ProcessState
	}()
	e.TB.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is what it wrote so far.
func (p *Process) Output() string {
	text, _ := os.ReadFile(p.stderr)
	return string(text)
}

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Kill ends the process and its children with SIGKILL and waits for it.
func (p *Process) Kill() {
	p.env.TB.Helper()
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.done
}

// Wait waits for the end and returns the exit status, -1 after a signal.
func (p *Process) Wait() int {
	p.env.TB.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Signal(syscall.SIGQUIT)
		p.env.TB.Fatalf("%s does not end:\n%s", p.name, head(p.Output(), 8000))
	}
	return p.cmd.ProcessState.ExitCode()
}

// Eventually waits until cond is true, which returns why it is not yet. It fails the test after the limit.
func (e *Env) Eventually(what string, limit time.Duration, cond func() error) time.Duration {
	e.TB.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := cond()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > limit {
			e.TB.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		<-tick.C
	}
}

// Program runs another program to its end.
func (e *Env) Program(program string, args ...string) Result {
	e.TB.Helper()
	return e.run(program, args...)
}

// Must runs another program to its end and returns its standard output; failure ends the test.
func (e *Env) Must(program string, args ...string) string {
	e.TB.Helper()
	r := e.run(program, args...)
	if r.Status != 0 {
		e.TB.Fatalf("%s %s: exit status %d\n%s%s", program, strings.Join(args, " "), r.Status, head(r.Stdout, 2000), head(r.Stderr, 4000))
	}
	return r.Stdout
}

func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + fmt.Sprintf("... (%d bytes more)", len(s)-n)
}
