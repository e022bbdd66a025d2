package fusefs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A promised mail is one that the remote has and that the engine is going to put into a mailbox under a known base name, while it
// fills the backing Maildir for the first time. Programs see it as if it were there. It is a node without a file: what it says of
// itself is what the remote told, and its bytes are fetched when somebody reads them.
//
// When the engine brings the mail, the node of that name becomes that of the file: number and times change, nothing else, and
// what was read of it stays cached. If its name is another one by then, the node goes on as a name of the past (see stale.go).
// So a listing has the mail once at every moment. What a program does to a promised mail is in promisechange.go.

// Promised is one such mail.
type Promised struct {
	Cur   bool   // in cur/, else in new/
	Name  string // under which the engine will put it there, if its flags do not change until then
	Size  int64  // bytes
	Mtime int64  // seconds since the epoch
}

// Source is where the promised mails of one mailbox come from. Its methods may be called from many goroutines, and may not touch
// the mount.
type Source interface {
	// Fetch returns a file with the whole content of a promised mail, for reading, that becomes the caller's. It gives up in
	// bounded time, and at once if the remote is away. It logs why; the program gets EIO. next returns the mails that are likely
	// to be read next, so many at most; it may be called later, too.
	Fetch(ctx context.Context, base string, size int64, next func(int) []Following) (*os.File, error)
	// Intend keeps an intent, in place of an earlier one about that mail, so that it survives the end of this process.
	Intend(Intent) error
	// Settled says that an intent was carried out.
	Settled(base string)
}

// Following is a promised mail that comes after another one in the listing.
type Following struct {
	Base string
	Size int64
}

// Intent is what a program wants of a mail that is still to come. Names are like "cur/base:2,S".
type Intent struct {
	Base string
	Was  string // the name that the mail was promised under
	Want string // that it shall have; empty: it shall be expunged
}

// promises are the promised mails of one mailbox, and what is wanted of them. It is guarded by fileSystem.mu.
type promises struct {
	source  Source
	cur     *directory
	new     *directory
	intents map[string]Intent   // by base
	fetches map[inode.ID]*fetch // under way
	was     map[inode.ID]string // the first names of those that a program has given another
}

// fetch is the bringing of one mail.
type fetch struct {
	done chan struct{}
	err  error // valid once done is closed
}

// Promise makes a mailbox, by the path of its directory, show mails that are still to come. What is there of them already is left
// out. Intents are those of an earlier mount. It returns how many mails are shown. Call it before the engine fills the mailbox.
func (m *Mount) Promise(dir string, source Source, mails []Promised, intents []Intent) (int, error) {
	n, err := m.fs.promise(dir, source, mails, intents)
	if err != nil {
		return 0, fmt.Errorf("promise mails of %q: %w", dir, err)
	}
	m.fs.notices.flush()
	return n, nil
}

// Promised returns how many mails are shown that are still to come.
func (m *Mount) Promised() int {
	m.fs.mu.Lock()
	defer m.fs.mu.Unlock()
	return m.fs.promised
}

// EndPromises takes away what was promised and did not come: it is not to be had any more. It returns how many intents about
// mails that came could not be carried out; the errors are logged.
func (m *Mount) EndPromises() (left int) {
	left = m.fs.endPromises()
	m.fs.notices.flush()
	return left
}

func (f *fileSystem) promise(dir string, source Source, mails []Promised, intents []Intent) (int, error) {
	cur, err := f.reach(join(dir, "cur"))
	if err != nil {
		return 0, err
	}
	fresh, err := f.reach(join(dir, "new"))
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if cur.names == nil || fresh.names == nil {
		return 0, syscall.ENOTDIR
	}
	p := cur.promises
	if p == nil {
		p = &promises{
			source: source, cur: cur, new: fresh,
			intents: map[string]Intent{}, fetches: map[inode.ID]*fetch{}, was: map[inode.ID]string{},
		}
		cur.promises, fresh.promises = p, p
	}
	for _, in := range intents {
		p.intents[in.Base] = in
		if id, _, _ := p.find(f.table, in.Base); id != 0 {
			f.queueIntent(p, in.Base)
		}
	}
	before := f.promised
	for _, m := range mails {
		f.enterPromise(p, m)
	}
	f.notices.inode(cur.id)
	f.notices.inode(fresh.id)
	return f.promised - before, nil
}

// reach returns a mail directory, loaded, whether or not the kernel has asked for it yet.
func (f *fileSystem) reach(path string) (*directory, error) {
	id := inode.Root
	for part := range strings.SplitSeq(path, "/") {
		f.mu.Lock()
		parent := f.dirs[id]
		f.mu.Unlock()
		if parent == nil {
			return nil, syscall.ENOTDIR
		}
		fd, err := f.dirFD(id)
		if err != nil {
			return nil, err
		}
		var st *unix.Stat_t
		id, st, err = f.child(parent, fd, part)
		f.dirFDs.release(fd)
		switch {
		case err != nil:
			return nil, err
		case id == 0:
			return nil, syscall.ENOENT
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return nil, syscall.ENOTDIR
		}
	}
	d, fd, err := f.dir(uint64(id))
	if err != nil {
		return nil, err
	}
	f.dirFDs.release(fd)
	if !d.isMail() {
		return nil, syscall.ENOTDIR
	}
	return d, nil
}

