package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/index"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/store/storetest"
	"dsyncfs/mirror/vfs"
)

// account is a Maildir in a temporary directory with its catalog.
type account struct {
	root   string // of the Maildir
	state  string
	layout maildir.Layout
	fsys   vfs.FS
	fault  func(vfs.Op) error // nil: none
	cat    *index.Index
	n      int
}

func newAccount(t testing.TB, layout maildir.Layout) *account {
	t.Helper()
	return newAccountAt(t, &account{root: tempDir(t), state: tempDir(t), layout: layout})
}

func newAccountAt(t testing.TB, a *account) *account {
	t.Helper()
	fsys, err := vfs.Open(a.root)
	if err != nil {
		t.Fatal(err)
	}
	a.fsys = vfs.NewFault(fsys, func(o vfs.Op) error {
		if a.fault == nil {
			return nil
		}
		return a.fault(o)
	})
	t.Cleanup(func() {
		if a.cat != nil {
			a.cat.Close()
		}
		fsys.Close()
	})
	return a
}

// tempDir is a directory where a sync costs nothing, if there is one.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "maildir")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// open opens the store, with the catalog that is there.
func (a *account) open(t testing.TB) *maildir.Store {
	t.Helper()
	if a.cat == nil {
		cat, err := index.Open(filepath.Join(a.state, "index"), index.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a.cat = cat
	}
	s, err := maildir.Open(t.Context(), a.fsys, a.cat, maildir.Options{Layout: a.layout, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (a *account) dir(t testing.TB, name mail.Name) string {
	t.Helper()
	dir, err := a.layout.DirOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(a.root, filepath.FromSlash(dir))
}

// find returns the path of a mail.
func (a *account) find(t testing.TB, name mail.Name, base string) string {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(a.dir(t, name), sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if f, ok := mail.ParseFileName(e.Name()); ok && f.Base == base {
				return filepath.Join(a.dir(t, name), sub, e.Name())
			}
		}
	}
	t.Fatalf("no mail %q in %q", base, string(name))
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (a *account) Deliver(t *testing.T, name mail.Name, body string, received int64) string {
	t.Helper()
	return a.deliver(t, name, body, received)
}

func (a *account) deliver(t testing.TB, name mail.Name, body string, received int64) string {
	t.Helper()
	a.n++
	base := fmt.Sprintf("%d.M%dP1.mda", received, a.n)
	tmp := filepath.Join(a.dir(t, name), "tmp", base)
	must(t, os.WriteFile(tmp, []byte(body), 0o600))
	must(t, os.Chtimes(tmp, time.Unix(received, 0), time.Unix(received, 0)))
	must(t, os.Rename(tmp, filepath.Join(a.dir(t, name), "new", base)))
	return base
}

func (a *account) SetFlags(t *testing.T, name mail.Name, base string, flags mail.Flags) {
	t.Helper()
	file := a.find(t, name, base)
	f, _ := mail.ParseFileName(filepath.Base(file))
	f.Flags, f.HasInfo = flags, true
	must(t, os.Rename(file, filepath.Join(a.dir(t, name), "cur", f.String())))
}

func (a *account) Remove(t *testing.T, name mail.Name, base string) {
	t.Helper()
	must(t, os.Remove(a.find(t, name, base)))
}

func (a *account) Move(t *testing.T, from mail.Name, base string, to mail.Name) {
	t.Helper()
	file := a.find(t, from, base)
	must(t, os.Rename(file, filepath.Join(a.dir(t, to), filepath.Base(filepath.Dir(file)), filepath.Base(file))))
}

func (a *account) CreateMailbox(t *testing.T, name mail.Name) {
	t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(a.dir(t, name), sub), 0o700))
	}
}

func (a *account) RenameMailbox(t *testing.T, from, to mail.Name) {
	t.Helper()
	must(t, os.Rename(a.dir(t, from), a.dir(t, to)))
}

func (a *account) DeleteMailbox(t *testing.T, name mail.Name) {
	t.Helper()
	must(t, os.RemoveAll(a.dir(t, name)))
}

var _ storetest.Outside = (*account)(nil)

func TestStore(t *testing.T) {
	for _, c := range []struct {
		name   string
		layout maildir.Layout
	}{{"Maildir++", maildir.MaildirPlusPlus}, {"fs", maildir.FS}} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) *storetest.Fixture {
				a := newAccount(t, c.layout)
				return &storetest.Fixture{
					Store:   a.open(t),
					Reopen:  func(t *testing.T) store.Store { return a.open(t) },
					Outside: a,
					FillDisk: func(*testing.T) func() {
						a.fault = func(o vfs.Op) error {
							if o.Name == "write" || o.Name == "create" || o.Name == "mkdir" {
								return syscall.ENOSPC
							}
							return nil
						}
						return func() { a.fault = nil }
					},
					Unreadable: func(t *testing.T, name mail.Name) func() {
						dir, err := a.layout.DirOf(name)
						must(t, err)
						a.fault = func(o vfs.Op) error {
							if o.Name == "readdir" && o.Path == path.Join(dir, "cur") {
								return syscall.EACCES
							}
							return nil
						}
						return func() { a.fault = nil }
					},
					LoseMemory: func(t *testing.T) store.Store {
						must(t, a.cat.Close())
						a.cat = nil
						must(t, os.Remove(filepath.Join(a.state, "index")))
						return a.open(t)
					},
				}
			})
		})
	}
}

func TestOpenRefusesWhatIsNoMaildir(t *testing.T) {
	a := newAccount(t, maildir.MaildirPlusPlus)
	cat, err := index.Open(filepath.Join(a.state, "index"), index.Options{})
	must(t, err)
	a.cat = cat
	for _, c := range []struct {
		what   string
		make   func()
		create bool
		want   error
	}{
		{"an empty directory", func() {}, false, store.ErrLocation},
		{"an empty directory that may become one", func() {}, true, nil},
		{"a Maildir", func() {}, false, nil},
		{"what a power cut left of a Maildir", func() {
			must(t, os.RemoveAll(filepath.Join(a.root, "cur")))
			must(t, os.RemoveAll(filepath.Join(a.root, "new")))
		}, false, store.ErrLocation},
		{"what a power cut left of a Maildir, to be made", func() {}, true, nil},
		{"other files", func() {
			must(t, os.RemoveAll(filepath.Join(a.root, "cur")))
			must(t, os.RemoveAll(filepath.Join(a.root, "new")))
			must(t, os.WriteFile(filepath.Join(a.root, "file"), nil, 0o600))
		}, true, store.ErrLocation},
		{"a directory like notmuch's", func() { must(t, os.MkdirAll(filepath.Join(a.root, ".notmuch/xapian"), 0o700)) }, false, store.ErrLocation},
		{"only a subfolder", func() { must(t, os.MkdirAll(filepath.Join(a.root, ".Work/cur"), 0o700)) }, false, nil},
	} {
		c.make()
		s, err := maildir.Open(t.Context(), a.fsys, cat, maildir.Options{Create: c.create})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if err == nil {
			must(t, s.Close())
		} else if !strings.Contains(err.Error(), "no mail store") {
			t.Errorf("%s: the error says %q", c.what, err)
		}
	}
}
