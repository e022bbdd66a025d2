// Package maildir is the [store.Store] on a Maildir that a running Dovecot, delivery agents and mail readers use at the same
// time.
//
// Start from [Open]; [Layout] maps mailbox names to directories and [Locks] is the process-wide holder of Dovecot's lock
// files; [Memory] spares a process that is told of changes the reading of whole mailboxes. The rules that the package lives
// by are those of Dovecot 2.3.19:
//
//   - dovecot-uidlist.lock is held around every change of cur/, new/, dovecot-uidlist and dovecot-keywords, and around every
//     scan from which something is concluded.
//   - A UID that is given out is at or above the effective next UID, and no line of a uidlist is out of order or cut off.
//   - A base name is never used twice in a mailbox, and files never change once they are visible.
//   - S= and W= are exact or absent.
//
// The package refuses to conclude from a listing that failed, to follow symbolic links, to repair a uidlist that does not
// parse, and to rename directories or files that it does not understand.
//
// Lock order: a mailbox's own mutex, its dotlock, then the catalog.
package maildir
