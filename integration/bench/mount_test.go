package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// sides is a Maildir on the bare file system and the same one in a mount. Both hold the same mails in the same order.
type sides struct {
	*harness.Env
	b             *testing.B
	native, mount harness.Maildir
	mounted       *harness.Mount
}

// away is a remote that cannot be reached: what the mirror does when it can is work of its own, which on a machine of two
// processors is measured as if it were the mount's.
const away = "ssh://nobody@127.0.0.1:1"

// mountBeside makes a Maildir with n mails in the INBOX, all read, copies it and mounts the copy.
func mountBeside(b *testing.B, n int, remote string) *sides {
	e := harness.New(b)
	s := &sides{Env: e, b: b, native: fillInbox(b, e.Maildir("native"), n)}
	e.Must("cp", "-a", s.native.Path, e.Path("backing"))
	s.mounted = e.Mount("mnt", []string{"-o", "mail_location=maildir:" + e.Path("backing")}, remote)
	s.mount = harness.Maildir{Path: s.mounted.Path}
	return s
}

// fillInbox makes n mails of the corpus, each repetition with another header, in cur of the INBOX.
func fillInbox(tb testing.TB, m harness.Maildir, n int) harness.Maildir {
	tb.Helper()
	corpus := harness.Mails(tb, min(n, harness.CorpusSize))
	m.Create(tb, "INBOX")
	for i := range n {
		mail := corpus[i%len(corpus)]
		if round := i / len(corpus); round > 0 {
			mail.Text = append(fmt.Appendf(nil, "X-Repetition: %d\n", round), mail.Text...)
			mail.Date = mail.Date.Add(time.Duration(round) * time.Hour)
		}
		m.Deliver(tb, "INBOX", harness.UniqueName("bench", i, mail), "S", mail)
	}
	return m
}

// compare runs a workload on both sides in turns and returns the median of the ratios mount / native.
func (s *sides) compare(figure string, pairs int, limit float64, run func(m harness.Maildir) error, before func()) {
	s.b.Helper()
	var ratios, ours []float64
	for range pairs {
		var took [2]float64
		for i, m := range []harness.Maildir{s.native, s.mount} {
			before()
			start := time.Now()
			if err := run(m); err != nil {
				s.b.Fatalf("%s in %s: %v", figure, m.Path, err)
			}
			took[i] = time.Since(start).Seconds()
		}
		ratios, ours = append(ratios, took[1]/took[0]), append(ours, took[1])
	}
	atMost(fmt.Sprintf("%s (%s)", figure, seconds(time.Duration(median(ours)*float64(time.Second)))), median(ratios), limit)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func settled() {}

// cold makes the kernel forget what it has read; only root can.
func cold() {
	runtime.GC()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		panic(err)
	}
}

// warm measures a workload that was run once before.
func (s *sides) warm(figure string, limit float64, run func(m harness.Maildir) error) {
	s.b.Helper()
	for _, m := range []harness.Maildir{s.native, s.mount} {
		if err := run(m); err != nil {
			s.b.Fatal(err)
		}
	}
	s.compare(figure, 5, limit, run, settled)
}

func (s *sides) cold(figure string, limit float64, run func(m harness.Maildir) error) {
	s.b.Helper()
	if os.Getuid() != 0 {
		note(figure, "needs root")
		return
	}
	s.compare(figure, 3, limit, run, cold)
}

// BenchmarkMountListing is about a mailbox of 100,000 mails.
func BenchmarkMountListing(b *testing.B) {
	roomToWait(b)
	const n = 100_000
	s := mountBeside(b, n, away)
	before := s.rss()
	s.warm(fmt.Sprintf("warm readdir and stat of %d mails", n), 1.1, listAndStat)
	perMail := float64(s.rss()-before) / n
	s.cold(fmt.Sprintf("cold readdir and stat of %d mails", n), 1.0, listAndStat)
	row("memory of the daemon for each of them (RSS)", fmt.Sprintf("%.0f B", perMail), "at most 200 B", perMail <= 200)
	var ready []float64
	for range 5 {
		s.mounted.Umount()
		ready = append(ready, s.mounted.Again().Took.Seconds())
	}
	row(fmt.Sprintf("mount of %d mails, again: ready after", n), fmt.Sprintf("%.3f s", median(ready)), "at most 0.300 s", median(ready) <= 0.3)
}

