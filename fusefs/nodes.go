package fusefs

import (
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// attrOf translates a stat.
func attrOf(st *unix.Stat_t) inode.Attr {
	return inode.Attr{
		Ino: st.Ino, Size: st.Size, Atime: st.Atim.Nano(), Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
		Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, Blocks: uint32(st.Blocks), Mode: uint16(st.Mode),
	}
}

// fillAttr translates attributes for the kernel, with the owner that the options want to be seen.
func (f *fileSystem) fillAttr(out *fuse.Attr, a inode.Attr) {
	out.Ino, out.Size, out.Blocks = a.Ino, uint64(a.Size), uint64(a.Blocks)
	out.Atime, out.Atimensec = splitTime(a.Atime)
	out.Mtime, out.Mtimensec = splitTime(a.Mtime)
	out.Ctime, out.Ctimensec = splitTime(a.Ctime)
	out.Mode, out.Nlink, out.Blksize = uint32(a.Mode), a.Nlink, 4096
	out.Uid, out.Gid = a.UID, a.GID
	if f.opts.UID != nil {
		out.Uid = *f.opts.UID
	}
	if f.opts.GID != nil {
		out.Gid = *f.opts.GID
	}
}

func splitTime(ns int64) (secs uint64, nsecs uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

// answer tells the kernel of a node, which it now knows once more. The caller holds mu.
func (f *fileSystem) answer(out *fuse.EntryOut, d *directory, id inode.ID, rdev uint64) {
	n := f.table.Get(id)
	n.Lookups++
	out.NodeId, out.Generation = uint64(id), 1
	out.SetEntryTimeout(d.timeout())
	out.SetAttrTimeout(d.timeout())
	if n.Is(inode.Alias) {
		out.SetEntryTimeout(0)
	}
	f.fillAttr(&out.Attr, f.attrAs(id, f.table.Get(f.target(id)).Attr()))
	out.Rdev = uint32(rdev)
}

// adopt returns the node of what a stat found under a name, made if need be. The caller holds mu.
func (f *fileSystem) adopt(d *directory, name string, st *unix.Stat_t) inode.ID {
	id := f.nodeAt(d, name, st)
	if id == 0 {
		id = f.table.New()
		f.table.Get(id).SetType(st.Ino, uint16(st.Mode))
	}
	f.enter(d, name, id)
	f.refresh(id, st)
	return id
}

// nodeAt finds the known node of a name and makes sure that it is the file that a stat found there.
func (f *fileSystem) nodeAt(d *directory, name string, st *unix.Stat_t) inode.ID {
	if d.isMail() {
		if id := f.table.Find(d.names, name); id != 0 {
			if f.promiseOf(id) != nil {
				f.fulfil(id, st)
			}
			if f.table.Get(id).Ino == st.Ino {
				return id
			}
			f.dropName(d, name, id)
		}
	}
	id, n := f.table.ByIno(st.Ino)
	if n == nil || n.Mode()&unix.S_IFMT != uint16(st.Mode)&unix.S_IFMT {
		return 0
	}
	if st.Nlink == 1 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		for _, l := range f.table.Names(id) {
			if (l.Dir != d.id || l.Name != name) && f.dirs[l.Dir] != nil {
				f.forgetName(f.dirs[l.Dir], l.Name, id) // renamed behind the mount
			}
		}
	}
	return id
}

// enter gives a node a name in d.
func (f *fileSystem) enter(d *directory, name string, id inode.ID) {
	if d.isMail() {
		f.supersede(d, name, id)
		f.table.Enter(d.names, name, id)
	} else {
		f.enterPlain(d, name, id)
	}
	if f.table.Get(id).Mode()&unix.S_IFMT != unix.S_IFDIR {
		return
	}
	if f.dirs[id] == nil {
		f.dirs[id] = &directory{id: id}
		f.classify(f.dirs[id])
	} else if f.dirs[id].path != join(d.path, name) {
		f.reclassify(id)
	}
}

// enterPlain is enter for a directory whose names are not all held in memory.
func (f *fileSystem) enterPlain(d *directory, name string, id inode.ID) {
	if old := d.known[name]; old != 0 && old != id {
		f.dropName(d, name, old) // replaced behind the mount
	}
	if d.known == nil {
		d.known = map[string]inode.ID{}
	}
	d.known[name] = id
	f.table.AddName(id, d.id, name)
	f.table.Index(id)
}

// refresh remembers the attributes of a node, and keeps nodes of several names findable by number.
func (f *fileSystem) refresh(id inode.ID, st *unix.Stat_t) { f.refreshAttr(id, attrOf(st)) }

func (f *fileSystem) refreshAttr(id inode.ID, a inode.Attr) {
	n := f.table.Get(id)
	if n.Ino != a.Ino {
		return
	}
	n.SetAttr(a)
	inMail := n.Name != "" && f.dirs[n.Dir] != nil && f.dirs[n.Dir].isMail()
	switch {
	case n.Name == "" || a.Nlink == 0:
		f.table.Unindex(id)
	case a.Nlink > 1 || !inMail:
		f.table.Index(id)
	case !n.Is(inode.Linked):
		f.table.Unindex(id)
	}
}

// forgetName takes a name from a node, which may be left without any.
func (f *fileSystem) forgetName(d *directory, name string, id inode.ID) {
	if d.isMail() && d.names != nil && f.table.Find(d.names, name) == id {
		f.table.Leave(d.names, name)
		return
	}
	if d.known[name] == id {
		delete(d.known, name)
	}
	f.table.DropName(id, d.id, name)
}

// dropName is forgetName for a file that is gone: a node without names cannot be found any more and goes as soon as
// nobody knows it.
func (f *fileSystem) dropName(d *directory, name string, id inode.ID) {
	f.forgetName(d, name, id)
	if n := f.table.Get(id); n != nil && n.Name == "" {
		f.table.Unindex(id)
		f.endAliases(id)
		f.dropIfUnused(id)
	}
}

// dropIfUnused gives up a node that neither the kernel nor an alias needs, unless it is a name of a mail directory or
// a directory.
func (f *fileSystem) dropIfUnused(id inode.ID) {
	n := f.table.Get(id)
	if n == nil || n.Lookups > 0 {
		return
	}
	if n.Name != "" {
		if d := f.dirs[n.Dir]; f.dirs[id] != nil || n.Is(inode.Linked) || d != nil && d.isMail() && !n.Is(inode.Alias) {
			return
		}
	}
	if d := f.dirs[id]; d != nil {
		f.dropPlace(d)
		f.unload(d)
		f.pastNames.forgetDir(id)
		delete(f.dirs, id)
		for name, child := range d.known { // nobody can get there any more
			f.dropName(d, name, child)
		}
	}
	f.dropAlias(id)
	for _, l := range f.table.Names(id) {
		if d := f.dirs[l.Dir]; d != nil {
			f.forgetName(d, l.Name, id)
		}
	}
	f.dropRewrite(id)
	f.table.Drop(id)
	f.files.drop(id)
	f.dirFDs.drop(id)
}

// Forget is told how many answers about a node the kernel has given up.
func (f *fileSystem) Forget(nodeID, lookups uint64) {
	id := inode.ID(nodeID)
	if fd := f.files.get(id, false); fd != nil {
		defer f.files.release(fd) // without mu: see there
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.table.Get(id)
	if n == nil || id == inode.Root {
		return
	}
	n.Lookups -= uint32(min(lookups, uint64(n.Lookups)))
	f.dropIfUnused(id)
}

// attrAs returns a mail's attributes as the node shows them that was asked for: an alias has its own number.
func (f *fileSystem) attrAs(id inode.ID, a inode.Attr) inode.Attr {
	if n := f.table.Get(id); n != nil && n.Is(inode.Alias) {
		a.Ino = n.Ino
	}
	return a
}

// target resolves an alias to the node it stands for. The caller holds mu.
func (f *fileSystem) target(id inode.ID) inode.ID {
	if real, ok := f.aliases[id]; ok {
		return real
	}
	return id
}

// open returns a descriptor of a file for reading, or for reading and writing, for use. A file that a rename takes away
// while it is being opened is looked for again under its new name.
func (f *fileSystem) open(nodeID uint64, write bool) (*descriptor, error) {
	f.mu.Lock()
	id := f.target(inode.ID(nodeID))
	f.mu.Unlock()
	err := error(syscall.ESTALE)
	for range 4 {
		if d := f.files.get(id, write); d != nil {
			return d, nil
		}
		var d *descriptor
		switch promised := f.isPromised(uint64(id)); {
		case promised && write:
			return nil, errNotHere
		case promised:
			d, err = f.fetched(id)
		default:
			d, err = f.openNamed(id, write)
		}
		if err == nil {
			return d, nil
		}
		if err != syscall.ENOENT && err != syscall.ESTALE {
			break
		}
	}
	return nil, err
}

func (f *fileSystem) openNamed(id inode.ID, write bool) (*descriptor, error) {
	mode := unix.O_RDONLY
	if write {
		mode = unix.O_RDWR
	}
	return f.openPlace(f.files, id, write, func(dir int, name string) (int, error) {
		fd, err := unix.Openat(dir, name, mode|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == unix.EACCES && write && f.mayWrite(id) {
			fd, err = f.openReadOnlyFile(dir, name)
		}
		return fd, err
	})
}

// openPlace opens what has a node's name now and keeps the descriptor. What is not the node's file or directory any more
// (moved or replaced behind the mount) is ESTALE: the kernel then looks it up again.
func (f *fileSystem) openPlace(cache *descriptors, id inode.ID, write bool, open func(dir int, name string) (int, error)) (*descriptor, error) {
	f.mu.Lock()
	n := f.table.Get(id)
	if n == nil || n.Name == "" {
		f.mu.Unlock()
		return nil, syscall.ESTALE
	}
	dir, name, ino := n.Dir, n.Name, n.Ino
	f.mu.Unlock()
	p, err := f.dirFD(dir)
	if err != nil {
		return nil, err
	}
	defer f.dirFDs.release(p)
	fd, err := open(p.fd, name)
	if err == unix.ENOENT && f.dropGoneName(id, nameKey{dir, name}, p) {
		err = syscall.ESTALE
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Ino != ino {
		unix.Close(fd)
		return nil, syscall.ESTALE
	}
	return f.keep(cache, id, ino, fd, write)
}

// dropGoneName takes a name from a node that was removed behind the mount, if the node has others, and reports whether it is known
// by one of those now.
func (f *fileSystem) dropGoneName(id inode.ID, key nameKey, dir *descriptor) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.table.Get(id)
	if n == nil || n.Dir != key.dir || n.Name != key.name {
		return n != nil && n.Name != ""
	}
	var st unix.Stat_t
	d := f.dirs[key.dir]
	if d == nil || !n.Is(inode.Linked) || unix.Fstatat(dir.fd, key.name, &st, statFlags) != unix.ENOENT {
		return false
	}
	f.dropName(d, key.name, id)
	f.notices.entry(key.dir, key.name)
	return true
}

// keep puts a fresh descriptor into a cache, unless the node was given up meanwhile and its ID is another's.
func (f *fileSystem) keep(c *descriptors, id inode.ID, ino uint64, fd int, write bool) (*descriptor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.table.Get(id); n == nil || n.Ino != ino {
		unix.Close(fd)
		return nil, syscall.ESTALE
	}
	return c.put(id, fd, write), nil
}

// mayWrite reports whether a program that writes a file may do so although its mode forbids it: the kernel allowed it when
// the program opened or made the file. Where the kernel does not check, only who made a file may.
func (f *fileSystem) mayWrite(id inode.ID) bool {
	if f.opts.kernelChecks() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.table.Get(id)
	return n != nil && n.Is(inode.Created)
}

// openReadOnlyFile opens for writing a file whose mode forbids it. The kernel allowed the program to write when it opened
// the file, which may have been before a chmod, or at its creation with mode 0444; the descriptor of that time may have
// left the cache since.
func (f *fileSystem) openReadOnlyFile(dirFD int, name string) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirFD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o200 != 0 {
		return -1, unix.EACCES
	}
	if err := unix.Fchmodat(dirFD, name, st.Mode&0o7777|0o200, 0); err != nil {
		return -1, unix.EACCES
	}
	fd, err := unix.Openat(dirFD, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if chmodErr := unix.Fchmodat(dirFD, name, st.Mode&0o7777, 0); chmodErr != nil && err == nil {
		unix.Close(fd)
		return -1, chmodErr
	}
	return fd, err
}
