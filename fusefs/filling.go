package fusefs

import (
	"os"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Filling is what the mount has to know of the first fill of its Maildir. Its methods may be called from many goroutines.
type Filling interface {
	// Await waits, in bounded time, until it is known what a directory holds at the remote: the mails of a mailbox for its cur and new,
	// the mailboxes for any other. It must be quick once that is known, or will not be.
	Await(dir string)
	// Listing says that a program begins to list the mails of a mailbox, or has ended to.
	Listing(on bool)
	// Whole reports whether a mailbox, by its directory, has got all its mails, and they the UIDs that they have at the remote.
	Whole(dir string) bool
}

// uidlistName is the file that says which UIDs the mails of a mailbox have.
const uidlistName = "dovecot-uidlist"

// awaitNames waits until it is known what is in a directory, before a program may take it for empty. Our own system calls are what
// it may be waiting for.
func (f *fileSystem) awaitNames(d *directory, pid uint32) {
	if f.opts.Filling != nil && d.kind != tmpDir && !isOwnThread(pid) {
		f.opts.Filling.Await(d.path)
	}
}

// mayCome reports whether a name that is not there may be that of a mailbox of the remote.
func (f *fileSystem) mayCome(d *directory, name string) bool {
	if f.opts.Filling == nil || d.kind != plainDir {
		return false
	}
	_, ok := f.engine.Mailbox(join(d.path, name))
	return ok
}

// isWithheld reports whether a name is that of a uidlist that is not complete. A Dovecot that found it, or none, would give the mails
// that it sees UIDs of its own.
func (f *fileSystem) isWithheld(d *directory, name string) bool {
	if f.opts.Filling == nil || name != uidlistName || d.kind != plainDir {
		return false
	}
	_, ok := f.engine.Mailbox(d.path)
	return ok && !f.opts.Filling.Whole(d.path)
}

// errWithheld is the answer to who wants one.
const errWithheld = fuse.Status(errNotHere)

// isOwnThread reports whether a request comes from this process.
func isOwnThread(pid uint32) bool {
	_, err := os.Stat("/proc/self/task/" + strconv.FormatUint(uint64(pid), 10))
	return err == nil
}
