package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/integration/harness"
)

// live is a mount whose remote is a dsyncfs behind a real sshd on loopback.
type live struct {
	*harness.Env
	here, there harness.Maildir // the mount as programs see it, and the Maildir of the other side
	link        *harness.Link
	mount       *harness.Mount
	serial      int
}

func newLive(b *testing.B, mails int, options ...string) *live {
	e := harness.New(b)
	r := e.NewRemote()
	link := r.NewLink()
	a := fill(b, e.Maildir("a"), mails)
	l := &live{Env: e, there: r.Maildir, link: link}
	l.mount = e.Mount("mnt", append(append([]string{"-o", "mail_location=" + a.Location()}, link.Options(r)...), options...), link.URL)
	l.here = harness.Maildir{Path: l.mount.Path}
	e.Run("sync", l.mount.Path).Want(0)
	return l
}

// name is that of another mail.
func (l *live) name() string {
	l.serial++
	return fmt.Sprintf("%d.M%dP1.bench", 1_800_000_000+l.serial, l.serial)
}

// letter is a small mail.
var letter = []byte("From: a@example.org\nSubject: live\n\nThere it is.\n")

// deliver puts a mail into an INBOX as a delivery agent does.
func deliver(m harness.Maildir, name string, durable bool) error {
	tmp := filepath.Join(m.Path, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(letter); err == nil && durable {
		err = f.Sync()
	}
	if cerr := f.Close(); err != nil || cerr != nil {
		return fmt.Errorf("%s: %w", tmp, errors.Join(err, cerr))
	}
	return os.Rename(tmp, filepath.Join(m.Path, "new", name))
}

// arrivals tells when names appear in a directory, by inotify, as a mail program would notice it.
type arrivals struct {
	f    *os.File
	mu   sync.Mutex
	at   map[string]time.Time
	some *sync.Cond
}

func watch(b *testing.B, dir string) *arrivals {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		b.Fatal(err)
	}
	a := &arrivals{f: os.NewFile(uintptr(fd), dir), at: map[string]time.Time{}}
	a.some = sync.NewCond(&a.mu)
	done := make(chan struct{})
	go func() { defer close(done); a.read() }()
	b.Cleanup(func() { a.f.Close(); <-done })
	return a
}

func (a *arrivals) read() {
	buf := make([]byte, 1<<16)
	for {
		n, err := a.f.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		a.mu.Lock()
		for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			size := int(binary.NativeEndian.Uint32(rest[12:])) // struct inotify_event: wd, mask, cookie, len, name
			name := string(bytes.TrimRight(rest[16:16+size], "\x00"))
			if _, known := a.at[name]; !known {
				a.at[name] = now
			}
			rest = rest[16+size:]
		}
		a.some.Broadcast()
		a.mu.Unlock()
	}
}

// wait returns when a name appeared.
func (a *arrivals) wait(name string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if at, ok := a.at[name]; ok {
			return at
		}
		a.some.Wait()
	}
}

// latencies measures how long deliveries take from one side to the other, one after the other.
func (l *live) latencies(b *testing.B, from, to harness.Maildir, n int) []time.Duration {
	seen := watch(b, filepath.Join(to.Path, "new"))
	var all []time.Duration
	for range n {
		name := l.name()
		start := time.Now()
		if err := deliver(from, name, false); err != nil {
			b.Fatal(err)
		}
		all = append(all, seen.wait(name).Sub(start))
	}
	slices.Sort(all)
	return all
}

// quick prints median and p99.
func quick(figure string, all []time.Duration, median, p99 time.Duration) {
	at := func(q float64) time.Duration { return all[min(int(q*float64(len(all))), len(all)-1)] }
	say := func(what string, got, limit time.Duration) {
		row(figure+": "+what, fmt.Sprintf("%.1f ms", float64(got.Microseconds())/1000), "below "+limit.String(), got < limit)
	}
	say("median", at(0.5), median)
	if p99 > 0 {
		say("p99", at(0.99), p99)
	}
}

