// Package vfstest is the conformance suite of [vfs.FS]: [Run] tries every promise of the interface against an empty root.
package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/vfs"
)

// Run runs the suite. open makes a new file system with an empty root, which the suite closes.
func Run(t *testing.T, open func(t *testing.T) vfs.FS) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s suite)
	}{
		{"a new file is empty and can be written and read", createWriteRead},
		{"create refuses a name that is taken", createExisting},
		{"append adds at the end and needs the file", appendOnly},
		{"truncate cuts the end off, and appending goes on there", truncate},
		{"reading at an offset leaves the position alone", readAt},
		{"names lists every entry once with its type", names},
		{"names stops at the first error", namesError},
		{"listings nest and run side by side", namesNested},
		{"names that lead elsewhere are refused", badNames},
		{"paths that lead elsewhere are refused", badPaths},
		{"what is not there is ErrNotExist", missing},
		{"rename replaces and keeps the inode", rename},
		{"rename of one link onto another of the same file does nothing", renameSameFile},
		{"rename new refuses a name that is taken", renameNew},
		{"rename moves a directory with its content", renameDir},
		{"a directory does not move into itself", renameIntoItself},
		{"files and directories do not replace each other", renameMixed},
		{"link gives a file a second name", link},
		{"an open file survives its name", removedButOpen},
		{"remove is for files, rmdir for empty directories", removeKinds},
		{"a removed directory takes no new entries", removedDir},
		{"set times sets the mtime to the nanosecond", setTimes},
		{"chmod is exact", chmod},
		{"an open directory follows its rename", dirFollowsRename},
		{"what is closed says so", closed},
		{"sync works everywhere", syncs},
		{"replace swaps the whole content and leaves nothing behind", replace},
		{"replace leaves the old file when the writer fails", replaceFails},
		{"read file is bounded", readFileBounded},
		{"concurrent use keeps every file", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t)
			root, err := f.OpenDir("")
			if err != nil {
				t.Fatal(err)
			}
			c.test(t, suite{f, root})
			root.Close()
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

type suite struct {
	fs   vfs.FS
	root vfs.Dir
}

// put makes a file with content.
func put(t *testing.T, d vfs.Dir, name, content string) {
	t.Helper()
	f, err := d.Create(name, 0o600)
	must(t, err)
	n, err := f.Write([]byte(content))
	if n != len(content) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(content), err)
	}
	must(t, err)
	must(t, f.Close())
}

func get(t *testing.T, d vfs.Dir, name string) string {
	t.Helper()
	data, err := vfs.ReadFile(d, name, 1<<20)
	must(t, err)
	return string(data)
}

func list(t *testing.T, d vfs.Dir) []string {
	t.Helper()
	var all []string
	must(t, d.Names(func(name string, _ vfs.Type) error { all = append(all, name); return nil }))
	slices.Sort(all)
	return all
}