// BenchmarkMountFirst is the first mount of a remote account: how long until all of it is listed, and what the first one to be
// read takes while the rest comes.
func BenchmarkMountFirst(b *testing.B) {
	roomToWait(b)
	const n = 100_000
	e := harness.New(b)
	r := e.NewRemote()
	fillInbox(b, r.Maildir, n)
	first := func(point string) (listed, read float64) {
		start := time.Now()
		m := e.Mount(point, append([]string{"-o", "mail_location=maildir:" + e.Path(point+"-backing")}, r.Options()...), r.URL)
		names, err := namesIn(m.Path + "/cur")
		listed = time.Since(start).Seconds()
		if err != nil || len(names) != n {
			b.Fatalf("%d mails are listed, %v", len(names), err)
		}
		start = time.Now()
		if _, err := os.ReadFile(m.Path + "/cur/" + names[n-1]); err != nil {
			b.Fatal(err)
		}
		read = time.Since(start).Seconds()
		m.Umount()
		return listed, read
	}
	unseen, _ := first("mnt0")
	note(fmt.Sprintf("first mount of %d mails that no dsyncfs has seen: listed", n), fmt.Sprintf("%.3f s", unseen))
	var listed, read []float64
	for i := range 3 {
		l, r := first(fmt.Sprintf("mnt%d", i+1))
		listed, read = append(listed, l), append(read, r)
	}
	row(fmt.Sprintf("first mount of %d mails: listed after", n), fmt.Sprintf("%.3f s", median(listed)), "at most 1.000 s", median(listed) <= 1)
	note("the last of them read, while the rest comes", fmt.Sprintf("%.3f s", median(read)))
}

