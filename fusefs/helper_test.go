package fusefs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"dsyncfs/fusefs"
	"dsyncfs/fusefs/fstest"

	"golang.org/x/sys/unix"
)

// helpers are what tests let another process do.
var helpers = map[string]func(args []string) error{
	"deliver":             helpDeliver,
	"fill":                helpFill,
	"rename-and-check":    helpRenameAndCheck,
	"flip-flags":          helpFlipFlags,
	"list-exactly":        helpListExactly,
	"list-while-renaming": helpListWhileRenaming,
	"xattrs":              helpXattrs,
	"mmap":                helpMmap,
	"locks":               helpLocks,
	"tmpfile":             helpTmpfile,
	"rewrite":             helpRewrite,
	"churn":               helpChurn,
	"serve":               helpServe,
	"workload":            helpWorkload,
	"fstest":              func(args []string) error { return fstest.Check(args[0], args[1]) },
}

// helpDeliver delivers mails: root, number, "rename" or "link".
func helpDeliver(args []string) error {
	root, n, how := args[0], atoi(args[1]), args[2]
	for i := range n {
		name := fmt.Sprintf("%d.M%dP%d.host", 1700000000+i, i, os.Getpid())
		tmp, dest := filepath.Join(root, "tmp", name), filepath.Join(root, "new", name)
		if err := os.WriteFile(tmp, fmt.Appendf(nil, "Subject: %d\n\nbody\n", i), 0o600); err != nil {
			return err
		}
		if how == "rename" {
			if err := os.Rename(tmp, dest); err != nil {
				return err
			}
			continue
		}
		if err := os.Link(tmp, dest); err != nil {
			return err
		}
		if err := os.Remove(tmp); err != nil {
			return err
		}
	}
	return nil
}

// helpFill makes mails cur/0:2, to cur/N-1:2,.
func helpFill(args []string) error {
	for i := range atoi(args[1]) {
		tmp := filepath.Join(args[0], "tmp", fmt.Sprint(i))
		if err := os.WriteFile(tmp, nil, 0o600); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(args[0], "cur", fmt.Sprint(i, ":2,"))); err != nil {
			return err
		}
	}
	return nil
}

// helpRenameAndCheck renames as a careful mail program does.
func helpRenameAndCheck(args []string) error {
	from, to := args[0], args[1]
	if err := unix.Access(to, unix.F_OK); err != unix.ENOENT {
		return fmt.Errorf("the target is there before: %v", err)
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if err := unix.Access(from, unix.F_OK); err != unix.ENOENT {
		return fmt.Errorf("the source is there after: %v", err)
	}
	if err := os.Remove(from); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the source again: %v", err)
	}
	return nil
}

// helpFlipFlags renames all mails of a directory to and fro until its input ends.
func helpFlipFlags(args []string) error {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	flags := []string{"", "S"}
	for round := 0; ; round++ {
		names, err := os.ReadDir(args[0])
		if err != nil {
			return err
		}
		for _, e := range names {
			select {
			case <-ended:
				return nil
			default:
			}
			base, _, _ := strings.Cut(e.Name(), ":")
			if err := os.Rename(filepath.Join(args[0], e.Name()), filepath.Join(args[0], base+":2,"+flags[(round+1)%2])); err != nil {
				return err
			}
		}
	}
}

