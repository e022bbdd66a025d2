// Package tree is the tree of an account's mailboxes and the two-way synchronisation of two such trees: who renamed,
// created, deleted or subscribed what, and which changes make both sides agree.
//
// Start from [New], [Sync] and [Change]. The rules are dsync's (dovecot 2.3 and 2.4 dsync-mailbox-tree-sync.c and
// dsync-brain-mailbox-tree.c): both sides of a conversation compute the whole result from the same two trees and each executes
// only the changes of its own, so [Sync] is deterministic and symmetric. Where it departs from Dovecot on purpose:
//
//   - temporary names are free among the siblings they come to, not only among those they leave;
//   - the last naming of temporary nodes is a Rename too, so that disk and tree agree;
//   - nested directories find their counterpart as Dovecot 2.4 does;
//   - between two of ours a level of hierarchy without mailboxes has no say in what a mailbox is called;
//   - equal names with different GUIDs end with one GUID on both sides, never swapped;
//   - a subscription stays with its name when its mailbox is renamed on disk (RFC 9051 §6.3.6), so whatever the result
//     subscribes elsewhere is spelled out as changes;
//   - INBOX is never deleted, and renames that run in circles end in one side's names instead of an error.
//
// The package is pure and refuses to know how names are stored or sent, except that [Mapper] makes valid names of a peer's.
package tree
