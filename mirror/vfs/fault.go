package vfs

import (
	"errors"
	"path"
	"sync/atomic"
	"syscall"
	"time"
)

// Op is one operation on a file system, as [Fault] shows it.
type Op struct {
	N    int64  // counts the operations of this Fault, from 1
	Name string // opendir, syncfs, readdir, stat, open, create, append, mkdir, rename, link, remove, rmdir, utimes, chmod, syncdir, read, write, sync, truncate, close
	Path string // below the root
	To   string // below the root, of rename and link
}

// Changes reports whether the operation changes the file system or makes a change durable: the points at which a crash
// differs from one before.
func (o Op) Changes() bool {
	switch o.Name {
	case "opendir", "readdir", "stat", "open", "append", "read", "close":
		return false
	}
	return true
}

// Fault wraps a file system and lets a function decide before each operation whether it fails. It hides descriptors, so that
// nothing goes past it.
type Fault struct {
	fs     FS
	decide func(Op) error
	n      atomic.Int64
}

// NewFault wraps f. decide is called before each operation, from the goroutine of the caller and without a lock, and may
// block, look at f or take a [Mem.Crash] of it. If it returns an error, usually a syscall.Errno, the operation fails with
// that error and does nothing; a write has written half of its bytes. See also [Late].
func NewFault(f FS, decide func(Op) error) *Fault { return &Fault{fs: f, decide: decide} }

// FailNth returns a decide function that fails the n-th operation, and only that, with err.
func FailNth(n int64, err error) func(Op) error {
	return func(o Op) error {
		if o.N == n {
			return err
		}
		return nil
	}
}

// Count returns the number of operations so far.
func (f *Fault) Count() int64 { return f.n.Load() }

// Late marks the error of a decide function as one that comes after the operation was done, such as the EIO of a rename whose
// answer was lost.
func Late(err error) error { return lateError{err} }

type lateError struct{ error }

// run does one operation or its fault. partial, if not nil, is what a failing operation does all the same.
func (f *Fault) run(name, p, to string, do func() error, partial func()) error {
	err := f.decide(Op{N: f.n.Add(1), Name: name, Path: p, To: to})
	if err == nil {
		return do()
	}
	var late lateError
	if errors.As(err, &late) {
		if err := do(); err != nil {
			return err
		}
		err = late.error
	} else if partial != nil {
		partial()
	}
	if to != "" {
		return linkError(name, p, to, err)
	}
	return pathError(name, p, err)
}

// OpenDir implements [FS].
func (f *Fault) OpenDir(dir string) (Dir, error) {
	var d Dir
	err := f.run("opendir", dir, "", func() (err error) { d, err = f.fs.OpenDir(dir); return err }, nil)
	if err != nil {
		closeLate(d)
		return nil, err
	}
	return &faultDir{f, d}, nil
}

// closeLate closes what was opened by an operation that fails late.
func closeLate(c interface{ Close() error }) {
	if c != nil {
		c.Close()
	}
}

// Sync implements [FS].
func (f *Fault) Sync() error { return f.run("syncfs", "", "", f.fs.Sync, nil) }

// Close implements [FS]; it never fails by itself.
func (f *Fault) Close() error { return f.fs.Close() }

type faultDir struct {
	f *Fault
	d Dir
}

func (d *faultDir) run(name, entry string, do func() error) error {
	return d.f.run(name, path.Join(d.d.Path(), entry), "", do, nil)
}

func (d *faultDir) runBoth(name, entry string, to Dir, newName string, do func(to Dir) error) error {
	t, ok := to.(*faultDir)
	if !ok || t.f != d.f {
		return linkError(name, entry, newName, syscall.EXDEV)
	}
	return d.f.run(name, path.Join(d.d.Path(), entry), path.Join(t.d.Path(), newName), func() error { return do(t.d) }, nil)
}

func (d *faultDir) Path() string { return d.d.Path() }

func (d *faultDir) Names(f func(name string, typ Type) error) error {
	return d.run("readdir", "", func() error { return d.d.Names(f) })
}

func (d *faultDir) Stat(name string) (info Info, err error) {
	err = d.run("stat", name, func() (err error) { info, err = d.d.Stat(name); return err })
	return info, err
}

