package fusefs

import (
	"container/list"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/mail"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A name that a mail used to have still reaches it: a reader that listed the directory before another program changed the
// flags, or moved the mail from new/ to cur/, opens, renames and removes the mail it meant.
//
// Which names. In new/, every name whose mail is in cur/ by now. In cur/, the names that mails had during the life of the
// mount (the last 65,536 of them, for an hour): not every name with the same base, because programs also look up names
// that they are about to give (mu asks whether the target of a flag change exists, link(2) and RENAME_NOREPLACE fail if
// it does), and those must not be there. The program that took the name away itself is told the truth, so that "rename,
// then check that the old name is gone" and "rename, then remove the old name" do what they mean.
//
// How. The kernel does nothing for a rename between two names of one inode, and mv(1) refuses it by the inode numbers. A
// program that takes back a flag renames to a past name. So that is answered with a node and a number of its own, an alias
// of the mail's node, which the kernel must ask for again at every use.

// Bounds of what is remembered.
const (
	maxPastNames = 1 << 16
	pastNameAge  = time.Hour
)

// nameKey is a name in a directory.
type nameKey struct {
	dir  inode.ID
	name string
}

// pastName says who took a name away, and when.
type pastName struct {
	key  nameKey
	pid  uint32 // thread of the program; 0 for the engine
	when time.Time
}

// pastNames remembers names that mails had. It is guarded by fileSystem.mu.
type pastNames struct {
	limit int
	age   time.Duration
	now   func() time.Time
	byKey map[nameKey]*list.Element
	order *list.List // of *pastName, oldest in front
	alias map[nameKey]inode.ID
}

func newPastNames(limit int, age time.Duration) *pastNames {
	return &pastNames{limit: limit, age: age, now: time.Now, byKey: map[nameKey]*list.Element{}, order: list.New(),
		alias: map[nameKey]inode.ID{}}
}

// add remembers that pid took a name away.
func (p *pastNames) add(dir inode.ID, name string, pid uint32) {
	key := nameKey{dir, name}
	p.remove(key)
	p.byKey[key] = p.order.PushBack(&pastName{key: key, pid: pid, when: p.now()})
	for p.order.Len() > p.limit || p.expired(p.order.Front()) {
		p.remove(p.order.Front().Value.(*pastName).key)
	}
}

func (p *pastNames) expired(e *list.Element) bool {
	return e != nil && p.now().Sub(e.Value.(*pastName).when) > p.age
}

// forgetDir forgets all names in a directory that is gone: its ID may be that of another one day.
func (p *pastNames) forgetDir(dir inode.ID) {
	for key := range p.byKey {
		if key.dir == dir {
			p.remove(key)
		}
	}
	maps.DeleteFunc(p.alias, func(key nameKey, _ inode.ID) bool { return key.dir == dir })
}

func (p *pastNames) remove(key nameKey) {
	if e := p.byKey[key]; e != nil {
		p.order.Remove(e)
		delete(p.byKey, key)
	}
}

// find returns what is known of a name, nil if it was none or that is too long ago.
func (p *pastNames) find(key nameKey) *pastName {
	e := p.byKey[key]
	if e == nil || p.expired(e) {
		return nil
	}
	return e.Value.(*pastName)
}

// lookupStale answers for a name in a mail directory that is not there. The caller holds mu.
func (f *fileSystem) lookupStale(d *directory, name string, pid uint32, out *fuse.EntryOut) fuse.Status {
	d.missed = true
	real, _, _ := f.findStale(d, name, pid)
	if real == 0 || !f.table.Get(real).Is(inode.HasAttr) && f.fetchAttr(real) != nil {
		if f.baseInBox(d, name) {
			return fuse.ENOENT // the next moment it may be a name of that mail
		}
		return f.negative(out, d)
	}
	f.answer(out, d, f.alias(d, name, real), 0)
	return fuse.OK
}

// findStale returns the mail that used to have a name, and the directory and name it has now. The caller holds mu.
func (f *fileSystem) findStale(d *directory, name string, pid uint32) (inode.ID, *directory, string) {
	fn, ok := mail.ParseFileName(name)
	if !ok {
		return 0, nil, ""
	}
	past := f.pastNames.find(nameKey{d.id, name})
	if past != nil && sameProcess(past.pid, pid) {
		return 0, nil, ""
	}
	if past == nil && d.kind != newDir {
		return 0, nil, ""
	}
	for _, kind := range []dirKind{curDir, newDir} {
		in := f.sub(d.box, kind)
		if in == nil {
			continue
		}
		if id, now := f.table.FindKey(in.names, fn.Base); id != 0 && isMailName(now) {
			return id, in, now
		}
	}
	return 0, nil, ""
}

// sameProcess reports whether two threads belong to one process: the kernel tells the thread of a request.
func sameProcess(a, b uint32) bool {
	if a == 0 || b == 0 {
		return false
	}
	if a == b {
		return true
	}
	return unix.Access("/proc/"+strconv.Itoa(int(a))+"/task/"+strconv.Itoa(int(b)), unix.F_OK) == nil
}

// baseInBox reports whether the mailbox of d has a mail with the base of name. The caller holds mu.
func (f *fileSystem) baseInBox(d *directory, name string) bool {
	for _, kind := range []dirKind{curDir, newDir} {
		if in := f.sub(d.box, kind); in != nil {
			if id, _ := f.table.FindKey(in.names, baseOf(name)); id != 0 {
				return true
			}
		}
	}
	return false
}

// sub returns a loaded mail directory of the mailbox, nil if it is not there. The caller holds mu.
func (f *fileSystem) sub(b *mailbox, kind dirKind) *directory {
	if d := b.sub[kind]; d != nil && d.names != nil {
		return d
	}
	return nil
}

// alias returns the node that stands for a mail under a name of the past. The caller holds mu.
func (f *fileSystem) alias(d *directory, name string, real inode.ID) inode.ID {
	key := nameKey{d.id, name}
	if id := f.pastNames.alias[key]; id != 0 {
		if f.aliases[id] == real {
			return id
		}
		delete(f.pastNames.alias, key) // another mail by now; the old alias stays what it is
	}
	id := f.table.New()
	n, r := f.table.Get(id), f.table.Get(real)
	n.SetType(inode.AliasNumber(r.Ino, name), r.Mode())
	n.Flags |= inode.Alias
	n.Dir, n.Name = d.id, name
	r.Lookups++ // the alias holds on to it
	f.aliases[id] = real
	f.aliasesOf[real] = append(f.aliasesOf[real], id)
	f.pastNames.alias[key] = id
	return id
}

// endAliases makes the kernel forget the names of the past of a mail that has no name any more. It would remember them until its
// memory gets short, and the file would stay open for so long. The caller holds mu.
func (f *fileSystem) endAliases(real inode.ID) {
	for _, id := range f.aliasesOf[real] {
		n := f.table.Get(id)
		f.notices.entry(n.Dir, n.Name)
	}
}

// dropAlias lets go of the node that an alias stood for. The caller holds mu.
func (f *fileSystem) dropAlias(id inode.ID) {
	real, ok := f.aliases[id]
	if !ok {
		return
	}
	n := f.table.Get(id)
	if key := (nameKey{n.Dir, n.Name}); f.pastNames.alias[key] == id {
		delete(f.pastNames.alias, key)
	}
	delete(f.aliases, id)
	f.aliasesOf[real] = slices.DeleteFunc(f.aliasesOf[real], func(a inode.ID) bool { return a == id })
	if len(f.aliasesOf[real]) == 0 {
		delete(f.aliasesOf, real)
	}
	if r := f.table.Get(real); r != nil {
		r.Lookups--
		f.dropIfUnused(real)
	}
}

// mergeFlags returns the name that a mail gets when a program that knows it as stale names it wanted while it is called
// current: current, and what the program added, without what it removed. Flags, keywords and letters that mean something to other
// programs only (P, passed, of notmuch and mutt) alike.
func mergeFlags(current, stale, wanted string) string {
	c, _ := mail.ParseFileName(current)
	s, _ := mail.ParseFileName(stale)
	w, _ := mail.ParseFileName(wanted)
	c.Base = w.Base
	c.HasInfo = c.HasInfo || w.HasInfo
	c.Flags = c.Flags | w.Flags&^s.Flags
	c.Flags &^= s.Flags &^ w.Flags
	c.Letters = c.Letters | w.Letters&^s.Letters
	c.Letters &^= s.Letters &^ w.Letters
	c.Other = without(c.Other, without(s.Other, w.Other))
	c.Other += without(without(w.Other, s.Other), c.Other)
	return c.String()
}

// without returns the letters of a that are not in b.
func without(a, b string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(b, r) {
			return -1
		}
		return r
	}, a)
}
