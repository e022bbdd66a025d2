package fusefs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strconv"
	"syscall"
	"time"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/vfs"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// dirent is an entry as the backing directory gives it, without a stat.
type dirent struct {
	name string
	ino  uint64
	typ  uint16 // S_IFMT bits, 0 if the file system does not say
}

// readNames calls add with every entry of a directory but "." and "..". fd need not be readable.
func readNames(fd int, add func(dirent)) error {
	r, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(r)
	buf := make([]byte, 128<<10)
	for {
		n, err := unix.Getdents(r, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		parseDirents(buf[:n], add)
	}
}

// parseDirents reads struct linux_dirent64: inode, offset, length, type, name with NUL.
func parseDirents(buf []byte, add func(dirent)) {
	for len(buf) > 19 {
		l := int(binary.NativeEndian.Uint16(buf[16:]))
		name := buf[19:l]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if s := string(name); s != "." && s != ".." {
			add(dirent{s, binary.NativeEndian.Uint64(buf), uint16(buf[18]) << 12})
		}
		buf = buf[l:]
	}
}

// loaded makes sure that the names of a mail directory, and of its sibling, are in memory.
func (f *fileSystem) loaded(d *directory, fd *descriptor) error {
	f.mu.Lock()
	ready := !d.isMail() || d.names != nil && f.siblingReady(d)
	f.mu.Unlock()
	if ready {
		return nil
	}
	if err := f.loadNames(d, fd.fd); err != nil {
		return err
	}
	return f.loadSibling(d)
}

// siblingReady reports whether the other directory of the mailbox is loaded or known to be missing. The caller holds mu.
func (f *fileSystem) siblingReady(d *directory) bool { return f.sub(d.box, d.kind.sibling()) != nil }

func (k dirKind) sibling() dirKind {
	if k == newDir {
		return curDir
	}
	return newDir
}

var subName = map[dirKind]string{newDir: "new", curDir: "cur"}

// loadSibling loads cur for new and the other way round: a name may have moved there. A missing one is no error.
func (f *fileSystem) loadSibling(d *directory) error {
	f.mu.Lock()
	parent := f.dirs[f.table.Get(d.id).Dir]
	f.mu.Unlock()
	if parent == nil {
		return syscall.ESTALE
	}
	p, err := f.dirFD(parent.id)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(p)
	id, st, err := f.child(parent, p, subName[d.kind.sibling()])
	if err != nil || id == 0 || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return err
	}
	fd, err := f.dirFD(id)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(fd)
	f.mu.Lock()
	sibling := f.dirs[id]
	f.mu.Unlock()
	return f.loadNames(sibling, fd.fd)
}

// loadNames reads the names of a mail directory once. A node that is known by its number keeps its identity.
func (f *fileSystem) loadNames(d *directory, fd int) error {
	d.load.Lock()
	defer d.load.Unlock()
	f.mu.Lock()
	done := !d.isMail() || d.names != nil
	f.mu.Unlock()
	if done {
		return nil
	}
	// Nobody uses the directory before its names are complete: they come in blocks, so that a large one takes no memory twice
	// and others are answered between the blocks.
	names := inode.NewDir(d.id, baseOf)
	block := make([]dirent, 0, 1024)
	enter := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, e := range block {
			f.enterFound(names, e)
		}
		block = block[:0]
	}
	err := readNames(fd, func(e dirent) {
		if block = append(block, e); len(block) == cap(block) {
			enter()
		}
	})
	enter()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || !d.isMail() {
		f.leaveAll(d, names)
		return err
	}
	d.names, d.known = names, nil
	return nil
}

// enterFound adds what a scan found to the names of a mail directory. The caller holds mu.
func (f *fileSystem) enterFound(d *inode.Dir, e dirent) {
	id, n := f.table.ByIno(e.ino)
	if n == nil {
		id = f.table.New()
		f.table.Get(id).SetType(e.ino, e.typ)
	}
	f.table.Enter(d, e.name, id)
}

// fetchAttr stats a mail whose attributes are not in memory. The caller holds mu; the call is a single stat.
func (f *fileSystem) fetchAttr(id inode.ID) error {
	n := f.table.Get(id)
	fd := f.dirFDs.get(n.Dir, false)
	if fd == nil {
		return syscall.EAGAIN
	}
	defer f.dirFDs.release(fd)
	var st unix.Stat_t
	if err := unix.Fstatat(fd.fd, n.Name, &st, statFlags); err != nil {
		return err
	}
	if st.Ino != n.Ino {
		return syscall.ESTALE
	}
	f.refresh(id, &st)
	return nil
}

