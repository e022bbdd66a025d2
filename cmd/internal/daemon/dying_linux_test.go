package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
)

const halfDeadEnv = "DSYNCFS_TEST_HALF_DEAD"

// Without its first thread a process looks as one does that was killed while another thread waits for its own mount.
func init() {
	if os.Getenv(halfDeadEnv) == "" {
		return
	}
	go time.Sleep(time.Minute)
	_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // of this thread only
}

// A daemon that was killed while a thread of it waited for its own mount never ended, and who asked it hung.
func TestADaemonThatWasKilledAndDoesNotEndIsNotAsked(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), halfDeadEnv+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pid := cmd.Process.Pid
	for limit := time.Now().Add(patience); !dying(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("a process without its first thread does not count as dying")
		}
	}
	if dying(os.Getpid()) || dying(0) || dying(-1) {
		t.Error("a process that is alive counts as dying")
	}
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	point := filepath.Join(t.TempDir(), "mnt")
	dir, err := Dir(&cfg, point)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, journalName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, journalName, "lock"), fmt.Appendf(nil, "%d\n", pid), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := listen(dir) // as the kernel keeps it listening for a process that does not end
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Call(t.Context(), &cfg, point, Request{Op: OpStatus}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("asked for its status: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if dying(pid) {
		t.Error("a process that has ended counts as dying")
	}
}
