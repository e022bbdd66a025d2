package harness

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MountInfo is a line of /proc/self/mountinfo.
type MountInfo struct {
	Point  string
	Type   string // "fuse.dsyncfs", "tmpfs"
	Source string
	Device string // "major:minor"; the minor names the FUSE connection
}

// mountsBelow returns what is mounted at or below a directory, the last mount first.
func mountsBelow(dir string) []MountInfo {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var mounts []MountInfo
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 2 {
			continue
		}
		point := unescape.Replace(left[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			mounts = append(mounts, MountInfo{point, right[0], unescape.Replace(right[1]), left[2]})
		}
	}
	slices.Reverse(mounts)
	return mounts
}

// MountedAt returns the topmost mount at a path, if there is one.
func MountedAt(point string) (MountInfo, bool) {
	for _, m := range mountsBelow(point) {
		if m.Point == point {
			return m, true
		}
	}
	return MountInfo{}, false
}

// force takes the mount away whatever state it is in.
func (m MountInfo) force() {
	m.abort()
	if exec.Command("fusermount3", "-uz", m.Point).Run() != nil {
		_ = syscall.Unmount(m.Point, syscall.MNT_DETACH) // nothing else is left to try
	}
}

// abort ends the FUSE connection, so that whoever waits for its daemon gets an error.
func (m MountInfo) abort() {
	if !strings.HasPrefix(m.Type, "fuse") {
		return
	}
	_, minor, _ := strings.Cut(m.Device, ":")
	path := filepath.Join("/sys/fs/fuse/connections", minor, "abort")
	if _, err := os.Stat(path); err != nil {
		_ = syscall.Mount("fusectl", "/sys/fs/fuse/connections", "fusectl", 0, "") // only root can, and only root needs to
	}
	_ = os.WriteFile(path, []byte("1"), 0)
}

// Mount is a mounted Maildir. Its daemon is another process, so tests use it as any program does.
type Mount struct {
	Maildir
	env  *Env
	args []string      // to mount it again
	stop chan struct{} // ends the watchdog
}

// watchdogLimit is how long one mount may live: a test that takes longer hangs in it.
const watchdogLimit = 5 * time.Minute

// Mount mounts: settings and options come before the command, as on the command line. It goes away with the test.
func (e *Env) Mount(point string, options []string, location ...string) *Mount {
	e.TB.Helper()
	m := &Mount{Maildir: Maildir{Path: e.Path(point)}, env: e}
	m.args = append(append(slices.Clone(options), "mount", m.Path), location...)
	if err := os.MkdirAll(m.Path, 0o700); err != nil {
		e.TB.Fatal(err)
	}
	m.Again()
	e.TB.Cleanup(m.close)
	return m
}

// Again runs the mount command, which returns when the mount is ready.
func (m *Mount) Again() Result {
	m.env.TB.Helper()
	r := m.TryAgain().Want(0)
	if _, ok := MountedAt(m.Path); !ok {
		m.env.TB.Fatalf("dsyncfs %s: ended with 0 but nothing is mounted: %s", strings.Join(m.args, " "), r.Stderr)
	}
	m.watch()
	return r
}

// TryAgain is Again where it may fail. The daemon inherits no pipe of ours: it must let go of the command's.
func (m *Mount) TryAgain() Result {
	m.env.TB.Helper()
	return m.env.Run(m.args...)
}

// watch kills a daemon that lives too long, after having it say where it hangs.
func (m *Mount) watch() {
	if m.stop != nil {
		close(m.stop)
	}
	stop := make(chan struct{})
	m.stop = stop
	go func() {
		select {
		case <-stop:
		case <-time.After(watchdogLimit):
			for _, p := range m.daemons() {
				_ = syscall.Kill(p.PID, syscall.SIGQUIT)
			}
			for _, mount := range mountsBelow(m.Path) {
				mount.abort()
			}
			m.env.TB.Errorf("mount %s: the test hung, its connection was aborted", m.Path)
		}
	}()
}

// KeepAlive says that a test which has the mount for long does not hang.
func (m *Mount) KeepAlive() { m.watch() }

// daemons are the processes that serve this mount: those of the environment that run the mount command.
func (m *Mount) daemons() []process {
	var found []process
	for _, p := range markedProcesses(m.env.Dir) {
		if strings.Contains(p.Command, " mount "+m.Path) {
			found = append(found, p)
		}
	}
	return found
}

// PID is the number of the daemon.
func (m *Mount) PID() int {
	m.env.TB.Helper()
	d := m.daemons()
	if len(d) != 1 {
		m.env.TB.Fatalf("mount %s: %d daemons: %v", m.Path, len(d), d)
	}
	return d[0].PID
}

// Kill ends the daemon with SIGKILL and waits until it is gone. The dead mount stays.
func (m *Mount) Kill() {
	m.env.TB.Helper()
	pid := m.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		m.env.TB.Fatal(err)
	}
	m.WaitGone(pid)
}

// WaitGone waits until a process has ended.
func (m *Mount) WaitGone(pid int) {
	m.env.TB.Helper()
	m.env.Eventually(fmt.Sprintf("process %d ends", pid), 30*time.Second, func() error {
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("still there")
		}
		return nil
	})
}

// Umount unmounts with the command line.
func (m *Mount) Umount() Result {
	m.env.TB.Helper()
	pid := m.PID()
	r := m.env.Run("umount", m.Path).Want(0)
	m.Unmounted(pid)
	return r
}

// Unmounted waits until the mount and its daemon are gone.
func (m *Mount) Unmounted(pid int) {
	m.env.TB.Helper()
	m.WaitGone(pid)
	if info, ok := MountedAt(m.Path); ok {
		m.env.TB.Fatalf("still mounted: %+v", info)
	}
}

// close is the end of the test: an ordinary unmount, and force if that does not work.
func (m *Mount) close() {
	if m.stop != nil {
		close(m.stop)
		m.stop = nil
	}
	defer func() {
		for _, p := range m.daemons() {
			p.kill()
		}
	}()
	if len(mountsBelow(m.Path)) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := m.env.Command(ctx, Binary(m.env.TB), "umount", m.Path).CombinedOutput()
	if err != nil && !m.env.TB.Failed() {
		m.env.TB.Errorf("umount %s: %v: %s", m.Path, err, out)
	}
	for _, left := range mountsBelow(m.Path) {
		left.force()
	}
	limit := time.Now().Add(10 * time.Second)
	for len(m.daemons()) > 0 && time.Now().Before(limit) {
		time.Sleep(10 * time.Millisecond)
	}
}