// BenchmarkMountMillion is the memory of a mailbox of a million mails, without bytes.
func BenchmarkMountMillion(b *testing.B) {
	const n = 1_000_000
	e := harness.New(b)
	a := e.Maildir("backing")
	a.Create(b, "INBOX")
	for i := range n {
		name := fmt.Sprintf("%s/cur/%d.M%dP1234.mail,S=5000,W=5100:2,S", a.Path, 1_700_000_000+i, i)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s := &sides{Env: e, b: b, mounted: e.Mount("mnt", []string{"-o", "mail_location=" + a.Location()}, away)}
	before := s.rss()
	if err := listAndStat(harness.Maildir{Path: s.mounted.Path}); err != nil {
		b.Fatal(err)
	}
	note(fmt.Sprintf("memory of the daemon for each of %d mails (RSS)", n), fmt.Sprintf("%.0f B", float64(s.rss()-before)/n))
	time.Sleep(15 * time.Second) // what the collector does not need any more is given back at rest
	perMail := float64(s.rss()-before) / n
	row("the same, at rest", fmt.Sprintf("%.0f B", perMail), "at most 200 B", perMail <= 200)
}

// rss is the memory of the daemon.
func (s *sides) rss() int64 {
	s.b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.mounted.PID()))
	if err != nil {
		s.b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		s.b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// roomToWait keeps the runtime from giving the processors of goroutines that wait in a system call to others, which would be
// measured as if the mount were slow.
func roomToWait(b *testing.B) {
	before := runtime.GOMAXPROCS(8)
	b.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// BenchmarkMountReading is about 20,000 mails.
func BenchmarkMountReading(b *testing.B) {
	roomToWait(b)
	s := mountBeside(b, mails, away)
	block := func(m harness.Maildir) error { return readMails(m, 4096) }
	whole := func(m harness.Maildir) error { return readMails(m, 0) }
	s.warm(fmt.Sprintf("warm open and read of 4 KiB of %d mails", mails), 1.3, block)
	s.cold("the same, cold", 2.5, block)
	s.warm(fmt.Sprintf("warm full read of %d mails", mails), 1.2, whole)
}

// BenchmarkMountWriting is about deliveries, flags and removals.
func BenchmarkMountWriting(b *testing.B) {
	roomToWait(b)
	s := mountBeside(b, mails, away)
	s.writing("")
	s.requests()
	note("one request of the kernel and its answer", fmt.Sprintf("%.0f us", s.roundTrip()*1e6))
}

// BenchmarkMountWritingMirrored is the same while the mirror has what is written sent to a Maildir of this machine.
func BenchmarkMountWritingMirrored(b *testing.B) {
	roomToWait(b)
	e := harness.New(b)
	remote := e.Maildir("remote")
	s := mountBeside(b, mails, remote.Location())
	s.Run("sync", s.mounted.Path).Want(0)
	s.writing("mirrored: ")
}

func (s *sides) writing(mark string) {
	s.b.Helper()
	serial := 0
	batch := func(n, writers int, durable bool) func(m harness.Maildir) error {
		return func(m harness.Maildir) error {
			serial++
			return deliverBatch(m, serial, n, writers, durable)
		}
	}
	s.compare(mark+"500 deliveries with fsync, 1 writer", 5, 1.5, batch(500, 1, true), settled)
	s.compare(mark+"800 deliveries with fsync, 8 writers", 5, 1.5, batch(800, 8, true), settled)
	s.compare(mark+"2000 deliveries without fsync", 5, 7, batch(2000, 1, false), settled)
	if err := listAndStat(s.mount); err != nil {
		s.b.Fatal(err)
	}
	s.compare(mark+"10000 flag changes", 3, 5, func(m harness.Maildir) error { return changeFlags(m, 10_000) }, settled)
	s.compare(mark+"5000 unlinks", 4, 6, func(m harness.Maildir) error { return unlinkMails(m, 5000) }, settled)
}

// BenchmarkMountPrograms has real programs read 20,000 mails. The indexers work for a minute or more, so they have one pair.
func BenchmarkMountPrograms(b *testing.B) {
	s := mountBeside(b, mails, away)
	s.program(fmt.Sprintf("notmuch new of %d mails", mails), 1, 1.2, s.notmuch)
	s.program("the same with the database elsewhere", 1, 1.2, s.notmuchElsewhere)
	s.program(fmt.Sprintf("mu index of %d mails", mails), 1, 1.2, s.mu)
	s.program(fmt.Sprintf("neomutt opens %d mails, no header cache, after a mount", mails), 1, 2.5, s.neomutt)
	s.again(fmt.Sprintf("neomutt opens %d mails again", mails), 1, 1.3, s.neomutt)
	s.again("and once more", 3, 1.3, s.neomutt)
}

// program compares how long a program takes on both sides, as compare does.
func (s *sides) program(figure string, pairs int, limit float64, command func(m harness.Maildir) []string) {
	s.b.Helper()
	s.mounted.Umount() // a mount of the harness lives for a bounded time
	s.mounted.Again()
	s.again(figure, pairs, limit, command)
}

// again is program without a new mount: the kernel keeps what it has read.
func (s *sides) again(figure string, pairs int, limit float64, command func(m harness.Maildir) []string) {
	s.b.Helper()
	var ratios, ours []float64
	for range pairs {
		native := measure(s.Env, command(s.native)...)
		mount := measure(s.Env, command(s.mount)...)
		ratios, ours = append(ratios, ratio(mount, native)), append(ours, mount.Wall.Seconds())
	}
	atMost(fmt.Sprintf("%s (%s)", figure, seconds(time.Duration(median(ours)*float64(time.Second)))), median(ratios), limit)
}

func (s *sides) notmuch(m harness.Maildir) []string {
	config := s.Path("notmuch-" + filepath.Base(m.Path))
	write(s.b, config, fmt.Sprintf("[database]\npath=%s\n[user]\nname=Ann\nprimary_email=ann@example.org\n", m.Path))
	return []string{"env", "NOTMUCH_CONFIG=" + config, "notmuch", "new", "--quiet"}
}

func (s *sides) notmuchElsewhere(m harness.Maildir) []string {
	at := s.Path("notmuch-at-" + filepath.Base(m.Path))
	if err := os.MkdirAll(at, 0o700); err != nil {
		s.b.Fatal(err)
	}
	config := at + "-config"
	write(s.b, config, fmt.Sprintf("[database]\npath=%s\nmail_root=%s\n[user]\nname=Ann\nprimary_email=ann@example.org\n", at, m.Path))
	return []string{"env", "NOTMUCH_CONFIG=" + config, "notmuch", "new", "--quiet"}
}

func (s *sides) mu(m harness.Maildir) []string {
	home := s.Path("mu-" + filepath.Base(m.Path))
	s.Must("mu", "init", "--quiet", "--muhome="+home, "--maildir="+m.Path)
	return []string{"mu", "index", "--quiet", "--muhome=" + home}
}

// neomutt opens the INBOX in a terminal and leaves it.
func (s *sides) neomutt(m harness.Maildir) []string {
	rc := s.Path("neomuttrc-" + filepath.Base(m.Path))
	write(s.b, rc, fmt.Sprintf("set folder=%s\nset header_cache=\"\"\nset mark_old=no\nset quit=yes\nset sleep_time=0\nunset wait_key\n", m.Path))
	line := fmt.Sprintf(`neomutt -n -F %s -f '%s' -e 'push "<exit>"'`, rc, m.Path)
	return []string{"env", "TERM=vt100", "script", "-qec", line, s.Path("typescript")}
}
