// Package merge decides everything about the messages of one mailbox: which of two sides' mails are the same, which UID each
// one gets, what becomes of flags and keywords, and what has to be saved, copied, renumbered or expunged here.
//
// Start from [Planner], which takes the peer's changes one by one and yields a [Plan], and from [Align], which pairs two
// copies that know nothing of each other. [Flags] and [Keywords] are the rules for a single mail; [NeedsComparison],
// [UIDValidityWinner] and [Winner] decide before any mail is looked at. The rules are those of dovecot 2.3.19
// dsync-mailbox-import.c, where a comment does not say otherwise; docs/dsync.md tells them in words.
//
// Both sides of a conversation run this package on the same facts with local and remote exchanged, and must come to the same
// end without another word. So every rule here is symmetric, and nothing depends on time, chance or the order of a map.
//
// The package is pure: it reads a mailbox through iterators that it is given, carries nothing out and remembers nothing
// between two runs. It refuses to plan for mails without GUIDs (dsync's header hashes).
package merge
