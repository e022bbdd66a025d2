package fusefs

import (
	"io/fs"
	"os"
	"strings"
	"time"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/vfs"

	"golang.org/x/sys/unix"
)

// Through wraps the backing directory for the engine: what changes visible mail or mailboxes is done by a system call on
// the mount's own path, so that inotify watchers wake and kernel caches are right; everything else is done behind the
// mount, and the kernel is told. The caller must not hold a lock that a method of the [Engine] wants, except a uidlist
// lock, which [Engine.Lock] joins. While the mount is away, everything is done behind it.
//
// backing must have the same root as the mount.
func (m *Mount) Through(backing vfs.FS) vfs.FS { return &throughFS{backing, m} }

type throughFS struct {
	vfs.FS
	m *Mount
}

func (t *throughFS) OpenDir(path string) (vfs.Dir, error) {
	d, err := t.FS.OpenDir(path)
	if err != nil {
		return nil, err
	}
	return &throughDir{d, t.m}, nil
}

// Follow makes memory and kernel follow a file that was written in the backing directory, or a mail directory that got another time.
func (t *throughFS) Follow(dir, name string) {
	if kindOf(name) == plainDir {
		t.m.tell(change{dir, name})
		return
	}
	f := t.m.fs
	f.mu.Lock()
	d := f.byPath[join(dir, name)]
	f.mu.Unlock()
	if d != nil && t.m.alive.Load() {
		f.notices.inode(d.id)
		f.notices.flush()
	}
}

// throughDir is a directory of the backing file system.
type throughDir struct {
	vfs.Dir
	m *Mount
}

var _ vfs.Dir = (*throughDir)(nil)

// behind returns the backing directory.
func behind(d vfs.Dir) vfs.Dir {
	if t, ok := d.(*throughDir); ok {
		return t.Dir
	}
	return d
}

func (t *throughDir) Rename(name string, to vfs.Dir, newName string) error {
	return t.rename(name, to, newName, 0, func() error { return t.Dir.Rename(name, behind(to), newName) })
}

func (t *throughDir) RenameNew(name string, to vfs.Dir, newName string) error {
	return t.rename(name, to, newName, unix.RENAME_NOREPLACE, func() error { return t.Dir.RenameNew(name, behind(to), newName) })
}

// rename goes through the mount without flags: the handler adds them, since the kernel would judge by its cache.
func (t *throughDir) rename(name string, to vfs.Dir, newName string, flags uint, direct func() error) error {
	from, dest := t.Path(), to.Path()
	told := func() error {
		t.m.keepOpen(change{dest, newName})
		return t.m.told(direct, change{from, name}, change{dest, newName})
	}
	if !t.m.isWatched(from, name) && !t.m.isWatched(dest, newName) || t.m.isShown(dest, newName) {
		return told()
	}
	op := ownOp{"rename", from, name, dest, newName}
	return t.m.own(op, flags, told, func() error {
		err := unix.Renameat2(unix.AT_FDCWD, t.m.pathOf(from, name), unix.AT_FDCWD, t.m.pathOf(dest, newName), 0)
		return linkError("rename", name, newName, err)
	})
}

func (t *throughDir) Link(name string, to vfs.Dir, newName string) error {
	from, dest := t.Path(), to.Path()
	told := func() error {
		return t.m.told(func() error { return t.Dir.Link(name, behind(to), newName) }, change{from, name}, change{dest, newName})
	}
	if !t.m.isWatched(dest, newName) || t.m.isShown(dest, newName) {
		return told()
	}
	return t.m.own(ownOp{op: "link", dir: dest, name: newName}, 0, told, func() error {
		err := unix.Linkat(unix.AT_FDCWD, t.m.pathOf(from, name), unix.AT_FDCWD, t.m.pathOf(dest, newName), 0)
		return linkError("link", name, newName, err)
	})
}

func (t *throughDir) Remove(name string) error {
	return t.remove("unlink", name, 0, func() error { return t.Dir.Remove(name) })
}

func (t *throughDir) RemoveDir(name string) error {
	return t.remove("rmdir", name, unix.AT_REMOVEDIR, func() error { return t.Dir.RemoveDir(name) })
}

func (t *throughDir) remove(op, name string, flags int, direct func() error) error {
	dir := t.Path()
	told := func() error {
		t.m.keepOpen(change{dir, name})
		return t.m.told(direct, change{dir, name})
	}
	if !t.m.isWatched(dir, name) {
		return told()
	}
	return t.m.own(ownOp{op: op, dir: dir, name: name}, 0, told, func() error {
		return pathError(op, name, unix.Unlinkat(unix.AT_FDCWD, t.m.pathOf(dir, name), flags))
	})
}

