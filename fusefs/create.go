package fusefs

import (
	"strconv"
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Open is answered once for all: the kernel opens files without asking from then on. See doc.go.
func (f *fileSystem) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Create makes and opens a file. The answer has no handle, because nobody would release it; the descriptor stays in the
// cache for the writes that follow.
func (f *fileSystem) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("create", err)
	}
	defer f.dirFDs.release(fd)
	if f.refused() {
		return fuse.EROFS
	}
	if f.reserved(d, name) || f.isWithheld(d, name) {
		return fuse.Status(errNotHere)
	}
	m, lock := f.createMeans(d, name)
	var file int
	var st unix.Stat_t
	err = f.change("create", m, lock, func() (err error) {
		file, err = f.createFile(fd.fd, name, in)
		return err
	})
	if err == nil {
		err = unix.Fstat(file, &st)
	}
	if err != nil {
		return f.status("create", err)
	}
	if name == lockName {
		f.lockTaken(d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.adopt(d, name, &st)
	f.files.release(f.files.put(id, file, true))
	f.answer(&out.EntryOut, d, id, st.Rdev)
	f.table.Get(id).Flags |= inode.Created
	out.OpenOut = fuse.OpenOut{OpenFlags: openFlags(d, in.Flags)}
	if d.kind == tmpDir {
		out.SetEntryTimeout(mailTimeout) // it is about to be a mail, and the kernel keeps the time over a rename
	}
	if !m.empty() {
		f.beginRewrite(id)
	}
	return fuse.OK
}

// openFlags says how the kernel is to treat a file that was just made. What a delivery agent only writes is written directly:
// through the page cache the kernel would first ask whether the file has capabilities that a write must clear, one message
// a file, and would drop the pages when it learns the new time of the file.
func openFlags(d *directory, flags uint32) uint32 {
	if d.kind == tmpDir && flags&unix.O_ACCMODE == unix.O_WRONLY {
		return fuse.FOPEN_DIRECT_IO
	}
	return fuse.FOPEN_KEEP_CACHE
}

// createMeans says what a new name means: a mail if it is one, although its bytes are still to come.
func (f *fileSystem) createMeans(d *directory, name string) (m meaning, lock []string) {
	s := f.spotOf(d, name, false)
	if !s.visible() {
		return m, nil
	}
	if s.kind == curDir {
		lock = []string{d.box.path}
	}
	return m.appeared(s), lock
}

// createFile opens a new file for reading and writing, whatever the program asked for, with exactly the mode of the
// request, and owned by the caller.
func (f *fileSystem) createFile(dirFD int, name string, in *fuse.CreateIn) (int, error) {
	const kept = unix.O_CREAT | unix.O_EXCL | unix.O_TRUNC
	flags := int(in.Flags)&kept | unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.Openat(dirFD, name, flags, in.Mode&0o7777)
	if err != nil {
		return -1, err
	}
	if err := f.giveTo(dirFD, fd, in.Mode, in.Caller); err != nil {
		unix.Close(fd)
		unix.Unlinkat(dirFD, name, 0)
		return -1, err
	}
	return fd, nil
}

// giveTo gives a new file the owner and mode that the request wants, where the system calls gave it others: our umask is not
// the caller's, and neither is our user if we are root.
func (f *fileSystem) giveTo(dirFD, fd int, mode uint32, caller fuse.Caller) error {
	if uid, gid, ok := f.ownerFor(dirFD, caller); ok {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return err
		}
	} else if mode&f.umask == 0 && mode&0o7000 == 0 {
		return nil
	}
	return unix.Fchmod(fd, mode&0o7777)
}

// ownerFor returns the owner of what a caller makes in a directory; ok is false if it gets that anyway. A directory with
// the set-group-ID bit gives its group.
func (f *fileSystem) ownerFor(dirFD int, caller fuse.Caller) (uid, gid int, ok bool) {
	if !f.isRoot || f.opts.UID != nil || caller.Uid == 0 && caller.Gid == 0 {
		return 0, 0, false
	}
	uid, gid = int(caller.Uid), int(caller.Gid)
	var st unix.Stat_t
	if unix.Fstat(dirFD, &st) == nil && st.Mode&unix.S_ISGID != 0 {
		gid = int(st.Gid)
	}
	return uid, gid, true
}

