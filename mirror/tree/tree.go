package tree

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
)

// Errors of [New] and [Sync].
var (
	ErrDuplicateGUID = errors.New("two mailboxes have the same GUID")
	ErrDuplicateName = errors.New("two mailboxes have the same name")
)

// Tree is the mailbox tree of one side, with what that side remembers to have deleted. The zero value is not usable.
type Tree struct {
	root      node
	byGUID    map[mail.MailboxGUID]*node // existing mailboxes
	deletions []mail.Deletion
	separator byte // in which the names of deletions were hashed
	escape    byte // escape character of the hashed names; 0: none
}

// New makes a tree of nodes in any order; parents that are missing are added as absent. sep is the separator with which
// the names of deletions were hashed. The errors are [ErrDuplicateGUID], [ErrDuplicateName] and that of [mail.Name.Check].
func New(nodes []mail.Mailbox, deletions []mail.Deletion, sep byte) (*Tree, error) {
	t := &Tree{byGUID: make(map[mail.MailboxGUID]*node), deletions: slices.Clone(deletions), separator: sep}
	seen := make(map[mail.Name]struct{}, len(nodes))
	for _, box := range nodes {
		if err := box.Name.Check(); err != nil {
			return nil, fmt.Errorf("mailbox tree: %w", err)
		}
		if _, dup := seen[box.Name]; dup {
			return nil, fmt.Errorf("mailbox tree %q: %w", string(box.Name), ErrDuplicateName)
		}
		seen[box.Name] = struct{}{}
		if err := t.add(box); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Tree) add(box mail.Mailbox) error {
	n := t.ensure(box.Name)
	n.box, n.box.Name, n.ts = box, "", box.Renamed
	if !n.exists() {
		n.box.Status = mail.Status{}
	}
	if !n.isMailbox() {
		return nil
	}
	if other := t.byGUID[n.guid()]; other != nil {
		return fmt.Errorf("mailboxes %q and %q, GUID %s: %w", string(other.name()), string(box.Name), n.guid(), ErrDuplicateGUID)
	}
	t.byGUID[n.guid()] = n
	return nil
}

// WithEscape says that the hashed names of the tree's deletions have the separator and esc itself, inside of parts, written
// as esc and two hex digits (dovecot 2.3.19 and later: the escape_char of a D item). It returns t.
func (t *Tree) WithEscape(esc byte) *Tree {
	t.escape = esc
	return t
}

// All yields every node, parents before children and siblings in byte order.
func (t *Tree) All() iter.Seq[mail.Mailbox] {
	return func(yield func(mail.Mailbox) bool) {
		var walk func(*node) bool
		walk = func(n *node) bool {
			for _, c := range n.children {
				if !yield(c.mailbox()) || !walk(c) {
					return false
				}
			}
			return true
		}
		walk(&t.root)
	}
}

// Mailboxes returns the existing mailboxes in the order of [Tree.All]: what a round goes through.
func (t *Tree) Mailboxes() []mail.Mailbox {
	var boxes []mail.Mailbox
	for box := range t.All() {
		if box.Existence == mail.Exists && !box.Status.GUID.IsZero() {
			boxes = append(boxes, box)
		}
	}
	return boxes
}

// Lookup returns the node of that name.
func (t *Tree) Lookup(name mail.Name) (mail.Mailbox, bool) {
	n := t.lookup(name)
	if n == nil || n == &t.root {
		return mail.Mailbox{}, false
	}
	return n.mailbox(), true
}

// ByGUID returns the existing mailbox of that GUID.
func (t *Tree) ByGUID(guid mail.MailboxGUID) (mail.Mailbox, bool) {
	n := t.byGUID[guid]
	if n == nil {
		return mail.Mailbox{}, false
	}
	return n.mailbox(), true
}

// Equal reports whether a client sees the same in both trees: names, GUIDs and subscriptions. Whether a level of hierarchy
// that holds something exists of its own, names that are neither there nor subscribed, times, and what the later comparison of contents settles (UIDVALIDITY, UIDNEXT) do not count.
func (t *Tree) Equal(o *Tree) bool { return t.Diff(o) == "" }

// Diff describes the first difference that [Tree.Equal] would see, empty if there is none.
func (t *Tree) Diff(o *Tree) string {
	a, b := t.lines(), o.lines()
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return "only right: " + b[i]
		case i >= len(b):
			return "only left: " + a[i]
		case a[i] != b[i]:
			return "left " + a[i] + ", right " + b[i]
		}
	}
	return ""
}