func BenchmarkLive(b *testing.B) {
	l := newLive(b, 2000)
	const n = 200
	quick("local change -> durable at the remote", l.latencies(b, l.here, l.there, n), 15*time.Millisecond, 50*time.Millisecond)
	quick("remote change -> inotify event in the mount", l.latencies(b, l.there, l.here, n), 15*time.Millisecond, 50*time.Millisecond)
	l.underLoad(b, func() {
		quick("the same out, at 200 deliveries/s", l.latencies(b, l.here, l.there, n), 15*time.Millisecond, 50*time.Millisecond)
	})
	l.link.Slow(25 * time.Millisecond)
	quick("the same out, with 50 ms of round trip", l.latencies(b, l.here, l.there, n/4), 70*time.Millisecond, 0)
	quick("the same in, with 50 ms of round trip", l.latencies(b, l.there, l.here, n/4), 70*time.Millisecond, 0)
}

// underLoad has 200 mails per second delivered into the mount meanwhile.
func (l *live) underLoad(b *testing.B, f func()) {
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- pour(l.here, 200, stop) }()
	f()
	close(stop)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// pour delivers so many mails per second until it is stopped. Each has its time: a delivery that was late is no reason to come later
// with those that follow, which a ticker, that drops what nobody waits for, would make of it.
func pour(m harness.Maildir, rate int, stop <-chan struct{}) error {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		timer.Reset(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		select {
		case <-stop:
			return nil
		case <-timer.C:
			if err := deliver(m, fmt.Sprintf("%d.M%dP2.load", 1_900_000_000+i, i), false); err != nil {
				return err
			}
		}
	}
}

// BenchmarkSustained: a flood of mail, and a remote that has to keep up.
func BenchmarkSustained(b *testing.B) {
	const rate, lasts = 1000, time.Minute
	l := newLive(b, 1000)
	there := filepath.Join(l.there.Path, "new")
	stop := make(chan struct{})
	timer := time.AfterFunc(lasts, func() { close(stop) })
	defer timer.Stop()
	start := time.Now()
	if err := pour(l.here, rate, stop); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	poured := len(names(b, filepath.Join(l.here.Path, "new")))
	behind := time.Now()
	for len(names(b, there)) < poured && time.Since(behind) < 2*time.Minute {
		time.Sleep(100 * time.Millisecond) // a poll of a measurement, not of a test
	}
	row("sustained deliveries into the mount", fmt.Sprintf("%.0f/s", float64(poured)/took.Seconds()), fmt.Sprintf("at least %d/s", rate*95/100), float64(poured) >= 0.95*rate*lasts.Seconds())
	late := time.Since(behind)
	row("  after a minute of it, the remote has all after", seconds(late), "below 2 s", late < 2*time.Second)
}

func names(b *testing.B, dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// BenchmarkCommitRemote: deliveries that wait for the other side's disk.
func BenchmarkCommitRemote(b *testing.B) {
	l := newLive(b, 1000, "-o", "commit=remote")
	local := harness.Maildir{Path: l.Path("plain")}
	local.Create(b, "INBOX")
	const n = 200
	plain := l.spread(b, local, 1, n)
	one := l.spread(b, l.here, 1, n)
	eight := l.spread(b, l.here, 8, n)
	atMost("commit=remote: delivery / delivery with fsync on disk", one.Seconds()/plain.Seconds(), 3)
	atLeast("commit=remote: throughput of 8 writers / of one", one.Seconds()/eight.Seconds(), 4)
}

// spread has so many writers deliver n mails in all, with fsync, and returns how long that took.
func (l *live) spread(b *testing.B, m harness.Maildir, writers, n int) time.Duration {
	queue := make(chan string, n)
	for range n {
		queue <- l.name()
	}
	close(queue)
	start := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for range writers {
		wg.Go(func() {
			for name := range queue {
				if err := deliver(m, name, true); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		b.Fatal(err)
	default:
	}
	return took
}