// named finishes the making of something that is not open: owner and mode, and the answer.
func (f *fileSystem) named(d *directory, fd *descriptor, name string, mode uint32, caller fuse.Caller, out *fuse.EntryOut) fuse.Status {
	uid, gid, chown := f.ownerFor(fd.fd, caller)
	if chown {
		if err := unix.Fchownat(fd.fd, name, uid, gid, statFlags); err != nil {
			return f.status("chown", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd.fd, name, &st, statFlags); err != nil {
		return f.status("stat", err)
	}
	want := mode&0o7777 | st.Mode&unix.S_ISGID
	if st.Mode&unix.S_IFMT != unix.S_IFLNK && st.Mode&0o7777 != want {
		if err := unix.Fchmodat(fd.fd, name, want, 0); err != nil {
			return f.status("chmod", err)
		}
		st.Mode = st.Mode&unix.S_IFMT | want
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer(out, d, f.adopt(d, name, &st), st.Rdev)
	return fuse.OK
}

// Mknod makes a file that is not opened, a FIFO, a socket or a device; in a mail directory only a file.
func (f *fileSystem) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("mknod", err)
	}
	defer f.dirFDs.release(fd)
	if f.refused() {
		return fuse.EROFS
	}
	if d.isMail() && in.Mode&unix.S_IFMT != unix.S_IFREG {
		return fuse.EPERM
	}
	if f.reserved(d, name) {
		return fuse.Status(errNotHere)
	}
	m, lock := f.createMeans(d, name)
	err = f.change("mknod", m, lock, func() error { return unix.Mknodat(fd.fd, name, in.Mode, int(in.Rdev)) })
	if err != nil {
		return f.status("mknod", err)
	}
	return f.named(d, fd, name, in.Mode, in.Caller, out)
}

// Mkdir makes a directory, which may be a mailbox: by its name, or because cur makes one of its parent (LAYOUT=fs).
func (f *fileSystem) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("mkdir", err)
	}
	defer f.dirFDs.release(fd)
	make := func() error { return unix.Mkdirat(fd.fd, name, in.Mode&0o7777) }
	own, late := f.own.take(ownOp{op: "mkdir", dir: d.path, name: name})
	switch {
	case late:
		return fuse.Status(syscall.EEXIST)
	case own != nil:
		err = make()
	case f.refused():
		return fuse.EROFS
	case d.isMail():
		return fuse.EPERM
	default:
		err = f.change("mkdir", f.mkdirMeans(d, name), nil, make)
	}
	if err != nil {
		return f.status("mkdir", err)
	}
	return f.named(d, fd, name, in.Mode, in.Caller, out)
}

func (f *fileSystem) mkdirMeans(d *directory, name string) meaning {
	if box := f.boxName(d, name); box != "" {
		return boxMeaning("", box)
	}
	if box, ok := f.engine.Mailbox(d.path); ok && kindOf(name) == curDir {
		return boxMeaning("", box)
	}
	return meaning{}
}

// Symlink makes a symbolic link, not in a mail directory.
func (f *fileSystem) Symlink(cancel <-chan struct{}, header *fuse.InHeader, pointedTo, name string, out *fuse.EntryOut) fuse.Status {
	d, fd, err := f.dir(header.NodeId)
	if err != nil {
		return f.status("symlink", err)
	}
	defer f.dirFDs.release(fd)
	if f.refused() {
		return fuse.EROFS
	}
	if d.isMail() {
		return fuse.EPERM
	}
	if err := unix.Symlinkat(pointedTo, fd.fd, name); err != nil {
		return f.status("symlink", err)
	}
	return f.named(d, fd, name, 0o777, header.Caller, out)
}

