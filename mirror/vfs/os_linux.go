package vfs

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Descriptor is implemented by the files and directories of the real file system: for copy_file_range, inotify and the
// like. The caller must keep the object open while it uses the number, and must not close the number itself.
type Descriptor interface {
	Fd() uintptr
}

// osFS is a real directory and what is below it.
type osFS struct {
	handle
	root      string // for messages
	noOpenat2 atomic.Bool
}

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// Open opens the real directory at path as a root. Symbolic links up to and including the root itself are followed, once.
// Errors are *fs.PathError.
func Open(root string) (FS, error) {
	fd, err := retryN(func() (int, error) { return unix.Open(root, dirFlags, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	return newOS(fd, root), nil
}

// OpenFd makes a root of an open directory descriptor, which it duplicates: for a directory that a mount has covered since.
// The name is used in messages only.
func OpenFd(fd uintptr, name string) (FS, error) {
	// Opening "." instead of dup gives a description of our own, readable even if fd is an O_PATH one, and proves that it
	// is a directory.
	own, err := retryN(func() (int, error) { return unix.Openat(int(fd), ".", dirFlags, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return newOS(own, name), nil
}

func newOS(fd int, root string) *osFS {
	f := &osFS{root: root}
	f.init(fd)
	return f
}

// OpenDir implements [FS]. A symbolic link below the root is followed if it stays below the root and the kernel can see to
// that (openat2, Linux 5.6); elsewhere it is ELOOP. One that leads out is EXDEV.
func (f *osFS) OpenDir(dir string) (Dir, error) {
	fd, err := f.acquire()
	if err == nil {
		defer f.release()
		var own int
		if own, err = f.openDir(fd, dir); err == nil {
			d := &osDir{fs: f, path: dir}
			d.init(own)
			return d, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: path.Join(f.root, dir), Err: err}
}

func (f *osFS) openDir(root int, dir string) (int, error) {
	if dir == "" {
		return retryN(func() (int, error) { return unix.Openat(root, ".", dirFlags, 0) })
	}
	for part := range strings.SplitSeq(dir, "/") {
		if err := checkName(part); err != nil {
			return -1, err
		}
	}
	if !f.noOpenat2.Load() {
		how := unix.OpenHow{Flags: dirFlags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := openat2(root, dir, &how)
		// A sandbox that does not know the call answers EPERM, which openat2 itself has no reason for here.
		if err != unix.ENOSYS && err != unix.EPERM {
			return fd, err
		}
		f.noOpenat2.Store(true)
	}
	return openNoFollow(root, dir)
}

// openat2 repeats the call on EAGAIN, which says that a rename elsewhere kept the kernel from proving that the path stays
// below the root (openat2(2)). The number of attempts is bounded so that a hostile renamer cannot keep us here.
func openat2(root int, dir string, how *unix.OpenHow) (fd int, err error) {
	for range 128 {
		fd, err = unix.Openat2(root, dir, how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

// openNoFollow walks down one component at a time and follows no link at all.
func openNoFollow(root int, dir string) (int, error) {
	fd := root
	for part := range strings.SplitSeq(dir, "/") {
		at := fd
		next, err := retryN(func() (int, error) { return unix.Openat(at, part, dirFlags|unix.O_NOFOLLOW, 0) })
		if at != root {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// Sync implements [FS]: everything of the file system that holds the root, whoever wrote it.
func (f *osFS) Sync() error {
	fd, err := f.acquire()
	if err == nil {
		defer f.release()
		err = retry(func() error { return unix.Syncfs(fd) })
	}
	return pathError("syncfs", f.root, err)
}

func (f *osFS) Close() error { return pathError("close", f.root, f.handle.Close()) }

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func linkError(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}
