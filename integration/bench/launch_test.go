package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// launch is the environment variable that makes this program a launcher: it runs its arguments as a command and writes what
// that took to the file of the variable's value. A launcher stands in between because a process begins with the peak RSS of
// the one that started it, and the benchmark's own is large.
const launch = "DSYNCFS_BENCH_LAUNCH"

// usage is what one process took.
type usage struct {
	Wall   time.Duration
	MaxRSS int64 // bytes, as wait4 counts it
	Status int
}

func TestMain(m *testing.M) {
	if report := os.Getenv(launch); report != "" {
		os.Exit(launcher(report, os.Args[1:]))
	}
	os.Exit(harness.Main(m))
}

// launcher runs a command with our standard streams and returns its exit status.
func launcher(report string, args []string) int {
	os.Unsetenv(launch)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM) // its child gets it too, and is waited for
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	start := time.Now()
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	u := usage{time.Since(start), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, cmd.ProcessState.ExitCode()}
	text, err := json.Marshal(u)
	if err == nil {
		err = os.WriteFile(report, text, 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 127
	}
	return u.Status
}

// patience bounds one command; Dovecot takes most of a minute for its backup.
const patience = 15 * time.Minute

// measure runs a command that must end with status 0.
func measure(e *harness.Env, args ...string) usage {
	e.TB.Helper()
	u, out := attempt(e, args...)
	if u.Status != 0 {
		e.TB.Fatalf("%s: exit status %d\n%s", strings.Join(args, " "), u.Status, out)
	}
	return u
}

// attempt runs a command that may fail, and returns what it printed too.
func attempt(e *harness.Env, args ...string) (usage, []byte) {
	e.TB.Helper()
	report := e.Path("report")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := e.Command(ctx, self(e.TB), args...)
	cmd.Env = append(cmd.Env, launch+"="+report)
	syscall.Sync() // what others wrote before is not for this one to wait for
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		e.TB.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return readReport(e.TB, report), out
}

// measured is a command line that runs another one and leaves its usage in a file.
func measured(tb testing.TB, report string, args ...string) []string {
	tb.Helper()
	return append([]string{"env", launch + "=" + report, self(tb)}, args...)
}

func readReport(tb testing.TB, report string) usage {
	tb.Helper()
	text, err := os.ReadFile(report)
	if err != nil {
		tb.Fatal(err)
	}
	var u usage
	if err := json.Unmarshal(text, &u); err != nil {
		tb.Fatal(err)
	}
	return u
}

func self(tb testing.TB) string {
	tb.Helper()
	path, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Clean(path)
}
