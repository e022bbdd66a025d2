package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// BusyError says who keeps a mount from being unmounted.
type BusyError struct {
	Path    string
	Holders []Holder // may be empty: other users' processes cannot be looked at
}

// Holder is a process that uses the mount.
type Holder struct {
	PID     int
	Command string
	File    string // what it has open, or its working directory
}

func (e *BusyError) Error() string {
	if len(e.Holders) == 0 {
		return fmt.Sprintf("unmount %s: busy", e.Path)
	}
	var who []string
	for _, h := range e.Holders {
		who = append(who, fmt.Sprintf("%s (pid %d) has %s open", h.Command, h.PID, h.File))
	}
	return fmt.Sprintf("unmount %s: busy: %s", e.Path, strings.Join(who, "; "))
}

// Unwrap makes the error an EBUSY.
func (e *BusyError) Unwrap() error { return syscall.EBUSY }

// Unmount unmounts and waits until the last request is answered. Programs that have files open or stand in the mount keep
// it busy: the error is a [*BusyError]. With force the mount disappears from the tree at once, and lives on for those who
// still use it; Unmount then does not wait for them (see Done).
func (m *Mount) Unmount(ctx context.Context, force bool) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	err := unmountPath(m.path, false)
	switch {
	case err == nil:
	case errors.Is(err, syscall.EINVAL): // unmounted by somebody else
	case errors.Is(err, syscall.EBUSY) && force:
		if err := unmountPath(m.path, true); err != nil {
			return fmt.Errorf("unmount %s: %w", m.path, err)
		}
		return nil
	case errors.Is(err, syscall.EBUSY):
		return &BusyError{m.path, holders(m.path)}
	default:
		return fmt.Errorf("unmount %s: %w", m.path, err)
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: waiting for requests: %w", m.path, context.Cause(ctx))
	}
}

// UnmountPath unmounts a mount of ours that another process serves.
func UnmountPath(path string, force bool) error {
	abs, err := absoluteUnresolved(path)
	if err != nil {
		return err
	}
	e, ok := mountedAt(abs)
	if !ok || e.fsType != "fuse."+subtype {
		return fmt.Errorf("unmount %s: no dsyncfs is mounted there: %w", path, ErrMountpoint)
	}
	err = unmountPath(abs, false)
	if errors.Is(err, syscall.EBUSY) && force {
		err = unmountPath(abs, true)
	}
	if errors.Is(err, syscall.EBUSY) {
		return &BusyError{abs, holders(abs)}
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// Abort ends the connection of a mount of ours whose daemon will never answer again: whoever waits for it gets ECONNABORTED.
// The daemon has to be one that is being killed, see [Mount.Unmount] for the others. Its threads may be among those who wait,
// in a call on the mount or for the lock of a directory on which somebody else's call waits, and while they do it does not end
// and keeps the connection.
func Abort(path string) error {
	abs, err := absoluteUnresolved(path)
	if err != nil {
		return err
	}
	e, ok := mountedAt(abs)
	if !ok || e.fsType != "fuse."+subtype {
		return nil
	}
	_, minor, _ := strings.Cut(e.device, ":")
	f, err := os.OpenFile("/sys/fs/fuse/connections/"+minor+"/abort", os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		err = errors.Join(err, f.Close())
	}
	if err != nil && unix.Geteuid() == 0 { // where that is not mounted
		if err = unix.Unmount(abs, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); errors.Is(err, syscall.EBUSY) {
			err = nil // the connection is gone all the same
		}
	}
	if err != nil {
		return fmt.Errorf("abort %s: %w", path, err)
	}
	return nil
}

// holders finds the processes that use a mount by the links in /proc, which name paths without touching the mount.
func holders(mountpoint string) []Holder {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var out []Holder
	for _, proc := range procs {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		links, _ := filepath.Glob(proc + "/fd/*")
		for _, link := range append(links, proc+"/cwd", proc+"/root", proc+"/exe") {
			to, err := os.Readlink(link)
			if err == nil && (to == mountpoint || strings.HasPrefix(to, mountpoint+"/")) {
				comm, _ := os.ReadFile(proc + "/comm")
				out = append(out, Holder{pid, strings.TrimSpace(string(comm)), to})
				break
			}
		}
	}
	return out
}
