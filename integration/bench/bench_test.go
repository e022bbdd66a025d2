// Package bench measures what dsyncfs claims: speed beside cp, doveadm and mbsync, memory by wait4, and how
// both grow. Every figure is a ratio within one run, or a number of bytes, so that it means the same on another machine.
//
// `make bench` runs it and prints a table; a figure that misses its goal is marked, and fails nothing.
package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// row prints one line of the table. goal is what the figure should be, ok whether it is.
func row(figure, value, goal string, ok bool) {
	mark := "ok"
	if !ok {
		mark = "MISSED"
	}
	fmt.Printf("%-58s %12s   %-22s %s\n", figure, value, goal, mark)
}

// atMost prints a ratio that should not be above a limit.
func atMost(figure string, got, limit float64) {
	row(figure, fmt.Sprintf("%.2f", got), fmt.Sprintf("at most %.2f", limit), got <= limit)
}

func atLeast(figure string, got, limit float64) {
	row(figure, fmt.Sprintf("%.2f", got), fmt.Sprintf("at least %.2f", limit), got >= limit)
}

// memory prints a peak RSS.
func memory(figure string, got, limit int64) {
	row(figure, mib(got), "below "+mib(limit), got < limit)
}

func note(figure, value string) { fmt.Printf("%-58s %12s\n", figure, value) }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }

// peak is the limit of memory for so many mails.
func peak(mails int64) int64 { return 64<<20 + 300*mails }

// pair is two Maildirs that dsyncfs keeps alike.
type pair struct {
	env  *harness.Env
	a, b harness.Maildir
}

func (p pair) dsyncfs(command string) usage {
	p.env.TB.Helper()
	return measure(p.env, p.line(command)...)
}

func (p pair) line(command string) []string {
	return []string{harness.Binary(p.env.TB), "--no-progress", "-o", "mail_location=" + p.a.Location(), command, p.b.Location()}
}

// complete ends the benchmark unless there are so many mails in a Maildir: what did less than all of the work is no figure.
func complete(tb testing.TB, path string, want int) {
	tb.Helper()
	got := 0
	for _, pattern := range []string{"cur/*", "new/*", ".*/cur/*", ".*/new/*"} {
		names, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			tb.Fatal(err)
		}
		got += len(names)
	}
	if got != want {
		tb.Fatalf("%s has %d mails instead of %d", path, got, want)
	}
}

// reset forgets the second Maildir and all that is known of both.
func (p pair) reset() {
	p.env.TB.Helper()
	for _, dir := range []string{p.b.Path, p.env.StateDir()} {
		if err := os.RemoveAll(dir); err != nil {
			p.env.TB.Fatal(err)
		}
	}
}

// best runs a measurement several times and keeps the fastest run; what else the machine does only ever adds.
func best(times int, run func() usage) usage {
	least := run()
	for range times - 1 {
		if u := run(); u.Wall < least.Wall {
			least = u
		}
	}
	return least
}

// ratio is how many times longer a took than b.
func ratio(a, b usage) float64 { return a.Wall.Seconds() / b.Wall.Seconds() }

const mails = 20000

func BenchmarkBackup(b *testing.B) {
	e := harness.New(b)
	p := pair{e, fill(b, e.Maildir("a"), mails), e.Maildir("b")}
	ours, copied := usage{Wall: time.Hour}, usage{Wall: time.Hour}
	for range 3 { // in turns: a neighbour's load then hits both
		p.reset()
		ours = faster(ours, p.dsyncfs("backup"))
		if err := os.RemoveAll(e.Path("copy")); err != nil {
			b.Fatal(err)
		}
		copied = faster(copied, measure(e, "sh", "-c", "cp -a \"$1\" \"$2\" && sync", "sh", p.a.Path, e.Path("copy")))
	}
	e.Must("cp", "-a", e.Path("copy"), e.Path("stock"))
	own(e, e.Path("stock"))
	d := newDovecot(e, "home", "maildir:"+e.Path("stock"), "")
	if err := os.Mkdir(e.Path("home", "copy"), 0o777); err != nil {
		b.Fatal(err)
	}
	own(e, d.home)
	stock := d.run("backup", "maildir:"+e.Path("home", "copy"))
	for _, path := range []string{p.b.Path, e.Path("copy"), e.Path("home", "copy")} {
		complete(b, path, mails)
	}
	note(fmt.Sprintf("backup of %d mails: dsyncfs", mails), seconds(ours.Wall))
	note("  cp -a and sync", seconds(copied.Wall))
	note("  doveadm backup", seconds(stock.Wall))
	atMost("backup: time / cp -a and sync", ratio(ours, copied), 2.5)
	atLeast("backup: speed / doveadm backup", ratio(stock, ours), 8)
	memory("backup: peak RSS", ours.MaxRSS, peak(mails))
}

func faster(a, b usage) usage {
	if b.Wall < a.Wall {
		return b
	}
	return a
}

