package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// Promise 8 with a Dovecot at the other end: a copy that another program made has the same mails under other GUIDs, UIDs and
// UIDVALIDITYs. No mail comes to be there twice, on either side.

// mbsync makes our Maildir of the Dovecot's account by IMAP, as its users do. It puts a line X-TUID into each header.
// Run by root, Dovecot does not want a socket for its output.
func (p *pair) mbsync() {
	p.t.Helper()
	imap := append(append([]string{"env", "-i"}, p.dove.environment()...), "doveadm", "-c", p.dove.conf, "exec", "imap")
	must(p.t, os.MkdirAll(p.ours.maildir().Path, 0o700))
	must(p.t, os.MkdirAll(p.Path("mbsync"), 0o700))
	rc := fmt.Sprintf(`SyncState %s/
CopyArrivalDate yes

IMAPStore far
Tunnel "%s 2>%s | cat"

MaildirStore near
Inbox %s/
SubFolders Maildir++

Channel all
Far :far:
Near :near:
Patterns *
Create Near
`, p.Path("mbsync"), strings.Join(imap, " "), p.Path("imap.log"), p.ours.maildir().Path)
	must(p.t, os.WriteFile(p.Path("mbsyncrc"), []byte(rc), 0o600))
	p.Must("mbsync", "-q", "-c", p.Path("mbsyncrc"), "-a")
	p.ours.own()
}

// counts returns how many mails each mailbox has.
func counts(a *account) string {
	var out []string
	for _, row := range a.status("messages") {
		out = append(out, strings.Join(row, " "))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// joined mirrors for the first time and checks that there are so many mails in each mailbox then, on both sides, and that
// nothing changes any more. The sizes of mails differ by mbsync's line, so that views cannot be compared as a whole.
func (p *pair) joined(want string) {
	p.t.Helper()
	p.clean("mirror")
	for _, a := range []*account{p.ours, p.dove} {
		if got := counts(a); got != want {
			p.t.Errorf("%s has\n%s\nwant\n%s", a.name, got, want)
		}
	}
	ours, theirs := whatIsThere(p.ours), whatIsThere(p.dove)
	if ours != theirs {
		p.t.Errorf("ours:\n%s\ntheirs:\n%s", ours, theirs)
	}
	for _, args := range [][]string{{"mirror"}, {"-f", "mirror"}} {
		p.clean(args...)
		if a, b := whatIsThere(p.ours), whatIsThere(p.dove); a != ours || b != theirs {
			p.t.Errorf("dsyncfs %v changed something:\n%s\n%s", args, a, b)
		}
	}
}

// whatIsThere is a view without what mbsync's line changes.
func whatIsThere(a *account) string {
	var out []string
	for _, line := range a.view() {
		line, _, _ = strings.Cut(line, " size ")
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// filledByDovecot is a Dovecot with mails in some mailboxes, and an empty place for ours.
func filledByDovecot(t *testing.T, format string, mails int) *pair {
	p := newPair(t, format)
	p.dove.doveadm("mailbox", "create", "Work", "Work/2026")
	boxes := []string{"INBOX", "Work", "Work/2026"}
	for i, name := range boxes { // else they may be ours by chance, as both count from the present second
		p.dove.doveadm("mailbox", "update", "--uid-validity", fmt.Sprint(1700000000+i), name)
	}
	for i, mail := range harness.Mails(t, mails) {
		p.dove.save(boxes[i%len(boxes)], mail)
	}
	p.dove.doveadm("expunge", "mailbox", "Work", "uid", "1") // so that UIDs differ
	p.dove.doveadm("flags", "add", `\Seen \Flagged`, "mailbox", "INBOX", "all")
	return p
}

func TestAnMbsyncCopyIsAdopted(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filledByDovecot(t, format, 24)
		p.mbsync()
		before := whatIsThere(p.dove)
		p.joined(counts(p.dove))
		if after := whatIsThere(p.dove); after != before {
			t.Errorf("the Dovecot had\n%s\nand has\n%s", before, after)
		}
	})
}

// The copy is older: mails came on both sides since, and one that the copy lacks lies in the middle.
func TestAnMbsyncCopyThatIsBehindIsAdopted(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filledByDovecot(t, format, 24)
		p.mbsync()
		lost, err := filepath.Glob(p.ours.maildir().Path + "/cur/*")
		must(t, err)
		must(t, os.Remove(lost[3]))
		p.ours.save("INBOX", note("here"))
		p.ours.save("Work/2026", note("here too"))
		p.dove.save("INBOX", note("there"))
		p.dove.save("Work/2026", note("there too"))
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "4")
		// The one in INBOX comes back, and the expunged one too: nobody knows that it is not new here.
		p.joined(strings.NewReplacer("INBOX 9", "INBOX 10", "Work 6", "Work 7", "Work/2026 9", "Work/2026 10").Replace(counts(p.dove)))
	})
}