// find returns the node of a base name in the mailbox, and where it is.
func (p *promises) find(t *inode.Table, base string) (inode.ID, *directory, string) {
	for _, in := range []*directory{p.cur, p.new} {
		if in.names == nil {
			continue
		}
		if id, name := t.FindKey(in.names, base); id != 0 {
			return id, in, name
		}
	}
	return 0, nil, ""
}

// enterPromise makes the node of a promised mail, unless the mail is there or a program has removed it. The caller holds mu.
func (f *fileSystem) enterPromise(p *promises, m Promised) {
	base := baseOf(m.Name)
	if id, _, _ := p.find(f.table, base); id != 0 || !isMailName(m.Name) || f.refusedName(m.Name) || m.Size < 0 {
		return
	}
	d, name := p.new, m.Name
	if m.Cur {
		d = p.cur
	}
	wanted, changed := p.intents[base]
	if changed && wanted.Want == "" {
		return
	}
	id := f.table.New()
	if changed {
		d, name = p.at(wanted.Want)
		p.was[id] = wanted.Was
	}
	n, dir := f.table.Get(id), f.table.Get(d.id).Attr()
	f.promises++
	at := max(0, min(m.Mtime, maxMtime)) * 1e9
	n.SetAttr(inode.Attr{
		Ino: inode.PromiseNumber(f.promises), Size: m.Size, Blocks: uint32((m.Size + 511) / 512), Nlink: 1,
		Atime: at, Mtime: at, Ctime: at, UID: dir.UID, GID: dir.GID, Mode: unix.S_IFREG | dir.Mode&0o666,
	})
	n.Flags |= inode.Promised
	f.table.Enter(d.names, name, id)
	f.promised++
	if d.missed {
		f.notices.entry(d.id, name)
	}
}

// maxMtime is the last second that is a number of nanoseconds, too.
const maxMtime = math.MaxInt64 / 1_000_000_000

// joinSub is how an Intent names a file.
func joinSub(d *directory, name string) string { return subName[d.kind] + "/" + name }

// at takes such a name apart.
func (p *promises) at(file string) (*directory, string) {
	sub, name, _ := strings.Cut(file, "/")
	if sub == subName[curDir] {
		return p.cur, name
	}
	return p.new, name
}

// promiseOf returns the promises that a node is one of, nil if it is none. The caller holds mu.
func (f *fileSystem) promiseOf(id inode.ID) *promises {
	n := f.table.Get(id)
	if n == nil || !n.Is(inode.Promised) || f.dirs[n.Dir] == nil {
		return nil
	}
	return f.dirs[n.Dir].promises
}

// isPromised is promiseOf for a node as the kernel names it.
func (f *fileSystem) isPromised(nodeID uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.promiseOf(f.target(inode.ID(nodeID))) != nil
}

// fulfil makes a promised node that of the file which has come under its name. The caller holds mu.
func (f *fileSystem) fulfil(id inode.ID, st *unix.Stat_t) {
	n := f.table.Get(id)
	p := f.promiseOf(id)
	f.unpromise(p, id)
	n.SetAttr(attrOf(st))
	f.notices.put(notice{node: id, do: func(k kernel) fuse.Status { return k.InodeNotify(uint64(id), -1, 0) }}) // not its pages
	f.came(p, baseOf(n.Name))
}

// supersede lets the promise of a base name go on as a name of the past, when a file of that base appears under another name or
// as another node. The caller holds mu and enters the file then.
func (f *fileSystem) supersede(d *directory, name string, by inode.ID) {
	p := d.promises
	if p == nil {
		return
	}
	base := baseOf(name)
	id, in, was := p.find(f.table, base)
	if id == 0 {
		f.came(p, base)
		return
	}
	if id == by || !f.table.Get(id).Is(inode.Promised) {
		return
	}
	f.unpromise(p, id)
	if in == d {
		f.table.Succeed(d.names, was, name, by) // a listing that is being read goes on with it once
	} else {
		f.table.Leave(in.names, was)
	}
	if in != d || was != name {
		f.pastNames.add(in.id, was, 0)
		f.notices.entry(in.id, was)
		f.notices.inode(in.id) // its listing too, if the kernel does not have that entry
	}
	f.becomeAlias(id, nameKey{in.id, was}, by)
	f.came(p, base)
}

