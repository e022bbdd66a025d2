package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// guardedPair is a pair in sync with a mailbox Big of 200 mails, some other mailboxes and a Trash.
func guardedPair(t *testing.T) (*pair, harness.Copies) {
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	p.a.Create(t, "Big", "Small", "Trash")
	deliverMany(t, p.a, "Big", "big", 200)
	deliverMany(t, p.a, "Small", "small", 9)
	deliverMany(t, p.a, "Trash", "trash", 60)
	p.settled()
	return p, p.a.Read(t).Copies()
}

// vanish removes n mails of a mailbox behind everybody's back.
func vanish(t *testing.T, m harness.Maildir, mailbox string, n int) {
	t.Helper()
	for _, msg := range m.Read(t).Mailboxes[mailbox].Messages[:n] {
		must(t, os.Remove(filepath.Join(m.Path, msg.Path)))
	}
}

// Promise 7: what merely is not there any more is no expunge beyond limits, in a mirror and in a backup.
func TestVanishedMailStopsTheSync(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		status  int
		says    []string
		happens func(t *testing.T, m harness.Maildir)
	}{
		{"an empty directory in place of the Maildir", 1, []string{"disk"}, func(t *testing.T, m harness.Maildir) {
			must(t, os.RemoveAll(m.Path))
			must(t, os.Mkdir(m.Path, 0o700))
		}},
		{"no directory any more", 1, []string{"disk"}, func(t *testing.T, m harness.Maildir) {
			must(t, os.RemoveAll(m.Path))
		}},
		{"an empty Maildir in place of the Maildir", 3, []string{"--allow-mass-expunge", "--restore"}, func(t *testing.T, m harness.Maildir) {
			must(t, os.RemoveAll(m.Path))
			m.Create(t, "INBOX")
		}},
		{"all files of a mailbox", 3, []string{"Big", "--allow-mass-expunge=Big", "--restore=Big", "200"}, func(t *testing.T, m harness.Maildir) {
			vanish(t, m, "Big", 200)
		}},
		{"half of a mailbox", 3, []string{"Big", "--allow-mass-expunge=Big", "--restore=Big", "100"}, func(t *testing.T, m harness.Maildir) {
			vanish(t, m, "Big", 100)
		}},
		{"all of a mailbox of ten", 3, []string{"INBOX"}, func(t *testing.T, m harness.Maildir) {
			vanish(t, m, "INBOX", len(m.Read(t).Mailboxes["INBOX"].Messages))
		}},
		{"a mailbox with its directory", 3, []string{"Big", "--allow-mass-expunge=Big"}, func(t *testing.T, m harness.Maildir) {
			must(t, os.RemoveAll(m.Dir("Big")))
		}},
		{"all files of all mailboxes", 3, []string{"--allow-mass-expunge"}, func(t *testing.T, m harness.Maildir) {
			for name, box := range m.Read(t).Mailboxes {
				vanish(t, m, name, len(box.Messages))
			}
		}},
	}
	for _, c := range cases {
		for _, command := range []string{"mirror", "backup"} {
			t.Run(c.name+", "+command, func(t *testing.T) {
				p, want := guardedPair(t)
				c.happens(t, p.a)
				before := harness.Snap(t, p.b.Path)
				for range 2 { // also when it is tried again
					p.Run(p.args(command)...).Want(c.status).ClearError().Says(c.says...)
				}
				before.SameMail(t, p.b.Path)
				p.b.Holds(t, want)
			})
		}
	}
	// The far side may lose its mail as well.
	t.Run("at the other side", func(t *testing.T) {
		p, want := guardedPair(t)
		vanish(t, p.b, "Big", 120)
		before := harness.Snap(t, p.a.Path)
		p.mirror().Want(3).Says("Big", p.b.Path)
		before.SameMail(t, p.a.Path)
		p.a.Holds(t, want)
	})
}

