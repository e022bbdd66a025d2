package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

func fixHeader(data []byte) {
	binary.LittleEndian.PutUint32(data[36:], crc32.Checksum(data[:36], castagnoli))
}

// flip changes one byte of a file.
func flip(t testing.TB, m *vfs.Mem, name string, at int) {
	t.Helper()
	data, err := vfs.ReadFile(rootOf(t, m), name, 1<<20)
	must(t, err)
	data[at] ^= 0x55
	must(t, vfs.WriteFile(rootOf(t, m), name, 0o600, data))
}

// segmentBytes makes a journal of n events in one segment and returns its bytes and where each record ends.
func segmentBytes(t testing.TB, n int) (data []byte, ends []int) {
	t.Helper()
	m := newMem()
	j := open(t, m, Options{})
	ends = []int{headerSize}
	for i := range n {
		fill(t, j, i+1, i+1)
		ends = append(ends, int(j.segments[0].size))
	}
	must(t, j.Close())
	data, err := vfs.ReadFile(rootOf(t, m), segmentName(1), 1<<20)
	must(t, err)
	return data, ends
}

func withSegment(t testing.TB, data []byte) *vfs.Mem {
	t.Helper()
	m := newMem()
	must(t, vfs.WriteFile(rootOf(t, m), segmentName(1), 0o600, data))
	return m
}

// TestTornAtEveryByte cuts the log at each byte, also with zeros or garbage in place of what is missing.
func TestTornAtEveryByte(t *testing.T) {
	data, ends := segmentBytes(t, 4)
	for size := headerSize; size <= len(data); size++ {
		whole := 0
		for whole < 4 && ends[whole+1] <= size {
			whole++
		}
		for _, tail := range []string{"", strings.Repeat("\x00", 100), strings.Repeat("\xff", 50)} {
			m := withSegment(t, append(slices.Clone(data[:size]), tail...))
			j := open(t, m, Options{})
			wantEvents(t, collect(t, j, 0), 1, whole)
			if got, want := j.Recovery().TornBytes, int64(size+len(tail)-ends[whole]); got != want || j.Recovery().Damaged() {
				t.Fatalf("cut at %d: %+v, want %d bytes", size, j.Recovery(), want)
			}
			fill(t, j, whole+1, whole+2)
			must(t, j.Close())
			j = open(t, m, Options{})
			wantEvents(t, collect(t, j, 0), 1, whole+2)
			if j.Recovery().TornBytes != 0 {
				t.Fatalf("cut at %d: torn again: %+v", size, j.Recovery())
			}
		}
	}
}

// TestEveryFlippedByte corrupts each byte in turn: only the record that it hits is lost, and no number comes twice.
func TestEveryFlippedByte(t *testing.T) {
	data, ends := segmentBytes(t, 5)
	for at := headerSize; at < len(data); at++ {
		hit := 1
		for ends[hit] <= at {
			hit++
		}
		m := withSegment(t, data)
		flip(t, m, segmentName(1), at)
		j := open(t, m, Options{})
		checkSalvaged(t, j, hit, 5)
		if torn := hit == 5; torn == j.Recovery().Damaged() {
			t.Fatalf("byte %d in record %d: %+v", at, hit, j.Recovery())
		}
		seq, err := j.Append(event(99))
		must(t, err)
		if seq < 5 || hit < 5 && seq <= 5 {
			t.Fatalf("byte %d: number %d came again", at, seq)
		}
		before := collect(t, j, 0)
		must(t, j.Close())
		j = open(t, m, Options{})
		if after := collect(t, j, 0); !slices.Equal(before, after) || j.Recovery().Damaged() {
			t.Fatalf("byte %d: reopened %+v: %v, before %v", at, j.Recovery(), after, before)
		}
	}
}

