package fusefs

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What programs do to a mail that is still to come. Another set of flags, and its removal, are remembered as an [Intent], which
// survives the end of the daemon, and are carried out as a program's own change when the mail is here: the engine then sends it
// like any other. A move to another mailbox and a further name need the bytes: they are fetched, and put there as a mail of their
// own. Everything else (writing into it, other attributes) has to wait: EAGAIN.

// errNotHere is the answer to what cannot be done to a mail that is still to come.
const errNotHere = syscall.EAGAIN

// promisedAt returns the promised mail of a name, which may be one that it had before, nil if there is none. The caller holds mu.
func (f *fileSystem) promisedAt(d *directory, name string, pid uint32) (p *promises, id inode.ID, in *directory, now string) {
	if d.promises == nil {
		return nil, 0, nil, ""
	}
	in, now = d, name
	if id = f.table.Find(d.names, name); id == 0 {
		id, in, now = f.findStale(d, name, pid)
	}
	return f.promiseOf(id), id, in, now
}

// reserved reports whether a name in a mail directory is one of a mail that is still to come: no other file may get it.
func (f *fileSystem) reserved(d *directory, name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.promises == nil {
		return false
	}
	id, _, _ := d.promises.find(f.table, baseOf(name))
	return f.promiseOf(id) != nil
}

// unlinkPromised removes a promised mail; done is false if the name is not that of one.
func (f *fileSystem) unlinkPromised(d *directory, name string, pid uint32) (done bool, err error) {
	f.mu.Lock()
	p, id, in, now := f.promisedAt(d, name, pid)
	if p == nil {
		f.mu.Unlock()
		return false, nil
	}
	intent := f.intentOf(p, id, in, now)
	f.mu.Unlock()
	intent.Want = ""
	return f.intend(p, id, intent, func(in *directory, now string) {
		f.files.pin(id) // what was fetched, for those who have it open
		f.dropName(in, now, id)
		if in != d || now != name {
			f.notices.entry(in.id, now)
			f.notices.inode(in.id)
		}
	})
}

// intentOf begins an intent about a promised mail. The caller holds mu.
func (f *fileSystem) intentOf(p *promises, id inode.ID, in *directory, now string) Intent {
	was := joinSub(in, now)
	if first, changed := p.was[id]; changed {
		was = first
	}
	return Intent{Base: baseOf(now), Was: was}
}

// intend makes an intent durable and then visible, by do. If the mail has come meanwhile, the change is to be made as to any
// other: done is false.
func (f *fileSystem) intend(p *promises, id inode.ID, intent Intent, do func(in *directory, now string)) (done bool, err error) {
	if err := p.source.Intend(intent); err != nil {
		return true, f.engineErrno("change a mail that is still to come", err)
	}
	f.mu.Lock()
	n := f.table.Get(id)
	if f.promiseOf(id) != p || baseOf(n.Name) != intent.Base {
		f.mu.Unlock()
		p.source.Settled(intent.Base)
		return false, nil
	}
	defer f.mu.Unlock()
	p.intents[intent.Base] = intent
	in, now := f.dirs[n.Dir], n.Name
	if intent.Want == "" {
		f.promised--
		n.Flags &^= inode.Promised
		delete(p.was, id)
	} else {
		p.was[id] = intent.Was
	}
	do(in, now)
	return true, nil
}

// renamePromised renames a promised mail; done is false if from is not one.
func (f *fileSystem) renamePromised(from, to *end, flags uint, pid uint32) (done bool, err error) {
	f.mu.Lock()
	p, id, in, now := f.promisedAt(from.d, from.name, pid)
	if p == nil {
		f.mu.Unlock()
		return false, nil
	}
	intent := f.intentOf(p, id, in, now)
	f.mu.Unlock()
	switch {
	case flags&unix.RENAME_EXCHANGE != 0 || to.id != 0:
		return true, errNotHere
	case to.d.promises != p || baseOf(to.name) != intent.Base:
		return f.movePromised(p, id, intent, to)
	}
	wantDir, want := to.d, to.name
	if now != from.name || in != from.d { // a program that does not know of another's change
		want = mergeFlags(now, from.name, to.name)
		if in.kind == curDir {
			wantDir = in
		}
	}
	intent.Want = joinSub(wantDir, want)
	return f.intend(p, id, intent, func(in *directory, now string) {
		f.renameEntry(id, in, now, wantDir, want)
		f.pastNames.add(in.id, now, pid)
		f.pastNames.remove(nameKey{wantDir.id, want})
		if wantDir != to.d || want != to.name || in != from.d || now != from.name {
			f.pastNames.add(from.d.id, from.name, pid)
			for _, e := range []nameKey{{to.d.id, to.name}, {in.id, now}, {wantDir.id, want}} {
				f.notices.entry(e.dir, e.name)
				f.notices.inode(e.dir)
			}
		}
	})
}

