package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// A Dovecot that gives flags to a mail in new/ leaves it there, and a program that takes a name in new/ for one without flags
// puts a second set behind the first. Of such a name the base and the last set count, as for Dovecot, and it is not passed on.
func TestANameWithTwoSetsOfFlags(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	d := p.NewDovecot("far")
	p.b = d.Maildir
	p.locate()
	const base = "1767261600.M1P1.mx"
	p.a.Create(t, "INBOX")
	p.b.Create(t, "INBOX")
	p.b.Deliver(t, "INBOX", base, "", harness.Note("one"))
	sync := func() {
		t.Helper()
		p.settled()
		d.Own() // what was written there was written by root
		p.SameForDovecot(p.a, p.b)
	}
	isThere := func(m harness.Maildir, name string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(m.Path, name)); err != nil {
			found, _ := filepath.Glob(filepath.Join(m.Path, "[cn][ue][rw]", "*"))
			t.Errorf("%v; there are %q", err, found)
		}
	}
	sync()

	d.Doveadm("flags", "add", "ToDo", "mailbox", "INBOX", "1")
	isThere(p.b, "new/"+base+":2,a")
	sync()
	isThere(p.a, "cur/"+base+":2,a")

	must(t, os.Rename(filepath.Join(p.b.Path, "new", base+":2,a"), filepath.Join(p.b.Path, "cur", base+":2,a:2,S")))
	sync()
	isThere(p.a, "cur/"+base+":2,S")

	d.Doveadm("flags", "add", "ToDo", "mailbox", "INBOX", "1")
	isThere(p.b, "cur/"+base+":2,a:2,Sa")
	sync()
	isThere(p.a, "cur/"+base+":2,Sa")

	must(t, os.Rename(filepath.Join(p.a.Path, "cur", base+":2,Sa"), filepath.Join(p.a.Path, "cur", base+":2,FSa")))
	sync()
	isThere(p.b, "cur/"+base+":2,FSa")
	text, err := os.ReadFile(filepath.Join(p.b.Path, "dovecot-uidlist"))
	must(t, err)
	if !strings.Contains(string(text), ":"+base+"\n") {
		t.Errorf("uidlist:\n%s", text)
	}
}
