package vfs

import (
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// osDir is an open directory; every operation is one system call relative to its descriptor.
type osDir struct {
	handle
	fs   *osFS
	path string
}

func (d *osDir) Path() string { return d.path }

// full is the path for messages; it is computed only when there is one.
func (d *osDir) full(name string) string { return path.Join(d.fs.root, d.path, name) }

// do runs one call on an entry, repeated on EINTR, and dresses its error.
func (d *osDir) do(op, name string, call func(fd int) error) error {
	err := checkName(name)
	if err == nil {
		var fd int
		if fd, err = d.acquire(); err == nil {
			err = retry(func() error { return call(fd) })
			d.release()
		}
	}
	if err == nil {
		return nil
	}
	return pathError(op, d.full(name), err)
}

// doBoth is do for calls on two entries. A directory of another file system is EXDEV.
func (d *osDir) doBoth(op, name string, to Dir, newName string, call func(from, to int) error) error {
	err := checkName(name)
	if err == nil {
		err = checkName(newName)
	}
	t, ok := to.(*osDir)
	if err == nil && !ok {
		err = unix.EXDEV
	}
	if err == nil {
		err = withBoth(&d.handle, &t.handle, call)
	}
	if err == nil {
		return nil
	}
	if !ok {
		return linkError(op, d.full(name), newName, err)
	}
	return linkError(op, d.full(name), t.full(newName), err)
}

func withBoth(a, b *handle, call func(a, b int) error) error {
	fa, err := a.acquire()
	if err != nil {
		return err
	}
	defer a.release()
	fb, err := b.acquire()
	if err != nil {
		return err
	}
	defer b.release()
	return retry(func() error { return call(fa, fb) })
}

func (d *osDir) Stat(name string) (Info, error) {
	var st unix.Stat_t
	if err := d.do("stat", name, func(fd int) error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return Info{}, err
	}
	return infoOf(&st), nil
}

func (d *osDir) Info() (Info, error) { return d.stat(d.full("")) }

// open opens a file. O_NONBLOCK has no effect on a file, and keeps a FIFO that somebody put there from stopping us.
func (d *osDir) open(name string, flags int, perm uint32) (File, error) {
	f := &osFile{dir: d, name: name}
	err := d.do("open", name, func(fd int) error {
		own, err := unix.Openat(fd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_LARGEFILE, perm)
		f.fd = own
		return err
	})
	if err != nil {
		return nil, err
	}
	f.init(f.fd)
	return f, nil
}

func (d *osDir) Open(name string) (File, error) { return d.open(name, unix.O_RDONLY, 0) }

// Create implements [Dir]. The file can be read back too; perm is subject to the umask.
func (d *osDir) Create(name string, perm uint32) (File, error) {
	return d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, perm)
}

func (d *osDir) OpenAppend(name string) (File, error) {
	return d.open(name, unix.O_WRONLY|unix.O_APPEND, 0)
}

func (d *osDir) Mkdir(name string, perm uint32) error {
	return d.do("mkdir", name, func(fd int) error { return unix.Mkdirat(fd, name, perm) })
}

func (d *osDir) Rename(name string, to Dir, newName string) error {
	return d.doBoth("rename", name, to, newName, func(from, to int) error { return unix.Renameat(from, name, to, newName) })
}

func (d *osDir) RenameNew(name string, to Dir, newName string) error {
	return d.doBoth("rename", name, to, newName, func(from, to int) error {
		err := unix.Renameat2(from, name, to, newName, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP {
			// EINVAL is also how a directory moved into itself fails, and it fails the same way again below.
			return renameNewByLink(from, name, to, newName)
		}
		return err
	})
}

// renameNewByLink is for file systems without RENAME_NOREPLACE (NFS, some FUSE). A crash in the middle leaves both names. A
// directory, and a file where there are no hard links, is renamed after a look, which another program can slip past.
func renameNewByLink(from int, name string, to int, newName string) error {
	err := unix.Linkat(from, name, to, newName, 0)
	switch err {
	case nil:
		return unix.Unlinkat(from, name, 0)
	case unix.EPERM, unix.EOPNOTSUPP, unix.ENOSYS:
	default:
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(to, newName, &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
		if err == nil {
			err = unix.EEXIST
		}
		return err
	}
	return unix.Renameat(from, name, to, newName)
}

func (d *osDir) Link(name string, to Dir, newName string) error {
	return d.doBoth("link", name, to, newName, func(from, to int) error { return unix.Linkat(from, name, to, newName, 0) })
}

func (d *osDir) Remove(name string) error {
	return d.do("remove", name, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

func (d *osDir) RemoveDir(name string) error {
	return d.do("rmdir", name, func(fd int) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
}

// SetTimes implements [Dir]; the access time stays.
func (d *osDir) SetTimes(name string, mtime time.Time) error {
	m, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return pathError("utimes", d.full(name), err)
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, m}
	return d.do("utimes", name, func(fd int) error { return unix.UtimesNanoAt(fd, name, ts, unix.AT_SYMLINK_NOFOLLOW) })
}

// Chmod implements [Dir]; the mode is exact. A symbolic link is EOPNOTSUPP.
func (d *osDir) Chmod(name string, perm uint32) error {
	return d.do("chmod", name, func(fd int) error {
		err := unix.Fchmodat(fd, name, perm, unix.AT_SYMLINK_NOFOLLOW) // fchmodat2, Linux 6.6
		if err == unix.EOPNOTSUPP || err == unix.EPERM || err == unix.ENOSYS {
			return chmodByPath(fd, name, perm)
		}
		return err
	})
}

// chmodByPath goes by way of /proc, as glibc does, because fchmod refuses an O_PATH descriptor.
func chmodByPath(dir int, name string, perm uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), perm)
}

// Sync implements [Dir]. A file system that cannot sync a directory says EINVAL; it has nothing to lose there.
func (d *osDir) Sync() error {
	fd, err := d.acquire()
	if err == nil {
		defer d.release()
		if err = retry(func() error { return unix.Fsync(fd) }); err == unix.EINVAL {
			err = nil
		}
	}
	return pathError("sync", d.full(""), err)
}

func (d *osDir) Close() error { return pathError("close", d.full(""), d.handle.Close()) }