// String lists the nodes, one a line.
func (t *Tree) String() string { return strings.Join(t.lines(), "\n") }

func (t *Tree) lines() []string {
	var lines []string
	t.root.walk(func(n *node) {
		line := fmt.Sprintf("%q", string(n.name()))
		switch {
		case n.isMailbox():
			line += " " + n.guid().String()
		case n.onDisk():
			line += " directory"
		case n.box.Subscribed:
			line += " absent"
		default:
			return
		}
		if n.box.Subscribed {
			line += " subscribed"
		}
		lines = append(lines, line)
	})
	return lines
}

func (t *Tree) lookup(name mail.Name) *node {
	n := &t.root
	for _, part := range name.Parts() {
		if n = n.child(part); n == nil {
			return nil
		}
	}
	return n
}

func (t *Tree) ensure(name mail.Name) *node {
	n := &t.root
	for _, part := range name.Parts() {
		n = n.ensure(part)
	}
	return n
}

// setMailbox makes n the mailbox that s describes.
func (t *Tree) setMailbox(n *node, s mail.Status) {
	t.clearMailbox(n, mail.Exists)
	n.box.Status = s
	t.byGUID[s.GUID] = n
}

// clearMailbox makes n a name without a mailbox.
func (t *Tree) clearMailbox(n *node, e mail.Existence) {
	if !n.isDir() {
		delete(t.byGUID, n.guid())
	}
	n.box.Status = mail.Status{}
	n.box.Existence = e
}

func (t *Tree) clone() *Tree {
	c := &Tree{byGUID: make(map[mail.MailboxGUID]*node, len(t.byGUID)), deletions: t.deletions, separator: t.separator, escape: t.escape}
	c.root = *t.root.clone(nil)
	for _, child := range c.root.children {
		child.parent = &c.root
	}
	c.root.walk(func(n *node) {
		if n.isMailbox() {
			c.byGUID[n.guid()] = n
		}
	})
	return c
}

// count returns the number of nodes.
func (t *Tree) count() int {
	n := 0
	t.root.walk(func(*node) { n++ })
	return n
}

// subscriptions returns the subscribed names.
func (t *Tree) subscriptions() map[mail.Name]bool {
	subs := make(map[mail.Name]bool)
	t.root.walk(func(n *node) {
		if n.box.Subscribed {
			subs[n.name()] = true
		}
	})
	return subs
}

// hashName is the name hash with which t's side would record the deletion of name (dovecot 2.3.19
// dsync_mailbox_tree_build_name128_hash).
func (t *Tree) hashName(name mail.Name) mail.GUID128 {
	return HashName(name.Parts(), t.separator, t.escape)
}

// HashName is the name hash of a name given part by part, as a side with this separator and escape character (0: none)
// records it.
func HashName(parts []string, sep, esc byte) mail.GUID128 {
	whole := make([]string, len(parts))
	for i, part := range parts {
		if whole[i] = part; esc != 0 {
			whole[i] = escapePart(part, sep, esc)
		}
	}
	sum := sha1.Sum([]byte(strings.Join(whole, string([]byte{sep}))))
	return mail.GUID128(sum[:16])
}

func escapePart(part string, sep, esc byte) string {
	if strings.IndexByte(part, sep) < 0 && strings.IndexByte(part, esc) < 0 {
		return part
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if c := part[i]; c == sep || c == esc {
			fmt.Fprintf(&b, "%c%02x", esc, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
