package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// marker is the environment variable by which processes of this run are known; its value begins with the run's directory.
const marker = "DSYNCFS_TEST_RUN"

// run is the directory of everything that the tests of this process make. It is short, because the paths of sockets are.
var run struct {
	once sync.Once
	dir  string
	err  error
}

// runPrefix begins its name.
const runPrefix = "dsyncfs-it"

func runDir() (string, error) {
	run.once.Do(func() {
		if run.dir, run.err = os.MkdirTemp("", runPrefix); run.err == nil {
			run.err = os.WriteFile(filepath.Join(run.dir, pidFile), []byte(strconv.Itoa(os.Getpid())), 0o600)
		}
	})
	return run.dir, run.err
}

// Main is TestMain: it checks that the programs the tests need are there, builds dsyncfs, runs the tests, and fails the run if a mount or a
// process of it is left over. It returns the exit status.
func Main(m *testing.M) int {
	if err := checkPrograms(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cleanEarlier()
	dir, err := runDir()
	if err == nil {
		cleanWhenStopped(dir)
		_, err = buildBinary()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	for _, left := range leftovers(dir) {
		fmt.Fprintln(os.Stderr, "left over:", left)
		status = max(status, 1)
	}
	if status != 0 && os.Getenv("DSYNCFS_TEST_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "kept:", dir)
		return status
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	return status
}

func checkPrograms() error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	if out, err := exec.Command(filepath.Join(root, "integration", "setup.sh"), "programs").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// leftovers ends what is still mounted below dir or runs with its mark, and names it.
func leftovers(dir string) []string {
	var left []string
	for _, m := range mountsBelow(dir) {
		left = append(left, "mount "+m.Point+" ("+m.Type+")")
		m.force()
	}
	for _, p := range markedProcesses(dir) {
		left = append(left, fmt.Sprintf("process %d: %s", p.PID, p.Command))
		p.kill()
	}
	return left
}

// process is a running one.
type process struct {
	PID     int
	Command string
}

// markedProcesses returns the processes whose environment has a mark that begins with prefix. Zombies have none.
func markedProcesses(prefix string) []process {
	var found []process
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !hasMark(environ, prefix) {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		found = append(found, process{pid, strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))})
	}
	return found
}

func hasMark(environ []byte, prefix string) bool {
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(marker+"=")); ok {
			rest, ok := bytes.CutPrefix(value, []byte(prefix))
			return ok && (len(rest) == 0 || rest[0] == '/')
		}
	}
	return false
}

func (p process) kill() {
	// An error means that it is gone already.
	_ = syscall.Kill(p.PID, syscall.SIGKILL)
}
