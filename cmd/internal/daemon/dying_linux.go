package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/fusefs"
	"dsyncfs/mirror/journal"
)

// dyingTime bounds how long a daemon that was killed may take to end once nothing holds it any more.
const dyingTime = 10 * time.Second

// unstick lets the daemon of a mount end if it was killed and cannot: one of its threads waited for an answer of its own mount,
// which nobody is there to give. Programs that use the mount wait as well until then.
func unstick(cfg *config.Config, mountpoint string) error {
	dir, err := Dir(cfg, mountpoint)
	if err != nil {
		return err
	}
	pid := owner(dir)
	if !dying(pid) {
		return nil
	}
	if err := fusefs.Abort(mountpoint); err != nil {
		return err
	}
	for limit := time.Now().Add(dyingTime); dying(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			return fmt.Errorf("process %d is still there", pid)
		}
	}
	return nil
}

// owner returns the process that serves, or served, the mount of a state directory; 0 if it is not known.
func owner(dir string) int { return journal.Owner(filepath.Join(dir, journalName)) }

// dying reports whether a process was killed and has not ended.
func dying(pid int) bool {
	if pid <= 0 {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	threads := 0
	killed, zombie := false, false
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "State":
			zombie = bytes.HasPrefix(value, []byte("Z"))
		case "Threads":
			threads, _ = strconv.Atoi(string(value))
		case "SigPnd", "ShdPnd": // a set, in hexadecimal (proc_pid_status(5))
			set, err := strconv.ParseUint(string(value), 16, 64)
			killed = killed || err == nil && set&(1<<(unix.SIGKILL-1)) != 0
		}
	}
	return zombie && threads > 1 || killed && !(zombie && threads <= 1)
}
