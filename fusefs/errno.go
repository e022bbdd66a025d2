package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errnoKinds is the table of error kinds of the engine and their numbers for programs. What carries a syscall.Errno keeps
// it (ENOSPC and EDQUOT of the journal's disk); whatever is not here is EIO.
var errnoKinds = []struct {
	kind  error
	errno syscall.Errno
}{
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.EIO},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrExist, syscall.EEXIST},
	{fs.ErrPermission, syscall.EACCES},
	{fs.ErrInvalid, syscall.EINVAL},
	{errors.ErrUnsupported, syscall.ENOTSUP},
}

// ErrNotMirrored may be wrapped by an [Engine] whose remote could not be reached in time: the program gets EIO.
var ErrNotMirrored = errors.New("the remote does not have it yet")

// errnoOf returns the number for err, 0 for nil. known is false for an error that the table does not have.
func errnoOf(err error) (errno syscall.Errno, known bool) {
	if err == nil {
		return 0, true
	}
	if errors.Is(err, ErrNotMirrored) {
		return syscall.EIO, true
	}
	if errors.As(err, &errno) && errno != 0 {
		return errno, true
	}
	for _, k := range errnoKinds {
		if errors.Is(err, k.kind) {
			return k.errno, true
		}
	}
	return syscall.EIO, false
}

// engineErrno turns an error of the engine into a number and logs what a program cannot be told: every EIO.
func (f *fileSystem) engineErrno(op string, err error) syscall.Errno {
	errno, known := errnoOf(err)
	if !known || errno == syscall.EIO {
		f.log.Error("answered with an input/output error", "op", op, "err", err)
	}
	return errno
}

// status turns the error of a system call on the backing directory into an answer.
func (f *fileSystem) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, known := errnoOf(err)
	if !known {
		f.log.Error("answered with an input/output error", "op", op, "err", err)
	}
	return fuse.Status(errno)
}

func discardLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }
