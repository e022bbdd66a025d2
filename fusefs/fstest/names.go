package fstest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

var _ = register(map[string]Case{
	"delivery-by-rename":       deliveryByRename,
	"delivery-by-link":         deliveryByLink,
	"flag-change":              flagChange,
	"flag-toggled":             flagToggled,
	"move-and-back":            moveAndBack,
	"rename-over-a-mail":       renameOverMail,
	"rename-noreplace":         renameNoReplace,
	"rename-exchange":          renameExchange,
	"rename-of-a-directory":    renameDirectory,
	"hard-links":               hardLinks,
	"same-base-twice":          sameBaseTwice,
	"long-names":               longNames,
	"odd-names":                oddNames,
	"exclusive-create":         exclusiveCreate,
	"lock-file":                lockFile,
	"symbolic-links":           symbolicLinks,
	"nonempty-directory":       nonemptyDirectory,
	"removed-working-dir":      removedDirectory,
	"listing-in-blocks":        listingInBlocks,
	"listing-while-removing":   listingWhileRemoving,
	"listing-rewound":          listingRewound,
	"directory-times":          directoryTimes,
	"negative-then-positive":   negativeThenPositive,
	"special-files":            specialFiles,
	"two-hundred-small-writes": smallWrites,
})

func deliveryByRename(d Dir) error {
	return steps(write(d.Path("tmp", "a"), "hi"), rename(d.Path("tmp", "a"), d.Path("new", "a")),
		says(d.Path("new", "a"), "hi"), missing(d.Path("tmp", "a")), lists(d.Path("new"), "a"), lists(d.Path("tmp")))
}

func deliveryByLink(d Dir) error {
	return steps(write(d.Path("tmp", "a"), "hi"), link(d.Path("tmp", "a"), d.Path("new", "a")), nlink(d.Path("new", "a"), 2),
		remove(d.Path("tmp", "a")), nlink(d.Path("new", "a"), 1), says(d.Path("new", "a"), "hi"), lists(d.Path("new"), "a"))
}

func nlink(path string, want int) func() error {
	return func() error {
		st, err := stat(path)
		if err != nil {
			return err
		}
		return expect("links of "+path, int(st.Nlink), want)
	}
}

