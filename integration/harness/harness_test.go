package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestTheCorpusHasItsMailsAllDifferent(t *testing.T) {
	seen := map[Hash]bool{}
	for _, m := range Repeat(t, 2*CorpusSize) {
		seen[HashOf(m.Text)] = true
		if strings.HasPrefix(string(m.Text), "From ") {
			t.Fatal("a mail begins with the line of an mbox")
		}
	}
	if len(seen) != 2*CorpusSize {
		t.Errorf("%d different mails of %d", len(seen), 2*CorpusSize)
	}
}

func TestNamesAreEncodedAsInTheRFC(t *testing.T) {
	for name, want := range map[string]string{
		"plain": "plain", "R&D": "R&-D", "Entwürfe": "Entw&APw-rfe", "日本語": "&ZeVnLIqe-", "~peter": "~peter", "😀a": "&2D3eAA-a",
	} {
		if got := EncodeName(name); got != want {
			t.Errorf("EncodeName(%q) = %q, want %q", name, got, want)
		}
		if back := DecodeName(want); back != name {
			t.Errorf("DecodeName(%q) = %q, want %q", want, back, name)
		}
	}
}

// The reader is judged by Dovecot: what both say of the same Maildir must agree.
func TestTheReaderAgreesWithDovecot(t *testing.T) {
	for _, layout := range []string{"Maildir++", "LAYOUT=fs"} {
		t.Run(layout, func(t *testing.T) {
			e := New(t)
			d := e.NewDovecot("account")
			if d.FS = layout == "LAYOUT=fs"; d.FS {
				d.setup()
			}
			mails := Mails(t, 30)
			Build(t, d.Maildir, "test", mails)
			d.Keywords(t, "Work", "$Forwarded", "NonJunk")
			d.Deliver(t, "Work", "1.M1.test", "Sb", Note("with a keyword"))
			d.Own()
			d.Doveadm("mailbox", "subscribe", "Work/2026", "Entwürfe")
			d.Doveadm("flags", "add", `\Answered $Forwarded`, "mailbox", "R&D", "all")
			d.Doveadm("fetch", "uid", "mailbox", "*", "all")
			checkAgainstDovecot(t, d, len(mails)+1)
			e.SameForDovecot(d.Maildir, d.Maildir)
		})
	}
}

func checkAgainstDovecot(t *testing.T, d *Dovecot, mails int) {
	t.Helper()
	c := d.Read(t)
	if got := c.Copies().Len(); got != mails {
		t.Errorf("%d mails read, want %d", got, mails)
	}
	if want := []string{"Entwürfe", "Work/2026"}; strings.Join(c.Subscriptions, ",") != strings.Join(want, ",") {
		t.Errorf("subscriptions %q, want %q", c.Subscriptions, want)
	}
	lines := strings.Split(strings.TrimSpace(d.Doveadm("-f", "tab", "fetch", "mailbox uid guid flags date.received.unixtime", "mailbox", "*", "all")), "\n")[1:]
	if len(lines) != mails {
		t.Errorf("Dovecot sees %d mails, want %d", len(lines), mails)
	}
	names := map[rune]string{'D': `\Draft`, 'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`, 'T': `\Deleted`}
	theirs := map[string]string{} // by mailbox, UID and GUID: the flags and the date
	for _, line := range lines {
		f := strings.Split(line, "\t")
		theirs[strings.Join(f[:3], " ")] = strings.Join(f[3:], " ")
	}
	for name, box := range c.Mailboxes {
		for _, m := range box.Messages {
			key := name + " " + itoa(m.UID) + " " + m.GUID
			for _, flag := range m.Flags {
				if !strings.Contains(theirs[key], names[flag]) {
					t.Errorf("%s: flags %q, Dovecot says %q", key, m.Flags, theirs[key])
				}
			}
			for _, k := range m.Keywords {
				if !strings.Contains(theirs[key], k) {
					t.Errorf("%s: keywords %q, Dovecot says %q", key, m.Keywords, theirs[key])
				}
			}
			if !strings.HasSuffix(theirs[key], " "+itoa(uint32(m.Received))) && !strings.HasSuffix(theirs[key], itoa(uint32(m.Received))) {
				t.Errorf("%s: received %d, Dovecot says %q", key, m.Received, theirs[key])
			}
		}
	}
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func TestComparisonsFindEachKindOfDifference(t *testing.T) {
	e := New(t)
	a := Build(t, e.Maildir("a"), "test", Mails(t, 20))
	b := e.Maildir("b")
	e.Must("cp", "-a", a.Path, b.Path)
	snapshot := Snap(t, a.Path)
	snapshot.Same(t, a.Path)
	want := a.Read(t)
	if d := Diff(want, b.Read(t)); len(d) != 20 { // each has no UID
		t.Errorf("equal but for UIDs: %q", d)
	}
	b.Deliver(t, "INBOX", "9.M9.test", "S", Note("one more"))
	b.Subscribe(t, "Work")
	path := filepath.Join(b.Path, b.Read(t).Mailboxes["Work"].Messages[0].Path)
	if err := os.Rename(path, path+"X"); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(Diff(want, b.Read(t)), "\n")
	for _, part := range []string{"subscriptions", "mailbox INBOX: 2 messages, 3", "mailbox Work: UID 0"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %s", part, text)
		}
	}
}
