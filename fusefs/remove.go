package fusefs

import (
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Unlink removes a name: an expunge if it was the last of a mail in its mailbox.
func (f *fileSystem) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	e, err := f.end(header.NodeId, name)
	if err != nil {
		return f.status("unlink", err)
	}
	defer f.dirFDs.release(e.fd)
	if own, late := f.own.take(ownOp{op: "unlink", dir: e.d.path, name: name}); late {
		return fuse.ENOENT
	} else if own != nil {
		return f.status("unlink", f.doUnlink(e))
	}
	if f.refused() {
		return fuse.EROFS
	}
	if e.id == 0 {
		if done, err := f.unlinkPromised(e.d, name, header.Pid); done {
			return f.status("unlink", err)
		}
		if e.id, e.st, err = f.child(e.d, e.fd, name); err != nil { // it may have come meanwhile
			return f.status("unlink", err)
		}
	}
	return f.status("unlink", f.unlink(e, header.Pid))
}

func (f *fileSystem) unlink(e *end, pid uint32) error {
	if e.id == 0 {
		if err := f.resolveStale(e, pid); err != nil {
			return err
		}
		defer f.dirFDs.release(e.fd)
		defer f.notices.entry(e.d.id, e.name)
	}
	s := f.spotOf(e.d, e.name, true)
	m := removeMeaning(s, f.hasOtherName(e))
	if ev, ok := f.controlEvent(e.d, e.name); ok {
		m.after = append(m.after, ev)
	}
	var lock []string
	if s.visible() {
		lock = []string{e.d.box.path}
	}
	err := f.change("unlink", m, lock, func() error { return f.doUnlink(e) })
	if err == nil && e.name == lockName {
		f.uidLock.released(e.d.path)
	}
	return err
}

// hasOtherName reports whether the mail of a name has another in its mailbox.
func (f *fileSystem) hasOtherName(e *end) bool {
	if !e.d.isMail() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.Others(e.d.names, e.name) {
		return true
	}
	in := f.sub(e.d.box, e.d.kind.sibling())
	if in == nil {
		return false
	}
	id, _ := f.table.FindKey(in.names, baseOf(e.name))
	return id != 0
}

// doUnlink removes the name and follows it in memory.
func (f *fileSystem) doUnlink(e *end) error {
	if e.id == 0 {
		return syscall.ENOENT
	}
	if e.st.Nlink <= 1 {
		f.keepOpen(e.id)
	}
	if err := unix.Unlinkat(e.fd.fd, e.name, 0); err != nil {
		f.files.unpin(e.id)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.Get(e.id) != nil && f.table.HasName(e.id, e.d.id, e.name) {
		f.dropName(e.d, e.name, e.id)
		f.refreshAfterUnlink(e.id)
	}
	return nil
}

// keepOpen makes sure that a file which is about to lose its last name can still be read and written by those who have it
// open: without OPEN and RELEASE we do not know whether anybody has. The descriptor is given up when the kernel forgets
// the node, which it does at once if nobody has. A file that cannot be opened cannot be open for reading either.
func (f *fileSystem) keepOpen(id inode.ID) {
	f.mu.Lock()
	n := f.table.Get(id)
	isFile := n != nil && n.Mode()&unix.S_IFMT == unix.S_IFREG && n.Lookups > 0
	mail := isFile && f.dirs[n.Dir] != nil && f.dirs[n.Dir].isMail()
	f.mu.Unlock()
	if !isFile {
		return
	}
	d, err := f.open(uint64(id), !mail)
	if err != nil && !mail {
		d, err = f.open(uint64(id), false)
	}
	if err != nil {
		return
	}
	defer f.files.release(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.Get(id) != nil {
		f.files.pin(id)
	}
}

// refreshAfterUnlink reads the attributes of a file again that lost a name: its other names show them too. The caller
// holds mu.
func (f *fileSystem) refreshAfterUnlink(id inode.ID) {
	n := f.table.Get(id)
	if n == nil {
		return
	}
	if n.Name != "" {
		if f.fetchAttr(id) != nil {
			n.Flags &^= inode.HasAttr
		}
		return
	}
	if d := f.files.get(id, false); d != nil {
		var st unix.Stat_t
		if unix.Fstat(d.fd, &st) == nil {
			n.SetAttr(attrOf(&st))
		}
		f.files.release(d)
	}
}

// Rmdir removes an empty directory: the end of a mailbox if it was one.
func (f *fileSystem) Rmdir(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	e, err := f.end(header.NodeId, name)
	if err != nil {
		return f.status("rmdir", err)
	}
	defer f.dirFDs.release(e.fd)
	f.uidLock.yield(join(e.d.path, name))
	if own, late := f.own.take(ownOp{op: "rmdir", dir: e.d.path, name: name}); late {
		return fuse.ENOENT
	} else if own != nil {
		return f.status("rmdir", f.doRmdir(e))
	}
	if f.refused() {
		return fuse.EROFS
	}
	if f.hasPromises(e.id) {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	m := boxMeaning(f.boxName(e.d, name), "")
	if !m.empty() && !f.isEmptyDir(e) {
		return fuse.Status(syscall.ENOTEMPTY) // nothing to journal
	}
	return f.status("rmdir", f.change("rmdir", m, nil, func() error { return f.doRmdir(e) }))
}

func (f *fileSystem) doRmdir(e *end) error {
	if e.id == 0 {
		return syscall.ENOENT
	}
	if fd, err := f.dirFD(e.id); err == nil { // somebody may be in it
		f.dirFDs.pin(e.id)
		f.dirFDs.release(fd)
	}
	if err := unix.Unlinkat(e.fd.fd, e.name, unix.AT_REMOVEDIR); err != nil {
		f.dirFDs.unpin(e.id)
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.dirs[e.id]; d != nil {
		f.dropPlace(d)
		f.dropName(e.d, e.name, e.id)
	}
	return nil
}

// isEmptyDir reports whether removing a directory has a chance.
func (f *fileSystem) isEmptyDir(e *end) bool {
	if e.id == 0 {
		return true // and the removal says that it is not there
	}
	fd, err := f.dirFD(e.id)
	if err != nil {
		return true
	}
	defer f.dirFDs.release(fd)
	empty := true
	err = readNames(fd.fd, func(dirent) { empty = false })
	return err != nil || empty
}
