package endpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dsyncfs/mirror/brain"
)

func TestSyncLockKeepsSyncsApart(t *testing.T) {
	home := t.TempDir()
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				unlock, err := SyncLock(t.Context(), home, time.Minute)
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				inside.Add(-1)
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d holders at once", most.Load())
	}
	if _, err := os.Stat(filepath.Join(home, syncLockName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock file is left: %v", err)
	}
}

func TestSyncLockGivesUp(t *testing.T) {
	home := t.TempDir()
	unlock, err := SyncLock(t.Context(), home, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SyncLock(t.Context(), home, time.Millisecond); !errors.Is(err, brain.ErrLocked) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := SyncLock(ctx, home, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := SyncLock(t.Context(), filepath.Join(home, "nowhere"), time.Minute); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a home: error %v", err)
	}
	if err := os.Symlink(filepath.Join(home, "elsewhere"), filepath.Join(home, syncLockName)); err != nil {
		t.Fatal(err)
	}
	if _, err := SyncLock(t.Context(), home, time.Minute); err == nil || errors.Is(err, brain.ErrLocked) {
		t.Errorf("a symbolic link is followed: error %v", err)
	}
}
