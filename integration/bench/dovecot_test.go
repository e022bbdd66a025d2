package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// BenchmarkDovecotMount writes mails through a mount and waits until clients of the Dovecot at the other end see them: one
// that asks all the time, and one in IDLE. A Dovecot lets half a second pass before it tells the latter (dovecot 2.3
// mailbox-watch.c: NOTIFY_DELAY_MSECS), which is measured with mails that come by IMAP and taken off.
func BenchmarkDovecotMount(b *testing.B) {
	const times = 30
	e := harness.New(b)
	m := fill(b, e.Maildir("ours"), 200)
	d := newDovecot(e, "dovecot", "maildir:~/Maildir", imapSettings(e, "dovecot"))
	address := d.serve()
	mount := e.Mount("mnt", []string{"-o", "mail_location=" + m.Location()}, d.server()...)
	asking, idling := dial(b, address), dial(b, address)
	e.Eventually("the mails are there", time.Minute, func() error {
		if n := asking.exists("SELECT INBOX"); n < 20 {
			return fmt.Errorf("%d mails", n)
		}
		return nil
	})
	have := idling.exists("SELECT INBOX")
	idling.send("i1 IDLE")
	idling.until("+")

	next := func(put func(i int) time.Time, i int) (asked, told time.Duration) {
		time.Sleep(2 * time.Second) // what the mail before has caused is over then
		have++
		start := put(i)
		seen := make(chan time.Duration, 1)
		go func() {
			idling.until(fmt.Sprintf("* %d EXISTS", have))
			seen <- time.Since(start)
		}()
		for asking.exists("NOOP") < have {
			time.Sleep(time.Millisecond)
		}
		return time.Since(start), <-seen
	}
	var own, asked, told []time.Duration
	for i := range 5 {
		_, t := next(func(i int) time.Time { asking.append(harness.Note(fmt.Sprint("by IMAP ", i))); return time.Now() }, i)
		own = append(own, t)
	}
	time.Sleep(2 * time.Second)
	for i := range times {
		a, t := next(func(i int) time.Time {
			mail := harness.Note(fmt.Sprint("through the mount ", i))
			mount.Deliver(b, "INBOX", harness.UniqueName("mount", i, mail), "", mail)
			return time.Now()
		}, i)
		asked, told = append(asked, a), append(told, t)
	}
	delay := quantile(own, 0.5)
	note("a mail through the mount, seen in the Dovecot: median", seconds(quantile(asked, 0.5)))
	note("  by a client in IDLE: median", seconds(quantile(told, 0.5)))
	note("  Dovecot's own delay of IDLE: median", seconds(delay))
	atMost("seen in the Dovecot: median, in units of 300 ms", quantile(asked, 0.5).Seconds()/0.3, 1)
	atMost("seen in the Dovecot: p99, in units of 300 ms", quantile(asked, 0.99).Seconds()/0.3, 1)
	atMost("seen in IDLE, without that delay: median, of 300 ms", (quantile(told, 0.5)-delay).Seconds()/0.3, 1)
	atMost("seen in IDLE, without that delay: p99, of 300 ms", (quantile(told, 0.99)-delay).Seconds()/0.3, 1)
	e.Run("umount", mount.Path).Want(0)
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
