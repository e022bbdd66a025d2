package fusefs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/mail"

	"go.uber.org/goleak"
)

// engine is an engine with behaviour: Maildir++ or LAYOUT=fs names, a journal in memory, a real dotlock.
type engine struct {
	layoutFS bool
	root     string // a path of the backing directory that does not lead through the mount; for the dotlock

	mu       sync.Mutex
	events   []mail.Event
	durable  int
	fail     error
	waits    chan string // if not nil: Lock says what it waits for, and then waits for ever
	remote   func()      // if not nil: what happens once while a program waits for Durable
	keywords map[string]mail.Keywords
	locks    map[string]*dotlock
}

type dotlock struct{ users int }

func (e *engine) Mailbox(dir string) (mail.Name, bool) {
	if dir == "" {
		return mail.Inbox, true
	}
	if e.layoutFS {
		return mail.Name(dir), !strings.HasPrefix(dir, ".") && filepath.Base(dir) != "tmp"
	}
	name, ok := strings.CutPrefix(dir, ".")
	if !ok || strings.ContainsRune(dir, '/') || strings.HasPrefix(name, ".") || name == "notmuch" {
		return "", false
	}
	return mail.Name(strings.ReplaceAll(name, ".", "/")), true
}

func (e *engine) Record(ctx context.Context, ev mail.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fail != nil {
		return e.fail
	}
	e.events = append(e.events, ev)
	return nil
}

// Lock makes the dotlock in the backing directory, or joins the hold of this process.
func (e *engine) Lock(ctx context.Context, dir string) (func(), error) {
	if e.waits != nil {
		e.waits <- dir
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	path := filepath.Join(e.root, dir, "dovecot-uidlist.lock")
	for {
		e.mu.Lock()
		if l := e.locks[dir]; l != nil {
			l.users++
			e.mu.Unlock()
			return func() { e.unlock(dir, path) }, nil
		}
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			file.Close()
			if e.locks == nil {
				e.locks = map[string]*dotlock{}
			}
			e.locks[dir] = &dotlock{users: 1}
			e.mu.Unlock()
			return func() { e.unlock(dir, path) }, nil
		}
		e.mu.Unlock()
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond): // polling is what a dotlock needs
		}
	}
}

func (e *engine) unlock(dir, path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.locks[dir].users--; e.locks[dir].users == 0 {
		delete(e.locks, dir)
		os.Remove(path)
	}
}

func (e *engine) Durable(ctx context.Context) error {
	e.mu.Lock()
	happens := e.remote
	e.remote = nil
	e.mu.Unlock()
	if happens != nil {
		happens()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.durable++
	return e.fail
}

func (e *engine) Meta(ctx context.Context, mailbox mail.Name, base string) (fusefs.Meta, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fusefs.Meta{GUID: mail.GUID(base), UID: 7, Keywords: e.keywords[base]}, true
}

func (e *engine) SetKeywords(ctx context.Context, mailbox mail.Name, base string, k mail.Keywords) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.keywords == nil {
		e.keywords = map[string]mail.Keywords{}
	}
	e.keywords[base] = k
	return nil
}

// asked returns how often the engine was asked for durability.
func (e *engine) asked() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.durable
}

func (e *engine) keywordsOf(base string) mail.Keywords {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.keywords[base]
}

// take returns the journaled events as words and forgets them.
func (e *engine) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, ev := range e.events {
		s := ev.Op.String() + " " + string(ev.Mailbox)
		if ev.File != "" {
			s += " " + ev.File
		}
		if ev.To != "" || ev.NewFile != "" {
			s += " -> " + string(ev.To)
		}
		if ev.NewFile != "" {
			s = strings.TrimSuffix(s, " ") + " " + ev.NewFile
		}
		out = append(out, s)
	}
	e.events = nil
	return out
}

// mounted is a mount of a Maildir of the test.
type mounted struct {
	*fusefs.Mount
	engine  *engine
	dir     string // the mount point
	backing string // a path that leads to the backing directory behind the mount
}

// mountMaildir makes a Maildir with INBOX and .Work and mounts it. Whatever the test touches below dir it must touch from
// another process.
func mountMaildir(t *testing.T, change func(*fusefs.Options)) *mounted {
	t.Helper()
	backing := filepath.Join(t.TempDir(), "maildir")
	makeMaildir(t, backing)
	return mount(t, backing, "", change)
}

func makeMaildir(t testing.TB, dir string) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp", ".Work/cur", ".Work/new", ".Work/tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func mount(t testing.TB, backing, mountpoint string, change func(*fusefs.Options)) *mounted {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse: ", err)
	}
	root, err := os.Open(backing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	if mountpoint == "" {
		mountpoint = filepath.Join(t.TempDir(), "mnt")
		if err := os.Mkdir(mountpoint, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The descriptor's path in /proc leads to the backing directory also when that is hidden under the mount.
	behind := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())
	eng := &engine{root: behind}
	opts := fusefs.Options{Backing: root, Mountpoint: mountpoint, Engine: eng, Logger: testLogger(t), FSName: "test"}
	if change != nil {
		change(&opts)
	}
	m, err := fusefs.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		m.Serve()
	}()
	t.Cleanup(func() {
		if err := m.Unmount(t.Context(), true); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		exec.Command("fusermount3", "-uz", mountpoint).Run()
		<-served
	})
	watch(t, mountpoint)
	if err := m.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &mounted{m, eng, mountpoint, behind}
}

// watch aborts the FUSE connection if the test is stuck: a process that hangs in a mount cannot be killed otherwise.
func watch(t testing.TB, mountpoint string) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var minor string
	for _, line := range strings.Split(string(info), "\n") {
		if f := strings.Fields(line); len(f) > 4 && f[4] == mountpoint {
			_, minor, _ = strings.Cut(f[2], ":")
		}
	}
	timer := time.AfterFunc(stuckAfter, func() {
		os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
	})
	t.Cleanup(func() {
		if !timer.Stop() {
			t.Error("the mount was stuck and its connection was aborted")
		}
	})
}

// testLogger fails the test on a warning.
func testLogger(t testing.TB) *slog.Logger { return slog.New(&warnHandler{t: t}) }

type warnHandler struct{ t testing.TB }

func (h *warnHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (h *warnHandler) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h *warnHandler) WithGroup(string) slog.Handler                { return h }
func (h *warnHandler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	h.t.Error("unexpected warning: ", text)
	return nil
}

// sh runs a shell script with the mount point as its directory's name $M, and returns its output.
func (m *mounted) sh(t *testing.T, script string) string {
	t.Helper()
	out, err := m.try(t, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (m *mounted) try(t *testing.T, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", script)
	cmd.Env = append(os.Environ(), "M="+m.dir, "B="+m.backing, "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// helper runs a function of helpers (helper_test.go) in a process of its own.
func (m *mounted) helper(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := helperCommand(t, name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func helperCommand(t testing.TB, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	return cmd
}

const helperEnv = "FUSEFS_TEST_HELPER"

func TestMain(main *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(main)
}

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// stuckAfter is longer than any test of one mount takes.
const stuckAfter = 3 * time.Minute
