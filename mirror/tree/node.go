package tree

import (
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
)

// node is one level of a name. Its box has no Name: that follows from the place of the node.
type node struct {
	part     string
	parent   *node
	children []*node // by part, in byte order
	box      mail.Mailbox

	// What the synchronisation knows of it.
	ts   int64            // time of the last rename of this node or of one above it
	temp bool             // the part is a temporary name
	dead mail.MailboxGUID // its side deleted the mailbox of this GUID and name
}

func (n *node) guid() mail.MailboxGUID { return n.box.Status.GUID }
func (n *node) exists() bool           { return n.box.Existence == mail.Exists }
func (n *node) isMailbox() bool        { return n.exists() && !n.guid().IsZero() }

// isDir reports whether no mailbox stands behind the name, whether the name exists or not.
func (n *node) isDir() bool { return n.guid().IsZero() }

// name returns the full name, empty for the root.
func (n *node) name() mail.Name {
	if n.parent == nil {
		return ""
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.part)
	}
	slices.Reverse(parts)
	return mail.JoinName(parts...)
}

// mailbox returns what the node stands for, with its name.
func (n *node) mailbox() mail.Mailbox {
	box := n.box
	box.Name = n.name()
	return box
}

func (n *node) find(part string) (int, bool) {
	return slices.BinarySearchFunc(n.children, part, func(c *node, part string) int { return strings.Compare(c.part, part) })
}

// child returns the child of that part, nil if there is none.
func (n *node) child(part string) *node {
	if i, found := n.find(part); found {
		return n.children[i]
	}
	return nil
}

// ensure returns the child of that part and adds an absent one if there is none.
func (n *node) ensure(part string) *node {
	i, found := n.find(part)
	if !found {
		c := &node{part: part, parent: n, ts: n.ts}
		n.children = slices.Insert(n.children, i, c)
	}
	return n.children[i]
}

// place puts a detached node below n. The part must be free there.
func (n *node) place(c *node) {
	i, _ := n.find(c.part)
	c.parent = n
	n.children = slices.Insert(n.children, i, c)
}

// detach takes the node with all below it out of its parent.
func (n *node) detach() {
	if i, found := n.parent.find(n.part); found {
		n.parent.children = slices.Delete(n.parent.children, i, i+1)
	}
	n.parent = nil
}

// isAbove reports whether o lies strictly below n.
func (n *node) isAbove(o *node) bool {
	for p := o.parent; p != nil; p = p.parent {
		if p == n {
			return true
		}
	}
	return false
}

// any reports whether is holds for n or for any node below it.
func (n *node) any(is func(*node) bool) bool {
	return is(n) || slices.ContainsFunc(n.children, func(c *node) bool { return c.any(is) })
}

// onDisk reports whether there is anything to rename: the node or something below it exists.
func (n *node) onDisk() bool { return n.any((*node).exists) }

// hasMailbox reports whether the node or one below it is a mailbox.
func (n *node) hasMailbox() bool { return n.any((*node).isMailbox) }

// hasExistingChild reports whether anything below the node exists.
func (n *node) hasExistingChild() bool { return slices.ContainsFunc(n.children, (*node).onDisk) }

// walk calls do for every node below n, parents first, siblings in byte order. do must not add or remove nodes.
func (n *node) walk(do func(*node)) {
	for _, c := range n.children {
		do(c)
		c.walk(do)
	}
}

// walkUp is walk with children before their parents. do may remove the node it gets.
func (n *node) walkUp(do func(*node)) {
	for _, c := range slices.Clone(n.children) {
		c.walkUp(do)
		do(c)
	}
}

// prune removes what is neither there nor subscribed nor needed as a parent, and forgets that names were deleted.
func (n *node) prune() {
	n.walkUp(func(c *node) {
		if !c.exists() {
			c.box.Existence = mail.Absent
			if !c.box.Subscribed && len(c.children) == 0 {
				c.detach()
			}
		}
	})
}

func (n *node) clone(parent *node) *node {
	c := &node{part: n.part, parent: parent, box: n.box, ts: n.box.Renamed}
	c.children = make([]*node, len(n.children))
	for i, child := range n.children {
		c.children[i] = child.clone(c)
	}
	return c
}

// compareGUIDs orders two lists of siblings with all below them: an existing node comes before one that does not exist, then
// GUIDs in byte order, then the children, then the next siblings; a longer list comes before a shorter one.
func compareGUIDs(a, b []*node) int {
	return compareLists(a, b, func(x, y *node) int {
		if x.exists() != y.exists() {
			if x.exists() {
				return -1
			}
			return 1
		}
		return x.guid().Compare(y.guid())
	})
}

// compareParts orders two lists of siblings with all below them by their parts.
func compareParts(a, b []*node) int {
	return compareLists(a, b, func(x, y *node) int { return strings.Compare(x.part, y.part) })
}

func compareLists(a, b []*node, compare func(x, y *node) int) int {
	for i := range min(len(a), len(b)) {
		if c := compare(a[i], b[i]); c != 0 {
			return c
		}
		if c := compareLists(a[i].children, b[i].children, compare); c != 0 {
			return c
		}
	}
	return len(b) - len(a)
}

// fromHere returns the node and the siblings after it.
func (n *node) fromHere() []*node {
	i, _ := n.parent.find(n.part)
	return n.parent.children[i:]
}
