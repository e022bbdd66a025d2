package tree

import (
	"crypto/sha1"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
)

// Mode says which side's names, mailboxes and subscriptions count.
type Mode uint8

// The modes (dovecot 2.3 dsync_mailbox_trees_sync_type).
const (
	TwoWay         Mode = iota // both sides; also for both sides of a one-way sync that never undoes
	PreserveLocal              // the source of a backup: the local tree does not change
	PreserveRemote             // the destination of a backup: the local tree becomes as the remote
)

// GUIDRule says which GUID stays when both sides have a mailbox of one name with different GUIDs, in [TwoWay].
type GUIDRule uint8

// The rules for GUID conflicts (dovecot 2.3 dsync_brain_mailbox_tree_sync_change).
const (
	GreaterGUID GUIDRule = iota // the greater one in byte order
	LocalGUID                   // the local one: the source of a one-way sync
	RemoteGUID                  // the remote one: its destination
)

// Options of [Sync]. The zero value is right for two accounts without further knowledge. For equal results on both sides of
// a conversation they must be equal, but for what is local and remote in GUIDs.
type Options struct {
	GUIDs GUIDRule

	// Fixed names are never renamed, as INBOX is not: prefixes of namespaces.
	Fixed []mail.Name

	// Keep reports whether a mailbox that the other side deleted holds mail which that side has never seen; then it stays, and
	// is created again there. It is asked in TwoWay only, with the node of the side that still has the mailbox. Nil: never.
	Keep func(mail.Mailbox) bool

	// Adopt lets the destination of a backup keep a mailbox whose name is that of a mailbox of the source but whose GUID,
	// UIDVALIDITY or UIDNEXT stand against it: it gets the source's GUID, the rest is left to the comparison of contents.
	// Without it such a mailbox is deleted and created again, as Dovecot does (INBOX is always adopted).
	Adopt bool

	// CountLevels lets the making of a level of hierarchy that holds no mailbox count as a rename, as it does for a Dovecot
	// (2.3.19 dsync-mailbox-tree-sync.c: sync_rename_lower_ts).
	CountLevels bool
}

// Result is what [Sync] found out.
type Result struct {
	Changes   []Change // for the local store, in the order of execution
	Local     *Tree    // the local tree after Changes
	Remote    *Tree    // the remote tree after the other side's changes; in TwoWay equal to Local
	Conflicts []Conflict

	// Settled is set when the renames of both sides ran in circles and one side's names were taken for all mailboxes.
	Settled bool
}

// Conflict is a mailbox that had different GUIDs on the two sides. If GUID is not the local one, a [SetGUID] is among the
// changes.
type Conflict struct {
	Name                mail.Name
	Local, Remote, GUID mail.MailboxGUID
}

// Sync finds the changes that bring the local tree in line with the remote one. Both arguments stay as they are. Two sides that
// call it with the same two trees and the opposite mode come to the same result. The error is that of [mail.Name.Check], if
// a name would get too long.
func Sync(local, remote *Tree, mode Mode, o Options) (Result, error) {
	s := newSync(local, remote, mode, o)
	if !s.settleNames() {
		s = newSync(local, remote, mode, o) // nothing was executed yet
		s.takeNames()
	}
	if mode == TwoWay {
		s.settleGUIDs()
	} else {
		s.deleteForeign()
	}
	s.createMailboxes()
	s.settleDirectories()
	s.settleSubscriptions(local)
	s.local.root.prune()
	s.remote.root.prune()
	return s.result()
}

// syncer is one run of Sync.
type syncer struct {
	mode          Mode
	o             Options
	local, remote *Tree // copies, being changed
	changes       []Change
	conflicts     []Conflict
	settled       bool
}

func newSync(local, remote *Tree, mode Mode, o Options) *syncer {
	return &syncer{mode: mode, o: o, local: local.clone(), remote: remote.clone()}
}

func (s *syncer) result() (Result, error) {
	for _, c := range s.changes {
		for _, name := range []mail.Name{c.Name, c.To} {
			if err := name.Check(); name != "" && err != nil {
				return Result{}, fmt.Errorf("%s: %w", c, err)
			}
		}
	}
	return Result{Changes: s.changes, Local: s.local, Remote: s.remote, Conflicts: s.conflicts, Settled: s.settled}, nil
}

// emit plans c if it is a change of the local tree.
func (s *syncer) emit(t *Tree, c Change) {
	if t == s.local {
		s.changes = append(s.changes, c)
	}
}

func (s *syncer) other(t *Tree) *Tree {
	if t == s.local {
		return s.remote
	}
	return s.local
}

// preserved reports whether nothing of t may change.
func (s *syncer) preserved(t *Tree) bool {
	return s.mode == PreserveLocal && t == s.local || s.mode == PreserveRemote && t == s.remote
}

// fixed reports whether n keeps its name whatever happens. Nil is not fixed.
func (s *syncer) fixed(n *node) bool {
	if n == nil {
		return false
	}
	name := n.name()
	return name == "" || name == mail.Inbox ||
		slices.ContainsFunc(s.o.Fixed, func(fixed mail.Name) bool { return fixed == name || fixed.IsBelow(name) })
}

// derivedGUID returns the GUID for a mailbox that cannot keep guid: the same on both sides, and nobody else's.
func derivedGUID(guid mail.MailboxGUID) mail.MailboxGUID {
	sum := sha1.Sum(append([]byte("dsyncfs mailbox "), guid[:]...))
	return mail.MailboxGUID(sum[:16])
}