// checkSalvaged wants all of n events but one.
func checkSalvaged(t *testing.T, j *Journal, lost, n int) {
	t.Helper()
	want := 1
	for r, err := range j.Read(1) {
		must(t, err)
		missing := uint64(0)
		if want == lost {
			want++
			missing = 1
		}
		if r.Seq != uint64(want) || r.Event != event(want) || r.Missing != missing {
			t.Fatalf("got %+v, want event %d, %d missing", r, want, missing)
		}
		want++
	}
	if want == lost {
		want++
	}
	if want != n+1 {
		t.Fatalf("the log ends before event %d", want)
	}
}

func TestBadHeader(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"an empty file":          func([]byte) []byte { return nil },
		"a flipped byte":         func(b []byte) []byte { b[30] ^= 1; return b },
		"another file's header":  func(b []byte) []byte { b[28] = 7; fixHeader(b); return b },
		"not a journal":          func(b []byte) []byte { return []byte(strings.Repeat("Subject: x\n", 100)) },
		"another journal's data": func(b []byte) []byte { b[12] ^= 1; fixHeader(b); return b },
	} {
		t.Run(name, func(t *testing.T) {
			data, _ := segmentBytes(t, 5)
			m := withSegment(t, damage(data))
			j := open(t, m, Options{})
			if got := collect(t, j, 0); len(got) != 0 {
				t.Errorf("records %v", got)
			}
			if name != "another journal's data" && !slices.Equal(j.Recovery().SetAside, []string{segmentName(1) + ".corrupt-1"}) {
				t.Errorf("%+v", j.Recovery())
			}
			seq, err := j.Append(event(1))
			must(t, err)
			if len(data) > headerSize && len(damage(data)) > 100 && seq <= 5 && name != "another journal's data" {
				t.Errorf("number %d may have been given out before", seq)
			}
			must(t, j.Close())
			j = open(t, m, Options{})
			if got := collect(t, j, 0); len(got) != 1 || got[0].Seq != seq || j.Recovery().Damaged() {
				t.Errorf("reopened: %v %+v", got, j.Recovery())
			}
		})
	}
}

func TestDamageInAnOlderSegment(t *testing.T) {
	m := newMem()
	j := open(t, m, Options{SegmentSize: 400})
	fill(t, j, 1, 20)
	must(t, j.Close())
	first := j.segments[1].first
	data, err := vfs.ReadFile(rootOf(t, m), segmentName(first), 1<<20)
	must(t, err)
	must(t, vfs.WriteFile(rootOf(t, m), segmentName(first), 0o600, data[:len(data)-1]))
	lost := int(j.segments[1].last)
	j = open(t, m, Options{SegmentSize: 400})
	checkSalvaged(t, j, lost, 20)
	if !j.Recovery().Damaged() || j.Recovery().TornBytes != 0 {
		t.Errorf("%+v", j.Recovery())
	}
}

// script is the work of the crash tests: appends over several segments, syncs and marks. It stops at the first error.
type script struct {
	acked   int // events whose Append returned
	tried   int
	durable int // events that a sync or mark covered
	mark    uint64
}

func (s *script) run(f vfs.FS) error {
	j, err := OpenFS(f, Options{Clock: ticking(), SegmentSize: 500, Retain: 600})
	if err != nil {
		return err
	}
	for n := 1; n <= 24; n++ {
		s.tried = n
		seq, err := j.Append(event(n))
		if err != nil {
			return err
		}
		s.acked = n
		if n%5 == 0 {
			if err := j.Sync(context.Background(), seq); err != nil {
				return err
			}
			s.durable = n
		}
		if n%7 == 0 {
			for _, name := range []string{Indexed, Sent} {
				if err := j.SetMark(name, seq); err != nil {
					return err
				}
			}
			s.durable, s.mark = n, seq
		}
	}
	if err := j.Close(); err != nil {
		return err
	}
	s.durable = s.acked
	return nil
}