// helpListExactly lists a directory several times, slowly enough for renames between the blocks, and wants every base name
// of 0 to n-1 once.
func helpListExactly(args []string) error {
	n, times := atoi(args[1]), atoi(args[2])
	for range times {
		seen := map[string]int{}
		d, err := os.Open(args[0])
		if err != nil {
			return err
		}
		for {
			names, err := d.Readdirnames(100)
			for _, name := range names {
				base, _, _ := strings.Cut(name, ":")
				seen[base]++
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
		}
		d.Close()
		for i := range n {
			if c := seen[fmt.Sprint(i)]; c != 1 {
				return fmt.Errorf("mail %d was listed %d times", i, c)
			}
		}
	}
	return nil
}

func helpXattrs(args []string) error {
	mailFile, plain := args[0], args[1]
	get := func(path, attr string) string {
		buf := make([]byte, 256)
		n, err := unix.Getxattr(path, attr, buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
	if err := unix.Setxattr(mailFile, "user.keywords", []byte("todo Junk"), 0); err != nil {
		return fmt.Errorf("set keywords: %w", err)
	}
	if err := unix.Setxattr(mailFile, "user.dsyncfs.uid", []byte("1"), 0); err != unix.EPERM {
		return fmt.Errorf("the UID can be set: %v", err)
	}
	for _, f := range []string{mailFile, plain} {
		if err := unix.Setxattr(f, "user.other", []byte("kept"), 0); err != nil {
			return fmt.Errorf("set another attribute: %w", err)
		}
	}
	for _, c := range []struct{ path, attr, want string }{
		{mailFile, "user.dsyncfs.guid", "a"},
		{mailFile, "user.dsyncfs.uid", "7"},
		{mailFile, "user.dsyncfs.mirrored", "0"},
		{mailFile, "user.keywords", "Junk todo"},
		{mailFile, "user.other", "kept"},
		{plain, "user.other", "kept"},
		{plain, "user.dsyncfs.guid", unix.ENODATA.Error()},
	} {
		if got := get(c.path, c.attr); got != c.want {
			return fmt.Errorf("%s of %s is %q, want %q", c.attr, c.path, got, c.want)
		}
	}
	list := make([]byte, 1024)
	n, err := unix.Listxattr(mailFile, list)
	if err != nil {
		return err
	}
	for _, attr := range []string{"user.other", "user.dsyncfs.guid", "user.keywords"} {
		if !bytes.Contains(list[:n], []byte(attr+"\x00")) {
			return fmt.Errorf("list %q lacks %s", list[:n], attr)
		}
	}
	return nil
}

// helpMmap works on a file as Dovecot does on its indexes: a shared mapping, and reads and writes beside it.
func helpMmap(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(64 << 10); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	copy(m[5000:], "through the mapping")
	if err := unix.Msync(m, unix.MS_SYNC); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("through write"), 9000); err != nil {
		return err
	}
	if got := string(m[9000:9013]); got != "through write" {
		return fmt.Errorf("the mapping has %q", got)
	}
	g, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer g.Close()
	buf := make([]byte, 19)
	if _, err := g.ReadAt(buf, 5000); err != nil || string(buf) != "through the mapping" {
		return fmt.Errorf("read %q, %w", buf, err)
	}
	return nil
}

// helpLocks takes flock and fcntl locks that exclude each other between open files.
func helpLocks(args []string) error {
	open := func() (*os.File, error) { return os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o600) }
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
	if err := unix.Flock(int(a.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if err := unix.Flock(int(b.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		return fmt.Errorf("second flock: %v", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(a.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		return err
	}
	lock = unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(b.Fd(), unix.F_OFD_SETLK, &lock); err != unix.EAGAIN {
		return fmt.Errorf("second fcntl lock: %v", err)
	}
	return nil
}

// helpTmpfile delivers with O_TMPFILE and linkat.
func helpTmpfile(args []string) error {
	fd, err := unix.Open(filepath.Join(args[0], "tmp"), unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("O_TMPFILE: %w", err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("no name")); err != nil {
		return err
	}
	to := filepath.Join(args[0], "new", "from-tmpfile")
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW); err != nil {
		return fmt.Errorf("linkat: %w", err)
	}
	b, err := os.ReadFile(to)
	if string(b) != "no name" {
		return fmt.Errorf("read %q, %w", b, err)
	}
	return nil
}

// helpRewrite writes to a delivered mail in place and syncs it.
func helpRewrite(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 3 {
		if _, err := f.WriteString("other bytes\n"); err != nil {
			return err
		}
	}
	return f.Sync()
}

// helpChurn delivers, changes flags and expunges: root, own number, rounds.
func helpChurn(args []string) error {
	root, who := args[0], args[1]
	for i := range atoi(args[2]) {
		name := fmt.Sprintf("%s.%d", who, i)
		tmp, seen := filepath.Join(root, "tmp", name), filepath.Join(root, "cur", name+":2,S")
		if err := os.WriteFile(tmp, []byte("x"), 0o600); err != nil {
			return err
		}
		fresh := filepath.Join(root, "new", name)
		if err := os.Rename(tmp, fresh); err != nil {
			return err
		}
		if err := os.Rename(fresh, seen); err != nil {
			return err
		}
		if _, err := os.ReadDir(filepath.Join(root, "cur")); err != nil {
			return err
		}
		if err := os.Remove(seen); err != nil {
			return err
		}
	}
	return nil
}

// helpServe is a daemon: backing directory, mount point, and "allow_other" for a mount that all users may use. It says
// "ready".
func helpServe(args []string) error {
	root, err := os.Open(args[0])
	if err != nil {
		return err
	}
	m, err := fusefs.New(fusefs.Options{Backing: root, Mountpoint: args[1], Engine: &engine{root: args[0]},
		AllowOther: len(args) > 2 && args[2] == "allow_other"})
	if err != nil {
		return err
	}
	go m.Serve()
	if err := m.WaitReady(context.Background()); err != nil {
		return err
	}
	fmt.Println("ready")
	<-m.Done()
	return nil
}
