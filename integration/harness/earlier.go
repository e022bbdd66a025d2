package harness

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pidFile in the run's directory says whose it is.
const pidFile = "pid"

// cleanEarlier removes what runs that were killed left behind: their mounts, processes and directories.
func cleanEarlier() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), runPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, pidFile))
		pid, perr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || perr != nil || syscall.Kill(pid, 0) == nil {
			continue // not one of a run, or of one that still runs
		}
		leftovers(dir)
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "what an earlier run left:", err)
		}
	}
}

// cleanWhenStopped ends the run's mounts and processes when it is interrupted.
func cleanWhenStopped(dir string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // lives as long as the process
		<-signals
		leftovers(dir)
		os.RemoveAll(dir)
		os.Exit(130)
	}()
}
