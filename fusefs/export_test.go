package fusefs

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Raw is the file system without a mount, for tests that call it as go-fuse does.
type Raw struct{ *fileSystem }

// NewRaw makes the file system of an open directory; k receives the notifications.
func NewRaw(root *os.File, opts Options, k kernel) (Raw, error) {
	fd, err := unix.FcntlInt(root.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return Raw{}, err
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := newFileSystem(fd, opts)
	if err != nil {
		return Raw{}, err
	}
	f.notices.start(k)
	return Raw{f}, nil
}

// Nodes returns how many nodes are in memory.
func (r Raw) Nodes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.Len()
}

// Files returns how many file descriptors are held.
func (r Raw) Files() int { return r.files.len() }

// Sent waits until all notifications are sent.
func (r Raw) Sent() { r.notices.flush() }

// Changed is Mount.Invalidate.
func (r Raw) Changed(dir string, names ...string) {
	r.invalidate(dir, names)
	r.notices.flush()
}

// ExpectRename announces a rename of the engine.
func (r Raw) ExpectRename(dir, name, toDir, toName string) {
	r.own.expect(ownOp{"rename", dir, name, toDir, toName}, 0)
}

// Close ends it.
func (r Raw) Close() { r.close() }

// MaxFiles is the bound of the descriptor cache.
const MaxFiles = maxFiles

// What is tested by itself.
var (
	MergeFlags = mergeFlags
	ErrnoOf    = errnoOf
)

// FindMount returns type and source of the last mount on path.
func FindMount(mountinfo io.Reader, path string) (fsType, source string, ok bool) {
	e, ok := findMount(mountinfo, path)
	return e.fsType, e.source, ok
}
