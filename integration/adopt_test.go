package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// Promise 8: two copies that exist already are joined by content. Nothing is doubled and nothing is sent.
func TestExistingCopiesAreAdopted(t *testing.T) {
	t.Parallel()
	const mails = 200
	cases := []struct {
		name string
		copy func(t *testing.T, p *pair) // makes b of a
	}{
		{"an rsync copy with dovecot-uidlist", func(t *testing.T, p *pair) {
			p.backup().Want(0) // gives a its UIDs
			must(t, os.RemoveAll(p.b.Path))
			must(t, os.RemoveAll(p.StateDir()))
			p.Must("rsync", "-a", p.a.Path+"/", p.b.Path+"/")
		}},
		{"an rsync copy without dovecot-uidlist", func(t *testing.T, p *pair) {
			p.Must("rsync", "-a", p.a.Path+"/", p.b.Path+"/")
		}},
		{"a copy made before one side was indexed", func(t *testing.T, p *pair) {
			p.Must("cp", "-a", p.a.Path, p.b.Path)
			other := p.Maildir("other")
			p.Run("-o", "mail_location="+p.a.Location(), "backup", other.Location()).Want(0)
		}},
		{"the same mails under other names, UIDs and GUIDs", func(t *testing.T, p *pair) {
			harness.Build(t, p.b, "elsewhere", harness.Mails(t, mails))
			other := p.Maildir("other")
			p.Run("-o", "mail_location="+p.b.Location(), "backup", other.Location()).Want(0)
		}},
		{"a copy with the names that mbsync gives", func(t *testing.T, p *pair) {
			p.Must("cp", "-a", p.a.Path, p.b.Path)
			for _, m := range []harness.Maildir{p.a, p.b} {
				nameLikeMbsync(t, m)
			}
		}},
		{"a copy whose state was lost", func(t *testing.T, p *pair) {
			p.mirror().Want(0)
			must(t, os.RemoveAll(p.StateDir()))
		}},
		{"a copy whose state was lost and that has changed", func(t *testing.T, p *pair) {
			p.mirror().Want(0)
			must(t, os.RemoveAll(p.StateDir()))
			for i, msg := range p.b.Read(t).Mailboxes["INBOX"].Messages {
				reflag(t, p.b, msg, []string{"S", "F", "RS"}[i%3])
			}
		}},
		{"a copy whose uidlists were lost", func(t *testing.T, p *pair) {
			p.mirror().Want(0)
			for _, name := range harness.Mailboxes {
				must(t, os.Remove(filepath.Join(p.b.Dir(name), "dovecot-uidlist")))
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, mails))
			c.copy(t, p)
			want := p.a.Read(t).Copies()
			p.b.Holds(t, want)
			ours, theirs := p.a.Inodes(t), p.b.Inodes(t)
			r := p.mirror("-v").Want(0)
			if n := moved(t, r); n != 0 {
				t.Errorf("%d mails were sent: %s", n, r.Stderr)
			}
			p.hold(want)
			p.a.NotRewritten(t, ours)
			p.b.NotRewritten(t, theirs)
			p.equal()
			p.unchanging()
		})
	}
}

// nameLikeMbsync puts ",U=" into every name, with a UID that is mbsync's own.
func nameLikeMbsync(t *testing.T, m harness.Maildir) {
	t.Helper()
	for _, box := range m.Read(t).Mailboxes {
		for i, msg := range box.Messages {
			path := filepath.Join(m.Path, msg.Path)
			base, info, found := strings.Cut(path, ":")
			if found {
				info = ":" + info
			}
			must(t, os.Rename(path, fmt.Sprintf("%s,U=%d%s", base, i+1, info)))
		}
	}
}

// A copy that the real mbsync made. It inserts a header line X-TUID into every mail that it copies, so the two sides
// are the same mails with not quite the same bytes; they are adopted all the same, and stay as they are.
func TestAnMbsyncCopyIsAdopted(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	mbsync(t, p)
	ours, theirs := p.a.Read(t).Copies(), p.b.Read(t).Copies()
	if ours.Len() != 100 || theirs.Len() != 100 {
		t.Fatalf("mbsync made %d mails of %d", theirs.Len(), ours.Len())
	}
	r := p.mirror("-v").Want(0)
	if n := moved(t, r); n != 0 {
		t.Errorf("%d mails were sent: %s", n, r.Stderr)
	}
	p.a.Holds(t, ours)
	p.b.Holds(t, theirs)
	p.verify().Want(0)
	p.unchanging()
}

// mbsync makes b of a with the real one.
func mbsync(t *testing.T, p *pair) {
	t.Helper()
	rc := p.Path("mbsyncrc")
	text := fmt.Sprintf(`SyncState %[1]s/
CopyArrivalDate yes

MaildirStore a
Inbox %[2]s
SubFolders Maildir++

MaildirStore b
Inbox %[3]s
SubFolders Maildir++

Channel all
Far :a:
Near :b:
Patterns *
Create Both
`, p.Path("mbsync-state"), p.a.Path, p.b.Path)
	must(t, os.WriteFile(rc, []byte(text), 0o600))
	must(t, os.Mkdir(p.Path("mbsync-state"), 0o700))
	must(t, os.MkdirAll(p.b.Path, 0o700))
	p.Must("mbsync", "-q", "-c", rc, "-a")
}

// Copies that differ by some mails are joined to what both have together.
func TestCopiesThatDifferAreJoined(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	p.Must("cp", "-a", p.a.Path, p.b.Path)
	deliverMany(t, p.a, "Work", "only-here", 10)
	deliverMany(t, p.b, "Work", "only-there", 15)
	want := p.union()
	if n := moved(t, p.mirror("-v").Want(0)); n != 25 {
		t.Errorf("%d mails were sent, want 25", n)
	}
	p.hold(want)
	p.equal()
}

// The same mail twice in a mailbox on purpose stays twice, on both sides, once each side knows it.
func TestIntendedDuplicatesStay(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	note := harness.Note("twice")
	p.a.Create(t, "INBOX")
	p.b.Create(t, "INBOX")
	for _, m := range []harness.Maildir{p.a, p.b} {
		for i := range 2 {
			m.Deliver(t, "INBOX", harness.UniqueName("x", i, note), "S", note)
		}
	}
	p.settled()
	p.a.Deliver(t, "INBOX", harness.UniqueName("y", 7, note), "S", note)
	p.settled()
	want := harness.Copies{"INBOX": {harness.HashOf(note.Text): 3}}
	p.hold(want)
}

// Base names that other programs chose and no GUID can be: the mail is mirrored all the same.
func TestOddFileNamesAreMirrored(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"with space", "plain", "1.x,U=7", "2.x,FMD5=abc,U=8", "3.x,S=5x", "ümlaut", "a%b#c", "=equal", "-dash", "tilde~", "4.M2P3.host,W=",
		"very" + long(196), "very" + long(240),
	} {
		t.Run(base, func(t *testing.T) {
			p := newPair(t)
			p.a.Create(t, "INBOX")
			p.a.Deliver(t, "INBOX", "1.M1.first", "S", harness.Note("first"))
			p.a.Deliver(t, "INBOX", base, "S", harness.Note("odd "+base))
			want := p.a.Read(t).Copies()
			p.settled()
			p.hold(want)
			p.SameForDovecot(p.a, p.b)
		})
	}
}

func long(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%26)
	}
	return string(b)
}