// listing is an open plain directory: its names as of the last read from the start.
type listing struct {
	entries []dirent
	read    bool
}

// OpenDir opens a directory for listing. The listing of a mail directory needs no state, because its cookies are
// positions that stay; it may be cached until something in it changes. That of another is a snapshot.
func (f *fileSystem) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("opendir", err)
	}
	defer f.dirFDs.release(fd)
	if err := f.mayList(fd); err != nil {
		return f.status("opendir", err)
	}
	if f.opts.Filling != nil && d.isMail() {
		f.opts.Filling.Listing(true)
	}
	f.awaitNames(d, in.Pid)
	f.uidLock.yield(d.path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.isMail() {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR
		if !d.worthListing() {
			out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
		}
		return fuse.OK
	}
	f.handles++
	out.Fh = f.handles
	f.listings[out.Fh] = &listing{}
	return fuse.OK
}

// countRead notes that the kernel reads a mail. It takes the access time for unknown then (fuse_readpages_end in Linux
// fs/fuse/file.c) and asks at the next stat, a request for each mail.
func (f *fileSystem) countRead(id inode.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.table.Get(id); n != nil {
		if d := f.dirs[n.Dir]; d != nil && d.isMail() {
			d.reads++
		}
	}
}

// worthListing reports whether so many mails were read that whoever lists the directory should get the attributes anew with the
// names: an entry of a listing costs a microsecond or two, a request about fifty times that. The caller holds mu.
func (d *directory) worthListing() bool {
	return d.names != nil && d.reads > max(32, d.names.Len()/32)
}

// mayList asks the backing directory what the kernel does not check: names are answered from memory.
func (f *fileSystem) mayList(fd *descriptor) error {
	if f.isRoot || f.opts.kernelChecks() {
		return nil
	}
	return unix.Faccessat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd.fd), unix.R_OK, unix.AT_EACCESS)
}

// ReleaseDir ends a listing. That of a mail directory has no handle.
func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) {
	if f.opts.Filling != nil && in.Fh == 0 {
		f.opts.Filling.Listing(false)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listings, in.Fh)
}

// Cookies: 1 and 2 are "." and "..", the entry at position (or index + 1) p has cookie p + 2.
const firstCookie = 2

// ReadDir lists names.
func (f *fileSystem) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, out, func(e fuse.DirEntry) *fuse.EntryOut {
		if out.AddDirEntry(e) {
			return &fuse.EntryOut{}
		}
		return nil
	}, false)
}

// ReadDirPlus lists names with attributes, and makes the kernel know the nodes.
func (f *fileSystem) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, out, out.AddDirLookupEntry, true)
}

func (f *fileSystem) list(in *fuse.ReadIn, out *fuse.DirEntryList, add func(fuse.DirEntry) *fuse.EntryOut, plus bool) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("readdir", err)
	}
	defer f.dirFDs.release(fd)
	if !f.listDots(d, in.Offset, add) {
		return fuse.OK
	}
	at := uint64(0)
	if in.Offset > firstCookie {
		at = in.Offset - firstCookie
	}
	if d.isMail() {
		f.listMail(d, fd, uint32(at), int(in.Size), add, plus)
		return fuse.OK
	}
	return f.listPlain(d, fd, in, int(at), add, plus)
}

// listDots adds "." and ".." and reports whether there is room for more.
func (f *fileSystem) listDots(d *directory, offset uint64, add func(fuse.DirEntry) *fuse.EntryOut) bool {
	f.mu.Lock()
	n := f.table.Get(d.id)
	self, parent := n.Ino, n.Ino
	if p := f.table.Get(n.Dir); p != nil {
		parent = p.Ino
	}
	f.mu.Unlock()
	if offset < 1 && add(fuse.DirEntry{Name: ".", Mode: unix.S_IFDIR, Ino: self, Off: 1}) == nil {
		return false
	}
	return offset >= 2 || add(fuse.DirEntry{Name: "..", Mode: unix.S_IFDIR, Ino: parent, Off: 2}) != nil
}

