package maildir

import (
	"bytes"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

func TestSubscriptionsVersions(t *testing.T) {
	for _, c := range []struct{ what, before, after string }{
		{"version 2", "V\t2\n\nArchive\t2024\nEntw&APw-rfe\nINBOX\nbad&x\n", "V\t2\n\nArchive\t2024\nEntw&APw-rfe\nINBOX\nbad&x\nR&-D\tx y\n"},
		{"version 1", "Archive.2024\nEntw&APw-rfe\nINBOX\n", "Archive.2024\nEntw&APw-rfe\nINBOX\nR&-D.x y\n"},
		{"no file", "", "V\t2\n\nR&-D\tx y\n"},
	} {
		s := parseSubscriptions([]byte(c.before), MaildirPlusPlus)
		if !s.set("R&D/x y", true) || s.set("R&D/x y", true) {
			t.Errorf("%s: subscribing twice", c.what)
		}
		if got := string(s.encode()); got != c.after {
			t.Errorf("%s: %q, want %q", c.what, got, c.after)
		}
		if !s.set("R&D/x y", false) || (c.before != "" && string(s.encode()) != c.before) {
			t.Errorf("%s: after unsubscribing %q", c.what, s.encode())
		}
		if _, ok := s.names()["Archive/2024"]; ok != (c.before != "") {
			t.Errorf("%s: names %v", c.what, s.names())
		}
	}
}

func TestSubscriptionsAreEditedUnderTheirLock(t *testing.T) {
	fsys, err := vfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	root, _ := fsys.OpenDir("")
	defer root.Close()
	edit := func(name mail.Name) {
		t.Helper()
		err := editSubscriptions(t.Context(), root, MaildirPlusPlus, 0o600, func(s *subscriptions) bool { return s.set(name, true) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := root.Stat("subscriptions.lock"); !notExist(err) {
			t.Errorf("lock left behind: %v", err)
		}
	}
	edit("A")
	edit("A")
	// A lock that a crash left behind long ago does not stop us.
	f, err := root.Create("subscriptions.lock", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := root.SetTimes("subscriptions.lock", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	edit("B")
	got, _ := vfs.ReadFile(root, subscriptionsName, 1000)
	if string(got) != "V\t2\n\nA\nB\n" {
		t.Errorf("file %q", got)
	}
}

func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte("V\t2\n\nArchive\t2024\nINBOX\n"), "x/y")
	f.Add([]byte("Archive.2024\n\x01t\n"), "é")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		s := parseSubscriptions(data, FS)
		n := mail.Name(name)
		if n.Check() != nil {
			return
		}
		before := s.names()
		if _, had := before[n.FoldInbox()]; s.set(n, true) == had {
			t.Fatalf("had %v", had)
		}
		if again := parseSubscriptions(s.encode(), FS); !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("%q became %q", s.encode(), again.encode())
		} else if _, ok := again.names()[n.FoldInbox()]; !ok {
			t.Fatalf("%q is not in %q", name, s.encode())
		}
	})
}
