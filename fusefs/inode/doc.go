// Package inode is the memory of the mount: which inodes the kernel knows, under which names, with which attributes, and
// in which order the mails of a directory are listed. Start from [Table] and [Dir].
//
// Inode numbers. The number that programs see is the one of the backing file: the mount shows one file system, a rename
// (so a flag change, a move to cur/ and a move between mailboxes) keeps it, hard links share it, and it is the same after
// a restart. The [ID] by which the kernel and the daemon talk of an inode is a slot of the table; it is reused only after
// the kernel has forgotten it. A name that a mail no longer has shows a number of its own ([AliasNumber]).
//
// Size. A mail costs one [Node] (88 bytes), its name, 11 to 21 bytes of its directory's index and 8 of its listing: below
// 200 bytes. Everything else (hard links beyond the first name, two files of one base name) is kept aside.
//
// Listing. Every name of a mail directory has a position, given once and never again. A listing is the names in the order
// of their positions, and the position is the cookie between two blocks of it. A rename that keeps the base name keeps
// the position, so a mail that is renamed while the directory is being read appears exactly once, without a copy of the
// listing per reader.
//
// The package is pure: it makes no system calls and has no locks; its user guards a table with one mutex.
package inode
