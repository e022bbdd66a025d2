package maildir_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

func TestAReaderFindsMailsWithoutTheCatalog(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"cur", "new", ".Work/cur", ".Work/new"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(".Work/new/a", "mail a")
	write(".Work/cur/b:2,FS", "mail b")
	write("secret", "no mail")
	fsys, err := vfs.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	r, err := maildir.NewReader(fsys, maildir.MaildirPlusPlus, "Work")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	reads := func(base, want string) {
		t.Helper()
		b, err := r.Body(t.Context(), base)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		text, err := io.ReadAll(b)
		if err != nil || string(text) != want || b.Size() != int64(len(want)) {
			t.Errorf("%s: %q of %d bytes, %v", base, text, b.Size(), err)
		}
	}
	reads("a", "mail a")
	reads("b", "mail b")
	if err := os.Rename(filepath.Join(root, ".Work/new/a"), filepath.Join(root, ".Work/cur/a:2,S")); err != nil {
		t.Fatal(err)
	}
	reads("a", "mail a")
	for _, base := range []string{"c", "", ".", "..", "../../secret", "b:2,FS", "a\x00", "../cur/b:2,FS"} {
		if b, err := r.Body(t.Context(), base); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v, %v", base, b, err)
		}
	}
	if _, err := maildir.NewReader(fsys, maildir.MaildirPlusPlus, "Play"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if _, err := maildir.NewReader(fsys, maildir.MaildirPlusPlus, "../x"); err == nil {
		t.Error("a name that leads out of the root")
	}
}

func TestFileOfIsWhatAnAddGets(t *testing.T) {
	for _, c := range []struct {
		m         mail.Message
		dir, name string
	}{
		{mail.Message{GUID: "a", Size: 3, VirtualSize: -1}, "new", "a"},
		{mail.Message{GUID: "a", Size: 3, VirtualSize: 4, Flags: mail.FlagSeen | mail.FlagFlagged}, "cur", "a:2,FS"},
		{mail.Message{GUID: "a,S=3,W=4", Size: 3, VirtualSize: 4}, "new", "a,S=3,W=4"},
		{mail.Message{GUID: "a,S=3,W=4", Size: 3, VirtualSize: -1}, "", ""},
		{mail.Message{GUID: "a,S=9", Size: 3, VirtualSize: -1}, "", ""},
		{mail.Message{GUID: "a/b", Size: 3}, "", ""},
		{mail.Message{GUID: "a b", Size: 3}, "", ""},
		{mail.Message{GUID: "a:2,S", Size: 3}, "", ""},
		{mail.Message{GUID: "", Size: 3}, "", ""},
		{mail.Message{GUID: "a", Size: -1}, "", ""},
	} {
		dir, name, ok := maildir.FileOf(c.m)
		if dir != c.dir || name != c.name || ok != (c.name != "") {
			t.Errorf("%+v: %s/%s, %v", c.m, dir, name, ok)
		}
	}
}
