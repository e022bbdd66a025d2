// Package fusefs mounts the directory of a Maildir and tells the engine what mail programs do with it.
//
// Start from [New], which mounts, [Engine], through which the meaning of every change is journaled, and [Mount.Through],
// through which the engine's own changes reach kernel caches and inotify watchers.
//
// There are two kinds of directories. Mail directories are `new` and `cur` of a mailbox: their names are held in memory,
// attributes too once somebody asked, the kernel may cache them for hours, and every change in them is journaled as what it
// means. Everything else is passed to the backing directory and cached for a second.
//
// Files are opened without a message (OPEN answered ENOSYS once), so there are no file handles: whatever reads or writes is
// addressed by node, and descriptors live in a bounded cache. The kernel checks permissions (default_permissions is always
// on), because it no longer asks.
//
// What it refuses: directories, symbolic links, FIFOs and devices in mail directories (EPERM), and every change when
// mounted read-only (EROFS).
//
// A name that a mail used to have still reaches it: see stale.go.
//
// Locks. fileSystem.mu guards the node table and everything in memory; it is held for memory work and single fstatat calls
// only, never over a call to the engine, a write of data or a notification. The caches of descriptors, the notifier, the
// register of own operations and the uidlist locks have a mutex each, taken last and alone. A handler never waits for the
// notifier, nor for anything that waits for the mount; notifications are sent from one goroutine.
package fusefs
