package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
)

// entry is what must stay when nothing may change.
type entry struct {
	mode    fs.FileMode
	size    int64
	ino     uint64
	mtime   int64 // nanoseconds
	ctime   int64
	content Hash // of regular files
	target  string
}

// Snapshot is the state of a tree of files.
type Snapshot map[string]entry

// Snap takes the state of everything below the roots, contents and times included. What goes away while it looks, such as a
// lock, is left out.
func Snap(tb testing.TB, roots ...string) Snapshot {
	tb.Helper()
	s := Snapshot{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			e, err := snapEntry(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			s[path] = e
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func snapEntry(path string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	e := entry{mode: info.Mode(), size: info.Size(), ino: st.Ino, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}
	switch {
	case info.Mode().IsRegular():
		text, err := os.ReadFile(path)
		if err != nil {
			return e, err
		}
		e.content = HashOf(text)
	case info.Mode()&fs.ModeSymlink != 0:
		e.target, err = os.Readlink(path)
	}
	return e, err
}

// Same fails the test if anything below the roots of the snapshot is not as it was: no file and no directory, in
// content, times or inode.
func (s Snapshot) Same(tb testing.TB, roots ...string) {
	tb.Helper()
	reportDifferences(tb, "files changed", s.diff(Snap(tb, roots...)))
}

// SameMail is Same but for the times of directories other than cur, new and tmp, which a lock file leaves behind.
func (s Snapshot) SameMail(tb testing.TB, roots ...string) {
	tb.Helper()
	reportDifferences(tb, "files changed", s.ChangedMail(tb, roots...))
}

// SameButUIDs is SameMail but for what every look at a Maildir may leave there, also one that then fails: UIDs for mails
// that had none, and the traces of files in tmp that are gone again.
func (s Snapshot) SameButUIDs(tb testing.TB, roots ...string) {
	tb.Helper()
	reportDifferences(tb, "files changed", s.withoutUIDs().diff(Snap(tb, roots...).withoutUIDs()))
}

func (s Snapshot) withoutUIDs() Snapshot {
	out := s.withoutLockTimes()
	for path, e := range out {
		switch base := filepath.Base(path); {
		case base == "dovecot-uidlist", strings.HasPrefix(base, "dovecot-uidvalidity"):
			delete(out, path)
		case base == "tmp":
			e.mtime, e.ctime = 0, 0
			out[path] = e
		}
	}
	return out
}

// ChangedMail is SameMail as a question.
func (s Snapshot) ChangedMail(tb testing.TB, roots ...string) []string {
	tb.Helper()
	return s.withoutLockTimes().diff(Snap(tb, roots...).withoutLockTimes())
}

// Changed is Same as a question.
func (s Snapshot) Changed(tb testing.TB, roots ...string) []string {
	tb.Helper()
	return s.diff(Snap(tb, roots...))
}

func (s Snapshot) withoutLockTimes() Snapshot {
	out := Snapshot{}
	for path, e := range s {
		if base := filepath.Base(path); e.mode.IsDir() && base != "cur" && base != "new" && base != "tmp" {
			e.mtime, e.ctime, e.size = 0, 0, 0
		}
		out[path] = e
	}
	return out
}

func (s Snapshot) diff(now Snapshot) []string {
	var diffs []string
	for path, was := range s {
		is, ok := now[path]
		switch {
		case !ok:
			diffs = append(diffs, path+": gone")
		case is != was:
			diffs = append(diffs, path+": "+change(was, is))
		}
	}
	for path := range now {
		if _, ok := s[path]; !ok {
			diffs = append(diffs, path+": new")
		}
	}
	sort.Strings(diffs)
	return diffs
}

func change(was, is entry) string {
	switch {
	case was.content != is.content || was.target != is.target || was.size != is.size && was.mode.IsRegular():
		return "content changed"
	case was.mode != is.mode:
		return fmt.Sprintf("mode %v, was %v", is.mode, was.mode)
	case was.ino != is.ino:
		return "replaced by an equal file"
	case was.mtime != is.mtime:
		return fmt.Sprintf("mtime changed by %.3f s", float64(is.mtime-was.mtime)/1e9)
	default:
		return "ctime changed"
	}
}

// Inodes returns the inode of every mail by content, to see which were written again.
func (m Maildir) Inodes(tb testing.TB) map[Hash]map[uint64]bool {
	tb.Helper()
	inodes := map[Hash]map[uint64]bool{}
	for _, box := range m.Read(tb).Mailboxes {
		for _, msg := range box.Messages {
			info, err := os.Stat(filepath.Join(m.Path, msg.Path))
			if err != nil {
				tb.Fatal(err)
			}
			if inodes[msg.Hash] == nil {
				inodes[msg.Hash] = map[uint64]bool{}
			}
			inodes[msg.Hash][info.Sys().(*syscall.Stat_t).Ino] = true
		}
	}
	return inodes
}

// NotRewritten fails the test if a mail that was there is in another file now.
func (m Maildir) NotRewritten(tb testing.TB, before map[Hash]map[uint64]bool) {
	tb.Helper()
	after := m.Inodes(tb)
	var diffs []string
	for h, inodes := range before {
		for ino := range inodes {
			if !after[h][ino] {
				diffs = append(diffs, fmt.Sprintf("mail %x was written again or is gone", h[:6]))
			}
		}
	}
	sort.Strings(diffs)
	reportDifferences(tb, m.Path+": mails were sent again", diffs)
}