func (t *throughDir) Mkdir(name string, perm uint32) error {
	dir := t.Path()
	told := func() error { return t.m.told(func() error { return t.Dir.Mkdir(name, perm) }, change{dir, name}) }
	if !t.m.isWatched(dir, name) {
		return told()
	}
	return t.m.own(ownOp{op: "mkdir", dir: dir, name: name}, 0, told, func() error {
		return pathError("mkdir", name, unix.Mkdirat(unix.AT_FDCWD, t.m.pathOf(dir, name), perm))
	})
}

func (t *throughDir) SetTimes(name string, mtime time.Time) error {
	return t.m.told(func() error { return t.Dir.SetTimes(name, mtime) }, change{t.Path(), name})
}

func (t *throughDir) Chmod(name string, perm uint32) error {
	return t.m.told(func() error { return t.Dir.Chmod(name, perm) }, change{t.Path(), name})
}

func (t *throughDir) Create(name string, perm uint32) (vfs.File, error) {
	return t.opened(name, func() (vfs.File, error) { return t.Dir.Create(name, perm) })
}

func (t *throughDir) OpenAppend(name string) (vfs.File, error) {
	return t.opened(name, func() (vfs.File, error) { return t.Dir.OpenAppend(name) })
}

func (t *throughDir) opened(name string, open func() (vfs.File, error)) (vfs.File, error) {
	file, err := open()
	if err != nil {
		return nil, err
	}
	c := change{t.Path(), name}
	t.m.tell(c)
	return &throughFile{file, t.m, c}, nil
}

// throughFile is a file that is written behind the mount. The kernel is told when it is synced and when it is closed.
type throughFile struct {
	vfs.File
	m *Mount
	c change
}

func (t *throughFile) Sync() error {
	err := t.File.Sync()
	t.m.tell(t.c)
	return err
}

func (t *throughFile) Close() error {
	err := t.File.Close()
	t.m.tell(t.c)
	return err
}

// change is a name in a directory.
type change struct{ dir, name string }

// told makes a change behind the mount and tells the kernel.
func (m *Mount) told(direct func() error, changes ...change) error {
	err := direct()
	m.tell(changes...)
	return err
}

// tell makes memory and kernel follow changes that were made behind the mount. Names in the tmp of a mailbox are unique
// and never cached when they are not there, so of those there is nothing to tell unless the kernel was told of one that is
// there: what the engine moves away to delete it comes there through the mount.
func (m *Mount) tell(changes ...change) {
	if !m.alive.Load() {
		return
	}
	sent := false
	for _, c := range changes {
		if parent, last := splitPath(c.dir); kindOf(last) == tmpDir && m.isMailbox(parent) && !m.fs.isKnown(c) {
			continue
		}
		m.fs.invalidate(c.dir, []string{c.name})
		sent = true
	}
	if sent {
		m.fs.notices.flush()
	}
}

// isKnown reports whether the kernel was told of a name in a directory whose names are not all held in memory.
func (f *fileSystem) isKnown(c change) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.byPath[c.dir]
	return d != nil && d.known[c.name] != 0
}

// isShown reports whether programs see a name already, as that of a mail that is still to come: for a watcher nothing happens.
func (m *Mount) isShown(dir, name string) bool {
	m.fs.mu.Lock()
	defer m.fs.mu.Unlock()
	d := m.fs.byPath[dir]
	return d != nil && d.names != nil && m.fs.promiseOf(m.fs.table.Find(d.names, name)) != nil
}

// isWatched reports whether a name is that of visible mail, or of a directory that makes a mailbox.
func (m *Mount) isWatched(dir, name string) bool {
	parent, last := splitPath(dir)
	if k := kindOf(last); k != plainDir && m.isMailbox(parent) {
		return k != tmpDir
	}
	if kindOf(name) != plainDir {
		return m.isMailbox(dir)
	}
	return m.isMailbox(join(dir, name))
}

func (m *Mount) isMailbox(dir string) bool {
	_, ok := m.fs.engine.Mailbox(dir)
	return ok
}

// pathOf is the mount's own path of a name.
func (m *Mount) pathOf(dir, name string) string { return m.path + "/" + join(dir, name) }

func splitPath(path string) (parent, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

func linkError(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// keepOpen is fileSystem.keepOpen for a name that is about to lose its file behind the mount.
func (m *Mount) keepOpen(c change) {
	if !m.alive.Load() {
		return
	}
	f := m.fs
	f.mu.Lock()
	d := f.byPath[c.dir]
	if d == nil {
		f.mu.Unlock()
		return
	}
	id := d.known[c.name]
	if d.names != nil {
		id = f.table.Find(d.names, c.name)
	}
	n := f.table.Get(id)
	last := n != nil && !n.Is(inode.Linked) && !n.Is(inode.Promised)
	f.mu.Unlock()
	if last {
		f.keepOpen(id)
	}
}