// The same headers are no proof: a mail that says something else stays another mail.
func TestMailsWithTheHeadersOfAnotherAreNotAdopted(t *testing.T) {
	p := filledByDovecot(t, "sdbox", 6)
	p.mbsync()
	files, err := filepath.Glob(p.ours.maildir().Path + "/cur/*")
	must(t, err)
	text, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.WriteFile(files[0], append(text, "and a line more\n"...), 0o600))
	p.ours.own()
	p.joined(strings.Replace(counts(p.dove), "INBOX 2", "INBOX 3", 1))
	both := 0
	for _, m := range p.dove.mails("INBOX") {
		if strings.HasSuffix(m.Text, "and a line more\n") || strings.HasSuffix(m.Text, "and a line more\r\n") {
			both++
		}
	}
	if both != 1 {
		t.Errorf("%d mails with the other text", both)
	}
}

// An account that was copied by a restore of its files, without Dovecot's lists: the GUIDs are in the file names, the UIDs are
// not the same.
func TestAPlainCopyOfTheFilesIsAdopted(t *testing.T) {
	p := filledByDovecot(t, "maildir", 24)
	p.Must("cp", "-a", p.dove.maildir().Path, p.ours.maildir().Path)
	p.Must("sh", "-c", "find "+p.ours.maildir().Path+" -name 'dovecot*' -delete")
	p.ours.own()
	before := whatIsThere(p.dove)
	p.joined(counts(p.dove))
	same(t, p.ours, p.dove)
	if after := whatIsThere(p.dove); after != before {
		t.Errorf("the Dovecot had\n%s\nand has\n%s", before, after)
	}
}

// An adoption that breaks off is taken up again by the next run, wherever it was: no mail is lost or there twice.
func TestAdoptionIsCut(t *testing.T) {
	p := filledByDovecot(t, "maildir", 12)
	p.mbsync()
	files, err := filepath.Glob(p.ours.maildir().Path + "/cur/*")
	must(t, err)
	must(t, os.Remove(files[1]))
	p.ours.save("INBOX", note("here"))
	p.dove.save("INBOX", note("there"))
	p.Must("sh", "-c", "cd "+p.Dir+" && tar cf before.tar ours dove")
	cut := func(direction string, n int) {
		words := append([]string{"-o", "mail_location=" + p.ours.maildir().Location(), "mirror"}, p.through(direction, n, p.dove.server())...)
		p.Run(words...)
		p.ours.own()
	}
	cut("up", 0)
	want := counts(p.dove)
	items := map[string]int{"up": p.counted("up"), "down": p.counted("down")}
	for direction, n := range items {
		for _, place := range []int{n / 3, n * 2 / 5, n / 2, n * 3 / 5, n * 4 / 5} {
			p.Must("sh", "-c", "cd "+p.Dir+" && rm -rf ours dove state && tar xf before.tar")
			cut(direction, place)
			p.run("mirror").Want(0)
			for _, a := range []*account{p.ours, p.dove} {
				if got := counts(a); got != want {
					t.Errorf("cut %s after item %d of %d: %s has\n%s\nwant\n%s", direction, place, n, a.name, got, want)
				}
			}
			if a, b := whatIsThere(p.ours), whatIsThere(p.dove); a != b {
				t.Errorf("cut %s after item %d of %d: ours:\n%s\ntheirs:\n%s", direction, place, n, a, b)
			}
		}
	}
}
