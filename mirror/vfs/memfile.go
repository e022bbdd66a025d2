package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

// memFile is an open file of a Mem.
type memFile struct {
	m       *Mem
	n       *inode
	path    string
	pos     int64
	reads   bool
	writes  bool
	appends bool
	closed  bool
}

// lock takes the lock; the caller unlocks in any case.
func (f *memFile) lock(allowed bool) error {
	f.m.mu.Lock()
	switch {
	case f.closed:
		return fs.ErrClosed
	case !allowed:
		return syscall.EBADF
	case f.n.typ == Directory:
		return syscall.EISDIR
	}
	return nil
}

func (f *memFile) Read(p []byte) (int, error) {
	err := f.lock(f.reads)
	defer f.m.mu.Unlock()
	if err != nil {
		return 0, pathError("read", f.path, err)
	}
	n := f.copyFrom(p, f.pos)
	f.pos += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (f *memFile) copyFrom(p []byte, off int64) int {
	if off >= int64(len(f.n.data)) {
		return 0
	}
	return copy(p, f.n.data[off:])
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	err := f.lock(f.reads)
	defer f.m.mu.Unlock()
	if err == nil && off < 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, pathError("read", f.path, err)
	}
	n := f.copyFrom(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	err := f.lock(f.writes)
	defer f.m.mu.Unlock()
	if err != nil {
		return 0, pathError("write", f.path, err)
	}
	if f.appends {
		f.pos = int64(len(f.n.data))
	}
	if grow := f.pos + int64(len(p)) - int64(len(f.n.data)); grow > 0 {
		f.n.data = append(f.n.data, make([]byte, grow)...)
	}
	copy(f.n.data[f.pos:], p)
	f.pos += int64(len(p))
	if len(p) > 0 {
		f.n.mtime = f.m.clock()
		f.n.ctime = f.n.mtime
	}
	return len(p), nil
}

func (f *memFile) Stat() (Info, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return Info{}, pathError("stat", f.path, fs.ErrClosed)
	}
	return f.n.info(), nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("sync", f.path, fs.ErrClosed)
	}
	f.n.synced = len(f.n.data)
	return nil
}

// Truncate implements [Truncater]. It is taken to be durable at once.
func (f *memFile) Truncate(size int64) error {
	err := f.lock(f.writes)
	defer f.m.mu.Unlock()
	if err == nil && (size < 0 || size > int64(len(f.n.data))) {
		err = syscall.EINVAL
	}
	if err != nil {
		return pathError("truncate", f.path, err)
	}
	f.n.data = f.n.data[:size]
	f.n.synced = min(f.n.synced, int(size))
	f.n.mtime = f.m.clock()
	f.n.ctime = f.n.mtime
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("close", f.path, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