func BenchmarkNothingChanged(b *testing.B) {
	e := harness.New(b)
	p := pair{e, fill(b, e.Maildir("a"), mails), e.Maildir("b")}
	e.Must("cp", "-a", p.a.Path, e.Path("stock"))
	e.Must("cp", "-a", p.a.Path, e.Path("isync"))
	p.dsyncfs("mirror")
	p.dsyncfs("mirror")
	own(e, e.Path("stock"))
	d := newDovecot(e, "home", "maildir:"+e.Path("stock"), "")
	stock := []string{"sync", "maildir:" + e.Path("home", "copy")}
	d.run(stock...)
	d.run(stock...)
	isync := mbsync(e, e.Path("isync"), e.Path("isync-copy"))
	if err := os.Mkdir(e.Path("isync-copy"), 0o700); err != nil {
		b.Fatal(err)
	}
	measure(e, isync...)
	measure(e, isync...)
	for _, path := range []string{p.b.Path, e.Path("home", "copy"), e.Path("isync-copy")} {
		complete(b, path, mails)
	}

	hour := usage{Wall: time.Hour}
	ours, theirs, others, changed := hour, hour, hour, hour
	for range 7 {
		ours = faster(ours, p.dsyncfs("mirror"))
		theirs = faster(theirs, d.run(stock...))
		others = faster(others, measure(e, isync...))
		changeFlag(b, p.a)
		changed = faster(changed, p.dsyncfs("mirror"))
	}
	note(fmt.Sprintf("nothing changed in %d mails: dsyncfs mirror", mails), seconds(ours.Wall))
	note("  doveadm sync", seconds(theirs.Wall))
	note("  mbsync", seconds(others.Wall))
	note("one flag changed: dsyncfs mirror", seconds(changed.Wall))
	atMost("nothing changed: time / doveadm sync", ratio(ours, theirs), 2)
	atMost("nothing changed: time / mbsync", ratio(ours, others), 1.5)
	atMost("one flag changed: time / nothing changed", ratio(changed, ours), 1.5)
	memory("nothing changed: peak RSS", ours.MaxRSS, 24<<20)
	bothEnds(p, "nothing changed", 24<<20, "mirror")
}

// bothEnds measures the memory of both ends when the second one is a process of its own behind a command.
func bothEnds(p pair, figure string, limit int64, command string) {
	e := p.env
	e.TB.Helper()
	report := e.Path("report-remote")
	server := []string{harness.Binary(e.TB), "-o", "mail_location=" + p.b.Location(), "-o", "state_dir=" + e.Path("state-remote"), "dsync-server"}
	args := []string{harness.Binary(e.TB), "--no-progress", "-o", "mail_location=" + p.a.Location(), "-o", "state_dir=" + e.Path("state-local"), command}
	args = append(args, measured(e.TB, report, server...)...)
	if command == "mirror" {
		measure(e, args...) // the states are new: this one adopts
	}
	local := measure(e, args...)
	memory(figure+", over a command: peak RSS here", local.MaxRSS, limit)
	memory(figure+", over a command: peak RSS there", readReport(e.TB, report).MaxRSS, limit)
}

func BenchmarkScaling(b *testing.B) {
	speed := func(n int) (perSecond float64, u usage) {
		e := harness.New(b)
		p := pair{e, fill(b, e.Maildir("a"), n), e.Maildir("b")}
		times := 1
		if n <= mails {
			times = 3
		}
		u = best(times, func() usage {
			p.reset()
			u := p.dsyncfs("backup")
			complete(b, p.b.Path, n)
			return u
		})
		if n > mails {
			again := p.dsyncfs("mirror")
			memory(fmt.Sprintf("mirror of %d mails, nothing changed: peak RSS", n), again.MaxRSS, peak(int64(n)))
			p.reset()
			bothEnds(p, fmt.Sprintf("backup of %d mails", n), peak(int64(n)), "backup")
		}
		return float64(n) / u.Wall.Seconds(), u
	}
	small, _ := speed(10000)
	big, u := speed(200000)
	note("backup of 10000 mails, mails per second", fmt.Sprintf("%.0f", small))
	note("backup of 200000 mails, mails per second", fmt.Sprintf("%.0f", big))
	atLeast("backup: speed with 200000 mails / with 10000", big/small, 0.9)
	memory("backup of 200000 mails: peak RSS", u.MaxRSS, peak(200000))
}

func BenchmarkLargeMail(b *testing.B) {
	const size = 300 << 20
	e := harness.New(b)
	p := pair{e, large(b, e.Maildir("a"), size), e.Maildir("b")}
	u := p.dsyncfs("mirror")
	note("mirror of one mail of 300 MiB", seconds(u.Wall))
	memory("one mail of 300 MiB: peak RSS", u.MaxRSS, peak(1))
	p.reset()
	bothEnds(p, "one mail of 300 MiB", peak(1), "backup")
}

// BenchmarkEqualMails looks for quadratic cases: ten times as many mails may take about ten times as long.
func BenchmarkEqualMails(b *testing.B) {
	mail := harness.Note("the same")
	equal := func(n int, prepare func(p pair)) usage {
		e := harness.New(b)
		p := pair{e, e.Maildir("a"), e.Maildir("b")}
		p.a.Create(b, "INBOX")
		for i := range n {
			p.a.Deliver(b, "INBOX", harness.UniqueName("bench", i, mail), "S", mail)
		}
		prepare(p)
		u, out := attempt(e, p.line("mirror")...)
		if u.Status != 0 {
			row(fmt.Sprintf("  exit status with %d", n), fmt.Sprint(u.Status), "0", false)
			b.Log(string(out))
		}
		return u
	}
	for _, c := range []struct {
		name    string
		prepare func(p pair)
	}{
		{"mails of equal content, new", func(pair) {}},
		{"mails of one GUID, new", func(p pair) { oneGUID(b, p.a) }},
		{"mails of equal content, adopted from a copy", func(p pair) { p.env.Must("cp", "-a", p.a.Path, p.b.Path) }},
	} {
		few, many := equal(5000, c.prepare), equal(50000, c.prepare)
		note("50000 "+c.name, seconds(many.Wall))
		atMost("  time / 10 times that of 5000", many.Wall.Seconds()/(10*few.Wall.Seconds()), 1.5)
		memory("  peak RSS", many.MaxRSS, peak(50000))
	}
}
