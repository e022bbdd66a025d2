package vfstest

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/vfs"
)

// This file has what holds of listings and of names.

func names(t *testing.T, s suite) {
	wantNames(t, s.root)
	want := map[string]vfs.Type{"d": vfs.Directory, ".hidden": vfs.Regular, "ü:2,S": vfs.Regular}
	must(t, s.root.Mkdir("d", 0o700))
	put(t, s.root, ".hidden", "")
	put(t, s.root, "ü:2,S", "")
	for i := range 3000 { // more than one buffer
		name := fmt.Sprintf("%04d.%s", i, strings.Repeat("x", i%200))
		put(t, s.root, name, "")
		want[name] = vfs.Regular
	}
	got := map[string]vfs.Type{}
	must(t, s.root.Names(func(name string, typ vfs.Type) error {
		if _, twice := got[name]; twice {
			t.Errorf("%q twice", name)
		}
		got[name] = typ
		return nil
	}))
	if len(got) != len(want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
	for name, typ := range want {
		if g, ok := got[name]; !ok || g != typ && g != vfs.Unknown {
			t.Errorf("%q: %v %v", name, g, ok)
		}
	}
}

func namesError(t *testing.T, s suite) {
	for i := range 10 {
		put(t, s.root, fmt.Sprint(i), "")
	}
	stop, n := errors.New("stop"), 0
	err := s.root.Names(func(string, vfs.Type) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if err != stop || n != 3 {
		t.Errorf("%v after %d", err, n)
	}
}

func namesNested(t *testing.T, s suite) {
	for i := range 20 {
		put(t, s.root, fmt.Sprint(i), "")
	}
	n := 0
	must(t, s.root.Names(func(name string, _ vfs.Type) error {
		n += len(list(t, s.root))
		return nil
	}))
	if n != 400 {
		t.Errorf("%d names, want 400", n)
	}
	must(t, s.root.Names(func(name string, _ vfs.Type) error { return s.root.Remove(name) }))
	wantNames(t, s.root)
}

func badNames(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	must(t, s.root.Mkdir("d", 0o700))
	d := openDir(t, s, "d")
	for _, bad := range []string{"", ".", "..", "/", "a/b", "../a", "/a", "a\x00", "d/"} {
		_, err := d.Stat(bad)
		wantErr(t, fmt.Sprintf("stat %q", bad), err, syscall.EINVAL)
		_, err = d.Open(bad)
		wantErr(t, fmt.Sprintf("open %q", bad), err, syscall.EINVAL)
		_, err = d.Create(bad, 0o600)
		wantErr(t, fmt.Sprintf("create %q", bad), err, syscall.EINVAL)
		_, err = d.OpenAppend(bad)
		wantErr(t, fmt.Sprintf("append %q", bad), err, syscall.EINVAL)
		wantErr(t, fmt.Sprintf("mkdir %q", bad), d.Mkdir(bad, 0o700), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("remove %q", bad), d.Remove(bad), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("rmdir %q", bad), d.RemoveDir(bad), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("chmod %q", bad), d.Chmod(bad, 0o600), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("times %q", bad), d.SetTimes(bad, time.Unix(1, 0)), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("rename %q", bad), d.Rename(bad, s.root, "x"), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("rename to %q", bad), s.root.Rename("a", d, bad), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("rename new to %q", bad), s.root.RenameNew("a", d, bad), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("link to %q", bad), s.root.Link("a", d, bad), syscall.EINVAL)
		wantErr(t, fmt.Sprintf("replace %q", bad), vfs.WriteFile(d, bad, 0o600, nil), syscall.EINVAL)
	}
	wantNames(t, s.root, "a", "d")
	wantNames(t, d)
}

func badPaths(t *testing.T, s suite) {
	must(t, s.root.Mkdir("d", 0o700))
	put(t, s.root, "a", "1")
	for _, bad := range []string{".", "..", "/", "/d", "d/", "d/..", "d//x", "../x", "d\x00"} {
		_, err := s.fs.OpenDir(bad)
		wantErr(t, fmt.Sprintf("open %q", bad), err, syscall.EINVAL)
	}
	_, err := s.fs.OpenDir("a")
	wantErr(t, "open a file as directory", err, syscall.ENOTDIR)
	_, err = s.fs.OpenDir("a/b")
	wantErr(t, "open below a file", err, syscall.ENOTDIR)
	if d := openDir(t, s, "d"); d.Path() != "d" {
		t.Errorf("path %q", d.Path())
	}
	if s.root.Path() != "" {
		t.Errorf("path of the root %q", s.root.Path())
	}
}

func missing(t *testing.T, s suite) {
	_, err := s.fs.OpenDir("no")
	wantErr(t, "open dir", err, fs.ErrNotExist)
	_, err = s.fs.OpenDir("no/no")
	wantErr(t, "open dir below", err, fs.ErrNotExist)
	_, err = s.root.Open("no")
	wantErr(t, "open", err, fs.ErrNotExist)
	_, err = s.root.Stat("no")
	wantErr(t, "stat", err, fs.ErrNotExist)
	wantErr(t, "rename", s.root.Rename("no", s.root, "x"), fs.ErrNotExist)
	wantErr(t, "rename new", s.root.RenameNew("no", s.root, "x"), fs.ErrNotExist)
	wantErr(t, "link", s.root.Link("no", s.root, "x"), fs.ErrNotExist)
	wantErr(t, "remove", s.root.Remove("no"), fs.ErrNotExist)
	wantErr(t, "rmdir", s.root.RemoveDir("no"), fs.ErrNotExist)
	wantErr(t, "chmod", s.root.Chmod("no", 0o600), fs.ErrNotExist)
	wantErr(t, "times", s.root.SetTimes("no", time.Unix(1, 0)), fs.ErrNotExist)
}
