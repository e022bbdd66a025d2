package vfs

import (
	"io"

	"golang.org/x/sys/unix"
)

// maxIO bounds one read or write; Linux moves at most 2^31-4096 bytes per call.
const maxIO = 1 << 30

// osFile is an open file. It is not an *os.File because that costs a second system call per open, to ask for flags that we
// know.
type osFile struct {
	handle
	dir  *osDir // for messages only
	name string
}

func (f *osFile) fail(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return pathError(op, f.dir.full(f.name), err)
}

// io runs one read or write, repeated on EINTR.
func (f *osFile) io(p []byte, call func(fd int, p []byte) (int, error)) (int, error) {
	fd, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer f.release()
	n, err := retryN(func() (int, error) { return call(fd, p[:min(len(p), maxIO)]) })
	return max(n, 0), err
}

func (f *osFile) Read(p []byte) (int, error) {
	n, err := f.io(p, unix.Read)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, f.fail("read", err)
}

func (f *osFile) ReadAt(p []byte, off int64) (total int, err error) {
	if off < 0 {
		return 0, f.fail("read", unix.EINVAL)
	}
	for total < len(p) {
		n, err := f.io(p[total:], func(fd int, p []byte) (int, error) { return unix.Pread(fd, p, off+int64(total)) })
		if n == 0 && err == nil {
			err = io.EOF
		}
		total += n
		if err != nil {
			return total, f.fail("read", err)
		}
	}
	return total, nil
}

// Write implements [File]: all of p, or an error and how much of it is written.
func (f *osFile) Write(p []byte) (total int, err error) {
	for total < len(p) {
		n, err := f.io(p[total:], unix.Write)
		if n == 0 && err == nil {
			err = io.ErrUnexpectedEOF
		}
		total += n
		if err != nil {
			return total, f.fail("write", err)
		}
	}
	return total, nil
}

func (f *osFile) Stat() (Info, error) { return f.stat(f.dir.full(f.name)) }

func (f *osFile) Sync() error {
	fd, err := f.acquire()
	if err == nil {
		defer f.release()
		err = retry(func() error { return unix.Fdatasync(fd) })
	}
	return f.fail("sync", err)
}

// Truncate implements [Truncater].
func (f *osFile) Truncate(size int64) error {
	fd, err := f.acquire()
	if err == nil {
		defer f.release()
		err = retry(func() error { return unix.Ftruncate(fd, size) })
	}
	return f.fail("truncate", err)
}

func (f *osFile) Close() error { return f.fail("close", f.handle.Close()) }
