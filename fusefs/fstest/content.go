package fstest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var _ = register(map[string]Case{
	"open-unlinked-reading": openUnlinkedReading,
	"open-unlinked-writing": openUnlinkedWriting,
	"truncate-on-open":      truncateOnOpen,
	"truncate":              truncate,
	"append-by-two":         appendByTwo,
	"append-behind-a-size":  appendAfterStat,
	"large-file":            largeFile,
	"random-access":         randomAccess,
	"shared-mapping":        sharedMapping,
	"private-mapping":       privateMapping,
	"preallocate":           preallocate,
	"seek":                  seek,
	"times":                 times,
	"modes":                 modes,
	"read-only-file":        readOnlyFile,
	"extended-attributes":   extendedAttributes,
	"unlinked-attributes":   unlinkedAttributes,
	"flock":                 flock,
	"fcntl-locks":           fcntlLocks,
	"fsync":                 fsync,
	"statfs":                statfs,
	"copy":                  copyFile,
})

func openUnlinkedReading(d Dir) error {
	path := d.Path("cur", "a:2,")
	if err := write(path, "still here")(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return steps(func() error { return expect("content", string(b), "still here") },
		func() error { return expect("links", st.Sys().(*syscall.Stat_t).Nlink, 0) })
}

// A temporary file that is removed at once, as sort and Dovecot use them.
func openUnlinkedWriting(d Dir) error {
	f, err := os.OpenFile(d.Path("tmp", "a"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(d.Path("tmp", "a")); err != nil {
		return err
	}
	if _, err := f.WriteString("one two"); err != nil {
		return err
	}
	if err := f.Truncate(3); err != nil {
		return err
	}
	b := make([]byte, 10)
	n, err := f.ReadAt(b, 0)
	if err != io.EOF {
		return err
	}
	return expect("content", string(b[:n]), "one")
}

func truncateOnOpen(d Dir) error {
	return steps(write(d.Path("f"), "a longer text"), says(d.Path("f"), "a longer text"), write(d.Path("f"), "short"), says(d.Path("f"), "short"))
}

func truncate(d Dir) error {
	path := d.Path("f")
	return steps(write(path, "abcdef"), func() error { return os.Truncate(path, 3) }, says(path, "abc"),
		func() error { return os.Truncate(path, 5) }, says(path, "abc\x00\x00"))
}

func appendByTwo(d Dir) error {
	open := func() (*os.File, error) {
		return os.OpenFile(d.Path("f"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	}
	a, err := open()
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := open()
	if err != nil {
		return err
	}
	defer b.Close()
	for i := range 4 {
		f := a
		if i%2 == 1 {
			f = b
		}
		if _, err := fmt.Fprint(f, i); err != nil {
			return err
		}
	}
	return says(d.Path("f"), "0123")()
}

func appendAfterStat(d Dir) error {
	if err := write(d.Path("f"), "one\n")(); err != nil {
		return err
	}
	f, err := os.OpenFile(d.Path("f"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("two\n"); err != nil {
		return err
	}
	return steps(func() error { return expect("end", end, 4) }, says(d.Path("f"), "one\ntwo\n"))
}

func largeFile(d Dir) error {
	path := d.Path("tmp", "large")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	sum, block := sha256.New(), make([]byte, 777_777)
	for range 12 {
		for i := range block {
			block[i] = byte(r.Uint32())
		}
		sum.Write(block)
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	if err := os.Rename(path, d.Path("new", "large")); err != nil {
		return err
	}
	g, err := os.Open(d.Path("new", "large"))
	if err != nil {
		return err
	}
	defer g.Close()
	got := sha256.New()
	n, err := io.Copy(got, g)
	if err != nil {
		return err
	}
	return steps(func() error { return expect("size", n, 12*777_777) },
		func() error { return expect("hash", string(got.Sum(nil)), string(sum.Sum(nil))) })
}

// randomAccess compares a file with a model after random writes, truncations and reads (what fsx does).
func randomAccess(d Dir) error {
	f, err := os.OpenFile(d.Path("f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(3, 4))
	var model []byte
	grow := func(n int) {
		if n > len(model) {
			model = append(model, make([]byte, n-len(model))...)
		}
	}
	for step := range 500 {
		off, n := r.IntN(100_000), r.IntN(20_000)
		switch r.IntN(4) {
		case 0, 1:
			data := bytes.Repeat([]byte{byte(step)}, n)
			if _, err := f.WriteAt(data, int64(off)); err != nil {
				return err
			}
			if n > 0 {
				grow(off + n)
				copy(model[off:], data)
			}
		case 2:
			if err := f.Truncate(int64(off)); err != nil {
				return err
			}
			grow(off)
			model = model[:off]
		default:
			got := make([]byte, n)
			l, err := f.ReadAt(got, int64(off))
			if err != nil && err != io.EOF {
				return err
			}
			want := model[min(off, len(model)):min(off+n, len(model))]
			if !bytes.Equal(got[:l], want) {
				return fmt.Errorf("step %d: %d bytes at %d differ", step, n, off)
			}
		}
	}
	return says(d.Path("f"), string(model))()
}

func sharedMapping(d Dir) error {
	f, err := os.OpenFile(d.Path("f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[4090:], "across a page")
	if err := unix.Munmap(m); err != nil {
		return err
	}
	b := make([]byte, 13)
	if _, err := f.ReadAt(b, 4090); err != nil {
		return err
	}
	return expect("content", string(b), "across a page")
}

func privateMapping(d Dir) error {
	path := d.Path("cur", "a:2,")
	if err := write(path, "mail")(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if err := os.Remove(path); err != nil {
		return err
	}
	m[0] = 'M'
	return expect("mapping", string(m), "Mail")
}

func preallocate(d Dir) error {
	f, err := os.Create(d.Path("f"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 5000); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return expect("size", st.Size(), 5000)
}

func seek(d Dir) error {
	if err := write(d.Path("f"), "0123456789")(); err != nil {
		return err
	}
	f, err := os.Open(d.Path("f"))
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(-3, io.SeekEnd)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return expect("end", fmt.Sprintf("%d %s", end, b), "7 789")
}

// INTERNALDATE is the mtime of the file.
func times(d Dir) error {
	when := time.Unix(1234567890, 123456789)
	for _, path := range []string{d.Path("tmp", "a"), d.Path("cur", "a:2,")} {
		if err := steps(write(path, "x"), func() error { return os.Chtimes(path, when, when) }); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !st.ModTime().Equal(when) {
			return fmt.Errorf("mtime %v, want %v", st.ModTime(), when)
		}
	}
	return steps(rename(d.Path("tmp", "a"), d.Path("new", "a")), func() error {
		st, err := os.Stat(d.Path("new", "a"))
		if err != nil {
			return err
		}
		return expect("mtime after delivery", st.ModTime().UnixNano(), when.UnixNano())
	})
}

func modes(d Dir) error {
	for _, mode := range []os.FileMode{0o600, 0o666, 0o640, 0o444} {
		path := d.Path("tmp", mode.String())
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		f.Close()
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := expect("mode", st.Mode().Perm(), mode); err != nil {
			return err
		}
	}
	return nil
}

// A file may be written by whoever created it, whatever its mode.
func readOnlyFile(d Dir) error {
	f, err := os.OpenFile(d.Path("tmp", "a"), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		return err
	}
	return says(d.Path("tmp", "a"), "x")()
}

func extendedAttributes(d Dir) error {
	path := d.Path("f")
	if err := write(path, "")(); err != nil {
		return err
	}
	if err := unix.Setxattr(path, "user.test", []byte("value"), unix.XATTR_CREATE); err != nil {
		return err
	}
	if err := expectErr("create again", unix.Setxattr(path, "user.test", nil, unix.XATTR_CREATE), syscall.EEXIST); err != nil {
		return err
	}
	b := make([]byte, 16)
	n, err := unix.Getxattr(path, "user.test", b)
	if err != nil {
		return err
	}
	size, err := unix.Getxattr(path, "user.test", nil)
	if err != nil {
		return err
	}
	return steps(func() error { return expect("value", string(b[:n]), "value") }, func() error { return expect("size", size, 5) },
		func() error { return unix.Removexattr(path, "user.test") },
		func() error { return expectErr("remove again", unix.Removexattr(path, "user.test"), syscall.ENODATA) })
}

// A file that lost its name has its attributes for those who have it open.
func unlinkedAttributes(d Dir) error {
	for _, path := range []string{d.Path("f"), d.Path("cur", "a:2,")} {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Fsetxattr(int(f.Fd()), "user.test", []byte("value"), 0); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		b := make([]byte, 16)
		n, err := unix.Fgetxattr(int(f.Fd()), "user.test", b)
		if err != nil {
			return err
		}
		if err := expect("value", string(b[:n]), "value"); err != nil {
			return err
		}
		if err := unix.Fremovexattr(int(f.Fd()), "user.test"); err != nil {
			return err
		}
	}
	return nil
}

// two opens a file twice.
func two(path string) (a, b *os.File, err error) {
	if a, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, nil, err
	}
	if b, err = os.OpenFile(path, os.O_RDWR, 0o600); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

func flock(d Dir) error {
	a, b, err := two(d.Path("f"))
	if err != nil {
		return err
	}
	defer b.Close()
	if err := unix.Flock(int(a.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := expectErr("second", unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB), syscall.EWOULDBLOCK); err != nil {
		return err
	}
	a.Close()
	return unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

func fcntlLocks(d Dir) error {
	a, b, err := two(d.Path("f"))
	if err != nil {
		return err
	}
	defer b.Close()
	lock := func(f *os.File, start int64) error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: start, Len: 10})
	}
	if err := lock(a, 0); err != nil {
		return err
	}
	if err := expectErr("overlapping", lock(b, 5), syscall.EAGAIN); err != nil {
		return err
	}
	if err := lock(b, 10); err != nil {
		return err
	}
	a.Close()
	return lock(b, 0)
}

func fsync(d Dir) error {
	f, err := os.Create(d.Path("tmp", "a"))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		return err
	}
	if err := steps(f.Sync, func() error { return unix.Fdatasync(int(f.Fd())) }, rename(d.Path("tmp", "a"), d.Path("new", "a")), f.Sync); err != nil {
		return err
	}
	dir, err := os.Open(d.Path("new"))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func statfs(d Dir) error {
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return err
	}
	if st.Blocks == 0 || st.Namelen < 255 {
		return fmt.Errorf("blocks %d, longest name %d", st.Blocks, st.Namelen)
	}
	return nil
}

func copyFile(d Dir) error {
	if err := write(d.Path("a"), "text")(); err != nil {
		return err
	}
	a, err := os.Open(d.Path("a"))
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Create(d.Path("b"))
	if err != nil {
		return err
	}
	defer b.Close()
	if _, err := unix.CopyFileRange(int(a.Fd()), nil, int(b.Fd()), nil, 4, 0); err != nil {
		return err
	}
	return says(d.Path("b"), "text")()
}
