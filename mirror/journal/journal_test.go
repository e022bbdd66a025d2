package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// ticking is a clock for one journal, which reads it under its lock.
func ticking() func() time.Time {
	now := time.Unix(1700000000, 0)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func newMem() *vfs.Mem { return vfs.NewMem(ticking()) }

func open(t testing.TB, f vfs.FS, opt Options) *Journal {
	t.Helper()
	if opt.Clock == nil {
		opt.Clock = ticking()
	}
	j, err := OpenFS(f, opt)
	must(t, err)
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// event is the n-th event of a test; no two are equal.
func event(n int) mail.Event {
	return mail.Event{
		Op:      mail.EventOp(n%11 + 1),
		Mailbox: mail.JoinName("Entwürfe", fmt.Sprint(n)),
		File:    fmt.Sprintf("%d.M1P2.host", n),
		NewFile: strings.Repeat("x", n%50),
	}
}

func fill(t testing.TB, j *Journal, from, to int) {
	t.Helper()
	for n := from; n <= to; n++ {
		seq, err := j.Append(event(n))
		must(t, err)
		if seq != uint64(n) {
			t.Fatalf("event %d got number %d", n, seq)
		}
	}
}

func collect(t testing.TB, j *Journal, from uint64) []Record {
	t.Helper()
	var all []Record
	for r, err := range j.Read(from) {
		must(t, err)
		all = append(all, r)
	}
	return all
}

// wantEvents checks that records are the events with these numbers.
func wantEvents(t testing.TB, got []Record, from, to int) {
	t.Helper()
	if len(got) != to-from+1 {
		t.Fatalf("%d records, want %d to %d", len(got), from, to)
	}
	for i, r := range got {
		if r.Seq != uint64(from+i) || r.Event != event(from+i) || r.Missing != 0 {
			t.Fatalf("record %d: %+v, want %+v", from+i, r, event(from+i))
		}
	}
}

func rootOf(t testing.TB, f vfs.FS) vfs.Dir {
	t.Helper()
	d, err := f.OpenDir("")
	must(t, err)
	return d
}

func names(t testing.TB, f vfs.FS) []string {
	t.Helper()
	var all []string
	must(t, rootOf(t, f).Names(func(name string, _ vfs.Type) error { all = append(all, name); return nil }))
	return all
}

func TestRecordsComeBackAfterReopening(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{SegmentSize: 1000})
	fill(t, j, 1, 100)
	wantEvents(t, collect(t, j, 0), 1, 100)
	wantEvents(t, collect(t, j, 1), 1, 100)
	wantEvents(t, collect(t, j, 42), 42, 100)
	wantEvents(t, collect(t, j, 101), 101, 100)
	first := collect(t, j, 0)
	must(t, j.Close())
	j = open(t, m, Options{SegmentSize: 1000})
	if r := j.Recovery(); r.TornBytes != 0 || r.Damaged() {
		t.Errorf("recovery of a clean journal: %+v", r)
	}
	if again := collect(t, j, 0); !slices.Equal(again, first) {
		t.Errorf("records differ after reopening")
	}
	fill(t, j, 101, 120)
	wantEvents(t, collect(t, j, 0), 1, 120)
	if n := len(names(t, m)); n < 8 {
		t.Errorf("%d segments of 1000 bytes", n)
	}
}

func TestReadCanStopAndNest(t *testing.T) {
	j := open(t, newMem(), Options{SegmentSize: 300})
	fill(t, j, 1, 20)
	n := 0
	for r, err := range j.Read(0) {
		must(t, err)
		if n += len(collect(t, j, r.Seq)); r.Seq == 3 {
			break
		}
		_, err := j.Append(event(int(j.Last()) + 1)) // not seen by the outer loop, nor a deadlock
		must(t, err)
	}
	if n != 20+20+20 {
		t.Errorf("%d records", n)
	}
}

func TestAppendRefusesWhatCannotBeRecorded(t *testing.T) {
	j := open(t, newMem(), Options{})
	fill(t, j, 1, 1)
	for _, ev := range []mail.Event{{}, {Op: 1, File: strings.Repeat("x", maxPayload)}, {Op: 1, Mailbox: mail.Name(strings.Repeat("x", 1<<17))}} {
		if _, err := j.Append(ev); !errors.Is(err, ErrEvent) {
			t.Errorf("%.60v: %v", ev, err)
		}
	}
	longest := mail.Event{Op: 1, File: strings.Repeat("x", maxPayload-minPayload)}
	seq, err := j.Append(longest)
	must(t, err)
	if got := collect(t, j, 2); seq != 2 || len(got) != 1 || got[0].Event != longest {
		t.Errorf("the longest event: number %d, %d records", seq, len(got))
	}
}

func TestMarks(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{})
	fill(t, j, 1, 10)
	if got := j.Mark(Sent); got != 0 {
		t.Errorf("mark before it was set: %d", got)
	}
	must(t, j.SetMark(Sent, 7))
	must(t, j.SetMark(Sent, 5)) // only forward
	must(t, j.SetMark("feed:one", 2))
	if err := j.SetMark(Sent, 11); !errors.Is(err, ErrUnknown) {
		t.Errorf("mark beyond the end: %v", err)
	}
	for _, bad := range []string{"", "a b", "a\n", "crc", strings.Repeat("x", 256)} {
		if err := j.SetMark(bad, 1); err == nil {
			t.Errorf("mark %q was set", bad)
		}
	}
	j = open(t, m.Crash(vfs.LoseAll, 1), Options{})
	if j.Mark(Sent) != 7 || j.Mark("feed:one") != 2 || j.Mark(Indexed) != 0 {
		t.Errorf("marks after a crash: %v", j.marks)
	}
	if j.Last() < 7 {
		t.Errorf("the log ends at %d, before the mark", j.Last())
	}
}

