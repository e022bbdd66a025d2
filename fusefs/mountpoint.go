package fusefs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrMountpoint is wrapped by errors that say why a directory cannot be mounted on. Nothing was changed.
var ErrMountpoint = errors.New("unfit mount point")

// prepareMountpoint checks the directory, and removes a dead mount of ours from it. It returns the absolute path.
func prepareMountpoint(opts Options) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("mount point %s: %s: %w", opts.Mountpoint, fmt.Sprintf(format, args...), ErrMountpoint)
	}
	var st unix.Stat_t
	if Dead(opts.Mountpoint) {
		if err := recoverStale(opts.Mountpoint); err != nil {
			return "", err
		}
	}
	err := unix.Stat(opts.Mountpoint, &st)
	switch {
	case err == unix.ENOENT:
		return bad("there is no such directory; make it first")
	case err != nil:
		return bad("%v", err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return bad("not a directory")
	}
	path, err := absolute(opts.Mountpoint)
	if err != nil {
		return bad("%v", err)
	}
	if e, ok := mountedAt(path); ok && strings.HasPrefix(e.fsType, "fuse") {
		return bad("%s (%s) is mounted there already", e.source, e.fsType)
	}
	var backing unix.Stat_t
	if err := unix.Fstat(int(opts.Backing.Fd()), &backing); err != nil {
		return "", fmt.Errorf("backing directory %s: %w", opts.Backing.Name(), err)
	}
	if backing.Dev == st.Dev && backing.Ino == st.Ino {
		if opts.Protect {
			return bad("it is the backing directory and cannot be protected")
		}
		return path, nil
	}
	if empty, err := isEmpty(path); err != nil {
		return bad("%v", err)
	} else if !empty {
		return bad("not empty")
	}
	return path, nil
}

// Dead reports whether a FUSE file system is mounted there whose daemon is gone. The kernel may answer a stat from its cache,
// but not a statfs; one that is under way when the daemon ends is ECONNABORTED.
func Dead(path string) bool {
	var st unix.Statfs_t
	err := unix.Statfs(path, &st)
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// keepConnection keeps the connection to the kernel from the programs that we start: go-fuse opens it without O_CLOEXEC when it
// mounts by itself, and whoever has it keeps a mount alive that nobody answers for.
func keepConnection() {
	const fds = "/proc/self/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		return // no /proc, no control socket either: it has failed before
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err != nil || to != "/dev/fuse" {
			continue
		}
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			unix.CloseOnExec(fd)
		}
	}
}

// isEmpty reports whether a directory has no entries.
func isEmpty(path string) (bool, error) {
	d, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// recoverStale takes away the mount of a daemon that died. Only a mount of ours is touched.
func recoverStale(path string) error {
	abs, err := absoluteUnresolved(path)
	if err != nil {
		return err
	}
	e, ok := mountedAt(abs)
	if !ok || e.fsType != "fuse."+subtype {
		return fmt.Errorf("mount point %s: a dead file system is mounted there (run: fusermount3 -uz %s): %w", path, path, ErrMountpoint)
	}
	if err := unmountPath(abs, true); err != nil {
		return fmt.Errorf("mount point %s: dead mount cannot be removed (run: fusermount3 -uz %s): %w", path, path, err)
	}
	return nil
}

// absoluteUnresolved makes a path absolute whose last element cannot be looked at.
func absoluteUnresolved(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	parent, last := splitPath(abs)
	dir, err := absolute("/" + strings.TrimPrefix(parent, "/"))
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(dir, "/") + "/" + last, nil
}

// mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct{ device, point, fsType, source string } // device is "major:minor"

// mountedAt returns the topmost mount on exactly that path.
func mountedAt(path string) (mountEntry, bool) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, false
	}
	defer file.Close()
	return findMount(file, path)
}

// findMount reads mountinfo: fields separated by spaces, the mount point fifth, type and source after a field "-"
// (proc_pid_mountinfo(5)). Space, tab, newline and backslash in names are octal escapes.
func findMount(r io.Reader, path string) (found mountEntry, ok bool) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		head, tail, cut := strings.Cut(lines.Text(), " - ")
		fields, after := strings.Fields(head), strings.Fields(tail)
		if !cut || len(fields) < 5 || len(after) < 2 {
			continue
		}
		if point := unescapeMount(fields[4]); point == path {
			found, ok = mountEntry{fields[2], point, after[0], unescapeMount(after[1])}, true
		}
	}
	return found, ok
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(s string) string { return mountEscapes.Replace(s) }

// covered is the directory under the mount, reached by a descriptor that was opened before.
type covered struct {
	fd   int
	mode uint32
	want bool
}

// openCovered opens the directory and makes it writable if it was protected before: fusermount3 mounts only where the user
// may write.
func openCovered(path string, protect bool) (*covered, error) {
	if !protect {
		return &covered{fd: -1}, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("mount point %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount point %s: %w", path, err)
	}
	c := &covered{fd: fd, mode: st.Mode & 0o7777, want: true}
	if c.mode&0o200 == 0 {
		if err := unix.Fchmod(fd, 0o700); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("mount point %s: %w", path, err)
		}
	}
	return c, nil
}

// protect makes the covered directory unwritable and lets go of it. That it cannot be done (another user's directory) is
// no reason not to mount.
func (c *covered) protect() {
	if c.want {
		unix.Fchmod(c.fd, protectedMode)
		unix.Close(c.fd)
	}
}

// restore gives the directory its mode back when the mount failed.
func (c *covered) restore() {
	if c.want {
		unix.Fchmod(c.fd, c.mode)
		unix.Close(c.fd)
	}
}

const protectedMode = 0o500

// unmountPath unmounts, lazily if asked to: as root directly, as any other user by fusermount3.
func unmountPath(path string, lazy bool) error {
	if unix.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if lazy {
			flags |= unix.MNT_DETACH
		}
		return unix.Unmount(path, flags)
	}
	arg := "-u"
	if lazy {
		arg = "-uz"
	}
	out, err := exec.Command("fusermount3", arg, "--", path).CombinedOutput()
	if err == nil {
		return nil
	}
	if strings.Contains(string(out), "busy") {
		return syscall.EBUSY
	}
	return fmt.Errorf("fusermount3 %s: %s: %w", arg, strings.TrimSpace(string(out)), err)
}
