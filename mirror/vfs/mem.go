package vfs

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory with the semantics of ext4: hard links, files that outlive their name, and what a power
// cut leaves (see [Mem.Crash]). Permissions are kept but not checked, and there are no symbolic links. Listings are sorted,
// so that a simulation is repeatable.
type Mem struct {
	clock func() time.Time

	mu      sync.Mutex
	root    *inode
	lastIno uint64
	pending []*change // of names, oldest first: what no directory sync has made durable
	observe func(dir, name string)
}

// Observe has f called with each name that comes, goes or gets another file, and the path of its directory below the root, as
// inotify(7) would tell. f must not use the file system.
func (m *Mem) Observe(f func(dir, name string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observe = f
}

// pathOf returns the path of a directory below the root. Not ok: it has none any more.
func (m *Mem) pathOf(dir *inode) (p string, ok bool) {
	for ; dir != m.root; dir = dir.parent {
		if dir.parent == nil {
			return "", false
		}
		for name, n := range dir.parent.names {
			if n == dir {
				p = path.Join(name, p)
			}
		}
	}
	return p, true
}

// inode is a file or directory. All fields are guarded by Mem.mu.
type inode struct {
	ino          uint64
	typ          Type
	mode         uint32
	nlink        uint32
	mtime, ctime time.Time

	data   []byte // of a file
	synced int    // of a file: how many bytes of data its last sync made durable

	names   map[string]*inode // of a directory
	durable map[string]*inode // of a directory: the names that survive any crash
	changed time.Time         // of a directory: its mtime with the durable names
	parent  *inode            // of a directory; nil for the root and once removed
}

// NewMem returns an empty file system that takes its times from clock.
func NewMem(clock func() time.Time) *Mem {
	m := &Mem{clock: clock}
	m.root = m.newInode(Directory, 0o700)
	m.root.nlink = 1
	return m
}

func (m *Mem) newInode(typ Type, mode uint32) *inode {
	m.lastIno++
	now := m.clock()
	n := &inode{ino: m.lastIno, typ: typ, mode: mode, mtime: now, ctime: now}
	if typ == Directory {
		n.names, n.durable, n.changed = map[string]*inode{}, map[string]*inode{}, now
	}
	return n
}

func (n *inode) info() Info {
	return Info{Type: n.typ, Size: int64(len(n.data)), Mode: n.mode, Mtime: n.mtime, Ctime: n.ctime, Dev: 1, Ino: n.ino, Nlink: n.nlink}
}

// isBelow reports whether n is dir or lies in it.
func (n *inode) isBelow(dir *inode) bool {
	for ; n != nil; n = n.parent {
		if n == dir {
			return true
		}
	}
	return false
}

// removed reports whether a directory has lost its name.
func (n *inode) removed() bool { return n.nlink == 0 }

// OpenDir implements [FS].
func (m *Mem) OpenDir(dir string) (Dir, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	if dir != "" {
		for part := range strings.SplitSeq(dir, "/") {
			if err := checkName(part); err != nil {
				return nil, pathError("open", dir, err)
			}
		}
		for part := range strings.SplitSeq(dir, "/") {
			next, ok := n.names[part]
			if !ok {
				return nil, pathError("open", dir, syscall.ENOENT)
			}
			if next.typ != Directory {
				return nil, pathError("open", dir, syscall.ENOTDIR)
			}
			n = next
		}
	}
	return &memDir{m: m, n: n, path: dir}, nil
}

// Sync implements [FS].
func (m *Mem) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.pending {
		c.applyDurable()
	}
	m.pending = nil
	m.root.syncAll()
	return nil
}

func (n *inode) syncAll() {
	n.synced, n.changed = len(n.data), n.mtime
	for _, c := range n.names {
		c.syncAll()
	}
}

// Close implements [FS]. It does nothing: the content stays, as it does on a disk.
func (m *Mem) Close() error { return nil }

// memDir is an open directory of a Mem.
type memDir struct {
	m      *Mem
	n      *inode
	path   string
	closed bool
}

func (d *memDir) Path() string { return d.path }

// lock takes the lock for an operation on name and refuses what needs no look at the tree. The caller unlocks in any case.
func (d *memDir) lock(name string) error {
	d.m.mu.Lock()
	if d.closed {
		return fs.ErrClosed
	}
	return checkName(name)
}

// entry is lock and the look-up of a name that must be there.
func (d *memDir) entry(name string) (*inode, error) {
	if err := d.lock(name); err != nil {
		return nil, err
	}
	if n, ok := d.n.names[name]; ok {
		return n, nil
	}
	return nil, syscall.ENOENT
}

func (d *memDir) fail(op, name string, err error) error {
	return pathError(op, path.Join(d.path, name), err)
}