// check opens what is left and compares it with what was promised. Events up to atLeast must be there.
func (s *script) check(t *testing.T, what string, left vfs.FS, atLeast int) {
	t.Helper()
	j, err := OpenFS(left, Options{Clock: ticking(), SegmentSize: 500, Retain: 600})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if j.Recovery().Damaged() {
		t.Fatalf("%s: %+v", what, j.Recovery())
	}
	next := 0
	for r, err := range j.Read(0) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if next == 0 {
			next = int(r.Seq)
		}
		if int(r.Seq) != next || r.Event != event(next) {
			t.Fatalf("%s: record %+v, want event %d", what, r, next)
		}
		next++
	}
	if last := int(j.Last()); last < atLeast || last > s.tried || next > 0 && next-1 != last {
		t.Fatalf("%s: the log ends with %d (read %d), acknowledged %d, durable %d", what, last, next-1, s.acked, s.durable)
	}
	if got := j.Mark(Indexed); got < s.mark || got > j.Last() {
		t.Fatalf("%s: mark %d, was %d, the log ends at %d", what, got, s.mark, j.Last())
	}
	seq, err := j.Append(event(int(j.Last()) + 1))
	if err != nil || seq != j.Last() {
		t.Fatalf("%s: append: %d %v", what, seq, err)
	}
}

// TestCrashAtEveryOperation stops the world before each write, sync, rename and so on, by a kill of the process and by a power
// cut.
func TestCrashAtEveryOperation(t *testing.T) {
	m := newMem()
	var s script
	crashes := 0
	f := vfs.NewFault(m, func(o vfs.Op) error {
		if !o.Changes() {
			return nil
		}
		crashes++
		s.check(t, fmt.Sprintf("kill before %+v", o), m.Crash(vfs.LoseNothing, 0), s.acked)
		s.check(t, fmt.Sprintf("power cut before %+v", o), m.Crash(vfs.LoseAll, 0), s.durable)
		for seed := range uint64(8) {
			s.check(t, fmt.Sprintf("power cut on ext4 (seed %d) before %+v", seed, o), m.Crash(vfs.LoseTail, seed), s.durable)
			s.check(t, fmt.Sprintf("power cut (seed %d) before %+v", seed, o), m.Crash(vfs.LoseAny, seed), s.durable)
		}
		return nil
	})
	must(t, s.run(f))
	if crashes < 80 {
		t.Errorf("only %d crashes", crashes)
	}
}

// TestEveryOperationFails fails one operation after the other, each time the first, until a run finishes unhurt.
func TestEveryOperationFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		for n := int64(1); ; n++ {
			m := newMem()
			var s script
			var failed vfs.Op
			err := s.run(vfs.NewFault(m, func(o vfs.Op) error {
				if o.N == n {
					failed = o
					return errno
				}
				return nil
			}))
			if err != nil && !errors.Is(err, errno) {
				t.Fatalf("%+v: %v", failed, err)
			}
			s.check(t, fmt.Sprintf("after %+v failed", failed), m.Crash(vfs.LoseNothing, 0), s.acked)
			s.check(t, fmt.Sprintf("after %+v failed and power went", failed), m.Crash(vfs.LoseAll, 0), s.durable)
			if failed.N == 0 {
				if n < 80 {
					t.Errorf("only %d operations", n)
				}
				break
			}
		}
	}
}

// TestSalvageSurvivesCrashes crashes while a corrupt file is being set aside.
func TestSalvageSurvivesCrashes(t *testing.T) {
	data, ends := segmentBytes(t, 9)
	data[ends[2]+9] ^= 1
	data[ends[5]+9] ^= 1
	m := withSegment(t, data)
	want := []uint64{1, 2, 4, 5, 7, 8, 9}
	crashes := 0
	check := func(o vfs.Op) error {
		for seed := range uint64(10) {
			for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseAll, vfs.LoseTail, vfs.LoseAny} {
				j := open(t, m.Crash(loss, seed), Options{})
				var got []uint64
				for _, r := range collect(t, j, 0) {
					got = append(got, r.Seq)
				}
				if !slices.Equal(got, want) || j.Last() < 9 {
					t.Fatalf("crash (%v, seed %d) before %+v: %v", loss, seed, o, got)
				}
				crashes++
			}
		}
		return nil
	}
	j := open(t, vfs.NewFault(m, check), Options{})
	aside, err := vfs.ReadFile(rootOf(t, m), segmentName(1)+".corrupt-1", 1<<20)
	if err != nil || !slices.Equal(aside, data) || !j.Recovery().Damaged() {
		t.Errorf("the original is not kept: %v", err)
	}
	if crashes < 500 {
		t.Errorf("only %d crashes", crashes)
	}
}