func TestCorruptMarksStartAtZero(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{})
	fill(t, j, 1, 3)
	must(t, j.SetMark(Sent, 3))
	must(t, j.Close())
	must(t, vfs.WriteFile(rootOf(t, m), "marks", 0o600, []byte("dsyncfs marks 1\nsent 2\ncrc 00000000\n")))
	j = open(t, m, Options{})
	if j.Mark(Sent) != 0 || !slices.Equal(j.Recovery().SetAside, []string{"marks.corrupt-1"}) {
		t.Errorf("mark %d, %+v", j.Mark(Sent), j.Recovery())
	}
	wantEvents(t, collect(t, j, 0), 1, 3)
}

func TestConsumedSegmentsGoButHistoryStays(t *testing.T) {
	m := newMem()
	opt := Options{SegmentSize: 500, Retain: 2000}
	j := open(t, m, opt)
	fill(t, j, 1, 100)
	all := len(j.segments)
	must(t, j.SetMark(Indexed, 100))
	if len(j.segments) != all {
		t.Fatal("a segment went that was not sent")
	}
	must(t, j.SetMark(Sent, 50))
	if first := j.segments[0].first; first < 40 || first > 51 {
		t.Errorf("the log starts at %d after 50 were sent", first)
	}
	must(t, j.SetMark(Sent, 100))
	var size int64
	for _, s := range j.segments {
		size += s.size
	}
	if size < 2000 || size > 2600 {
		t.Errorf("%d bytes of history", size)
	}
	first := j.segments[0].first
	wantEvents(t, collect(t, j, 0), int(first), 100)
	wantEvents(t, collect(t, j, first), int(first), 100)
	for _, err := range j.Read(first - 1) {
		if !errors.Is(err, ErrGone) {
			t.Errorf("read before the start: %v", err)
		}
	}
	j = open(t, m.Crash(vfs.LoseNothing, 0), opt)
	wantEvents(t, collect(t, j, 0), int(first), 100)
	fill(t, j, 101, 102)
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, newMem(), Options{})
		fill(t, j, 1, 1)
		must(t, j.Wait(t.Context(), 0))
		woken := make(chan error, 3)
		for range 2 {
			go func() { woken <- j.Wait(t.Context(), 1) }()
		}
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { woken <- j.Wait(ctx, 5) }()
		synctest.Wait()
		if len(woken) != 0 {
			t.Fatal("woken without a record")
		}
		fill(t, j, 2, 2)
		synctest.Wait()
		if len(woken) != 2 || <-woken != nil || <-woken != nil {
			t.Error("the record did not wake both")
		}
		cancel(cause)
		if err := <-woken; err != cause {
			t.Errorf("cancelled: %v", err)
		}
		go func() { woken <- j.Wait(t.Context(), 2) }()
		synctest.Wait()
		must(t, j.Close())
		if err := <-woken; err != ErrClosed {
			t.Errorf("closed: %v", err)
		}
	})
}

