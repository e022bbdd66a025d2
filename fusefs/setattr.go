package fusefs

import (
	"strconv"
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// SetAttr changes owner, mode, size and times, in this order: a change of owner clears bits of the mode, and a truncation
// sets times.
func (f *fileSystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.refused() {
		return fuse.EROFS
	}
	f.mu.Lock()
	id := f.target(inode.ID(in.NodeId))
	f.mu.Unlock()
	h, err := f.handle(id)
	if err != nil {
		return f.status("setattr", err)
	}
	defer h.release()
	for _, set := range []func(*handle, *fuse.SetAttrIn) error{f.setOwner, f.setMode, f.setSize, f.setTimes} {
		if err := set(h, in); err != nil {
			return f.status("setattr", err)
		}
	}
	return f.statInto(inode.ID(in.NodeId), out)
}

// Access answers access(2) and chdir(2) where the kernel does not check by itself: then only the user of the daemon gets in,
// so the answer is what the daemon may do. A mode of root's own is no hindrance, as everywhere.
func (f *fileSystem) Access(cancel <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	f.mu.Lock()
	id := f.target(inode.ID(in.NodeId))
	f.mu.Unlock()
	if in.Mask&unix.W_OK != 0 && f.refused() {
		return fuse.EROFS
	}
	if f.isPromised(in.NodeId) {
		if in.Mask&unix.X_OK != 0 {
			return fuse.EACCES
		}
		return fuse.OK
	}
	h, err := f.handle(id)
	if err != nil {
		return f.status("access", err)
	}
	defer h.release()
	return f.status("access", unix.Faccessat(unix.AT_FDCWD, h.procPath(), in.Mask, unix.AT_EACCESS))
}

// handle is how system calls on attributes reach a node: by descriptor if it has one, else by directory and name.
type handle struct {
	id      inode.ID
	fd      int // -1: by name
	dir     int
	name    string
	link    bool // a symbolic link
	release func()
}

func (f *fileSystem) handle(id inode.ID) (*handle, error) {
	f.mu.Lock()
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return nil, syscall.ESTALE
	}
	if f.promiseOf(id) != nil {
		f.mu.Unlock()
		return nil, errNotHere
	}
	isDir, dir, name := f.dirs[id] != nil, n.Dir, n.Name
	link := n.Mode()&unix.S_IFMT == unix.S_IFLNK
	f.mu.Unlock()
	if isDir {
		d, err := f.dirFD(id)
		if err != nil {
			return nil, err
		}
		return &handle{id: id, fd: d.fd, release: func() { f.dirFDs.release(d) }}, nil
	}
	if d := f.files.get(id, false); d != nil {
		return &handle{id: id, fd: d.fd, release: func() { f.files.release(d) }}, nil
	}
	if name == "" {
		return nil, syscall.ESTALE
	}
	p, err := f.dirFD(dir)
	if err != nil {
		return nil, err
	}
	return &handle{id: id, fd: -1, dir: p.fd, name: name, link: link, release: func() { f.dirFDs.release(p) }}, nil
}

// procPath is a path that leads to the node itself, or to its entry for what is reached by name.
func (h *handle) procPath() string {
	if h.fd >= 0 {
		return "/proc/self/fd/" + strconv.Itoa(h.fd)
	}
	return "/proc/self/fd/" + strconv.Itoa(h.dir) + "/" + h.name
}

func (f *fileSystem) setOwner(h *handle, in *fuse.SetAttrIn) error {
	uid, setUID := in.GetUID()
	gid, setGID := in.GetGID()
	if !setUID && !setGID {
		return nil
	}
	u, g := -1, -1
	if setUID {
		u = int(uid)
	}
	if setGID {
		g = int(gid)
	}
	if h.fd >= 0 {
		return unix.Fchownat(h.fd, "", u, g, unix.AT_EMPTY_PATH)
	}
	return unix.Fchownat(h.dir, h.name, u, g, statFlags)
}

func (f *fileSystem) setMode(h *handle, in *fuse.SetAttrIn) error {
	mode, ok := in.GetMode()
	if !ok {
		return nil
	}
	if h.link {
		return syscall.ENOTSUP
	}
	return unix.Fchmodat(unix.AT_FDCWD, h.procPath(), mode, 0)
}

func (f *fileSystem) setSize(h *handle, in *fuse.SetAttrIn) error {
	size, ok := in.GetSize()
	if !ok {
		return nil
	}
	if err := f.beforeWrite(uint64(h.id)); err != nil {
		return err
	}
	d, err := f.open(uint64(h.id), true)
	if err != nil {
		return err
	}
	defer f.files.release(d)
	if err := unix.Ftruncate(d.fd, int64(size)); err != nil {
		return err
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		killPrivileges(d.fd)
	}
	return nil
}

func (f *fileSystem) setTimes(h *handle, in *fuse.SetAttrIn) error {
	const any = fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW
	if in.Valid&any == 0 {
		return nil
	}
	ts := []unix.Timespec{
		timespec(in, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		timespec(in, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	flags := 0
	if h.fd < 0 {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, h.procPath(), ts, flags)
}

func timespec(in *fuse.SetAttrIn, set, now uint32, secs uint64, nsecs uint32) unix.Timespec {
	switch {
	case in.Valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case in.Valid&set != 0:
		return unix.Timespec{Sec: int64(secs), Nsec: int64(nsecs)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}