func (d *memDir) Names(f func(name string, typ Type) error) error {
	d.m.mu.Lock()
	err := error(nil)
	if d.closed {
		err = fs.ErrClosed
	} else if d.n.removed() {
		err = syscall.ENOENT
	}
	names := slices.Sorted(maps.Keys(d.n.names))
	types := make([]Type, len(names))
	for i, name := range names {
		types[i] = d.n.names[name].typ
	}
	d.m.mu.Unlock()
	if err != nil {
		return d.fail("readdir", "", err)
	}
	for i, name := range names {
		if err := f(name, types[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *memDir) Stat(name string) (Info, error) {
	n, err := d.entry(name)
	defer d.m.mu.Unlock()
	if err != nil {
		return Info{}, d.fail("stat", name, err)
	}
	return n.info(), nil
}

func (d *memDir) Info() (Info, error) {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.closed {
		return Info{}, d.fail("stat", "", fs.ErrClosed)
	}
	return d.n.info(), nil
}

func (d *memDir) open(name string, appends bool) (File, error) {
	n, err := d.entry(name)
	defer d.m.mu.Unlock()
	if err == nil && n.typ == Directory && appends {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &memFile{m: d.m, n: n, path: path.Join(d.path, name), reads: !appends, writes: appends, appends: appends}, nil
}

func (d *memDir) Open(name string) (File, error)       { return d.open(name, false) }
func (d *memDir) OpenAppend(name string) (File, error) { return d.open(name, true) }

func (d *memDir) Create(name string, perm uint32) (File, error) {
	n, err := d.make(name, Regular, perm)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &memFile{m: d.m, n: n, path: path.Join(d.path, name), reads: true, writes: true}, nil
}

func (d *memDir) Mkdir(name string, perm uint32) error {
	_, err := d.make(name, Directory, perm)
	return d.fail("mkdir", name, err)
}

func (d *memDir) make(name string, typ Type, perm uint32) (*inode, error) {
	err := d.lock(name)
	defer d.m.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case d.n.names[name] != nil:
		return nil, syscall.EEXIST
	case d.n.removed():
		return nil, syscall.ENOENT
	}
	n := d.m.newInode(typ, perm)
	n.nlink = 1
	if typ == Directory {
		n.parent = d.n
	}
	d.m.change(n, nil, nameChange{d.n, name, n})
	return n, nil
}

// both is entry for an operation that also names a place, which it returns.
func (d *memDir) both(name string, to Dir, newName string) (n *inode, t *memDir, err error) {
	n, err = d.entry(name)
	t, ok := to.(*memDir)
	switch {
	case err != nil:
	case checkName(newName) != nil:
		err = syscall.EINVAL
	case !ok || t.m != d.m:
		err = syscall.EXDEV
	case t.closed:
		err = fs.ErrClosed
	case t.n.removed():
		err = syscall.ENOENT
	}
	return n, t, err
}

func (d *memDir) Rename(name string, to Dir, newName string) error {
	return d.rename(name, to, newName, true)
}

func (d *memDir) RenameNew(name string, to Dir, newName string) error {
	return d.rename(name, to, newName, false)
}

func (d *memDir) rename(name string, to Dir, newName string, replace bool) error {
	n, t, err := d.both(name, to, newName)
	defer d.m.mu.Unlock()
	if err == nil {
		old := t.n.names[newName]
		switch {
		case old != nil && !replace:
			err = syscall.EEXIST
		case old == n:
			return nil
		case n.typ == Directory && t.n.isBelow(n):
			err = syscall.EINVAL
		case old != nil:
			err = mayReplace(n, old)
		}
		if err == nil {
			d.m.move(n, old, d.n, name, t.n, newName)
			return nil
		}
	}
	return linkError("rename", path.Join(d.path, name), path.Join(to.Path(), newName), err)
}

func mayReplace(n, old *inode) error {
	switch {
	case n.typ != Directory && old.typ == Directory:
		return syscall.EISDIR
	case n.typ == Directory && old.typ != Directory:
		return syscall.ENOTDIR
	case len(old.names) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

func (m *Mem) move(n, old *inode, from *inode, name string, to *inode, newName string) {
	if n.typ == Directory {
		n.parent = to
	}
	if old != nil {
		m.unlink(old)
	}
	n.ctime = m.clock()
	m.change(n, old, nameChange{from, name, nil}, nameChange{to, newName, n})
}

func (m *Mem) unlink(n *inode) {
	n.nlink--
	n.ctime = m.clock()
	n.parent = nil
}

func (d *memDir) Link(name string, to Dir, newName string) error {
	n, t, err := d.both(name, to, newName)
	defer d.m.mu.Unlock()
	switch {
	case err != nil:
	case n.typ == Directory:
		err = syscall.EPERM
	case t.n.names[newName] != nil:
		err = syscall.EEXIST
	default:
		n.nlink++
		n.ctime = d.m.clock()
		d.m.change(n, nil, nameChange{t.n, newName, n})
		return nil
	}
	return linkError("link", path.Join(d.path, name), path.Join(to.Path(), newName), err)
}

func (d *memDir) Remove(name string) error    { return d.remove("remove", name, false) }
func (d *memDir) RemoveDir(name string) error { return d.remove("rmdir", name, true) }

func (d *memDir) remove(op, name string, dir bool) error {
	n, err := d.entry(name)
	defer d.m.mu.Unlock()
	switch {
	case err != nil:
	case dir && n.typ != Directory:
		err = syscall.ENOTDIR
	case !dir && n.typ == Directory:
		err = syscall.EISDIR
	case len(n.names) > 0:
		err = syscall.ENOTEMPTY
	default:
		d.m.unlink(n)
		d.m.change(n, nil, nameChange{d.n, name, nil})
		return nil
	}
	return d.fail(op, name, err)
}

func (d *memDir) SetTimes(name string, mtime time.Time) error {
	n, err := d.entry(name)
	defer d.m.mu.Unlock()
	if err != nil {
		return d.fail("utimes", name, err)
	}
	n.mtime, n.ctime = mtime, d.m.clock()
	return nil
}

func (d *memDir) Chmod(name string, perm uint32) error {
	n, err := d.entry(name)
	defer d.m.mu.Unlock()
	if err != nil {
		return d.fail("chmod", name, err)
	}
	n.mode, n.ctime = perm, d.m.clock()
	return nil
}

func (d *memDir) Sync() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.closed {
		return d.fail("sync", "", fs.ErrClosed)
	}
	d.m.syncDir(d.n)
	return nil
}

func (d *memDir) Close() error {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if d.closed {
		return d.fail("close", "", os.ErrClosed)
	}
	d.closed = true
	return nil
}
