package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dsyncfs/remote"
	"dsyncfs/remote/remotetest"
)

func TestMain(m *testing.M) { remotetest.Main(m) }

func TestCommand(t *testing.T) {
	defer goleak.VerifyNone(t)
	remotetest.Run(t, func(tb testing.TB, stderr func(string)) remote.Dialer {
		return New(Options{Host: "here", Stderr: stderr, Grace: 300 * time.Millisecond})
	})
}

func dial(t *testing.T, opts Options) remote.Session {
	t.Helper()
	s, err := New(opts).Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStartErrorsSayWhatToDo(t *testing.T) {
	s := dial(t, Options{Host: "here"})
	for _, row := range []struct {
		name  string
		cmd   []string
		class error
		hint  string
	}{
		{"a directory", []string{"/tmp", "dsync-server"}, remote.ErrNotFound, "maildir:/tmp"},
		{"not in PATH", []string{"no-such-program-here"}, remote.ErrNotFound, "no-such-program-here"},
		{"not executable", []string{"/etc/passwd"}, nil, "/etc/passwd"},
		{"empty", []string{""}, nil, "empty command"},
	} {
		conn, err := s.Start(t.Context(), row.cmd)
		if err == nil {
			conn.Close()
			t.Errorf("%s: started", row.name)
			continue
		}
		if remote.Classify(err) != row.class || !strings.Contains(err.Error(), row.hint) || !strings.Contains(err.Error(), "here") {
			t.Errorf("%s: %v, class %v", row.name, err, remote.Classify(err))
		}
	}
}

// What a program started takes its standard error along; that must not hold up the end (ssh's ControlPersist).
func TestBackgroundChildDoesNotHoldUpWait(t *testing.T) {
	conn, err := dial(t, Options{}).Start(t.Context(), []string{"sh", "-c", "sleep 60 >/dev/null & echo $!; echo lost >&2; exit 4"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var pid int
	if _, err := fmt.Fscan(conn, &pid); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	var exit *remote.ExitError
	if err := conn.Wait(); !errors.As(err, &exit) || exit.Status != 4 || exit.Stderr != "lost" {
		t.Errorf("wait: %v", err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the child in the background was ended by a normal exit: %v", err)
	}
}

func TestCloseReachesTheWholeGroup(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The shell ends at TERM, its child does not.
	script := `(trap "" TERM; exec 3>"$1"; exec sleep 60) & wait`
	conn, err := dial(t, Options{}).Start(t.Context(), []string{"sh", "-c", script, "sh", fifo})
	if err != nil {
		t.Fatal(err)
	}
	alive, err := os.Open(fifo) // returns once the child has it
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	conn.Close()
	dead := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(alive)
		dead <- err
	}()
	select {
	case err := <-dead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(remotetest.Patience):
		t.Error("what the program started survived Close")
	}
}

func TestSSHCommandLine(t *testing.T) {
	opts := SSHOptions{Options: Options{Host: "mail"}, Login: "bob", Port: 2222}
	d, err := SSH(opts)
	if err != nil {
		t.Fatal(err)
	}
	argv, err := d.program([]string{"dsyncfs", "-o", "a b", "dsync-server"})
	want := []string{"ssh", "-T", "-x", "-oBatchMode=yes", "-oClearAllForwardings=yes", "-oServerAliveInterval=15",
		"-oServerAliveCountMax=2", "-p", "2222", "-l", "bob", "--", "mail", "dsyncfs -o 'a b' dsync-server"}
	if err != nil || !slices.Equal(argv, want) {
		t.Errorf("runs %q, %v", argv, err)
	}
	opts.Terminal = true
	if argv := opts.argv(); !slices.Contains(argv, "-oBatchMode=no") {
		t.Errorf("with a terminal: %q", argv)
	}
	for _, bad := range []SSHOptions{{}, {Options: Options{Host: "-oProxyCommand=x"}}, {Options: Options{Host: "mail"}, Login: "-x"}} {
		if _, err := SSH(bad); !errors.Is(err, remote.ErrLocation) {
			t.Errorf("%q as %q: %v", bad.Host, bad.Login, err)
		}
	}
}