// Tmpfile makes a file without a name; its descriptor is all there is of it.
func (f *fileSystem) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("tmpfile", err)
	}
	defer f.dirFDs.release(fd)
	if f.refused() {
		return fuse.EROFS
	}
	file, err := unix.Openat(fd.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, in.Mode&0o7777)
	if err != nil {
		return f.status("tmpfile", err)
	}
	var st unix.Stat_t
	if err = f.giveTo(fd.fd, file, in.Mode, in.Caller); err == nil {
		err = unix.Fstat(file, &st)
	}
	if err != nil {
		unix.Close(file)
		return f.status("tmpfile", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.table.New()
	f.table.Get(id).SetType(st.Ino, uint16(st.Mode))
	f.table.Get(id).Flags |= inode.Created
	f.refresh(id, &st)
	f.files.release(f.files.put(id, file, true))
	f.files.pin(id)
	f.answer(&out.EntryOut, d, id, 0)
	return fuse.OK
}

// Link gives a file a further name.
func (f *fileSystem) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if f.refusedName(name) {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("link", err)
	}
	defer f.dirFDs.release(fd)
	call, late := f.own.take(ownOp{op: "link", dir: d.path, name: name})
	if late {
		return fuse.Status(syscall.EEXIST)
	}
	own := call != nil
	if f.refused() && !own {
		return fuse.EROFS
	}
	if f.isPromised(in.Oldnodeid) {
		err := f.linkPromised(in.Oldnodeid, d, fd, name, out)
		if err != syscall.ESTALE { // else it has come meanwhile
			return f.status("link", err)
		}
	}
	if !own && f.reserved(d, name) {
		return fuse.Status(syscall.EEXIST)
	}
	if f.isWithheld(d, name) {
		return errWithheld
	}
	return f.status("link", f.link(inode.ID(in.Oldnodeid), d, fd, name, own, out))
}

func (f *fileSystem) link(id inode.ID, d *directory, fd *descriptor, name string, own bool, out *fuse.EntryOut) error {
	f.mu.Lock()
	id = f.target(id)
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return syscall.ESTALE
	}
	if d.isMail() && n.Mode()&unix.S_IFMT != unix.S_IFREG {
		f.mu.Unlock()
		return syscall.EPERM
	}
	oldDir, oldName := f.dirs[n.Dir], n.Name
	f.mu.Unlock()
	from := spot{}
	if oldName != "" && oldDir != nil {
		from = f.spotOf(oldDir, oldName, true)
	}
	to := f.spotOf(d, name, false)
	m, lock := linkMeaning(from, to), []string(nil)
	if to.visible() && to.kind == curDir {
		lock = []string{d.box.path}
	}
	if own {
		m, lock = meaning{}, nil
		if !from.visible() && to.visible() {
			defer f.push(id)
		}
	}
	if err := f.change("link", m, lock, func() error { return f.linkNode(id, oldDir, oldName, fd.fd, name) }); err != nil {
		return err
	}
	if err := f.followLink(id, d, fd, name, out); err != nil {
		return err
	}
	return f.delivered(m)
}

// linkNode links by name, or by descriptor what has none (O_TMPFILE).
func (f *fileSystem) linkNode(id inode.ID, oldDir *directory, oldName string, toFD int, name string) error {
	if oldName == "" || oldDir == nil {
		file := f.files.get(id, false)
		if file == nil {
			return syscall.ENOENT
		}
		defer f.files.release(file)
		err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(file.fd), toFD, name, unix.AT_SYMLINK_FOLLOW)
		if err == nil {
			f.files.unpin(id)
		}
		return err
	}
	p, err := f.dirFD(oldDir.id)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(p)
	err = unix.Linkat(p.fd, oldName, toFD, name, 0)
	if err != unix.ENOENT || !f.dropGoneName(id, nameKey{oldDir.id, oldName}, p) {
		return err
	}
	f.mu.Lock()
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return syscall.ENOENT
	}
	oldDir, oldName = f.dirs[n.Dir], n.Name
	f.mu.Unlock()
	return f.linkNode(id, oldDir, oldName, toFD, name)
}

func (f *fileSystem) followLink(id inode.ID, d *directory, fd *descriptor, name string, out *fuse.EntryOut) error {
	var st unix.Stat_t
	if err := unix.Fstatat(fd.fd, name, &st, statFlags); err != nil {
		return err
	}
	if name == lockName {
		f.lockTaken(d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.table.Get(id); n == nil || n.Ino != st.Ino {
		id = f.adopt(d, name, &st)
	} else {
		f.enter(d, name, id)
		f.refresh(id, &st)
	}
	f.answer(out, d, id, st.Rdev)
	return nil
}
