package fusefs

import (
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const statFlags = unix.AT_SYMLINK_NOFOLLOW

// Lookup finds a name in a directory.
func (f *fileSystem) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	d, fd, err := f.dir(header.NodeId)
	if err != nil {
		return f.status("lookup", err)
	}
	defer f.dirFDs.release(fd)
	if d.isMail() && f.lookupKnown(d, name, out) {
		return fuse.OK
	}
	if f.isWithheld(d, name) {
		return errWithheld
	}
	if name == lockName {
		f.uidLock.yield(d.path)
		defer out.SetEntryTimeout(0) // it comes and goes behind the mount
	}
	var st unix.Stat_t
	err = unix.Fstatat(fd.fd, name, &st, statFlags)
	if err == unix.ENOENT && f.mayCome(d, name) {
		f.awaitNames(d, header.Pid)
		err = unix.Fstatat(fd.fd, name, &st, statFlags)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.answer(out, d, f.adopt(d, name, &st), st.Rdev)
		return fuse.OK
	case err != unix.ENOENT:
		return f.status("lookup", err)
	}
	if d.isMail() {
		if id := f.table.Find(d.names, name); id != 0 && f.promiseOf(id) == nil {
			f.dropName(d, name, id) // gone behind the mount
		}
		return f.lookupStale(d, name, header.Pid, out)
	}
	return f.negative(out, d)
}

// lookupKnown answers from memory.
func (f *fileSystem) lookupKnown(d *directory, name string, out *fuse.EntryOut) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.table.Find(d.names, name)
	if id == 0 || !f.table.Get(id).Is(inode.HasAttr) {
		return false
	}
	f.answer(out, d, id, 0)
	return true
}

// negative answers that there is no such name, which the kernel may remember. In tmp it may not: names there are unique,
// and the engine prepares files in the backing tmp that it then renames through the mount.
func (f *fileSystem) negative(out *fuse.EntryOut, d *directory) fuse.Status {
	if d.kind == tmpDir {
		return fuse.ENOENT
	}
	out.NodeId = 0
	out.SetEntryTimeout(d.timeout())
	return fuse.OK
}

// child finds the node of a name that a change is about, and its attributes now. Node 0 with a nil error is a name that
// is not there.
func (f *fileSystem) child(d *directory, fd *descriptor, name string) (inode.ID, *unix.Stat_t, error) {
	st := new(unix.Stat_t)
	err := unix.Fstatat(fd.fd, name, st, statFlags)
	if err == unix.ENOENT {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.adopt(d, name, st), st, nil
}

// GetAttr answers from memory for mail, by a stat for everything else.
func (f *fileSystem) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	id := f.target(inode.ID(in.NodeId))
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return fuse.Status(syscall.ESTALE)
	}
	if d := f.dirs[n.Dir]; n.Name != "" && d != nil && d.isMail() && n.Is(inode.HasAttr) {
		f.fillAttr(&out.Attr, f.attrAs(inode.ID(in.NodeId), n.Attr()))
		out.SetTimeout(mailTimeout)
		f.mu.Unlock()
		return fuse.OK
	}
	f.mu.Unlock()
	return f.statInto(inode.ID(in.NodeId), out)
}

// statInto answers with a fresh stat of a node.
func (f *fileSystem) statInto(asked inode.ID, out *fuse.AttrOut) fuse.Status {
	f.mu.Lock()
	id := f.target(asked)
	f.mu.Unlock()
	var st unix.Stat_t
	if err := f.statNode(id, &st); err != nil {
		return f.status("getattr", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.table.Get(id)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	f.refresh(id, &st)
	f.fillAttr(&out.Attr, f.attrAs(asked, attrOf(&st)))
	out.Rdev = uint32(st.Rdev)
	out.SetTimeout(plainTimeout)
	if d := f.dirs[id]; d != nil && d.isMail() {
		out.SetTimeout(mailTimeout)
	} else if d := f.dirs[n.Dir]; n.Name != "" && d != nil {
		out.SetTimeout(d.timeout())
	}
	return fuse.OK
}

// statNode stats a node by its descriptor if there is one, else by its name.
func (f *fileSystem) statNode(id inode.ID, st *unix.Stat_t) error {
	f.mu.Lock()
	n := f.table.Get(id)
	isDir := f.dirs[id] != nil
	if n == nil {
		f.mu.Unlock()
		return syscall.ESTALE
	}
	dir, name, ino := n.Dir, n.Name, n.Ino
	f.mu.Unlock()
	if isDir {
		fd, err := f.dirFD(id)
		if err != nil {
			return err
		}
		defer f.dirFDs.release(fd)
		return unix.Fstat(fd.fd, st)
	}
	if fd := f.files.get(id, false); fd != nil {
		defer f.files.release(fd)
		return unix.Fstat(fd.fd, st)
	}
	if name == "" {
		return syscall.ESTALE
	}
	p, err := f.dirFD(dir)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(p)
	if err := unix.Fstatat(p.fd, name, st, statFlags); err != nil {
		return err
	}
	if st.Ino != ino {
		return syscall.ESTALE
	}
	return nil
}

// Readlink returns where a symbolic link points. Links outside mail directories are shown as they are.
func (f *fileSystem) Readlink(cancel <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	f.mu.Lock()
	n := f.table.Get(inode.ID(header.NodeId))
	if n == nil || n.Name == "" {
		f.mu.Unlock()
		return nil, fuse.Status(syscall.ESTALE)
	}
	dir, name := n.Dir, n.Name
	f.mu.Unlock()
	p, err := f.dirFD(dir)
	if err != nil {
		return nil, f.status("readlink", err)
	}
	defer f.dirFDs.release(p)
	buf := make([]byte, unix.PathMax)
	l, err := unix.Readlinkat(p.fd, name, buf)
	if err != nil {
		return nil, f.status("readlink", err)
	}
	return buf[:l], fuse.OK
}

// StatFs answers with the backing file system's numbers.
func (f *fileSystem) StatFs(cancel <-chan struct{}, header *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	fd, err := f.dirFD(inode.Root)
	if err != nil {
		return f.status("statfs", err)
	}
	defer f.dirFDs.release(fd)
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(fd.fd, &st); err != nil {
		return f.status("statfs", err)
	}
	out.FromStatfsT(&st)
	return fuse.OK
}
