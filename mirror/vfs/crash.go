package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// Loss says how much of what was not synced a crash takes.
type Loss uint8

const (
	// LoseNothing is a kill of the process: the kernel still writes everything.
	LoseNothing Loss = iota
	// LoseAll is a power cut before the kernel wrote anything that it did not have to.
	LoseAll
	// LoseTail is a power cut on ext4 (data=writeback): changes of names survive up to some point in time, and the
	// unsynced bytes of each file survive up to some length, with zeros from some place on.
	LoseTail
	// LoseAny is stricter than ext4: changes of names that have nothing to do with each other survive independently.
	LoseAny
)

// Crash returns the file system as a power cut at this moment would leave it; m itself and what is open in it go on. All
// that a sync covered survives: a file's bytes by [File.Sync], names by the sync of their directory, and everything by
// [FS.Sync]. As POSIX allows and ext4 seldom shows, the sync of a file covers none of its names, and that of a new
// directory not its own name. The same seed gives the same loss.
func (m *Mem) Crash(loss Loss, seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{
		loss:  loss,
		rand:  rand.New(rand.NewPCG(seed, 0)),
		names: map[*inode]map[string]*inode{},
		times: map[*inode]time.Time{},
		clone: map[*inode]*inode{},
	}
	kept := c.survivors(m.pending)
	gap := make(map[*inode]bool) // directories that lack a change from before others that they have: their time is none that was ever seen
	for _, ch := range m.pending {
		survives := len(kept) > 0 && kept[0] == ch
		if survives {
			kept = kept[1:]
		}
		for _, n := range ch.names {
			names := c.dir(n.dir)
			if !survives {
				gap[n.dir] = true
				continue
			}
			n.apply(names)
			c.times[n.dir] = ch.at
			if gap[n.dir] {
				c.times[n.dir] = ch.at.Add(-time.Nanosecond)
			}
		}
	}
	return &Mem{clock: m.clock, lastIno: m.lastIno, root: c.copy(m.root, nil)}
}

// nameChange is one name that leads to another inode, or to none.
type nameChange struct {
	dir  *inode
	name string
	to   *inode
}

func (n nameChange) apply(names map[string]*inode) {
	if n.to == nil {
		delete(names, n.name)
	} else {
		names[n.name] = n.to
	}
}

// change is one operation on names, which a crash leaves done or not done but never half done.
type change struct {
	names []nameChange
	subject,
	replaced *inode // whose link count it changes
	at      time.Time
	ordered bool // a later change was synced; ext4 writes them in order
}

// follows reports whether c cannot be on disk without the earlier change b: they change the same name or the same link
// count, or b moved a directory in which c changes a name.
func (c *change) follows(b *change) bool {
	for _, n := range []*inode{c.subject, c.replaced} {
		if n != nil && (n == b.subject || n == b.replaced) {
			return true
		}
	}
	for _, x := range c.names {
		if x.dir == b.subject && len(b.names) == 2 {
			return true
		}
		for _, y := range b.names {
			if x.dir == y.dir && x.name == y.name {
				return true
			}
		}
	}
	return false
}

func (c *change) touches(dir *inode) bool {
	return slices.ContainsFunc(c.names, func(n nameChange) bool { return n.dir == dir })
}

func (c *change) applyDurable() {
	for _, n := range c.names {
		n.apply(n.dir.durable)
		n.dir.changed = c.at
	}
}

// change does an operation on names and remembers that no disk has it yet.
func (m *Mem) change(subject, replaced *inode, names ...nameChange) {
	now := m.clock()
	for _, n := range names {
		n.apply(n.dir.names)
		n.dir.mtime, n.dir.ctime = now, now
	}
	if m.observe != nil {
		for _, n := range names {
			if dir, ok := m.pathOf(n.dir); ok {
				m.observe(dir, n.name)
			}
		}
	}
	m.pending = append(m.pending, &change{names: names, subject: subject, replaced: replaced, at: now})
}

// syncDir makes the changes in dir durable, and those that they follow.
func (m *Mem) syncDir(dir *inode) {
	last := -1
	var need []*change
	for i, c := range slices.Backward(m.pending) {
		if c.touches(dir) || slices.ContainsFunc(need, func(later *change) bool { return later.follows(c) }) {
			need = append(need, c)
			last = max(last, i)
		}
	}
	var rest []*change
	for i, c := range m.pending {
		if n := len(need); n > 0 && need[n-1] == c { // need is newest first
			need = need[:n-1]
			c.applyDurable()
			continue
		}
		c.ordered = c.ordered || i < last
		rest = append(rest, c)
	}
	m.pending = rest
	dir.changed = dir.mtime
}

// crash is the work of one [Mem.Crash].
type crash struct {
	loss  Loss
	rand  *rand.Rand
	names map[*inode]map[string]*inode // of the directories, after the crash
	times map[*inode]time.Time         // of the same: when their names last changed, as far as the disk knows
	clone map[*inode]*inode
}

// survivors picks the unsynced changes of names that are on disk.
func (c *crash) survivors(pending []*change) []*change {
	switch c.loss {
	case LoseNothing:
		return pending
	case LoseAll:
		return nil
	case LoseTail:
		first := 0
		for first < len(pending) && pending[first].ordered {
			first++
		}
		return pending[:first+c.rand.IntN(len(pending)-first+1)]
	}
	var kept, lost []*change
	for _, ch := range pending {
		if c.rand.IntN(2) == 0 || slices.ContainsFunc(lost, ch.follows) {
			lost = append(lost, ch)
		} else {
			kept = append(kept, ch)
		}
	}
	return kept
}

func (c *crash) dir(n *inode) map[string]*inode {
	names, ok := c.names[n]
	if !ok {
		names = maps.Clone(n.durable)
		c.names[n], c.times[n] = names, n.changed
	}
	return names
}

// copy clones what can be reached from n, in the order of names so that the choices are repeatable.
func (c *crash) copy(n, parent *inode) *inode {
	if n2 := c.clone[n]; n2 != nil {
		n2.nlink++
		return n2
	}
	n2 := &inode{ino: n.ino, typ: n.typ, mode: n.mode, nlink: 1, mtime: n.mtime, ctime: n.ctime}
	c.clone[n] = n2
	if n.typ != Directory {
		n2.data = c.bytes(n)
		n2.synced = len(n2.data)
		return n2
	}
	n2.parent = parent
	n2.names = map[string]*inode{}
	names := c.dir(n)
	if c.loss != LoseNothing {
		n2.mtime = c.times[n] // goes to the disk together with the names
	}
	n2.changed = n2.mtime
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n2.names[name] = c.copy(names[name], n2)
	}
	n2.durable = maps.Clone(n2.names)
	return n2
}

// bytes is what a crash leaves of the content of a file. What is synced is always a prefix here.
func (c *crash) bytes(n *inode) []byte {
	switch {
	case c.loss == LoseNothing:
		return slices.Clone(n.data)
	case c.loss == LoseAll:
		return slices.Clone(n.data[:n.synced])
	}
	data := slices.Clone(n.data[:n.synced+c.pick(len(n.data)-n.synced)])
	clear(data[n.synced+c.pick(len(data)-n.synced):])
	return data
}

// pick is a number from 0 to n, the ends more likely than the rest.
func (c *crash) pick(n int) int {
	switch c.rand.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	}
	return c.rand.IntN(n + 1)
}
