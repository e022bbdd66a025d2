package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"dsyncfs/cmd/internal/config"
)

// The kernel still accepts for a process that is being killed, and resets the connection then.
func TestDaemonThatDiesWhileItIsAskedIsNotRunning(t *testing.T) {
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	point := filepath.Join(t.TempDir(), "mnt")
	dir, err := Dir(&cfg, point)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			c.Close() // with the request unread: a reset
		}
	}()
	_, err = Call(t.Context(), &cfg, point, Request{Op: OpUnmount})
	<-done
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("error %v", err)
	}
}
