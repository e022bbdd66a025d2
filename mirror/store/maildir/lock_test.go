package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

func openRoot(t *testing.T, path string) vfs.Dir {
	t.Helper()
	fsys, err := vfs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := fsys.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close(); fsys.Close() })
	return dir
}

func mustAcquire(t *testing.T, l *Locks, dir vfs.Dir) func() error {
	t.Helper()
	release, err := l.Acquire(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

func lockExists(dir vfs.Dir) bool {
	_, err := dir.Stat(lockName)
	return err == nil
}

func writeLock(t *testing.T, dir vfs.Dir, content string, age time.Duration) {
	t.Helper()
	f, err := dir.Create(lockName, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := dir.SetTimes(lockName, time.Now().Add(-age)); err != nil {
		t.Fatal(err)
	}
}

// deadPID returns the id of a process that is gone.
func deadPID(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func TestLockIsSharedWithinTheProcess(t *testing.T) {
	path := t.TempDir()
	a, b := openRoot(t, path), openRoot(t, path)
	l := NewLocks(LockOptions{Hostname: "here", PID: 42})
	first := mustAcquire(t, l, a)
	if got, _ := vfs.ReadFile(a, lockName, 100); string(got) != "42:here" {
		t.Errorf("lock holds %q", got)
	}
	second := mustAcquire(t, l, b)
	if err := first(); err != nil || !lockExists(b) {
		t.Errorf("first release: %v, lock exists %v", err, lockExists(b))
	}
	if err := second(); err != nil || lockExists(b) {
		t.Errorf("last release: %v, lock exists %v", err, lockExists(b))
	}
}

func TestLockBatchesExcludeEachOther(t *testing.T) {
	dir := openRoot(t, t.TempDir())
	l := NewLocks(LockOptions{})
	release, err := l.acquireExclusive(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	join := mustAcquire(t, l, dir) // a handler joins meanwhile
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("enough"))
	defer cancel()
	if _, err := l.acquireExclusive(ctx, dir); err == nil || err.Error() != "enough" {
		t.Errorf("second batch: %v", err)
	}
	if err := errors.Join(join(), release()); err != nil || lockExists(dir) {
		t.Errorf("releases: %v, lock exists %v", err, lockExists(dir))
	}
	if len(l.boxes)+len(l.holds) != 0 {
		t.Errorf("left over: %v %v", l.boxes, l.holds)
	}
}

func TestLockOfAnotherProgram(t *testing.T) {
	for _, c := range []struct {
		what, content string
		age           time.Duration
		want          error
	}{
		{"a living process here, however old", fmt.Sprintf("%d:here", os.Getppid()), time.Hour, store.ErrLocked},
		{"a dead process here", fmt.Sprintf("%d:here", deadPID(t)), time.Minute, nil},
		{"a dead process here, a moment ago", fmt.Sprintf("%d:here", deadPID(t)), 0, store.ErrLocked},
		{"another host, seen just now", fmt.Sprintf("%d:there", deadPID(t)), time.Hour, store.ErrLocked},
		{"garbage", "x", time.Hour, store.ErrLocked},
	} {
		dir := openRoot(t, t.TempDir())
		writeLock(t, dir, c.content, c.age)
		l := NewLocks(LockOptions{Hostname: "here", Timeout: 150 * time.Millisecond})
		release, err := l.Acquire(t.Context(), dir)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if err == nil {
			if err := release(); err != nil {
				t.Errorf("%s: %v", c.what, err)
			}
		}
	}
}

func TestLockOfAnotherHostGoesStale(t *testing.T) {
	dir := openRoot(t, t.TempDir())
	writeLock(t, dir, "1:there", 0)
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock is far from the file's; only how long nothing changed counts.
		l := NewLocks(LockOptions{Hostname: "here"})
		start := time.Now()
		release, err := l.Acquire(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited < lockStale || waited > lockTimeout {
			t.Errorf("broken after %v", waited)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

func TestLockIsTouchedWhileHeld(t *testing.T) {
	dir := openRoot(t, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		release, err := NewLocks(LockOptions{}).Acquire(context.Background(), dir)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Second) // bubble time
		synctest.Wait()
		info, err := dir.Stat(lockName)
		if err != nil || time.Since(info.Mtime) > lockTouch {
			t.Errorf("lock is %v old, %v", time.Since(info.Mtime), err)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

func TestLockThatWasTakenAwayIsLeftAlone(t *testing.T) {
	dir := openRoot(t, t.TempDir())
	l := NewLocks(LockOptions{})
	release := mustAcquire(t, l, dir)
	keep, _ := dir.Open(lockName) // so that the inode number is not used again
	defer keep.Close()
	if err := dir.Remove(lockName); err != nil {
		t.Fatal(err)
	}
	writeLock(t, dir, "1:there", 0)
	if err := release(); err != nil {
		t.Error(err)
	}
	if !lockExists(dir) {
		t.Error("removed another program's lock")
	}
}

func TestLockManyGoroutines(t *testing.T) {
	path := t.TempDir()
	l, other := NewLocks(LockOptions{}), NewLocks(LockOptions{})
	var wg sync.WaitGroup
	var inside [2]int
	var mu sync.Mutex
	for i := range 16 {
		dir := openRoot(t, path)
		wg.Go(func() {
			locks := []*Locks{l, other}[i%2]
			for range 10 {
				release, err := locks.Acquire(t.Context(), dir)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside[i%2]++
				if inside[0] > 0 && inside[1] > 0 {
					t.Error("both holders are inside")
				}
				mu.Unlock()
				mu.Lock()
				inside[i%2]--
				mu.Unlock()
				if err := release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// A process that was killed between making the lock and writing its name into it leaves an empty one.
func TestEmptyLockIsBrokenSoon(t *testing.T) {
	dir := openRoot(t, t.TempDir())
	writeLock(t, dir, "", time.Minute)
	start := time.Now()
	looks := 0
	now := func() time.Time { // each look at the lock takes a second of this clock
		looks++
		return start.Add(time.Duration(looks) * time.Second)
	}
	release, err := NewLocks(LockOptions{Hostname: "here", Now: now}).Acquire(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if looks < 5 || looks > 20 {
		t.Errorf("broken after %d looks", looks)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}
