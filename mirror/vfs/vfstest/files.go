package vfstest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/vfs"
)

// This file has what holds of files and their content.

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