// TestGroupCommit holds the disk while callers queue up behind the first.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMem()
		hold := make(chan struct{})
		syncs, holding := 0, false
		j := open(t, vfs.NewFault(m, func(o vfs.Op) error {
			if holding && o.Name == "sync" {
				syncs++
				<-hold
			}
			return nil
		}), Options{})
		holding = true
		fill(t, j, 1, 1)
		done := make(chan error, 11)
		go func() { done <- j.Sync(t.Context(), 1) }()
		synctest.Wait()
		fill(t, j, 2, 11) // no append waits for the disk
		for n := 2; n <= 11; n++ {
			go func() { done <- j.Sync(t.Context(), uint64(n)) }()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := j.Sync(ctx, 11); err != context.DeadlineExceeded {
			t.Errorf("a caller that gives up: %v", err)
		}
		synctest.Wait()
		if syncs != 1 || len(done) != 0 {
			t.Errorf("%d syncs, %d callers done", syncs, len(done))
		}
		close(hold)
		for range 11 {
			must(t, <-done)
		}
		if syncs != 2 {
			t.Errorf("%d syncs for 11 callers", syncs)
		}
		must(t, j.Sync(t.Context(), 11))
		if syncs != 2 {
			t.Error("a sync of what is durable")
		}
		if err := j.Sync(t.Context(), 12); !errors.Is(err, ErrUnknown) {
			t.Errorf("sync beyond the end: %v", err)
		}
		wantEvents(t, collect(t, open(t, m.Crash(vfs.LoseAll, 0), Options{}), 0), 1, 11)
	})
}

