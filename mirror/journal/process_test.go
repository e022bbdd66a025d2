package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/mirror/vfs"
)

const childEnv = "DSYNCFS_JOURNAL_TEST_CHILD"

// TestMain makes the test program append without end when it is started as a child, and say each number that it got.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, appendForever(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func appendForever(dir string) error {
	j, err := Open(dir, Options{SegmentSize: 4000})
	if err != nil {
		return err
	}
	for n := j.Last() + 1; ; n++ {
		seq, err := j.Append(event(int(n)))
		if err != nil {
			return err
		}
		if _, err := fmt.Println(seq); err != nil {
			return err
		}
	}
}

// TestKillLosesNothing kills a real process again and again: what it said to have recorded is there.
func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	last := 0
	for round := range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		said := bufio.NewScanner(out)
		for range 50 + 37*round {
			if !said.Scan() {
				t.Fatal("the child ended")
			}
		}
		if _, err := Open(dir, Options{}); !isLockedBy(err, child.Process.Pid) {
			t.Errorf("opened beside a live process %d: %v", child.Process.Pid, err)
		}
		must(t, child.Process.Kill())
		acked := last
		for line := said.Text(); ; line = said.Text() {
			if n, err := strconv.Atoi(line); err == nil && n > acked {
				acked = n
			}
			if !said.Scan() {
				break
			}
		}
		child.Wait() // killed; that is its status
		j, err := Open(dir, Options{})
		must(t, err)
		if last = int(j.Last()); last < acked {
			t.Fatalf("round %d: %d records left, %d acknowledged", round, last, acked)
		}
		if j.Recovery().Damaged() {
			t.Errorf("round %d: %+v", round, j.Recovery())
		}
		wantEvents(t, collect(t, j, 1), 1, last)
		must(t, j.Close())
	}
}

func isLockedBy(err error, pid int) bool {
	var locked *LockedError
	return errors.As(err, &locked) && locked.PID == pid && strings.Contains(err.Error(), fmt.Sprint("process ", pid))
}

func TestLockHoldsWithinTheProcess(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{})
	must(t, err)
	if _, err := Open(dir, Options{}); !isLockedBy(err, os.Getpid()) {
		t.Errorf("opened twice: %v", err)
	}
	must(t, j.Close())
	j, err = Open(dir, Options{})
	must(t, err)
	must(t, j.Close())
	if _, err := Open(dir+"/no", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestFailedOpenGivesTheLockFree(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/"+segmentName(1), 0o700))
	for range 2 {
		var locked *LockedError
		if _, err := Open(dir, Options{}); err == nil || errors.As(err, &locked) {
			t.Errorf("a directory for a segment: %v", err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	f, err := vfs.Open(b.TempDir())
	must(b, err)
	j, err := OpenFS(f, Options{})
	must(b, err)
	for b.Loop() {
		if _, err := j.Append(event(7)); err != nil {
			b.Fatal(err)
		}
	}
	must(b, j.Close())
}
