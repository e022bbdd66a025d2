package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"dsyncfs/mirror/vfs"
	"dsyncfs/mirror/vfs/vfstest"
)

func openOS(t testing.TB, dir string) vfs.FS {
	t.Helper()
	f, err := vfs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOS(t *testing.T) {
	before := openDescriptors(t)
	vfstest.Run(t, func(t *testing.T) vfs.FS { return openOS(t, t.TempDir()) })
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestOSWithoutOpenat2 runs the suite as on a kernel, or in a sandbox, that lacks the newer calls.
func TestOSWithoutOpenat2(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS {
		f := openOS(t, t.TempDir())
		vfs.ForgetOpenat2(f)
		return f
	})
}

func TestOpenNeedsADirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := vfs.Open(filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.Open(file); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}

func TestRootMayBeASymlink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/real", 0o700), os.Mkdir(dir+"/real/sub", 0o700), os.Symlink("real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	f := openOS(t, dir+"/link")
	defer f.Close()
	d, err := f.OpenDir("sub")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// TestSymlinksDoNotLeadOut tries each way in which a link could lead an operation to a file outside of the root.
func TestSymlinksDoNotLeadOut(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.WriteFile(outside+"/secret", []byte("secret"), 0o600),
		os.Symlink(outside, root+"/out"),
		os.Symlink("..", root+"/up"),
		os.Symlink("/proc/self/cwd", root+"/magic"),
		os.Symlink(outside+"/secret", root+"/file"),
		os.Symlink(outside+"/fresh", root+"/dangling"),
	); err != nil {
		t.Fatal(err)
	}
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("without openat2: ", old), func(t *testing.T) {
			f := openOS(t, root)
			defer f.Close()
			if old {
				vfs.ForgetOpenat2(f)
			}
			for _, dir := range []string{"out", "up", "magic", "file", "dangling"} {
				if d, err := f.OpenDir(dir); err == nil {
					d.Close()
					t.Errorf("%s was opened", dir)
				}
			}
			d, err := f.OpenDir("")
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			_, err = d.Open("file")
			wantErrno(t, "open", err, syscall.ELOOP)
			_, err = d.OpenAppend("file")
			wantErrno(t, "append", err, syscall.ELOOP)
			_, err = d.Create("dangling", 0o600)
			wantErrno(t, "create", err, syscall.EEXIST)
			wantErrno(t, "chmod", d.Chmod("file", 0o777), syscall.EOPNOTSUPP)
			if info, err := d.Stat("file"); err != nil || info.Type != vfs.Other {
				t.Errorf("stat: %+v %v", info, err)
			}
		})
	}
	if info, err := os.Stat(outside + "/secret"); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if all, _ := os.ReadDir(outside); len(all) != 1 {
		t.Errorf("outside: %v", all)
	}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestSymlinkWithinTheRoot(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.Mkdir(root+"/real", 0o700), os.Symlink("real", root+"/link")); err != nil {
		t.Fatal(err)
	}
	f := openOS(t, root)
	defer f.Close()
	d, err := f.OpenDir("link")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	vfs.ForgetOpenat2(f)
	if _, err := f.OpenDir("link"); err == nil {
		t.Error("a link was followed without the kernel's check")
	}
}

// TestOpenFdOutlivesTheName is the case of a directory that a mount covers: its path leads elsewhere, the descriptor does not.
func TestOpenFdOutlivesTheName(t *testing.T) {
	parent := t.TempDir()
	dir := parent + "/Mail"
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(dir+"/m", []byte("1"), 0o600)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := vfs.OpenFd(uintptr(fd), dir)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.Rename(dir, parent+"/moved"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	d, err := f.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, err := vfs.ReadFile(d, "m", 10); string(got) != "1" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := d.Open("x"); err == nil || !strings.Contains(err.Error(), dir+"/x") {
		t.Errorf("error without the path: %v", err)
	}
}

func TestFifoDoesNotBlock(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mkfifo(root+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	f := openOS(t, root)
	defer f.Close()
	d, err := f.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r, err := d.Open("pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, _ := r.Read(make([]byte, 1)); n != 0 {
		t.Errorf("read %d bytes", n)
	}
}

func TestDescriptors(t *testing.T) {
	f := openOS(t, t.TempDir())
	defer f.Close()
	d, err := f.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	file, err := d.Create("a", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []any{f, d, file} {
		fd, ok := x.(vfs.Descriptor)
		if !ok {
			t.Fatalf("%T has no descriptor", x)
		}
		flags, err := unix.FcntlInt(fd.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%T: flags %x, %v", x, flags, err)
		}
	}
	file.Close()
	d.Close()
	if fd := file.(vfs.Descriptor).Fd(); fd != ^uintptr(0) {
		t.Errorf("descriptor %d after close", fd)
	}
}

// TestRenameNewByLink covers file systems without RENAME_NOREPLACE.
func TestRenameNewByLink(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(
		os.WriteFile(root+"/a", []byte("a"), 0o600), os.WriteFile(root+"/b", []byte("b"), 0o600),
		os.Mkdir(root+"/d", 0o700), os.Mkdir(root+"/e", 0o700),
	); err != nil {
		t.Fatal(err)
	}
	f := openOS(t, root)
	defer f.Close()
	fd := int(f.(vfs.Descriptor).Fd())
	for _, c := range []struct {
		from, to string
		want     error
	}{
		{"a", "b", syscall.EEXIST}, {"a", "c", nil}, {"a", "x", syscall.ENOENT},
		{"d", "e", syscall.EEXIST}, {"d", "f", nil}, {"d", "x", syscall.ENOENT},
	} {
		if err := vfs.RenameNewByLink(fd, c.from, fd, c.to); !errors.Is(err, c.want) {
			t.Errorf("%s to %s: %v, want %v", c.from, c.to, err, c.want)
		}
	}
	all, err := filepath.Glob(root + "/*")
	if err != nil || !slices.Equal(all, []string{root + "/b", root + "/c", root + "/e", root + "/f"}) {
		t.Errorf("%q %v", all, err)
	}
}

func TestChmodByPath(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.WriteFile(root+"/a", nil, 0o600), os.Symlink("a", root+"/l")); err != nil {
		t.Fatal(err)
	}
	f := openOS(t, root)
	defer f.Close()
	fd := int(f.(vfs.Descriptor).Fd())
	if err := vfs.ChmodByPath(fd, "a", 0o640); err != nil {
		t.Error(err)
	}
	wantErrno(t, "a link", vfs.ChmodByPath(fd, "l", 0o777), syscall.EOPNOTSUPP)
	if info, err := os.Stat(root + "/a"); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v %v", info, err)
	}
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 16), 24, 0, 8, 'a', 0, 0, 0, 0))
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 24, 0, 4, 'a', 'b', 'c', 'd', 'e'))
	f.Fuzz(func(t *testing.T, buf []byte) {
		n := 0
		_, err := vfs.ParseDirents(buf, func(name string, typ vfs.Type) error {
			if n += len(name); n > len(buf) {
				t.Fatalf("%d bytes of names in %d", n, len(buf))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkNames(b *testing.B) {
	root := b.TempDir()
	const n = 20000
	for i := range n {
		if err := os.WriteFile(fmt.Sprintf("%s/1795433189.M%06dP32205.mail.example.org,S=436,W=457:2,S", root, i), nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	f := openOS(b, root)
	defer f.Close()
	d, err := f.OpenDir("")
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	for b.Loop() {
		got := 0
		if err := d.Names(func(string, vfs.Type) error { got++; return nil }); err != nil || got != n {
			b.Fatal(got, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/name")
}
