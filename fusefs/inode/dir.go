package inode

import (
	"slices"
	"sort"
)

// Dir holds the names of one mail directory: by the part that does not change, and in the order of the listing.
type Dir struct {
	id    ID
	key   func(name string) string
	names keys // a node for each of its names
	order []slot
	dead  int // slots of order without a node
	last  uint32
}

type slot struct {
	pos uint32
	id  ID // 0: the name went away
}

// NewDir makes the empty table of directory id. key returns the part of a name that a rename of the same mail keeps (a
// prefix of it, so that the two share their memory).
func NewDir(id ID, key func(string) string) *Dir {
	return &Dir{id: id, key: key}
}

// ID returns the directory's node.
func (d *Dir) ID() ID { return d.id }

// Len returns the number of names.
func (d *Dir) Len() int { return len(d.order) - d.dead }

// Find returns the node of exactly that name, 0 if there is none.
func (t *Table) Find(d *Dir, name string) ID {
	return d.names.find(d.key(name), func(id ID) bool { return t.HasName(id, d.id, name) })
}

// FindKey returns a node whose name has the key, and that name.
func (t *Table) FindKey(d *Dir, key string) (ID, string) {
	var found Link
	id := d.names.find(key, func(id ID) (ok bool) {
		found, ok = t.link(id, func(l Link) bool { return l.Dir == d.id && d.key(l.Name) == key })
		return ok
	})
	return id, found.Name
}

// Others reports whether a name of the same key but not this one is in d.
func (t *Table) Others(d *Dir, name string) bool {
	key := d.key(name)
	id := d.names.find(key, func(id ID) bool {
		_, ok := t.link(id, func(l Link) bool { return l.Dir == d.id && l.Name != name && d.key(l.Name) == key })
		return ok
	})
	return id != 0
}

// Enter puts the node into d under name, at the end of the listing. A name that is there already is given to the node.
func (t *Table) Enter(d *Dir, name string, id ID) {
	if old := t.Find(d, name); old == id {
		return
	} else if old != 0 {
		t.Leave(d, name)
	}
	t.DropName(id, d.id, name) // known by this name while the directory was not in memory
	d.last++
	t.insert(d, Link{d.id, name, d.last}, id)
	if len(d.order) == cap(d.order) {
		d.order = slices.Grow(d.order, len(d.order)/2+1) // append would copy a large one every quarter, and leave four times as much behind
	}
	d.order = append(d.order, slot{d.last, id})
}

func (t *Table) insert(d *Dir, l Link, id ID) {
	t.addLink(id, l)
	d.names.add(d.key(l.Name), id)
}

// Leave takes name out of d and returns the node that had it, 0 if none had.
func (t *Table) Leave(d *Dir, name string) ID {
	id := t.Find(d, name)
	if id == 0 {
		return 0
	}
	if i := d.index(t.remove(d, name, id)); i >= 0 {
		d.order[i].id = 0
		d.dead++
		d.compact()
	}
	return id
}

// remove takes the name from node and index and returns its position.
func (t *Table) remove(d *Dir, name string, id ID) uint32 {
	l, _ := t.link(id, func(l Link) bool { return l.Dir == d.id && l.Name == name })
	t.DropName(id, d.id, name)
	d.names.remove(d.key(name), id)
	return l.pos
}

// Rename gives the node of a name in d another name in d, in place of whatever had it. The position in the listing stays
// if the key stays. It returns the node, 0 if there is none of the old name.
func (t *Table) Rename(d *Dir, name, newName string) ID {
	id := t.Find(d, name)
	if id == 0 || name == newName {
		return id
	}
	t.Leave(d, newName)
	if d.key(name) != d.key(newName) {
		t.Leave(d, name)
		t.Enter(d, newName, id)
		return id
	}
	pos := t.remove(d, name, id)
	t.insert(d, Link{d.id, newName, pos}, id)
	return id
}

// Succeed gives the place in the listing of a name in d to another node, under a name with the same key that no other has. It returns
// the node that had it, 0 if none had.
func (t *Table) Succeed(d *Dir, name, newName string, by ID) ID {
	id := t.Find(d, name)
	if id == 0 {
		return 0
	}
	pos := t.remove(d, name, id)
	t.insert(d, Link{d.id, newName, pos}, by)
	if i := d.index(pos); i >= 0 {
		d.order[i].id = by
	}
	return id
}

// index returns the place of pos in the order, -1 if it is not there.
func (d *Dir) index(pos uint32) int {
	i := d.after(pos - 1)
	if i < len(d.order) && d.order[i].pos == pos {
		return i
	}
	return -1
}

// after returns the first place of the order with a position greater than pos.
func (d *Dir) after(pos uint32) int {
	return sort.Search(len(d.order), func(i int) bool { return d.order[i].pos > pos })
}

// compact drops the dead slots when they are the greater part.
func (d *Dir) compact() {
	if d.dead < 64 || d.dead < len(d.order)/2 {
		return
	}
	d.order = slices.DeleteFunc(d.order, func(s slot) bool { return s.id == 0 })
	if cap(d.order) > 4*len(d.order) {
		d.order = slices.Clone(d.order)
	}
	d.dead = 0
}

// Entry is one line of a listing.
type Entry struct {
	Pos  uint32 // the cookie after this entry
	ID   ID
	Name string
}

// AppendAfter appends to out up to limit entries whose position is greater than pos, in order.
func (t *Table) AppendAfter(out []Entry, d *Dir, pos uint32, limit int) []Entry {
	limit += len(out)
	for i := d.after(pos); i < len(d.order) && len(out) < limit; i++ {
		s := d.order[i]
		if s.id == 0 {
			continue
		}
		if l, ok := t.link(s.id, func(l Link) bool { return l.Dir == d.id && l.pos == s.pos }); ok {
			out = append(out, Entry{s.pos, s.id, l.Name})
		}
	}
	return out
}

// Following returns up to limit entries that come after a node's first name, which is in d.
func (t *Table) Following(d *Dir, id ID, limit int) []Entry {
	n := t.Get(id)
	if n == nil || n.Dir != d.id {
		return nil
	}
	return t.AppendAfter(nil, d, n.pos, limit)
}

// At reports whether the node still stands at that position of d, and its name now.
func (t *Table) At(d *Dir, e Entry) (string, bool) {
	l, ok := t.link(e.ID, func(l Link) bool { return l.Dir == d.id && l.pos == e.Pos })
	return l.Name, ok
}

// Mark notes that a scan of the backing directory met the name, and reports whether d has it.
func (t *Table) Mark(d *Dir, name string) bool {
	id := t.Find(d, name)
	if id == 0 {
		return false
	}
	t.Get(id).Flags |= seen
	return true
}

// Unmarked returns the names of nodes that no scan met, and clears all marks.
func (t *Table) Unmarked(d *Dir) []string {
	var out []string
	for _, s := range d.order {
		n := t.Get(s.id)
		if n == nil {
			continue
		}
		if n.Flags&seen == 0 {
			if l, ok := t.link(s.id, func(l Link) bool { return l.Dir == d.id && l.pos == s.pos }); ok {
				out = append(out, l.Name)
			}
		}
	}
	for _, s := range d.order {
		if n := t.Get(s.id); n != nil {
			n.Flags &^= seen
		}
	}
	return out
}