func TestRecordsEncodeAsTheyDecode(t *testing.T) {
	id := identity{1, 2, 3}
	rapid.Check(t, func(t *rapid.T) {
		ev := mail.Event{
			Op:      mail.EventOp(rapid.IntRange(1, 255).Draw(t, "op")),
			Mailbox: mail.Name(rapid.String().Draw(t, "mailbox")),
			To:      mail.Name(rapid.String().Draw(t, "to")),
			File:    string(rapid.SliceOf(rapid.Byte()).Draw(t, "file")),
			NewFile: rapid.String().Draw(t, "new file"),
		}
		in := Record{Seq: rapid.Uint64Range(1, maxSeq).Draw(t, "seq"), Time: ticking()(), Event: ev}
		b, err := id.appendFrame(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		out, n, ok := id.parseFrame(b)
		if !ok || n != len(b) || out != in {
			t.Fatalf("%+v became %+v (%v)", in, out, ok)
		}
		other := identity{1, 2, 4}
		if _, _, ok := other.parseFrame(b); ok {
			t.Fatal("a record of another journal passed")
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if _, _, ok := id.parseFrame(b); ok {
			t.Fatal("a changed byte passed")
		}
	})
}

// FuzzReplay opens a journal whose newest segment holds anything at all.
func FuzzReplay(f *testing.F) {
	data, ends := segmentBytes(f, 3)
	f.Add(data)
	f.Add(data[:ends[2]+5])
	f.Add(slices.Concat(data[:ends[1]], data[ends[2]:], data[ends[1]:ends[2]]))
	f.Add(slices.Concat(data[:ends[1]], []byte("garbage"), data[ends[1]:]))
	f.Add(slices.Concat(data, data[headerSize:]))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= headerSize {
			fixHeader(data) // or hardly anything gets past the header
		}
		m := withSegment(t, data)
		j, err := OpenFS(m, Options{Clock: ticking()})
		if errors.Is(err, ErrVersion) {
			return
		}
		must(t, err)
		before := collect(t, j, 0)
		seq, err := j.Append(event(1))
		must(t, err)
		if n := len(before); n > 0 && seq <= before[n-1].Seq {
			t.Fatalf("number %d after %d", seq, before[n-1].Seq)
		}
		for i := 1; i < len(before); i++ {
			if before[i].Seq <= before[i-1].Seq {
				t.Fatalf("%d after %d", before[i].Seq, before[i-1].Seq)
			}
		}
		must(t, j.Close())
		j, err = OpenFS(m, Options{Clock: ticking()})
		must(t, err)
		after := collect(t, j, 0)
		if r := j.Recovery(); r.Damaged() || r.TornBytes > 0 || len(after) != len(before)+1 || !slices.Equal(after[:len(before)], before) {
			t.Fatalf("opened again %+v: %d records, then %d", r, len(before), len(after))
		}
	})
}

// TestKillThenPowerCut: what a killed process left in the page cache is durable once the next one has opened the journal, or
// its Sync would promise too much.
func TestKillThenPowerCut(t *testing.T) {
	m := newMem()
	fill(t, open(t, m, Options{}), 1, 5) // never closed
	must(t, open(t, m, Options{}).Sync(t.Context(), 5))
	wantEvents(t, collect(t, open(t, m.Crash(vfs.LoseAll, 0), Options{}), 0), 1, 5)
}
