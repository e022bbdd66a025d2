package fusefs

import (
	"maps"
	"slices"

	"dsyncfs/fusefs/inode"

	"golang.org/x/sys/unix"
)

// Invalidate tells the mount that a directory below the root, or only some names in it, was changed behind the mount. It
// returns when memory and kernel follow, or a program waits for the remote meanwhile, whose directory the kernel has locked. inotify watchers do not wake: only a change through the mount does that. Never
// call it from a method of the [Engine].
func (m *Mount) Invalidate(dir string, names ...string) {
	m.fs.invalidate(dir, names)
	m.fs.notices.flush()
}

// invalidate looks at a directory again and queues what the kernel must forget.
func (f *fileSystem) invalidate(path string, names []string) {
	f.mu.Lock()
	d := f.byPath[path]
	loaded := d != nil && d.names != nil
	f.mu.Unlock()
	if d == nil {
		return // the kernel never asked for it
	}
	fd, err := f.dirFD(d.id)
	if err != nil || !loaded {
		f.forgetPlain(d, fd, names)
		f.notices.inode(d.id)
		if fd != nil {
			f.dirFDs.release(fd)
		}
		return
	}
	defer f.dirFDs.release(fd)
	if len(names) == 0 {
		names = f.differing(d, fd)
	}
	if f.recheck(d, fd, names) {
		f.notices.inode(d.id)
	}
}

// forgetPlain makes the kernel ask again for names, or for every known name, of a directory whose names are not all held
// in memory. fd is nil if the directory cannot be reached.
func (f *fileSystem) forgetPlain(d *directory, fd *descriptor, names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(names) == 0 {
		names = slices.Collect(maps.Keys(d.known))
	}
	for _, name := range names {
		f.notices.entry(d.id, name)
		id := d.known[name]
		if id == 0 {
			continue
		}
		f.notices.inode(id)
		var st unix.Stat_t
		if fd != nil && (unix.Fstatat(fd.fd, name, &st, statFlags) != nil || st.Ino != f.table.Get(id).Ino) {
			f.dropName(d, name, id)
		}
	}
}

// differing scans a mail directory and returns the names that are not in its table, or only there. The scan is not locked,
// so that nobody waits for it: each name must be looked at again.
func (f *fileSystem) differing(d *directory, fd *descriptor) []string {
	var fresh, gone []string
	err := readNames(fd.fd, func(e dirent) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if d.names != nil && !f.table.Mark(d.names, e.name) {
			fresh = append(fresh, e.name)
		}
	})
	f.mu.Lock()
	if d.names != nil {
		gone = slices.DeleteFunc(f.table.Unmarked(d.names), func(name string) bool { return f.promiseOf(f.table.Find(d.names, name)) != nil })
	}
	f.mu.Unlock()
	if err != nil { // not a complete listing: says nothing about what is gone
		f.log.Warn("a mail directory cannot be read", "dir", d.path, "err", err)
		gone = nil
	}
	return append(fresh, gone...)
}

// recheck looks at single names, and reports whether any of them changed: first those that are there, so that a renamed
// mail keeps its node. What the mount knows already (it made the change itself) is not told to the kernel.
func (f *fileSystem) recheck(d *directory, fd *descriptor, names []string) (changed bool) {
	var gone []string
	for _, name := range names {
		there, fresh := f.recheckPresent(d, fd, name)
		changed = changed || fresh
		if !there {
			gone = append(gone, name)
		}
	}
	for _, name := range gone {
		changed = f.recheckGone(d, fd, name) || changed
	}
	return changed
}

// recheckPresent brings a name up to date that is there, and reports whether it is and whether that is new.
func (f *fileSystem) recheckPresent(d *directory, fd *descriptor, name string) (there, fresh bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var st unix.Stat_t
	if d.names == nil || unix.Fstatat(fd.fd, name, &st, statFlags) != nil {
		return d.names == nil, false
	}
	known := f.table.Find(d.names, name)
	if known != 0 && f.table.Get(known).Ino == st.Ino {
		if n := f.table.Get(known); n.Is(inode.HasAttr) && n.Attr() != attrOf(&st) {
			f.notices.inode(known)
		}
		f.refresh(known, &st)
		return true, false
	}
	if f.promiseOf(known) != nil {
		f.adopt(d, name, &st)
		return true, false // the kernel knows it by this name
	}
	if known == 0 {
		f.renamedBehind(d, name, &st)
	}
	f.adopt(d, name, &st)
	f.notices.entry(d.id, name)
	return true, true
}

// renamedBehind finds the mail of a name that appeared under the name that it had before, in this directory or the other
// of the mailbox, and gives it the new name. The caller holds mu.
func (f *fileSystem) renamedBehind(d *directory, name string, st *unix.Stat_t) {
	for _, in := range []*directory{d, f.sub(d.box, d.kind.sibling())} {
		if in == nil {
			continue
		}
		id, before := f.table.FindKey(in.names, baseOf(name))
		if id == 0 || f.table.Get(id).Ino != st.Ino || st.Nlink > 1 {
			continue
		}
		if in == d {
			f.table.Rename(d.names, before, name)
		} else {
			f.table.Leave(in.names, before)
			f.table.Enter(d.names, name, id)
		}
		f.pastNames.add(in.id, before, 0)
		f.notices.entry(in.id, before)
		f.notices.inode(in.id)
		return
	}
}

// recheckGone takes a name out of the table if it really is not there, and reports whether it was in the table.
func (f *fileSystem) recheckGone(d *directory, fd *descriptor, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.names == nil {
		return false
	}
	id := f.table.Find(d.names, name)
	var st unix.Stat_t
	if id == 0 || f.promiseOf(id) != nil || unix.Fstatat(fd.fd, name, &st, statFlags) != unix.ENOENT {
		return false
	}
	f.notices.entry(d.id, name)
	f.dropName(d, name, id)
	if f.table.Get(id) != nil {
		f.refreshAfterUnlink(id)
	}
	return true
}