// listMail adds the entries of a mail directory after a position. Attributes that are missing are fetched first, for as
// many entries as the answer may hold.
func (f *fileSystem) listMail(d *directory, fd *descriptor, pos uint32, size int, add func(fuse.DirEntry) *fuse.EntryOut, plus bool) {
	const smallest = 24 + 8 // a dirent with a name of up to eight bytes
	room := size / smallest
	if plus {
		room = size / (smallest + 128)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.names == nil {
		return
	}
	if plus && pos == 0 {
		d.reads = 0
	}
	s := f.takeScratch()
	defer func() { f.scratch = s }()
	s.entries = f.table.AppendAfter(s.entries[:0], d.names, pos, room+1)
	if plus {
		f.fetchAttrs(fd, s)
	}
	for _, e := range s.entries {
		if d.names == nil {
			return
		}
		name, ok := f.table.At(d.names, e)
		if !ok {
			continue
		}
		n := f.table.Get(e.ID)
		known := n.Is(inode.HasAttr) || plus && f.fetchAttr(e.ID) == nil
		to := add(fuse.DirEntry{Name: name, Mode: uint32(n.Mode()), Ino: n.Ino, Off: uint64(e.Pos) + firstCookie})
		if to == nil {
			return
		}
		if plus && known { // else the kernel will ask when it needs it
			f.answer(to, d, e.ID, 0)
		}
	}
}

// scratch is what an answer to a read of a directory is made with. It is kept for the next one: a large directory is read in
// thousands of pieces, and what they left behind was more than what stays of it in memory.
type scratch struct {
	entries []inode.Entry
	jobs    []attrJob
	stat    statBuffer
}

// attrJob is a stat of an entry.
type attrJob struct {
	inode.Entry
	ino  uint64
	attr inode.Attr
	err  error
}

// takeScratch returns what the last answer was made with, unless another one is being made. The caller holds mu, and puts it back with mu
// held.
func (f *fileSystem) takeScratch() *scratch {
	s := f.scratch
	f.scratch = nil
	if s == nil {
		s = &scratch{}
	}
	return s
}

// fetchAttrs stats those of the entries whose attributes are not in memory, in the order of their inode numbers, which is
// that of the disk. The caller holds mu, which is let go meanwhile.
func (f *fileSystem) fetchAttrs(fd *descriptor, s *scratch) {
	jobs := s.jobs[:0]
	for _, e := range s.entries {
		if n := f.table.Get(e.ID); !n.Is(inode.HasAttr) {
			jobs = append(jobs, attrJob{Entry: e, ino: n.Ino})
		}
	}
	s.jobs = jobs
	if len(jobs) == 0 {
		return
	}
	f.mu.Unlock()
	slices.SortFunc(jobs, func(a, b attrJob) int { return cmp.Compare(a.ino, b.ino) })
	for i := range jobs {
		j := &jobs[i]
		j.attr, j.err = s.stat.at(fd.fd, j.Name)
	}
	f.mu.Lock()
	for i := range jobs {
		j := &jobs[i]
		if n := f.table.Get(j.ID); j.err == nil && n != nil && !n.Is(inode.HasAttr) {
			f.refreshAttr(j.ID, j.attr)
		}
	}
}

// staleAge is the age of a lock, or of a file that was to replace another one, whose owner died.
const staleAge = 2 * time.Minute

// comesAndGoes reports whether a name of a directory is that of a lock or of a file that is about to replace another one: a program
// that reads what is listed (notmuch does, and gives up) would not find it. A stale one stays until somebody removes it.
func comesAndGoes(dir int, name string) bool {
	if _, temp := vfs.TempOwner(name); name != lockName && !temp {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, statFlags)
	return err != nil || time.Since(time.Unix(st.Mtim.Unix())) <= staleAge
}

// listPlain adds the entries of a snapshot, which is taken when the reading starts.
func (f *fileSystem) listPlain(d *directory, fd *descriptor, in *fuse.ReadIn, at int, add func(fuse.DirEntry) *fuse.EntryOut, plus bool) fuse.Status {
	f.mu.Lock()
	l := f.listings[in.Fh]
	f.mu.Unlock()
	if l == nil {
		return fuse.EBADF
	}
	if in.Offset == 0 || !l.read {
		l.entries, l.read = nil, true
		err := readNames(fd.fd, func(e dirent) {
			if !comesAndGoes(fd.fd, e.name) && !f.isWithheld(d, e.name) {
				l.entries = append(l.entries, e)
			}
		})
		if err != nil {
			return f.status("readdir", err)
		}
	}
	for i := at; i < len(l.entries); i++ {
		e := l.entries[i]
		to := add(fuse.DirEntry{Name: e.name, Mode: uint32(e.typ), Ino: e.ino, Off: uint64(i + 1 + firstCookie)})
		if to == nil {
			return fuse.OK
		}
		var st unix.Stat_t
		if !plus || e.name == lockName || e.name == uidlistName || unix.Fstatat(fd.fd, e.name, &st, statFlags) != nil {
			continue // without a node the kernel will ask when it needs it
		}
		f.mu.Lock()
		f.answer(to, d, f.adopt(d, e.name, &st), st.Rdev)
		f.mu.Unlock()
	}
	return fuse.OK
}