// renameEntry gives the node of a name another one. The caller holds mu.
func (f *fileSystem) renameEntry(id inode.ID, in *directory, now string, to *directory, name string) {
	if in == to {
		f.table.Rename(in.names, now, name)
		return
	}
	f.table.Leave(in.names, now)
	f.table.Enter(to.names, name, id)
}

// movePromised moves a promised mail to where it needs its bytes: they become a mail there, and the promised one is removed.
func (f *fileSystem) movePromised(p *promises, id inode.ID, intent Intent, to *end) (done bool, err error) {
	st, err := f.putPromised(id, to)
	if err == syscall.ESTALE {
		return false, nil // it has come meanwhile
	}
	if err != nil {
		return true, err
	}
	done, err = f.intend(p, id, intent, func(in *directory, now string) {
		f.files.drop(id)
		f.forgetName(in, now, id)
		if other := f.nameTaken(to.d, to.name); other != 0 { // somebody looked already
			f.dropName(to.d, to.name, other)
		}
		f.table.Get(id).SetAttr(attrOf(st))
		f.enter(to.d, to.name, id) // for the kernel it is the same file
		f.refresh(id, st)
		f.pastNames.remove(nameKey{to.d.id, to.name})
		f.notices.inode(id)
	})
	if done && err == nil {
		return true, nil
	}
	// It came between the two, or what is wanted of it cannot be kept: it stays, and what was made goes again.
	return done, errors.Join(err, unix.Unlinkat(to.fd.fd, to.name, 0))
}

// nameTaken returns the known node of a name. The caller holds mu.
func (f *fileSystem) nameTaken(d *directory, name string) inode.ID {
	if d.names != nil {
		return f.table.Find(d.names, name)
	}
	return d.known[name]
}

// linkPromised gives a promised mail a further name.
func (f *fileSystem) linkPromised(nodeID uint64, d *directory, fd *descriptor, name string, out *fuse.EntryOut) error {
	f.mu.Lock()
	id := f.target(inode.ID(nodeID))
	f.mu.Unlock()
	st, err := f.putPromised(id, &end{d: d, fd: fd, name: name})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer(out, d, f.adopt(d, name, st), 0)
	return nil
}

// hasPromises reports whether mails are still to come into a directory.
func (f *fileSystem) hasPromises(id inode.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.dirs[id]
	if d == nil || d.promises == nil || d.names == nil {
		return false
	}
	for _, e := range f.table.AppendAfter(nil, d.names, 0, d.names.Len()) {
		if f.table.Get(e.ID).Is(inode.Promised) {
			return true
		}
	}
	return false
}

// putPromised makes a file of a promised mail's bytes where a program wants it.
func (f *fileSystem) putPromised(id inode.ID, to *end) (*unix.Stat_t, error) {
	if to.id != 0 || f.reserved(to.d, to.name) {
		return nil, syscall.EEXIST
	}
	src, err := f.fetched(id)
	if err != nil {
		return nil, err
	}
	defer f.files.release(src)
	f.mu.Lock()
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return nil, syscall.ESTALE
	}
	attr := n.Attr()
	f.mu.Unlock()
	file, err := copyNameless(src.fd, to.fd.fd, attr)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	s := f.spotOf(to.d, to.name, false)
	m, lock := meaning{}, []string(nil)
	if s.visible() {
		m = m.appeared(s)
	}
	if s.visible() && s.kind == curDir {
		lock = []string{to.d.box.path}
	}
	st := new(unix.Stat_t)
	err = f.change("rename", m, lock, func() error {
		path := "/proc/self/fd/" + strconv.Itoa(int(file.Fd()))
		if err := unix.Linkat(unix.AT_FDCWD, path, to.fd.fd, to.name, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		return unix.Fstat(int(file.Fd()), st)
	})
	if err == nil {
		err = f.delivered(m)
	}
	return st, err
}