func stat(path string) (*unix.Stat_t, error) {
	st := new(unix.Stat_t)
	if err := unix.Lstat(path, st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	return st, nil
}

// A flag change keeps the inode and the times of the content.
func flagChange(d Dir) error {
	if err := steps(write(d.Path("tmp", "a"), "hi"), rename(d.Path("tmp", "a"), d.Path("cur", "a:2,"))); err != nil {
		return err
	}
	before, err := stat(d.Path("cur", "a:2,"))
	if err != nil {
		return err
	}
	if err := os.Rename(d.Path("cur", "a:2,"), d.Path("cur", "a:2,S")); err != nil {
		return err
	}
	after, err := stat(d.Path("cur", "a:2,S"))
	if err != nil {
		return err
	}
	return steps(
		func() error { return expect("inode", after.Ino, before.Ino) },
		func() error { return expect("mtime", after.Mtim, before.Mtim) },
		lists(d.Path("cur"), "a:2,S"), says(d.Path("cur", "a:2,S"), "hi"))
}

func flagToggled(d Dir) error {
	plain, seen := d.Path("cur", "a:2,"), d.Path("cur", "a:2,S")
	if err := write(plain, "hi")(); err != nil {
		return err
	}
	for range 5 {
		if err := steps(rename(plain, seen), lists(d.Path("cur"), "a:2,S"), missing(plain),
			rename(seen, plain), lists(d.Path("cur"), "a:2,"), missing(seen)); err != nil {
			return err
		}
	}
	return nil
}

func moveAndBack(d Dir) error {
	if err := steps(func() error { return os.Mkdir(d.Path("sub"), 0o755) }, write(d.Path("cur", "a:2,F"), "x")); err != nil {
		return err
	}
	return steps(rename(d.Path("cur", "a:2,F"), d.Path("sub", "a")), lists(d.Path("cur")), says(d.Path("sub", "a"), "x"),
		rename(d.Path("sub", "a"), d.Path("new", "a")), rename(d.Path("new", "a"), d.Path("cur", "a:2,")), lists(d.Path("cur"), "a:2,"))
}

// The replaced file stays readable for those who have it open.
func renameOverMail(d Dir) error {
	if err := steps(write(d.Path("cur", "a:2,"), "old"), write(d.Path("tmp", "b"), "new")); err != nil {
		return err
	}
	f, err := os.Open(d.Path("cur", "a:2,"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Rename(d.Path("tmp", "b"), d.Path("cur", "a:2,")); err != nil {
		return err
	}
	old, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	return steps(func() error { return expect("the open file", string(old), "old") },
		says(d.Path("cur", "a:2,"), "new"), lists(d.Path("cur"), "a:2,"))
}

func renameNoReplace(d Dir) error {
	a, b, c := d.Path("tmp", "a"), d.Path("cur", "b:2,"), d.Path("cur", "c:2,")
	if err := steps(write(a, "a"), write(b, "b")); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_NOREPLACE)
	if err := expectErr("rename over", err, syscall.EEXIST); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, c, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	return steps(says(b, "b"), says(c, "a"), missing(a))
}

func renameExchange(d Dir) error {
	a, b := d.Path("tmp", "a"), d.Path("cur", "b:2,")
	if err := steps(write(a, "a"), write(b, "b")); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	return steps(says(a, "b"), says(b, "a"), lists(d.Path("cur"), "b:2,"))
}

func renameDirectory(d Dir) error {
	return steps(
		func() error { return os.MkdirAll(d.Path("x", "y"), 0o755) }, write(d.Path("x", "y", "f"), "f"),
		rename(d.Path("x"), d.Path("z")), says(d.Path("z", "y", "f"), "f"), missing(d.Path("x")),
		write(d.Path("z", "y", "g"), "g"), lists(d.Path("z", "y"), "f", "g"))
}

func hardLinks(d Dir) error {
	a, b := d.Path("cur", "a:2,"), d.Path("cur", "b:2,")
	if err := steps(write(a, "x"), link(a, b), nlink(a, 2), nlink(b, 2)); err != nil {
		return err
	}
	sa, err := stat(a)
	if err != nil {
		return err
	}
	sb, err := stat(b)
	if err != nil {
		return err
	}
	return steps(
		func() error { return expect("inodes", sa.Ino, sb.Ino) },
		func() error { return os.Chmod(a, 0o600) },
		func() error {
			st, err := stat(b)
			if err != nil {
				return err
			}
			return expect("mode of the other name", st.Mode&0o777, uint32(0o600))
		},
		remove(a), nlink(b, 1), says(b, "x"), lists(d.Path("cur"), "b:2,"))
}

func sameBaseTwice(d Dir) error {
	a, b := d.Path("cur", "a:2,"), d.Path("cur", "a:2,S")
	return steps(write(a, "one"), write(b, "two"), lists(d.Path("cur"), "a:2,", "a:2,S"), says(a, "one"), says(b, "two"),
		remove(a), lists(d.Path("cur"), "a:2,S"), says(b, "two"))
}

func longNames(d Dir) error {
	for _, dir := range []string{"tmp", "new", "cur"} {
		long := d.Path(dir, strings.Repeat("n", 255))
		if err := steps(write(long, "x"), says(long, "x"), lists(d.Path(dir), strings.Repeat("n", 255))); err != nil {
			return err
		}
		if err := expectErr("256 bytes", write(long+"n", "x")(), syscall.ENAMETOOLONG); err != nil {
			return err
		}
		_, err := os.Stat(long + "n")
		if err := expectErr("stat of 256 bytes", err, syscall.ENAMETOOLONG); err != nil {
			return err
		}
		if err := expectErr("rename to 256 bytes", os.Rename(long, long+"n"), syscall.ENAMETOOLONG); err != nil {
			return err
		}
	}
	return nil
}

func oddNames(d Dir) error {
	names := []string{".hidden", ":2,S", "a:b:2,S", "with space", "é\xff", "new\nline", "a:1,x"}
	for _, name := range names {
		if err := steps(write(d.Path("cur", name), name), says(d.Path("cur", name), name)); err != nil {
			return err
		}
	}
	if err := lists(d.Path("cur"), names...)(); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(d.Path("cur", name)); err != nil {
			return err
		}
	}
	return lists(d.Path("cur"))()
}

func exclusiveCreate(d Dir) error {
	for _, path := range []string{d.Path("tmp", "a"), d.Path("new", "a")} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		f.Close()
		_, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err := expectErr("second create", err, os.ErrExist); err != nil {
			return err
		}
	}
	return nil
}

// A dotlock by link, as old programs make it.
func lockFile(d Dir) error {
	mine, lock := d.Path("mine"), d.Path("some.lock")
	if err := steps(write(mine, "1"), link(mine, lock)); err != nil {
		return err
	}
	if err := expectErr("second link", os.Link(mine, lock), os.ErrExist); err != nil {
		return err
	}
	return steps(nlink(mine, 2), remove(lock), nlink(mine, 1), link(mine, lock))
}

func symbolicLinks(d Dir) error {
	if err := steps(write(d.Path("f"), "x"), func() error { return os.Symlink("f", d.Path("l")) }, says(d.Path("l"), "x")); err != nil {
		return err
	}
	to, err := os.Readlink(d.Path("l"))
	if err != nil {
		return err
	}
	return steps(func() error { return expect("link", to, "f") }, remove(d.Path("f")),
		func() error { return expectErr("dangling", says(d.Path("l"), "")(), os.ErrNotExist) })
}

