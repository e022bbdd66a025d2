package tree

import (
	"errors"
	"fmt"

	"dsyncfs/mirror/mail"
)

// Op says what a [Change] does.
type Op uint8

// The changes of a mailbox tree, as a store carries them out.
const (
	// Create makes the mailbox Name with GUID and UIDValidity, and its parents. A directory of that name becomes the mailbox.
	Create Op = iota + 1
	// CreateDirectory makes Name a level of hierarchy of its own.
	CreateDirectory
	// Delete removes the mailbox GUID, which is called Name at that moment, with its messages. What lies below stays.
	Delete
	// DeleteDirectory removes the level of hierarchy Name. Nothing exists below it at that moment.
	DeleteDirectory
	// Rename moves Name and everything below to To, which is free, and makes the parents of To. Subscriptions stay where they
	// are.
	Rename
	// Subscribe and Unsubscribe change the subscription of Name, whether it exists or not.
	Subscribe
	Unsubscribe
	// SetGUID gives the mailbox Was, which is called Name, the GUID. Its messages and UIDs stay.
	SetGUID
)

var opNames = [...]string{"", "create", "create directory", "delete", "delete directory", "rename", "subscribe", "unsubscribe", "set GUID of"}

// String returns the words for messages.
func (op Op) String() string {
	if int(op) < len(opNames) && op > 0 {
		return opNames[op]
	}
	return "unknown change of"
}

// Change is one step of bringing a store to the result of [Sync]. The order of the steps matters.
type Change struct {
	Op          Op
	Name        mail.Name
	To          mail.Name        // Rename
	Time        int64            // Rename: when that happened on the side that it comes from, seconds; 0 unknown
	GUID        mail.MailboxGUID // Create, Delete, SetGUID; Rename, if Name is a mailbox
	Was         mail.MailboxGUID // SetGUID: the GUID until then
	UIDValidity mail.UIDValidity // Create
	UIDNext     mail.UID         // Create: of the other side's mailbox; 0 or 1: no UID of it was given yet

	// Witnessed is set with Delete if a deletion record of the other side names the mailbox. If not, it merely is absent
	// there, or Replaced.
	Witnessed bool
	// Replaced is set with Delete if the other side has a mailbox of this name, with which this one cannot be brought in
	// line; a Create of the same name follows.
	Replaced bool
}

// String describes the change for logs and for --dry-run.
func (c Change) String() string {
	switch c.Op {
	case Rename:
		return fmt.Sprintf("rename %q to %q", string(c.Name), string(c.To))
	case SetGUID:
		return fmt.Sprintf("set GUID of %q from %s to %s", string(c.Name), c.Was, c.GUID)
	}
	return fmt.Sprintf("%s %q", c.Op, string(c.Name))
}

// ErrNotApplicable is wrapped by the errors of [Apply].
var ErrNotApplicable = errors.New("change does not fit the tree")

// Apply carries out changes on a copy of t as a store would, and is as strict as the strictest one: it holds what a
// [Change] promises about the moment of its execution.
func Apply(t *Tree, changes []Change) (*Tree, error) {
	c := t.clone()
	subs := c.subscriptions()
	c.root.walk(func(n *node) { n.box.Subscribed = false })
	for _, change := range changes {
		if err := c.apply(change, subs); err != nil {
			return nil, fmt.Errorf("%s: %w", change, err)
		}
	}
	for name := range subs {
		c.ensure(name).box.Subscribed = true
	}
	c.root.prune()
	return c, nil
}

func (t *Tree) apply(c Change, subs map[mail.Name]bool) error {
	if err := c.Name.Check(); err != nil {
		return err
	}
	n := t.ensure(c.Name)
	switch c.Op {
	case Create:
		return t.applyCreate(n, c)
	case CreateDirectory:
		if n.exists() {
			return refuse("exists already")
		}
		n.box.Existence = mail.Exists
	case Delete:
		if n.isDir() || n.guid() != c.GUID || c.Name == mail.Inbox {
			return refuse("no such mailbox, or INBOX")
		}
		t.clearMailbox(n, mail.Absent)
	case DeleteDirectory:
		if !n.exists() || n.isMailbox() || n.hasExistingChild() {
			return refuse("no empty directory")
		}
		n.box.Existence = mail.Absent
	case Rename:
		return t.applyRename(n, c)
	case Subscribe:
		subs[c.Name] = true
	case Unsubscribe:
		delete(subs, c.Name)
	case SetGUID:
		if n.isDir() || n.guid() != c.Was || c.GUID.IsZero() || t.byGUID[c.GUID] != nil {
			return refuse("no such mailbox, or the GUID is in use")
		}
		s := n.box.Status
		s.GUID = c.GUID
		t.setMailbox(n, s)
	default:
		return refuse("unknown")
	}
	return nil
}

func (t *Tree) applyCreate(n *node, c Change) error {
	if n.isMailbox() || c.GUID.IsZero() || t.byGUID[c.GUID] != nil {
		return refuse("the name or the GUID is in use")
	}
	t.setMailbox(n, mail.Status{GUID: c.GUID, UIDValidity: c.UIDValidity})
	return nil
}

func (t *Tree) applyRename(n *node, c Change) error {
	if err := c.To.Check(); err != nil {
		return err
	}
	switch {
	case !n.onDisk():
		return refuse("source does not exist")
	case c.Name == mail.Inbox || c.To == mail.Inbox || c.To == c.Name || c.To.IsBelow(c.Name):
		return refuse("cannot be moved there")
	}
	to := t.ensure(c.To)
	if to.onDisk() {
		return refuse("target exists")
	}
	parent, part := to.parent, to.part
	to.detach()
	n.detach()
	n.part = part
	parent.place(n)
	return nil
}

func refuse(why string) error { return fmt.Errorf("%w: %s", ErrNotApplicable, why) }
