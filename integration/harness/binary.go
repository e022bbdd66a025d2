package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Binary returns the path of dsyncfs, built from this tree once for each test process, with the race detector if the
// tests have it. $DSYNCFS_TEST_BINARY names one that is built already.
func Binary(tb testing.TB) string {
	tb.Helper()
	path, err := buildBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

var buildBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("DSYNCFS_TEST_BINARY"); path != "" && !clocks {
		return filepath.Abs(path)
	}
	dir, err := runDir()
	if err != nil {
		return "", err
	}
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bin", "dsyncfs")
	args := append([]string{"build", "-o", path}, raceFlags...)
	if clocks {
		flags, err := clockFlags(dir)
		if err != nil {
			return "", fmt.Errorf("a dsyncfs whose clock can be set: %w", err)
		}
		args = append(args, flags...)
	}
	cmd := exec.Command("go", append(args, "./cmd/dsyncfs")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/dsyncfs: %w\n%s", err, out)
	}
	return path, nil
})
