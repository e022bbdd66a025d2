// Package vfstest is the conformance suite of [vfs.FS]: [Run] tries every promise of the interface against an empty root.
package vfstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

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
