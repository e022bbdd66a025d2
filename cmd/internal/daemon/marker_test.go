package daemon

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir"
)

func TestTheMarkerOfAFillSurvives(t *testing.T) {
	dir := t.TempDir()
	a, again, err := openMarker(dir, "here\nthere\n")
	if again || err != nil {
		t.Fatal(again, err)
	}
	own := []mail.Name{"0123456789abcdef0123456789abcdef", "a \"b\"/\u00e4"}
	if err := errors.Join(a.begin(own), a.add(mail.MailboxGUID{1}), a.add(mail.MailboxGUID{2})); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, fillName)
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, text[:len(text)-9], 0o600) // torn by a power failure
	}
	if err != nil {
		t.Fatal(err)
	}
	b, again, err := openMarker(dir, "here\nthere\n")
	if !again || err != nil {
		t.Fatal(again, err)
	}
	if want := map[mail.MailboxGUID]bool{{1}: true}; !maps.Equal(b.whole, want) {
		t.Errorf("whole: %v", b.whole)
	}
	if got := slices.Sorted(maps.Keys(b.own)); !slices.Equal(got, own) {
		t.Errorf("with mail of their own: %q", got)
	}
	c, again, err := openMarker(dir, "here\nelsewhere\n")
	if again || err != nil || len(c.whole)+len(c.own) > 0 {
		t.Errorf("another fill: %v, %v, %v", again, err, c)
	}
	if err := errors.Join(os.Remove(file), b.add(mail.MailboxGUID{3})); err != nil { // the fill has ended
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is back")
	}
}

func TestWhichMailboxesHaveMail(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{".Empty/cur", ".Work.2026/cur", ".Work.2026/new", "new", "tmp", ".Sent/tmp/new"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"dovecot-uidlist", "tmp/x", ".Work.2026/cur/a", ".Work.2026/cur/b", ".Work.2026/new/c", "new/d", ".Sent/tmp/new/e"} {
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := withMail(d, maildir.MaildirPlusPlus)
	slices.Sort(names)
	if want := []mail.Name{mail.Inbox, "Work/2026"}; err != nil || !slices.Equal(slices.Compact(names), want) {
		t.Errorf("%q, %v", names, err)
	}
}