// copyNameless copies a file into one without a name beside a directory's entries, with the owner, mode and time that attr says.
func copyNameless(src, dir int, attr inode.Attr) (_ *os.File, err error) {
	fd, err := unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(attr.Mode&0o777))
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "copy")
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	own, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	from := os.NewFile(uintptr(own), "fetched")
	defer from.Close()
	if _, err := io.Copy(file, io.NewSectionReader(from, 0, attr.Size)); err != nil {
		return nil, err
	}
	if err := unix.Fchmod(fd, uint32(attr.Mode&0o777)); err != nil {
		return nil, err
	}
	at := unix.NsecToTimeval(attr.Mtime)
	return file, unix.Futimes(fd, []unix.Timeval{at, at})
}

// intentJob is an intent whose mail has come.
type intentJob struct {
	p    *promises
	base string
}

// queueIntent has an intent carried out, from a goroutine that ends when there are none left. The caller holds mu.
func (f *fileSystem) queueIntent(p *promises, base string) {
	f.intentJobs = append(f.intentJobs, intentJob{p, base})
	if f.intended != nil || f.closed {
		return
	}
	f.intended = make(chan struct{})
	go f.runIntents()
}

// awaitIntents waits until nothing is being carried out.
func (f *fileSystem) awaitIntents() {
	for {
		f.mu.Lock()
		busy := f.intended
		f.mu.Unlock()
		if busy == nil {
			return
		}
		<-busy
	}
}

func (f *fileSystem) runIntents() {
	for {
		f.mu.Lock()
		if len(f.intentJobs) == 0 || f.closed {
			close(f.intended)
			f.intended = nil
			f.mu.Unlock()
			return
		}
		job := f.intentJobs[0]
		f.intentJobs = f.intentJobs[1:]
		f.mu.Unlock()
		if err := f.carryOut(job.p, job.base); err != nil {
			f.log.Error("a change of a mail that had not come yet could not be made; it is tried again at the end of the first fill", "mail", job.base, "err", err)
		}
	}
}

// carryOut does to a mail that has come what a program wanted of it before.
func (f *fileSystem) carryOut(p *promises, base string) error {
	f.mu.Lock()
	intent, ok := p.intents[base]
	id, in, now := p.find(f.table, base)
	if !ok || id == 0 || f.table.Get(id).Is(inode.Promised) {
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	from, err := f.end(uint64(in.id), now)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(from.fd)
	if from.id == 0 {
		return syscall.ENOENT
	}
	if intent.Want == "" {
		err = f.unlink(from, 0)
	} else {
		err = f.renameAsWanted(p, intent, from)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	delete(p.intents, base)
	f.mu.Unlock()
	f.notices.entry(in.id, now)
	f.notices.inode(in.id)
	p.source.Settled(base)
	return nil
}

// renameAsWanted gives a mail the flags that a program wanted, and keeps those that it got otherwise.
func (f *fileSystem) renameAsWanted(p *promises, intent Intent, from *end) error {
	_, was := p.at(intent.Was)
	d, want := p.at(intent.Want)
	if from.d.kind == curDir {
		d = from.d
	}
	name := mergeFlags(from.name, was, want)
	if d == from.d && name == from.name {
		return nil
	}
	to, err := f.end(uint64(d.id), name)
	if err != nil {
		return err
	}
	defer f.dirFDs.release(to.fd)
	if err := f.meantRename(from, to, unix.RENAME_NOREPLACE, 0); err != nil {
		return err
	}
	f.notices.entry(to.d.id, name)
	f.notices.inode(to.d.id)
	f.notices.inode(from.id)
	return nil
}

// noXattrs are the extended attributes of a mail that is still to come.
func noXattrs() xattrCalls {
	return xattrCalls{
		get:     func(string, []byte) (int, error) { return 0, syscall.ENODATA },
		list:    func([]byte) (int, error) { return 0, nil },
		set:     func(string, []byte, int) error { return errNotHere },
		remove:  func(string) error { return syscall.ENODATA },
		release: func() {},
	}
}