func nonemptyDirectory(d Dir) error {
	if err := steps(func() error { return os.Mkdir(d.Path("x"), 0o755) }, write(d.Path("x", "f"), "")); err != nil {
		return err
	}
	return steps(func() error { return expectErr("rmdir", unix.Rmdir(d.Path("x")), syscall.ENOTEMPTY) },
		remove(d.Path("x", "f")), func() error { return unix.Rmdir(d.Path("x")) }, missing(d.Path("x")))
}

func removedDirectory(d Dir) error {
	if err := os.Mkdir(d.Path("x"), 0o755); err != nil {
		return err
	}
	f, err := os.Open(d.Path("x"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Rmdir(d.Path("x")); err != nil {
		return err
	}
	if _, err := f.Stat(); err != nil {
		return err
	}
	_, err = unix.Openat(int(f.Fd()), "y", unix.O_CREAT|unix.O_WRONLY, 0o600)
	return expectErr("create in a removed directory", err, os.ErrNotExist)
}

const manyNames = 1500

func fill(dir string) error {
	for i := range manyNames {
		if err := write(fmt.Sprintf("%s/%d:2,", dir, i), "")(); err != nil {
			return err
		}
	}
	return nil
}

func listingInBlocks(d Dir) error {
	if err := fill(d.Path("cur")); err != nil {
		return err
	}
	f, err := os.Open(d.Path("cur"))
	if err != nil {
		return err
	}
	defer f.Close()
	seen := map[string]bool{}
	for {
		names, err := f.Readdirnames(7)
		for _, name := range names {
			if seen[name] {
				return fmt.Errorf("%s was listed twice", name)
			}
			seen[name] = true
		}
		if err == io.EOF {
			return expect("names", len(seen), manyNames)
		}
		if err != nil {
			return err
		}
	}
}

// rm -r removes while it lists.
func listingWhileRemoving(d Dir) error {
	if err := fill(d.Path("cur")); err != nil {
		return err
	}
	f, err := os.Open(d.Path("cur"))
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(50)
		for _, name := range names {
			if err := os.Remove(d.Path("cur", name)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return lists(d.Path("cur"))()
		}
		if err != nil {
			return err
		}
	}
}

func listingRewound(d Dir) error {
	for _, dir := range []string{"cur", "tmp"} {
		if err := write(d.Path(dir, "a"), "")(); err != nil {
			return err
		}
		f, err := os.Open(d.Path(dir))
		if err != nil {
			return err
		}
		defer f.Close()
		first, err := f.Readdirnames(-1)
		if err != nil {
			return err
		}
		if err := write(d.Path(dir, "b"), "")(); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		second, err := f.Readdirnames(-1)
		if err != nil {
			return err
		}
		if err := expect("names", fmt.Sprint(len(first), len(second)), "1 2"); err != nil {
			return err
		}
	}
	return nil
}

// Dovecot looks at nothing but the times of new and cur to see whether something changed.
func directoryTimes(d Dir) error {
	long := unix.Timeval{Sec: 1000000000}
	for _, dir := range []string{"new", "cur"} {
		if err := touched(d.Path(dir), long, "create", write(d.Path(dir, "a"), "x")); err != nil {
			return err
		}
		if err := touched(d.Path(dir), long, "rename", rename(d.Path(dir, "a"), d.Path(dir, "a:2,S"))); err != nil {
			return err
		}
		if err := touched(d.Path(dir), long, "remove", remove(d.Path(dir, "a:2,S"))); err != nil {
			return err
		}
	}
	return nil
}

// touched sets a directory's time to long ago and wants a change to set it to now.
func touched(dir string, long unix.Timeval, what string, change func() error) error {
	if err := unix.Utimes(dir, []unix.Timeval{long, long}); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	st, err := stat(dir)
	if err != nil {
		return err
	}
	if st.Mtim.Sec == long.Sec {
		return fmt.Errorf("%s did not change the mtime of %s", what, dir)
	}
	return nil
}

func negativeThenPositive(d Dir) error {
	for _, dir := range []string{"tmp", "new", "cur"} {
		path := d.Path(dir, "a")
		if err := steps(missing(path), write(path, "x"), says(path, "x"), remove(path), missing(path), write(path, "y"), says(path, "y")); err != nil {
			return err
		}
	}
	return nil
}

func specialFiles(d Dir) error {
	if err := unix.Mkfifo(d.Path("fifo"), 0o600); err != nil {
		return err
	}
	st, err := stat(d.Path("fifo"))
	if err != nil {
		return err
	}
	return expect("type", st.Mode&unix.S_IFMT, uint32(unix.S_IFIFO))
}

func smallWrites(d Dir) error {
	f, err := os.Create(d.Path("tmp", "a"))
	if err != nil {
		return err
	}
	defer f.Close()
	want := ""
	for i := range 200 {
		s := fmt.Sprintf("line %d\n", i)
		if _, err := f.WriteString(s); err != nil {
			return err
		}
		want += s
	}
	return steps(says(d.Path("tmp", "a"), want), rename(d.Path("tmp", "a"), d.Path("new", "a")), says(d.Path("new", "a"), want))
}