func (d *faultDir) Info() (info Info, err error) {
	err = d.run("stat", "", func() (err error) { info, err = d.d.Info(); return err })
	return info, err
}

func (d *faultDir) open(op, name string, open func() (File, error)) (File, error) {
	var file File
	if err := d.run(op, name, func() (err error) { file, err = open(); return err }); err != nil {
		closeLate(file)
		return nil, err
	}
	return &faultFile{d.f, file, path.Join(d.d.Path(), name)}, nil
}

func (d *faultDir) Open(name string) (File, error) {
	return d.open("open", name, func() (File, error) { return d.d.Open(name) })
}

func (d *faultDir) Create(name string, perm uint32) (File, error) {
	return d.open("create", name, func() (File, error) { return d.d.Create(name, perm) })
}

func (d *faultDir) OpenAppend(name string) (File, error) {
	return d.open("append", name, func() (File, error) { return d.d.OpenAppend(name) })
}

func (d *faultDir) Mkdir(name string, perm uint32) error {
	return d.run("mkdir", name, func() error { return d.d.Mkdir(name, perm) })
}

func (d *faultDir) Rename(name string, to Dir, newName string) error {
	return d.runBoth("rename", name, to, newName, func(to Dir) error { return d.d.Rename(name, to, newName) })
}

func (d *faultDir) RenameNew(name string, to Dir, newName string) error {
	return d.runBoth("rename", name, to, newName, func(to Dir) error { return d.d.RenameNew(name, to, newName) })
}

func (d *faultDir) Link(name string, to Dir, newName string) error {
	return d.runBoth("link", name, to, newName, func(to Dir) error { return d.d.Link(name, to, newName) })
}

func (d *faultDir) Remove(name string) error {
	return d.run("remove", name, func() error { return d.d.Remove(name) })
}

func (d *faultDir) RemoveDir(name string) error {
	return d.run("rmdir", name, func() error { return d.d.RemoveDir(name) })
}

func (d *faultDir) SetTimes(name string, mtime time.Time) error {
	return d.run("utimes", name, func() error { return d.d.SetTimes(name, mtime) })
}

func (d *faultDir) Chmod(name string, perm uint32) error {
	return d.run("chmod", name, func() error { return d.d.Chmod(name, perm) })
}

func (d *faultDir) Sync() error  { return d.run("syncdir", "", d.d.Sync) }
func (d *faultDir) Close() error { return d.d.Close() }

type faultFile struct {
	f    *Fault
	file File
	path string
}

func (f *faultFile) Read(p []byte) (n int, err error) {
	err = f.f.run("read", f.path, "", func() (err error) { n, err = f.file.Read(p); return err }, nil)
	return n, err
}

func (f *faultFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.f.run("read", f.path, "", func() (err error) { n, err = f.file.ReadAt(p, off); return err }, nil)
	return n, err
}

func (f *faultFile) Write(p []byte) (n int, err error) {
	err = f.f.run("write", f.path, "",
		func() (err error) { n, err = f.file.Write(p); return err },
		func() { n, _ = f.file.Write(p[:len(p)/2]) })
	return n, err
}

func (f *faultFile) Stat() (info Info, err error) {
	err = f.f.run("stat", f.path, "", func() (err error) { info, err = f.file.Stat(); return err }, nil)
	return info, err
}

func (f *faultFile) Sync() error { return f.f.run("sync", f.path, "", f.file.Sync, nil) }

// Truncate implements [Truncater]; ENOTSUP if the wrapped file does not.
func (f *faultFile) Truncate(size int64) error {
	return f.f.run("truncate", f.path, "", func() error {
		if t, ok := f.file.(Truncater); ok {
			return t.Truncate(size)
		}
		return pathError("truncate", f.path, syscall.ENOTSUP)
	}, nil)
}

// Close always closes; a fault is reported on top, as for close(2).
func (f *faultFile) Close() (err error) {
	closeIt := func() { err = f.file.Close() }
	if ferr := f.f.run("close", f.path, "", func() error { closeIt(); return err }, closeIt); ferr != nil {
		return ferr
	}
	return err
}
