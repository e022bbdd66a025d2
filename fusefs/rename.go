package fusefs

import (
	"syscall"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/mail"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// end is one end of a rename or link.
type end struct {
	d    *directory
	fd   *descriptor
	name string
	id   inode.ID     // 0: nothing there
	st   *unix.Stat_t // of id
}

func (f *fileSystem) end(nodeID uint64, name string) (*end, error) {
	d, fd, err := f.dir(nodeID)
	if err != nil {
		return nil, err
	}
	id, st, err := f.child(d, fd, name)
	if err != nil {
		f.dirFDs.release(fd)
		return nil, err
	}
	return &end{d, fd, name, id, st}, nil
}

func (e *end) isDir() bool { return e.id != 0 && e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// Rename is delivery, flag change, move, rename of a mailbox, or a plain rename.
func (f *fileSystem) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if f.refusedName(newName) {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	from, err := f.end(in.NodeId, oldName)
	if err != nil {
		return f.status("rename", err)
	}
	defer f.dirFDs.release(from.fd)
	to, err := f.end(in.Newdir, newName)
	if err != nil {
		return f.status("rename", err)
	}
	defer f.dirFDs.release(to.fd)
	if own, late := f.own.take(ownOp{"rename", from.d.path, oldName, to.d.path, newName}); late {
		return fuse.ENOENT
	} else if own != nil {
		err := f.doRename(from, to, own.flags, 0)
		if err == nil && !from.d.isMail() && to.d.isMail() {
			f.push(from.id)
		}
		return f.status("rename", err)
	}
	if f.refused() {
		return fuse.EROFS
	}
	if from.id == 0 {
		if done, err := f.renamePromised(from, to, uint(in.Flags), in.Pid); done {
			return f.status("rename", err)
		}
		if from.id, from.st, err = f.child(from.d, from.fd, oldName); err != nil { // it may have come meanwhile
			return f.status("rename", err)
		}
	}
	if f.reserved(to.d, newName) && to.id == 0 || f.isWithheld(to.d, newName) {
		return fuse.Status(errNotHere)
	}
	return f.status("rename", f.rename(from, to, uint(in.Flags), in.Pid))
}

// rename is a rename by a program. A name of the past is first resolved to what the mail is called now.
func (f *fileSystem) rename(from, to *end, flags uint, pid uint32) error {
	if from.id == 0 {
		stale := *from
		unresolved := f.resolveStale(from, pid)
		if unresolved != nil {
			return unresolved
		}
		defer f.dirFDs.release(from.fd)
		if flags&unix.RENAME_EXCHANGE == 0 && to.d.isMail() && baseOf(to.name) == baseOf(stale.name) {
			return f.mergedRename(&stale, from, to, flags, pid)
		}
	}
	return f.meantRename(from, to, flags, pid)
}

// resolveStale makes e the mail that its name used to mean. The caller then has one more descriptor to release.
func (f *fileSystem) resolveStale(e *end, pid uint32) error {
	if !e.d.isMail() {
		return syscall.ENOENT
	}
	f.mu.Lock()
	id, in, now := f.findStale(e.d, e.name, pid)
	f.mu.Unlock()
	if id == 0 {
		return syscall.ENOENT
	}
	fd, err := f.dirFD(in.id)
	if err != nil {
		return err
	}
	id, st, err := f.child(in, fd, now)
	if err != nil || id == 0 {
		f.dirFDs.release(fd)
		return syscall.ENOENT
	}
	e.d, e.fd, e.name, e.id, e.st = in, fd, now, id, st
	return nil
}

// mergedRename is a flag change by a program that does not know of another's. What the program believes to be the names
// of the mail before and after is not true, so the kernel must forget both.
func (f *fileSystem) mergedRename(stale, from, to *end, flags uint, pid uint32) error {
	merged := *to
	merged.name = mergeFlags(from.name, stale.name, to.name)
	if to.d.kind == newDir && from.d.kind == curDir && to.d.box == from.d.box {
		merged.d, merged.fd = from.d, from.fd // it was read since: not new any more
	}
	var err error
	if merged.id, merged.st, err = f.child(merged.d, merged.fd, merged.name); err != nil {
		return err
	}
	if merged.d != from.d || merged.name != from.name {
		if err := f.meantRename(from, &merged, flags, 0); err != nil {
			return err
		}
	}
	f.mu.Lock()
	if merged.d != to.d || merged.name != to.name {
		f.pastNames.add(to.d.id, to.name, 0)
	}
	f.pastNames.add(stale.d.id, stale.name, pid)
	f.mu.Unlock()
	f.notices.entry(to.d.id, to.name)
	f.notices.entry(from.d.id, from.name)
	f.notices.entry(merged.d.id, merged.name)
	f.notices.inode(from.id)
	if to.id != 0 && to.id != from.id {
		f.notices.inode(to.id)
	}
	return nil
}

// meantRename journals and makes a rename of names that are there.
func (f *fileSystem) meantRename(from, to *end, flags uint, pid uint32) error {
	if flags&unix.RENAME_NOREPLACE != 0 && to.id != 0 {
		return syscall.EEXIST
	}
	m, lock, err := f.renameMeans(from, to, flags)
	if err != nil {
		return err
	}
	err = f.change("rename", m, lock, func() error { return f.doRename(from, to, flags, pid) })
	if err != nil {
		return err
	}
	f.noteLockFile(from, to)
	return f.delivered(m)
}

// renameMeans says what a rename means and which mailboxes must be locked for it.
func (f *fileSystem) renameMeans(from, to *end, flags uint) (m meaning, lock []string, err error) {
	if from.isDir() {
		if to.d.isMail() {
			return m, nil, syscall.EPERM
		}
		f.uidLock.yield(join(from.d.path, from.name))
		f.uidLock.yield(join(to.d.path, to.name))
		return f.boxMoved(from, to, flags), nil, nil
	}
	if to.d.isMail() && from.st.Mode&unix.S_IFMT != unix.S_IFREG ||
		flags&unix.RENAME_EXCHANGE != 0 && from.d.isMail() && to.id != 0 && to.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return m, nil, syscall.EPERM
	}
	a, b := f.spotOf(from.d, from.name, true), f.spotOf(to.d, to.name, to.id != 0)
	if flags&unix.RENAME_EXCHANGE != 0 {
		m = exchangeMeaning(a, b)
	} else {
		m = renameMeaning(a, b)
	}
	if ev, ok := f.controlEvent(to.d, to.name); ok {
		m.after = append(m.after, ev)
	}
	return m, f.toLock(a, b, from.d, to.d), nil
}

// boxMoved says what it means that a directory gets another place.
func (f *fileSystem) boxMoved(from, to *end, flags uint) meaning {
	m := boxMeaning(f.boxName(from.d, from.name), f.boxName(to.d, to.name))
	if flags&unix.RENAME_EXCHANGE != 0 {
		back := boxMeaning(f.boxName(to.d, to.name), f.boxName(from.d, from.name))
		m.before, m.after = append(m.before, back.before...), append(m.after, back.after...)
	}
	return m
}

// toLock returns the mailbox directories to lock: those of visible mail, but for a delivery into new/.
func (f *fileSystem) toLock(from, to spot, fromDir, toDir *directory) []string {
	var lock []string
	if from.visible() {
		lock = append(lock, fromDir.box.path)
	}
	if to.visible() && (from.visible() || to.kind == curDir || to.exists) {
		lock = append(lock, toDir.box.path)
	}
	return lock
}

// doRename makes the rename and follows it in memory.
func (f *fileSystem) doRename(from, to *end, flags uint, pid uint32) error {
	if from.id == 0 {
		return syscall.ENOENT
	}
	if to.id != 0 && to.id != from.id && flags&unix.RENAME_EXCHANGE == 0 {
		f.keepOpen(to.id)
	}
	if err := unix.Renameat2(from.fd.fd, from.name, to.fd.fd, to.name, flags); err != nil {
		return err
	}
	if from.id != to.id { // two names of one file: rename(2) does nothing
		f.followRename(from, to, flags, pid)
	}
	return nil
}

// followRename brings the memory up to date after a rename. Attributes are read again: the rename changed the ctime.
func (f *fileSystem) followRename(from, to *end, flags uint, pid uint32) {
	var st, other unix.Stat_t
	err := unix.Fstatat(to.fd.fd, to.name, &st, statFlags)
	otherErr := error(unix.ENOENT)
	if flags&unix.RENAME_EXCHANGE != 0 {
		otherErr = unix.Fstatat(from.fd.fd, from.name, &other, statFlags)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.Get(from.id) == nil {
		return
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		f.exchangeNames(from, to)
	} else {
		f.moveName(from, to)
		f.takenAway(from, to, pid)
	}
	if err == nil {
		f.refresh(from.id, &st)
	}
	if otherErr == nil && f.table.Get(to.id) != nil {
		f.refresh(to.id, &other)
	}
	for _, id := range []inode.ID{from.id, to.id} {
		if f.dirs[id] != nil {
			f.reclassify(id)
		}
	}
}

// moveName gives the node at from the name of to. The caller holds mu.
func (f *fileSystem) moveName(from, to *end) {
	if to.id != 0 && to.id != from.id && f.table.HasName(to.id, to.d.id, to.name) {
		f.dropName(to.d, to.name, to.id)
		f.refreshAfterUnlink(to.id)
	}
	if from.d == to.d && from.d.isMail() && f.table.Find(from.d.names, from.name) == from.id {
		f.table.Rename(from.d.names, from.name, to.name)
		return
	}
	if !f.table.HasName(from.id, to.d.id, to.name) {
		f.forgetName(from.d, from.name, from.id)
	}
	f.enter(to.d, to.name, from.id)
}

// exchangeNames lets two nodes change places. The caller holds mu.
func (f *fileSystem) exchangeNames(from, to *end) {
	f.forgetName(from.d, from.name, from.id)
	f.forgetName(to.d, to.name, to.id)
	f.enter(to.d, to.name, from.id)
	f.enter(from.d, from.name, to.id)
}

// takenAway remembers a name that a visible mail lost but still is reached by. The caller holds mu.
func (f *fileSystem) takenAway(from, to *end, pid uint32) {
	if from.d.isMail() && to.d.isMail() && from.d.box == to.d.box && isMailName(from.name) && baseOf(from.name) == baseOf(to.name) {
		f.pastNames.add(from.d.id, from.name, pid)
	}
	f.pastNames.remove(nameKey{to.d.id, to.name})
}

// noteLockFile follows a uidlist lock that is made or given up by a rename.
func (f *fileSystem) noteLockFile(from, to *end) {
	if from.name == lockName {
		f.uidLock.released(from.d.path)
	}
	if to.name == lockName {
		f.lockTaken(to.d)
	}
}

// lockTaken notes a uidlist lock that a program made in a mailbox directory.
func (f *fileSystem) lockTaken(d *directory) {
	if _, ok := f.engine.Mailbox(d.path); ok && d.kind == plainDir {
		f.uidLock.taken(d.path)
	}
}

// refusedName reports names that no Linux file system has. The kernel does not know our limit.
func (f *fileSystem) refusedName(name string) bool { return len(name) > mail.MaxNamePart }
