package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// What dsyncfs does with a stock Dovecot at the other end, beside what two Dovecots do over the same kind of pipe.

// against is the command line of dsyncfs on a Maildir of the environment with a Dovecot as the remote.
func against(e *harness.Env, m harness.Maildir, d dovecot, command ...string) []string {
	e.TB.Helper()
	line := append([]string{harness.Binary(e.TB), "--no-progress", "-o", "mail_location=" + m.Location()}, command...)
	return append(line, d.server()...)
}

// account makes an account of a Dovecot that has the mails of a Maildir, which becomes its copy.
func account(e *harness.Env, name string, from harness.Maildir) dovecot {
	e.TB.Helper()
	d := newDovecot(e, name, "maildir:~/Maildir", "")
	// Gives everything UIDs and GUIDs; a Dovecot that only reads makes up other GUIDs every time.
	measure(e, pair{e, from, e.Maildir(name + "-copy")}.line("backup")...)
	if err := os.RemoveAll(e.StateDir()); err != nil {
		e.TB.Fatal(err)
	}
	e.Must("mv", e.Path(name+"-copy"), filepath.Join(d.home, "Maildir"))
	own(e, d.home)
	d.run("index", "*")
	return d
}

func BenchmarkDovecotBackup(b *testing.B) {
	e := harness.New(b)
	source := account(e, "source", fill(b, e.Maildir("a"), mails))
	m := e.Maildir("ours")
	ours := best(2, func() usage {
		for _, dir := range []string{m.Path, e.StateDir()} {
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
		}
		return measure(e, against(e, m, source, "backup", "-R")...)
	})
	other := newDovecot(e, "other", "maildir:~/Maildir", "")
	theirs := other.run(append([]string{"backup", "-R"}, source.server()...)...)
	for _, path := range []string{m.Path, filepath.Join(other.home, "Maildir")} {
		complete(b, path, mails)
	}
	note(fmt.Sprintf("backup -R of %d mails from a Dovecot: dsyncfs", mails), seconds(ours.Wall))
	note("  doveadm", seconds(theirs.Wall))
	atMost("backup -R from a Dovecot: time / doveadm", ratio(ours, theirs), 0.5)
	memory("backup -R from a Dovecot: peak RSS", ours.MaxRSS, peak(mails))
}

func BenchmarkDovecotNothingChanged(b *testing.B) {
	const accountBoxes, accountMails = 100, 2000
	e := harness.New(b)
	m := e.Maildir("ours")
	corpus := harness.Mails(b, accountMails)
	for i, mail := range corpus {
		name := fmt.Sprintf("box%d", i%accountBoxes)
		if i%accountBoxes == 0 {
			name = "INBOX"
		}
		if i < accountBoxes {
			m.Create(b, name)
		}
		m.Deliver(b, name, harness.UniqueName("bench", i, mail), "S", mail)
	}
	d := account(e, "dovecot", m)
	other := newDovecot(e, "other", "maildir:~/Maildir", "")
	other.run(append([]string{"backup", "-R"}, d.server()...)...) // two INBOXes with GUIDs of their own would swap them for ever
	server := []string{harness.Binary(b), "-o", "mail_location=maildir:" + e.Path("slave"), "-o", "state_dir=" + e.Path("state-slave"), "dsync-server"}
	e.Must("mkdir", "-p", e.Path("slave", "cur"), e.Path("slave", "new"), e.Path("slave", "tmp"))

	roles := []struct {
		name string
		line []string
		best usage
	}{
		{name: "two Dovecots", line: other.line(append([]string{"sync"}, d.server()...)...)},
		{name: "dsyncfs starts", line: against(e, m, d, "mirror")},
		{name: "dsyncfs answers", line: d.line(append([]string{"sync"}, server...)...)},
	}
	for i := range roles {
		roles[i].best.Wall = time.Hour
		for range 3 { // they settle
			measure(e, roles[i].line...)
		}
	}
	for _, path := range []string{m.Path, filepath.Join(other.home, "Maildir"), e.Path("slave")} {
		complete(b, path, accountMails)
	}
	for range 15 {
		for i := range roles {
			roles[i].best = faster(roles[i].best, measure(e, roles[i].line...))
		}
	}
	for _, r := range roles {
		note(fmt.Sprintf("nothing changed in %d mailboxes: %s", accountBoxes, r.name), seconds(r.best.Wall))
	}
	for _, r := range roles[1:] {
		atMost("nothing changed: "+r.name+": time / two Dovecots", ratio(r.best, roles[0].best), 1.2)
	}
}
