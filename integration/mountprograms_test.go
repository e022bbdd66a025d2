package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dsyncfs/integration/harness"
)

// Real mail programs read the mount, all mailboxes of it, and what they change arrives.
func TestMailProgramsOnTheMount(t *testing.T) {
	m := newMount(t, 200)
	m.synced()
	for _, name := range []string{"INBOX", "Work/2026", "日本語/メール", "R&D"} {
		if n := m.NeomuttCopies(m.mount.Maildir, name); n != 20 {
			t.Errorf("neomutt sees %d mails in %s, want 20", n, name)
		}
	}
	if n := m.NotmuchCount(m.mount.Maildir, "*"); n != 200 {
		t.Errorf("notmuch sees %d mails, want 200", n)
	}
	if n := m.MuCount(m.mount.Maildir, ""); n != 200 {
		t.Errorf("mu sees %d mails, want 200", n)
	}
	// notmuch writes tags into file names.
	unread := m.NotmuchCount(m.mount.Maildir, "tag:unread")
	m.Must("notmuch", "tag", "+flagged", "-unread", "--", "tag:unread")
	if unread == 0 {
		t.Fatal("no unread mail")
	}
	m.b.Deliver(t, "INBOX", "1.M1.remote", "", harness.Note("needle in a haystack"))
	m.soon("a mail of the remote is in the mount", func() error { return exists(m.mount.Maildir, "INBOX", "1.M1.remote", "") })
	if n := m.NotmuchCount(m.mount.Maildir, "subject:needle"); n != 1 {
		t.Errorf("notmuch finds the new mail %d times", n)
	}
	if n := m.MuCount(m.mount.Maildir, "subject:needle"); n != 1 {
		t.Errorf("mu finds the new mail %d times", n)
	}
	m.synced()
	flagged := 0
	for _, box := range m.b.Read(t).Mailboxes {
		for _, msg := range box.Messages {
			if strings.Contains(msg.Flags, "F") {
				flagged++
			}
		}
	}
	if flagged < unread {
		t.Errorf("%d mails are flagged at the remote, notmuch flagged %d", flagged, unread)
	}
	err := filepath.WalkDir(m.b.Path, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, "notmuch") {
			t.Errorf("notmuch's database is at the remote: %s", path)
		}
		return err
	})
	must(t, err)
}

// Attributes of the mails in the mount tell what names cannot.
func TestAttributesOfMails(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	msg := m.a.Read(t).Mailboxes["INBOX"].Messages[0]
	path := filepath.Join(m.mount.Path, msg.Path)
	get := func(name string) string {
		t.Helper()
		buf := make([]byte, 512)
		n, err := syscall.Getxattr(path, name, buf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return string(buf[:n])
	}
	for name, want := range map[string]string{"user.dsyncfs.guid": msg.GUID, "user.dsyncfs.uid": fmt.Sprint(msg.UID), "user.dsyncfs.mirrored": "1"} {
		if got := get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	must(t, syscall.Setxattr(path, "user.keywords", []byte("todo $Forwarded"), 0))
	m.synced()
	if got := find(m.b.Read(t), "INBOX", msg.Hash).Keywords; strings.Join(got, " ") != "$Forwarded todo" {
		t.Errorf("keywords %q at the remote", got)
	}
}

// A program that still knows an old name of a mail reaches it all the same, and the flag changes of two programs merge.
func TestAStaleNameStillWorks(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	msg := m.a.Read(t).Mailboxes["INBOX"].Messages[0]
	base, _, _ := strings.Cut(filepath.Base(msg.Path), ":2,")
	at := func(flags string) string { return filepath.Join(m.mount.Path, "cur", base+":2,"+flags) }
	old := filepath.Join(m.mount.Path, msg.Path)
	m.Must("mv", old, at("F"+msg.Flags)) // who renames a mail himself has to know it
	text, err := os.ReadFile(old)
	must(t, err)
	if harness.HashOf(text) != msg.Hash {
		t.Error("the old name shows another mail")
	}
	must(t, os.Rename(old, at("R"+msg.Flags)))
	m.synced()
	if got, want := find(m.b.Read(t), "INBOX", msg.Hash).Flags, merged(msg.Flags, "F"+msg.Flags, "R"+msg.Flags); got != want {
		t.Errorf("flags %q after two programs set F and R on %q, want %q", got, msg.Flags, want)
	}
}

// A mount that only reads refuses changes and still shows those of the remote.
func TestReadOnlyMount(t *testing.T) {
	m := newMount(t, 20, "-o", "ro")
	if _, err := m.mount.TryDeliver("INBOX", "1.M1.mount", "", harness.Note("no")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a delivery: %v, want EROFS", err)
	}
	m.Run("sync", m.mount.Path).Want(0)
	m.b.Deliver(t, "Work", "2.M2.remote", "", harness.Note("yes"))
	m.soon("a mail of the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "2.M2.remote", "") })
}
