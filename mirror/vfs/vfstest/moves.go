package vfstest

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"dsyncfs/mirror/vfs"
)

// This file has what holds of names that come, change and go.

func rename(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, s.root, "a", "1")
	put(t, d, "b", "2")
	before := stat(t, s.root, "a")
	must(t, s.root.Rename("a", d, "b"))
	wantNames(t, s.root, "d")
	wantNames(t, d, "b")
	after := stat(t, d, "b")
	if after.Ino != before.Ino || after.Dev != before.Dev || after.Nlink != 1 || !after.Mtime.Equal(before.Mtime) {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if got := get(t, d, "b"); got != "1" {
		t.Errorf("content %q", got)
	}
	must(t, d.Rename("b", d, "b"))
	wantNames(t, d, "b")
}

func renameSameFile(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	must(t, s.root.Link("a", s.root, "b"))
	must(t, s.root.Rename("a", s.root, "b")) // rename(2): "does nothing, and returns a success status"
	wantNames(t, s.root, "a", "b")
}

func renameNew(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, s.root, "a", "1")
	put(t, d, "b", "2")
	wantErr(t, "onto a file", s.root.RenameNew("a", d, "b"), fs.ErrExist)
	wantErr(t, "onto a directory", s.root.RenameNew("a", s.root, "d"), fs.ErrExist)
	must(t, s.root.RenameNew("a", d, "c"))
	wantNames(t, s.root, "d")
	wantNames(t, d, "b", "c")
	must(t, s.root.Mkdir("e", 0o700))
	wantErr(t, "a directory onto an empty one", s.root.RenameNew("d", s.root, "e"), fs.ErrExist)
	must(t, s.root.RenameNew("d", s.root, "f"))
	wantNames(t, s.root, "e", "f")
}

func renameDir(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, d, "m", "1")
	must(t, s.root.Mkdir("e", 0o700))
	must(t, s.root.Rename("d", s.root, "e"))
	wantNames(t, s.root, "e")
	wantNames(t, openDir(t, s, "e"), "m")
	must(t, s.root.Mkdir("g", 0o700))
	err := s.root.Rename("g", s.root, "e")
	if !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		t.Errorf("onto a directory with content: %v", err)
	}
}

func renameIntoItself(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	must(t, d.Mkdir("e", 0o700))
	e := openDir(t, s, "d/e")
	wantErr(t, "rename below itself", s.root.Rename("d", e, "x"), syscall.EINVAL)
	wantErr(t, "rename new below itself", s.root.RenameNew("d", e, "x"), syscall.EINVAL)
	wantNames(t, s.root, "d")
	wantNames(t, d, "e")
}

func renameMixed(t *testing.T, s suite) {
	must(t, s.root.Mkdir("d", 0o700))
	put(t, s.root, "a", "1")
	wantErr(t, "file onto directory", s.root.Rename("a", s.root, "d"), syscall.EISDIR)
	wantErr(t, "directory onto file", s.root.Rename("d", s.root, "a"), syscall.ENOTDIR)
	wantNames(t, s.root, "a", "d")
}

func link(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, s.root, "a", "1")
	must(t, s.root.Link("a", d, "b"))
	a, b := stat(t, s.root, "a"), stat(t, d, "b")
	if a.Ino != b.Ino || a.Nlink != 2 || b.Nlink != 2 {
		t.Errorf("%+v %+v", a, b)
	}
	f, err := s.root.OpenAppend("a")
	must(t, err)
	_, err = f.Write([]byte("2"))
	must(t, err)
	must(t, f.Close())
	if got := get(t, d, "b"); got != "12" {
		t.Errorf("content by the other name %q", got)
	}
	wantErr(t, "link onto a name", s.root.Link("a", d, "b"), fs.ErrExist)
	wantErr(t, "link a directory", s.root.Link("d", s.root, "x"), syscall.EPERM)
	must(t, s.root.Remove("a"))
	if b := stat(t, d, "b"); b.Nlink != 1 {
		t.Errorf("links after remove: %d", b.Nlink)
	}
}

func removeKinds(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, d, "m", "1")
	wantErr(t, "remove a directory", s.root.Remove("d"), syscall.EISDIR)
	err := s.root.RemoveDir("d")
	if !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		t.Errorf("rmdir with content: %v", err)
	}
	wantErr(t, "rmdir a file", d.RemoveDir("m"), syscall.ENOTDIR)
	must(t, d.Remove("m"))
	must(t, s.root.RemoveDir("d"))
	wantNames(t, s.root)
}

func removedDir(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	put(t, s.root, "a", "1")
	must(t, s.root.RemoveDir("d"))
	_, err := d.Create("x", 0o600)
	wantErr(t, "create", err, fs.ErrNotExist)
	wantErr(t, "mkdir", d.Mkdir("x", 0o700), fs.ErrNotExist)
	wantErr(t, "rename into", s.root.Rename("a", d, "x"), fs.ErrNotExist)
	wantErr(t, "link into", s.root.Link("a", d, "x"), fs.ErrNotExist)
	// Not an empty listing: that would say that every mail was expunged.
	wantErr(t, "names", d.Names(func(string, vfs.Type) error { return nil }), fs.ErrNotExist)
	wantNames(t, s.root, "a")
}

func dirFollowsRename(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	must(t, s.root.Rename("d", s.root, "e"))
	put(t, d, "m", "1")
	wantNames(t, openDir(t, s, "e"), "m")
	_, err := s.fs.OpenDir("d")
	wantErr(t, "the old path", err, fs.ErrNotExist)
}
