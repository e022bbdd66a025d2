package inode

import "slices"

// ID names an inode between the kernel and the daemon. 0 is no inode, [Root] the root directory.
type ID uint32

// Root is the ID of the root directory (FUSE_ROOT_ID).
const Root ID = 1

// Attr is what a stat says of a file. Times are nanoseconds since the epoch, Blocks has units of 512 bytes, Mode holds type
// and permission bits.
type Attr struct {
	Ino                 uint64
	Size                int64
	Atime, Mtime, Ctime int64
	Nlink, UID, GID     uint32
	Blocks              uint32
	Mode                uint16
}

// Flags are facts about a node.
type Flags uint16

// The facts.
const (
	HasAttr  Flags = 1 << iota // the attributes are known, not only number and type
	Alias                      // stands for another node under a name that this no longer has
	Indexed                    // found by its inode number
	Linked                     // further names are kept aside
	Created                    // made through the mount: who made it may write it whatever its mode says
	Promised                   // a mail that is still to come: there is no file behind it
	live                       // the slot is in use
	seen                       // mark of a scan
)

// Node is one inode. Its first name lies in the node, further ones (hard links) in the table.
type Node struct {
	Name                string // in Dir; empty if no name is known
	Ino                 uint64
	size                int64
	atime, mtime, ctime int64
	nlink, uid, gid     uint32
	blocks              uint32
	Dir                 ID
	pos                 uint32
	Lookups             uint32 // how often the kernel was told of it and has not forgotten
	mode                uint16
	Flags               Flags
}

// Attr returns the attributes, which are true if [HasAttr] is set.
func (n *Node) Attr() Attr {
	return Attr{Ino: n.Ino, Size: n.size, Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime,
		Nlink: n.nlink, UID: n.uid, GID: n.gid, Blocks: n.blocks, Mode: n.mode}
}

// SetAttr remembers a and sets [HasAttr].
func (n *Node) SetAttr(a Attr) {
	n.Ino, n.size, n.atime, n.mtime, n.ctime = a.Ino, a.Size, a.Atime, a.Mtime, a.Ctime
	n.nlink, n.uid, n.gid, n.blocks, n.mode = a.Nlink, a.UID, a.GID, a.Blocks, a.Mode
	n.Flags |= HasAttr
}

// SetType remembers number and type of a file whose attributes are not known yet.
func (n *Node) SetType(ino uint64, mode uint16) { n.Ino, n.mode = ino, mode }

// Mode returns type and permission bits; only the type if the attributes are not known.
func (n *Node) Mode() uint16 { return n.mode }

// Is reports whether all of flags are set.
func (n *Node) Is(flags Flags) bool { return n.Flags&flags == flags }

// Link is one name of an inode.
type Link struct {
	Dir  ID
	Name string
	pos  uint32
}

// Table holds all nodes. The zero value is not usable; see [NewTable].
type Table struct {
	chunks []*[chunkSize]Node
	free   ID // first free slot; the next one is in its Dir
	next   ID // first slot that never was used
	count  int
	more   map[ID][]Link
	byIno  map[uint64]ID
}

// chunkSize nodes of 88 bytes are eleven pages of the runtime (8 KiB) exactly; with half as many, a twelfth of the memory would be lost.
const chunkSize = 1024

// NewTable returns a table that holds only the root.
func NewTable() *Table {
	t := &Table{next: Root, more: map[ID][]Link{}, byIno: map[uint64]ID{}}
	t.New()
	return t
}

// Len returns the number of nodes.
func (t *Table) Len() int { return t.count }

// New makes a node.
func (t *Table) New() ID {
	t.count++
	if id := t.free; id != 0 {
		n := t.at(id)
		t.free = n.Dir
		*n = Node{Flags: live}
		return id
	}
	id := t.next
	t.next++
	if int(id)/chunkSize == len(t.chunks) {
		t.chunks = append(t.chunks, new([chunkSize]Node))
	}
	t.at(id).Flags = live
	return id
}

func (t *Table) at(id ID) *Node { return &t.chunks[id/chunkSize][id%chunkSize] }

// Get returns the node, nil if there is none. The pointer is good until the node is dropped.
func (t *Table) Get(id ID) *Node {
	if id == 0 || id >= t.next {
		return nil
	}
	if n := t.at(id); n.Is(live) {
		return n
	}
	return nil
}

// Drop gives the slot back. The node must have no entry in a [Dir] any more.
func (t *Table) Drop(id ID) {
	n := t.Get(id)
	if n == nil {
		return
	}
	t.Unindex(id)
	delete(t.more, id)
	*n = Node{Dir: t.free}
	t.free = id
	t.count--
}