// Who confirms gets what he confirmed, and nothing else.
func TestAllowMassExpunge(t *testing.T) {
	t.Parallel()
	p, want := guardedPair(t)
	vanish(t, p.a, "Big", 150)
	vanish(t, p.a, "INBOX", 10)
	p.mirror("--allow-mass-expunge=INBOX").Want(3).Says("Big")
	p.mirror("--allow-mass-expunge=Big").Want(3).Says("INBOX")
	p.b.Holds(t, want)
	p.mirror("--allow-mass-expunge=Big", "--allow-mass-expunge=INBOX").Want(0)
	p.hold(p.a.Read(t).Copies())
	if got := p.b.Read(t).Copies().Len(); got != want.Len()-160 {
		t.Errorf("%d mails are left, want %d", got, want.Len()-160)
	}
	p.equal()
	vanish(t, p.a, "Big", 50) // the confirmation was for one run
	p.mirror().Want(3)
	p.mirror("--allow-mass-expunge").Want(0)
	p.equal()
}

// Restoring brings the very mails back: with their UIDs and flags.
func TestRestoreBringsVanishedMailBack(t *testing.T) {
	t.Parallel()
	for _, emptied := range []string{"half", "all", "the directory"} {
		t.Run(emptied, func(t *testing.T) {
			p, want := guardedPair(t)
			before := p.b.Read(t)
			switch emptied {
			case "half":
				vanish(t, p.a, "Big", 100)
			case "all":
				vanish(t, p.a, "Big", 200)
			default:
				must(t, os.RemoveAll(p.a.Dir("Big")))
			}
			p.mirror().Want(3)
			p.mirror("--restore=Big").Want(0)
			p.hold(want)
			p.equal()
			for name, box := range before.Mailboxes {
				for _, m := range box.Messages {
					if got := find(p.a.Read(t), name, m.Hash); got.Flags != m.Flags {
						t.Fatalf("%s: flags %q, want %q", name, got.Flags, m.Flags)
					}
				}
				if name == "Big" {
					break
				}
			}
			p.unchanging()
		})
	}
}

// Within the limits a mail that is not there any more was expunged.
func TestFewVanishedMailsAreExpunges(t *testing.T) {
	t.Parallel()
	cases := []struct {
		mailbox string
		n       int
	}{{"Big", 50}, {"Small", 9}, {"Trash", 60}, {"Work", 5}}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.n, " of ", c.mailbox), func(t *testing.T) {
			p, want := guardedPair(t)
			vanish(t, p.a, c.mailbox, c.n)
			p.mirror().Want(0)
			p.equal()
			if got := p.b.Read(t).Copies().Len(); got != want.Len()-c.n {
				t.Errorf("%d mails are left, want %d", got, want.Len()-c.n)
			}
		})
	}
}

// The limits are a setting.
func TestMaxMissingIsASetting(t *testing.T) {
	t.Parallel()
	p, _ := guardedPair(t)
	vanish(t, p.a, "Big", 45)
	p.mirror("-o", "max_missing=5%,10").Want(3).Says("Big")
	vanish(t, p.a, "Big", 90)
	p.mirror("-o", "max_missing=80%").Want(0)
	p.equal()
}

// A move is no loss, however many mails move, and no mail is sent again for it.
func TestMovesAreNoLoss(t *testing.T) {
	t.Parallel()
	p, want := guardedPair(t)
	p.a.Create(t, "Archive")
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(p.a.Dir("Big"), sub))
		must(t, err)
		for _, e := range entries {
			must(t, os.Rename(filepath.Join(p.a.Dir("Big"), sub, e.Name()), filepath.Join(p.a.Dir("Archive"), sub, e.Name())))
		}
	}
	want["Archive"] = want["Big"]
	delete(want, "Big")
	r := p.mirror("-v").Want(0)
	p.hold(want)
	p.equal()
	if strings.Contains(r.Stderr, " 200 sent") {
		t.Errorf("the mails were sent again: %s", r.Stderr)
	}
}

// Dovecot writes down who expunged what, which is a witness however many they are.
func TestExpungesByDovecotAreWitnessed(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	d := p.NewDovecot("account")
	p.a = d.Maildir
	p.locate()
	harness.Build(t, p.a, "a", harness.Mails(t, 200), "INBOX", "Work")
	d.Own()
	d.Doveadm("fetch", "uid", "mailbox", "*", "all")
	p.settled()
	d.Own() // what was written there was written by root
	d.Doveadm("expunge", "mailbox", "INBOX", "uid", "1:80")
	p.mirror().Want(0)
	p.equal()
	if got := len(p.b.Read(t).Mailboxes["INBOX"].Messages); got != 20 {
		t.Errorf("%d mails are left at the other side, want 20", got)
	}
}