func TestConcurrentUse(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{SegmentSize: 2000, Retain: -1})
	const writers, each = 4, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				seq, err := j.Append(mail.Event{Op: 1, File: fmt.Sprint(w, " ", i)})
				if err == nil && i%10 == 0 {
					err = j.Sync(t.Context(), seq)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for seen := uint64(0); seen < writers*each; {
			if err := j.Wait(t.Context(), seen); err != nil {
				t.Error(err)
				return
			}
			for r, err := range j.Read(seen + 1) {
				if err != nil || r.Seq != seen+1 {
					t.Errorf("after %d: %+v %v", seen, r, err)
					return
				}
				seen = r.Seq
			}
			for _, mark := range []string{Indexed, Sent} {
				if err := j.SetMark(mark, seen); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	must(t, j.Close())
	if n := len(names(t, m)); n > 3 {
		t.Errorf("%q left of a log that was consumed", names(t, m))
	}
}

func TestClosed(t *testing.T) {
	j := open(t, newMem(), Options{})
	must(t, j.Close())
	must(t, j.Close())
	_, err := j.Append(event(1))
	for what, err := range map[string]error{"append": err, "sync": j.Sync(t.Context(), 1), "mark": j.SetMark(Sent, 0)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, err := range j.Read(0) {
		if err != ErrClosed {
			t.Errorf("read: %v", err)
		}
	}
}

// TestFailedSyncIsFinal: a second fdatasync would succeed without having written anything.
func TestFailedSyncIsFinal(t *testing.T) {
	m := newMem()
	fail := false
	j := open(t, vfs.NewFault(m, func(o vfs.Op) error {
		if fail && o.Name == "sync" {
			fail = false
			return syscall.EIO
		}
		return nil
	}), Options{})
	fill(t, j, 1, 2)
	must(t, j.Sync(t.Context(), 1)) // all so far
	fill(t, j, 3, 3)
	fail = true
	for range 2 {
		if err := j.Sync(t.Context(), 3); !errors.Is(err, syscall.EIO) {
			t.Errorf("sync: %v", err)
		}
	}
	if _, err := j.Append(event(4)); !errors.Is(err, syscall.EIO) {
		t.Errorf("append: %v", err)
	}
	must(t, j.Sync(t.Context(), 2)) // is durable
	wantEvents(t, collect(t, j, 0), 1, 3)
}

func TestFullDisk(t *testing.T) {
	m := newMem()
	full, noCut := false, false
	j := open(t, vfs.NewFault(m, func(o vfs.Op) error {
		switch {
		case full && o.Name == "write":
			return syscall.ENOSPC // after half of the bytes
		case noCut && o.Name == "truncate":
			return syscall.EIO
		}
		return nil
	}), Options{})
	fill(t, j, 1, 3)
	for _, noCut = range []bool{false, true} {
		full = true
		for range 3 {
			if _, err := j.Append(event(9)); err == nil {
				t.Fatal("append to a full disk")
			}
		}
		wantEvents(t, collect(t, j, 0), 1, 3)
		wantEvents(t, collect(t, open(t, m.Crash(vfs.LoseNothing, 0), Options{}), 0), 1, 3)
	}
	full, noCut = false, false
	fill(t, j, 4, 6)
	wantEvents(t, collect(t, j, 0), 1, 6)
	j = open(t, m.Crash(vfs.LoseNothing, 0), Options{})
	if r := j.Recovery(); r.TornBytes != 0 || r.Damaged() {
		t.Errorf("%+v", r)
	}
	wantEvents(t, collect(t, j, 0), 1, 6)
}

func TestNewerVersionIsLeftAlone(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{SegmentSize: 200})
	fill(t, j, 1, 10)
	must(t, j.Close())
	name := segmentName(j.segments[1].first)
	data, err := vfs.ReadFile(rootOf(t, m), name, 1<<20)
	must(t, err)
	data[8] = 2
	fixHeader(data)
	must(t, vfs.WriteFile(rootOf(t, m), name, 0o600, data))
	before := names(t, m)
	if _, err := OpenFS(m, Options{}); !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
	if after := names(t, m); !slices.Equal(before, after) {
		t.Errorf("files %q, then %q", before, after)
	}
}

func TestCorruptionIsReported(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{})
	fill(t, j, 1, 3)
	must(t, j.Close())
	flip(t, m, segmentName(1), headerSize+10)
	var log bytes.Buffer
	open(t, m, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if s := log.String(); !strings.Contains(s, "level=WARN") || !strings.Contains(s, segmentName(1)+".corrupt-1") {
		t.Errorf("log: %s", s)
	}
}

// TestCorruptionWhileOpen: a reader must not take what it gets for the end of the log.
func TestCorruptionWhileOpen(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{})
	fill(t, j, 1, 3)
	flip(t, m, segmentName(1), headerSize+10)
	var last error
	for _, err := range j.Read(0) {
		last = err
	}
	if !errors.Is(last, ErrCorrupt) {
		t.Errorf("%v", last)
	}
	must(t, rootOf(t, m).Remove(segmentName(1)))
	for _, err := range j.Read(0) {
		last = err
	}
	if !errors.Is(last, ErrGone) || !errors.Is(last, fs.ErrNotExist) {
		t.Errorf("%v", last)
	}
}