// Index makes the node findable by its inode number, in place of any other node of that number.
func (t *Table) Index(id ID) {
	n := t.Get(id)
	if old := t.Get(t.byIno[n.Ino]); old != nil {
		old.Flags &^= Indexed
	}
	t.byIno[n.Ino] = id
	n.Flags |= Indexed
}

// Unindex takes the node out of the index by inode number.
func (t *Table) Unindex(id ID) {
	if n := t.Get(id); n != nil && n.Is(Indexed) {
		delete(t.byIno, n.Ino)
		n.Flags &^= Indexed
	}
}

// ByIno returns the indexed node with that inode number.
func (t *Table) ByIno(ino uint64) (ID, *Node) {
	id := t.byIno[ino]
	return id, t.Get(id)
}

// AddName gives the node a further name, which it may have already.
func (t *Table) AddName(id ID, dir ID, name string) { t.addLink(id, Link{Dir: dir, Name: name}) }

func (t *Table) addLink(id ID, l Link) {
	n := t.Get(id)
	switch {
	case t.HasName(id, l.Dir, l.Name):
	case n.Name == "":
		n.Dir, n.Name, n.pos = l.Dir, l.Name, l.pos
	default:
		t.more[id] = append(t.more[id], l)
		n.Flags |= Linked
	}
}

// DropName takes a name away and reports whether others remain.
func (t *Table) DropName(id ID, dir ID, name string) (others bool) {
	n := t.Get(id)
	rest := t.more[id]
	if n.Dir == dir && n.Name == name {
		n.Dir, n.Name, n.pos = 0, "", 0
		if len(rest) > 0 {
			n.Dir, n.Name, n.pos = rest[0].Dir, rest[0].Name, rest[0].pos
			rest = rest[1:]
		}
	} else if i := slices.IndexFunc(rest, func(l Link) bool { return l.Dir == dir && l.Name == name }); i >= 0 {
		rest = slices.Delete(slices.Clone(rest), i, i+1)
	}
	t.setMore(id, n, rest)
	return n.Name != ""
}

func (t *Table) setMore(id ID, n *Node, rest []Link) {
	if len(rest) == 0 {
		n.Flags &^= Linked
		delete(t.more, id)
		return
	}
	t.more[id] = rest
	n.Flags |= Linked
}

// SetOnlyName replaces all names by one.
func (t *Table) SetOnlyName(id ID, dir ID, name string) {
	n := t.Get(id)
	t.setMore(id, n, nil)
	n.Dir, n.Name, n.pos = dir, name, 0
}

// HasName reports whether the node has that name.
func (t *Table) HasName(id ID, dir ID, name string) bool {
	_, ok := t.link(id, func(l Link) bool { return l.Dir == dir && l.Name == name })
	return ok
}

// Names returns all names of the node.
func (t *Table) Names(id ID) []Link {
	var out []Link
	t.link(id, func(l Link) bool {
		out = append(out, l)
		return false
	})
	return out
}

// link returns the first name for which f is true.
func (t *Table) link(id ID, f func(Link) bool) (Link, bool) {
	n := t.Get(id)
	if n == nil || n.Name == "" {
		return Link{}, false
	}
	if l := (Link{n.Dir, n.Name, n.pos}); f(l) {
		return l, true
	}
	if !n.Is(Linked) {
		return Link{}, false
	}
	for _, l := range t.more[id] {
		if f(l) {
			return l, true
		}
	}
	return Link{}, false
}

// Each calls f with every node until it returns false. f may drop the node it is given.
func (t *Table) Each(f func(ID, *Node) bool) {
	for id := Root; id < t.next; id++ {
		if n := t.Get(id); n != nil && !f(id, n) {
			return
		}
	}
}

// AliasNumber is the number that a name of the past shows: not that of the mail, since programs refuse to rename a file to
// another name of the same inode. The highest bit keeps it apart from the numbers of real files, which no Linux file
// system makes so large.
func AliasNumber(ino uint64, name string) uint64 {
	h := uint64(14695981039346656037) ^ ino // FNV-1a
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return h&^(1<<62) | 1<<63
}

// PromiseNumber is the number that the nth promised mail shows. They ascend, because programs read the mails of a listing in the
// order of their numbers, and what is likely to be read next is fetched ahead.
func PromiseNumber(n uint64) uint64 { return 1<<63 | 1<<62 | n }