// becomeAlias makes a node without a name one of the past of another. The caller holds mu.
func (f *fileSystem) becomeAlias(id inode.ID, key nameKey, real inode.ID) {
	n := f.table.Get(id)
	if n.Lookups == 0 {
		f.table.Drop(id)
		return
	}
	earlier := f.aliasesOf[id]
	delete(f.aliasesOf, id)
	for _, alias := range earlier {
		f.aliases[alias] = real
	}
	n.Lookups -= uint32(len(earlier))
	f.table.Get(real).Lookups += uint32(len(earlier))
	f.aliasesOf[real] = append(f.aliasesOf[real], append(earlier, id)...)
	n.Flags |= inode.Alias
	n.Dir, n.Name = key.dir, key.name
	f.table.Get(real).Lookups++
	f.aliases[id] = real
	f.pastNames.alias[key] = id
	f.notices.put(notice{node: id, do: func(k kernel) fuse.Status { return k.InodeNotify(uint64(id), -1, 0) }})
	f.dropIfUnused(id)
}

// unpromise ends a promise. The caller holds mu.
func (f *fileSystem) unpromise(p *promises, id inode.ID) {
	f.table.Get(id).Flags &^= inode.Promised
	f.promised--
	delete(p.was, id)
	f.files.drop(id) // what was fetched; whoever reads it still has it
}

// came has what a program wanted of a mail carried out now that it is here. The caller holds mu.
func (f *fileSystem) came(p *promises, base string) {
	if _, ok := p.intents[base]; ok {
		f.queueIntent(p, base)
	}
}

// fetched returns a descriptor of a promised mail's content. ESTALE: it is promised no more.
func (f *fileSystem) fetched(id inode.ID) (*descriptor, error) {
	f.mu.Lock()
	p := f.promiseOf(id)
	if p == nil {
		f.mu.Unlock()
		return nil, syscall.ESTALE
	}
	n := f.table.Get(id)
	base, size := baseOf(n.Name), n.Attr().Size
	job := p.fetches[id]
	if job != nil {
		f.mu.Unlock()
		<-job.done
		if d := f.files.get(id, false); d != nil || job.err == nil {
			return orStale(d)
		}
		return nil, job.err
	}
	job = &fetch{done: make(chan struct{})}
	p.fetches[id] = job
	f.mu.Unlock()
	next := func(most int) []Following { return f.following(id, most) }
	file, err := p.source.Fetch(context.Background(), base, size, next)
	return f.keepFetched(p, id, base, job, file, err)
}

// following returns the promised mails that come after one in its listing.
func (f *fileSystem) following(id inode.ID, most int) (out []Following) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.table.Get(id)
	if n == nil || f.dirs[n.Dir] == nil || f.dirs[n.Dir].names == nil {
		return nil
	}
	for _, e := range f.table.Following(f.dirs[n.Dir].names, id, most) {
		if n := f.table.Get(e.ID); n.Is(inode.Promised) {
			out = append(out, Following{baseOf(e.Name), n.Attr().Size})
		}
	}
	return out
}

func orStale(d *descriptor) (*descriptor, error) {
	if d == nil {
		return nil, syscall.ESTALE
	}
	return d, nil
}

// keepFetched ends a fetch.
func (f *fileSystem) keepFetched(p *promises, id inode.ID, base string, job *fetch, file *os.File, err error) (*descriptor, error) {
	fd := -1
	if err == nil {
		fd, err = unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		err = errors.Join(err, file.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(job.done)
	delete(p.fetches, id)
	if n := f.table.Get(id); f.promiseOf(id) != p || baseOf(n.Name) != base {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, syscall.ESTALE // it has come by itself
	}
	if err != nil {
		job.err = syscall.EIO
		return nil, syscall.EIO
	}
	return f.files.put(id, fd, false), nil
}

// endPromises takes away what did not come. What could not be carried out is tried once more.
func (f *fileSystem) endPromises() (left int) {
	f.awaitIntents()
	f.mu.Lock()
	f.eachIntent(func(p *promises, base string) { f.queueIntent(p, base) })
	f.mu.Unlock()
	f.awaitIntents()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eachIntent(func(*promises, string) { left++ })
	for _, d := range f.dirs {
		p := d.promises
		if p == nil {
			continue
		}
		d.promises = nil
		if d.names == nil {
			continue
		}
		f.dropPromises(d, p)
		f.notices.inode(d.id)
	}
	return left
}

// eachIntent calls do for the intents about mails that are here. The caller holds mu.
func (f *fileSystem) eachIntent(do func(p *promises, base string)) {
	for _, d := range f.dirs {
		if d.promises == nil || d.kind != curDir {
			continue
		}
		for base := range d.promises.intents {
			if id, _, _ := d.promises.find(f.table, base); id != 0 && !f.table.Get(id).Is(inode.Promised) {
				do(d.promises, base)
			}
		}
	}
}

// dropPromises takes all promised nodes out of a directory. The caller holds mu.
func (f *fileSystem) dropPromises(d *directory, p *promises) {
	for _, e := range f.table.AppendAfter(nil, d.names, 0, d.names.Len()) {
		if !f.table.Get(e.ID).Is(inode.Promised) {
			continue
		}
		f.unpromise(p, e.ID)
		f.notices.entry(d.id, e.Name)
		f.dropName(d, e.Name, e.ID)
	}
}