func wantNames(t *testing.T, d vfs.Dir, want ...string) {
	t.Helper()
	if got := list(t, d); !slices.Equal(got, want) {
		t.Errorf("names of %q: %q, want %q", d.Path(), got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks that err is target and is dressed as the interface says.
func wantErr(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, want %v", what, err, target)
		return
	}
	var pe *fs.PathError
	var le *os.LinkError
	var errno syscall.Errno
	if !errors.As(err, &pe) && !errors.As(err, &le) {
		t.Errorf("%s: %T, want *fs.PathError or *os.LinkError", what, err)
	}
	if !errors.Is(target, fs.ErrClosed) && !errors.As(err, &errno) {
		t.Errorf("%s: %v wraps no errno", what, err)
	}
}

func subdir(t *testing.T, s suite, name string) vfs.Dir {
	t.Helper()
	must(t, s.root.Mkdir(name, 0o700))
	return openDir(t, s, name)
}

func openDir(t *testing.T, s suite, name string) vfs.Dir {
	t.Helper()
	d, err := s.fs.OpenDir(name)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func stat(t *testing.T, d vfs.Dir, name string) vfs.Info {
	t.Helper()
	info, err := d.Stat(name)
	must(t, err)
	return info
}

func createWriteRead(t *testing.T, s suite) {
	f, err := s.root.Create("a", 0o600)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	if info.Size != 0 || info.Type != vfs.Regular || info.Mode != 0o600 || info.Nlink != 1 {
		t.Errorf("new file: %+v", info)
	}
	_, err = f.Write([]byte("hello "))
	must(t, err)
	_, err = f.Write([]byte("world"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	if got := get(t, s.root, "a"); got != "hello world" {
		t.Errorf("content %q", got)
	}
	info = stat(t, s.root, "a")
	if info.Size != 11 || info.Ino == 0 || info.Mtime.IsZero() || info.Ctime.IsZero() {
		t.Errorf("stat: %+v", info)
	}
	r, err := s.root.Open("a")
	must(t, err)
	defer r.Close()
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("write to a file opened for reading worked")
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("empty read: %d, %v", n, err)
	}
	all, err := io.ReadAll(r)
	if string(all) != "hello world" || err != nil {
		t.Errorf("read all: %q, %v", all, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
}

func createExisting(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	_, err := s.root.Create("a", 0o600)
	wantErr(t, "create over a file", err, fs.ErrExist)
	wantErr(t, "mkdir over a file", s.root.Mkdir("a", 0o700), fs.ErrExist)
	must(t, s.root.Mkdir("d", 0o700))
	_, err = s.root.Create("d", 0o600)
	wantErr(t, "create over a directory", err, fs.ErrExist)
	if got := get(t, s.root, "a"); got != "1" {
		t.Errorf("content %q", got)
	}
}

func appendOnly(t *testing.T, s suite) {
	_, err := s.root.OpenAppend("log")
	wantErr(t, "append to nothing", err, fs.ErrNotExist)
	put(t, s.root, "log", "one ")
	a, err := s.root.OpenAppend("log")
	must(t, err)
	b, err := s.root.OpenAppend("log")
	must(t, err)
	for _, w := range []struct {
		f vfs.File
		s string
	}{{a, "two "}, {b, "three "}, {a, "four"}} {
		_, err := w.f.Write([]byte(w.s))
		must(t, err)
	}
	must(t, a.Close())
	must(t, b.Close())
	if got := get(t, s.root, "log"); got != "one two three four" {
		t.Errorf("content %q", got)
	}
}

func truncate(t *testing.T, s suite) {
	put(t, s.root, "log", "0123456789")
	f, err := s.root.OpenAppend("log")
	must(t, err)
	defer f.Close()
	cut, ok := f.(vfs.Truncater)
	if !ok {
		t.Fatalf("%T cannot be truncated", f)
	}
	must(t, cut.Truncate(4))
	_, err = f.Write([]byte("x"))
	must(t, err)
	if got := get(t, s.root, "log"); got != "0123x" {
		t.Errorf("content %q", got)
	}
}

func readAt(t *testing.T, s suite) {
	put(t, s.root, "a", "0123456789")
	f, err := s.root.Open("a")
	must(t, err)
	defer f.Close()
	p := make([]byte, 4)
	if n, err := f.ReadAt(p, 3); n != 4 || err != nil || string(p) != "3456" {
		t.Errorf("read at 3: %d %q %v", n, p, err)
	}
	if n, err := f.ReadAt(p, 8); n != 2 || err != io.EOF {
		t.Errorf("read at 8: %d %v", n, err)
	}
	if n, err := f.ReadAt(p, 100); n != 0 || err != io.EOF {
		t.Errorf("read at 100: %d %v", n, err)
	}
	if _, err := f.ReadAt(p, -1); err == nil {
		t.Error("read at -1 worked")
	}
	if all, err := io.ReadAll(f); string(all) != "0123456789" || err != nil {
		t.Errorf("read: %q %v", all, err)
	}
}

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

func removedButOpen(t *testing.T, s suite) {
	put(t, s.root, "a", "old")
	put(t, s.root, "b", "new")
	f, err := s.root.Open("a")
	must(t, err)
	defer f.Close()
	must(t, s.root.Rename("b", s.root, "a"))
	if all, err := io.ReadAll(f); string(all) != "old" || err != nil {
		t.Errorf("%q %v", all, err)
	}
	if info, err := f.Stat(); err != nil || info.Nlink != 0 {
		t.Errorf("%+v %v", info, err)
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

func setTimes(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	for _, want := range []time.Time{time.Unix(1700000000, 123456789), time.Unix(0, 0), time.Unix(-1000, 5)} {
		must(t, s.root.SetTimes("a", want))
		if got := stat(t, s.root, "a").Mtime; !got.Equal(want) {
			t.Errorf("mtime %v, want %v", got, want)
		}
	}
	must(t, s.root.Mkdir("d", 0o700))
	must(t, s.root.SetTimes("d", time.Unix(5, 6)))
	info, err := openDir(t, s, "d").Info()
	if err != nil || !info.Mtime.Equal(time.Unix(5, 6)) || info.Type != vfs.Directory {
		t.Errorf("%+v %v", info, err)
	}
}

func chmod(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	must(t, s.root.Chmod("a", 0o666))
	if m := stat(t, s.root, "a").Mode; m != 0o666 {
		t.Errorf("mode %o", m)
	}
	must(t, s.root.Mkdir("d", 0o700))
	must(t, s.root.Chmod("d", 0o2770))
	if m := stat(t, s.root, "d").Mode; m != 0o2770 {
		t.Errorf("mode %o", m)
	}
}

func dirFollowsRename(t *testing.T, s suite) {
	d := subdir(t, s, "d")
	must(t, s.root.Rename("d", s.root, "e"))
	put(t, d, "m", "1")
	wantNames(t, openDir(t, s, "e"), "m")
	_, err := s.fs.OpenDir("d")
	wantErr(t, "the old path", err, fs.ErrNotExist)
}

func closed(t *testing.T, s suite) {
	put(t, s.root, "a", "1")
	f, err := s.root.Open("a")
	must(t, err)
	must(t, f.Close())
	wantErr(t, "close twice", f.Close(), fs.ErrClosed)
	_, err = f.Read(make([]byte, 1))
	wantErr(t, "read", err, fs.ErrClosed)
	_, err = f.Stat()
	wantErr(t, "stat", err, fs.ErrClosed)
	d := subdir(t, s, "d")
	must(t, d.Close())
	wantErr(t, "close the directory twice", d.Close(), fs.ErrClosed)
	_, err = d.Create("x", 0o600)
	wantErr(t, "create", err, fs.ErrClosed)
	wantErr(t, "names", d.Names(func(string, vfs.Type) error { return nil }), fs.ErrClosed)
	wantErr(t, "rename into", s.root.Rename("a", d, "x"), fs.ErrClosed)
}

func syncs(t *testing.T, s suite) {
	f, err := s.root.Create("a", 0o600)
	must(t, err)
	_, err = f.Write([]byte("x"))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
	must(t, s.root.Sync())
	must(t, s.fs.Sync())
	r, err := s.root.Open("a")
	must(t, err)
	must(t, r.Sync())
	must(t, r.Close())
}

func replace(t *testing.T, s suite) {
	must(t, vfs.WriteFile(s.root, "a", 0o600, []byte("one")))
	must(t, vfs.WriteFile(s.root, "a", 0o600, bytes.Repeat([]byte("two"), 100000)))
	if got := get(t, s.root, "a"); got != strings.Repeat("two", 100000) {
		t.Errorf("%d bytes", len(got))
	}
	must(t, vfs.WriteFile(s.root, "a", 0o600, nil))
	if got := get(t, s.root, "a"); got != "" {
		t.Errorf("content %q", got)
	}
	wantNames(t, s.root, "a")
}

func replaceFails(t *testing.T, s suite) {
	must(t, vfs.WriteFile(s.root, "a", 0o600, []byte("one")))
	stop := errors.New("stop")
	err := vfs.Replace(s.root, "a", 0o600, func(w io.Writer) error {
		if _, err := w.Write([]byte("half")); err != nil {
			return err
		}
		return stop
	})
	if err != stop {
		t.Errorf("%v", err)
	}
	wantNames(t, s.root, "a")
	if got := get(t, s.root, "a"); got != "one" {
		t.Errorf("content %q", got)
	}
	must(t, s.root.Mkdir("d", 0o700))
	wantErr(t, "replace a directory", vfs.WriteFile(s.root, "d", 0o600, nil), syscall.EISDIR)
	wantNames(t, s.root, "a", "d")
}

func readFileBounded(t *testing.T, s suite) {
	put(t, s.root, "a", "12345")
	if got, err := vfs.ReadFile(s.root, "a", 5); string(got) != "12345" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := vfs.ReadFile(s.root, "a", 4); !errors.Is(err, vfs.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

func concurrent(t *testing.T, s suite) {
	must(t, s.root.Mkdir("new", 0o700))
	must(t, s.root.Mkdir("cur", 0o700))
	from, to := openDir(t, s, "new"), openDir(t, s, "cur")
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("%d.%d", w, i)
				if err := vfs.WriteFile(from, name, 0o600, []byte(name)); err != nil {
					t.Error(err)
				}
				if err := from.RenameNew(name, to, name+":2,"); err != nil {
					t.Error(err)
				}
				if err := to.Names(func(string, vfs.Type) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantNames(t, from)
	if n := len(list(t, to)); n != 200 {
		t.Errorf("%d files, want 200", n)
	}
}
