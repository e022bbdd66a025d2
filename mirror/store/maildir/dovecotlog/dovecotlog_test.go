package dovecotlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"dsyncfs/mirror/mail"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	return data
}

func read(t testing.TB, data []byte) *Log {
	t.Helper()
	l, err := Read(bytes.NewReader(data))
	must(t, err)
	return l
}

func guid(t testing.TB, s string) mail.GUID128 {
	t.Helper()
	g, err := mail.ParseGUID128(s)
	must(t, err)
	return g
}

// wantOnly checks that the logs speak of these UIDs and no others up to 1000.
func wantOnly(t *testing.T, e *Expunges, want map[mail.UID]Expunge) {
	t.Helper()
	for uid := range mail.UID(1000) {
		got, ok := e.Lookup(uid)
		w, wok := want[uid]
		if got.GUID = e.guids[uid]; ok != wok || ok && got != w {
			t.Errorf("UID %d: %+v %v, want %+v %v", uid, got, ok, w, wok)
		}
	}
}

// TestSample reads the logs of an INBOX whose UIDs 12 and 13 were expunged, the first of them before the logs begin.
func TestSample(t *testing.T) {
	current, previous := read(t, sample(t, "inbox.log")), read(t, sample(t, "inbox.log.2"))
	if current.IndexID != 0x6b0422e5 || current.Sequence != 6 || current.PrevSequence != 5 || current.End != 644 {
		t.Errorf("%+v", current)
	}
	e := Combine(current, previous)
	wantOnly(t, e, map[mail.UID]Expunge{13: {guid(t, "b10ddfcafbd3e4a29cf76a6b55574079"), true, true}})
	if e.UIDValidity != 0 {
		t.Errorf("UIDVALIDITY %d, though the logs have none", e.UIDValidity)
	}
	h, err := ReadIndexHeader(sample(t, "inbox.index"))
	must(t, err)
	if want := (IndexHeader{0x6b0422e5, 1700000001, 14, 6}); h != want {
		t.Errorf("index header %+v, want %+v", h, want)
	}
	if l := read(t, sample(t, "rnd.log")); l.UIDValidity != 1700000005 || l.PrevSequence != 0 || l.End != 832 || len(l.gone) > 0 {
		t.Errorf("%+v", l)
	}
	if l := read(t, sample(t, "mbox.log")); l.End != 6968 {
		t.Errorf("read up to %d of 6968", l.End)
	}
}

// TestTruncatedAtEveryByte: a log that is being written never says something else, only less.
func TestTruncatedAtEveryByte(t *testing.T) {
	for _, name := range []string{"inbox.log", "rnd.log"} {
		data := sample(t, name)
		whole := read(t, data)
		for n := range len(data) {
			l, err := Read(bytes.NewReader(data[:n]))
			if n < logHeaderSize {
				if !errors.Is(err, ErrFormat) {
					t.Fatalf("%s cut at %d: %v", name, n, err)
				}
				continue
			}
			must(t, err)
			if l.End > int64(n) || !slices.Equal(l.gone, whole.gone[:len(l.gone)]) || !slices.Equal(l.requested, whole.requested[:len(l.requested)]) {
				t.Fatalf("%s cut at %d: %+v", name, n, l)
			}
			if again := read(t, data[:l.End]); again.End != l.End {
				t.Fatalf("%s cut at %d: ends at %d, then at %d", name, n, l.End, again.End)
			}
		}
	}
}

func TestReadErrorIsNotTheEnd(t *testing.T) {
	data := sample(t, "inbox.log")
	broken := errors.New("broken disk")
	for _, n := range []int{10, 100, 300} {
		_, err := Read(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		if _, err := ReadMailboxLog(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("mailbox log after %d bytes: %v", n, err)
		}
	}
}

// builder writes logs as Dovecot does.
type builder struct{ b []byte }

func newLog(sequence, previous uint32) *builder {
	h := make([]byte, logHeaderSize)
	h[0], h[1], h[2], h[32] = 1, 3, logHeaderSize, 1
	binary.LittleEndian.PutUint32(h[4:], 0x1234)
	binary.LittleEndian.PutUint32(h[8:], sequence)
	binary.LittleEndian.PutUint32(h[12:], previous)
	return &builder{h}
}

// size is the coded size of n bytes.
func size(n int) []byte {
	n /= 4
	return []byte{0x80 | byte(n>>21&0x7f), 0x80 | byte(n>>14&0x7f), 0x80 | byte(n>>7&0x7f), 0x80 | byte(n&0x7f)}
}

func (b *builder) record(typ uint32, payload ...uint32) *builder {
	b.b = append(b.b, size(8+4*len(payload))...)
	b.b = binary.LittleEndian.AppendUint32(b.b, typ)
	for _, p := range payload {
		b.b = binary.LittleEndian.AppendUint32(b.b, p)
	}
	return b
}

func (b *builder) uidValidity(v uint32) *builder {
	return b.record(typeExternal|typeHeaderUpdate, offsetUIDValidity|4<<16, v)
}

func TestRecords(t *testing.T) {
	req, gone := Expunge{Requested: true}, Expunge{Gone: true}
	both := Expunge{Requested: true, Gone: true}
	for _, c := range []struct {
		name string
		log  *builder
		want map[mail.UID]Expunge
	}{
		{"ranges, internal and external", newLog(1, 0).record(typeExpunge, 3, 5, 9, 9).record(typeExternal|typeExpunge, 4, 4, 20, 20),
			map[mail.UID]Expunge{3: req, 4: both, 5: req, 9: req, 20: gone}},
		{"overlapping and touching ranges", newLog(1, 0).record(typeExpunge, 5, 7, 1, 2, 3, 3, 6, 6, 1, 1),
			map[mail.UID]Expunge{1: req, 2: req, 3: req, 5: req, 6: req, 7: req}},
		{"records of dsync", newLog(1, 0).record(0x20000000|typeExpunge, 3, 3), map[mail.UID]Expunge{3: req}},
		{"ranges that are none", newLog(1, 0).record(typeExpunge, 0, 3, 5, 4), nil},
		{"a rest that is no range", newLog(1, 0).record(typeExpunge, 3, 3, 9), map[mail.UID]Expunge{3: req}},
		{"without the protection bits", newLog(1, 0).record(0x1, 3, 3), nil},
		{"unknown types are skipped", newLog(1, 0).record(0x400000, 1, 2, 3).record(typeExpunge, 3, 3), map[mail.UID]Expunge{3: req}},
		{"a whole transaction", newLog(1, 0).record(typeExternal|typeBoundary, 12+16).record(typeExpunge, 3, 3), map[mail.UID]Expunge{3: req}},
		{"a transaction that is not complete", newLog(1, 0).record(typeExpunge, 1, 1).record(typeBoundary, 12+16+4).record(typeExpunge, 3, 3),
			map[mail.UID]Expunge{1: req}},
		{"a record that is longer than its transaction", newLog(1, 0).record(typeBoundary, 12+12).record(typeExpunge, 3, 3), nil},
		{"a transaction within one", newLog(1, 0).record(typeBoundary, 100).record(typeBoundary, 12).record(typeExpunge, 3, 3), nil},
		{"a new UIDVALIDITY makes the UIDs before it void", newLog(1, 0).uidValidity(7).record(typeExpunge, 3, 3).uidValidity(8).record(typeExpunge, 4, 4),
			map[mail.UID]Expunge{4: req}},
		{"the same UIDVALIDITY does not", newLog(1, 0).uidValidity(7).record(typeExpunge, 3, 3).uidValidity(7), map[mail.UID]Expunge{3: req}},
		{"other header fields do not", newLog(1, 0).record(typeExpunge, 3, 3).record(typeHeaderUpdate, 28|4<<16, 9, 32|2<<16, 0), map[mail.UID]Expunge{3: req}},
		{"the highest UIDs", newLog(1, 0).record(typeExpunge, 1<<32-1, 1<<32-1, 1, 1<<32-1).record(typeHeaderUpdate, 24|100<<16), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "the highest UIDs" {
				e := Combine(read(t, c.log.b), nil)
				if x, ok := e.Lookup(1<<32 - 1); !ok || !x.Requested || len(e.requested) != 1 {
					t.Errorf("%+v", e)
				}
				return
			}
			wantOnly(t, Combine(read(t, c.log.b), nil), c.want)
		})
	}
}

func TestRequestedGivesRanges(t *testing.T) {
	e := Combine(read(t, newLog(1, 0).record(typeExpunge, 9, 9, 3, 5, 6, 6).record(typeExternal|typeExpunge, 1, 1).b), nil)
	var got []mail.UID
	for first, last := range e.Requested() {
		got = append(got, first, last)
	}
	if !slices.Equal(got, []mail.UID{3, 6, 9, 9}) {
		t.Errorf("%v", got)
	}
}

func TestCombine(t *testing.T) {
	previous := newLog(4, 3).uidValidity(7).record(typeExpunge, 3, 3)
	for _, c := range []struct {
		name    string
		current *builder
		counts  bool
		want    mail.UIDValidity
	}{
		{"the log before it", newLog(5, 4), true, 7},
		{"with the same UIDVALIDITY", newLog(5, 4).uidValidity(7), true, 7},
		{"with another UIDVALIDITY", newLog(5, 4).uidValidity(8), false, 8},
		{"an older log", newLog(6, 5), false, 0},
		{"a log that starts anew", newLog(5, 0), false, 0},
		{"another index", &builder{bytes.Replace(newLog(5, 4).b, []byte{0x34, 0x12}, []byte{0x35, 0x12}, 1)}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Combine(read(t, c.current.b), read(t, previous.b))
			if x, ok := e.Lookup(3); ok != c.counts || x.Requested != c.counts || e.UIDValidity != c.want {
				t.Errorf("%+v %v, UIDVALIDITY %d", x, ok, e.UIDValidity)
			}
		})
	}
}

func TestBadFiles(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"another version":     func(b []byte) { b[0] = 2 },
		"marked corrupted":    func(b []byte) { clear(b[4:8]) },
		"big-endian":          func(b []byte) { b[32] = 0 },
		"header too short":    func(b []byte) { b[2] = 39 },
		"header too long":     func(b []byte) { b[3] = 0xff },
		"header beyond bytes": func(b []byte) { b[2], b[3] = 0, 0x10 },
	} {
		data := sample(t, "inbox.log")
		change(data)
		if _, err := Read(bytes.NewReader(data)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"too short":        func(b []byte) []byte { return b[:IndexHeaderSize-1] },
		"another version":  func(b []byte) []byte { b[0] = 6; return b },
		"big-endian":       func(b []byte) []byte { b[12] = 0; return b },
		"no id":            func(b []byte) []byte { clear(b[16:20]); return b },
		"marked corrupted": func(b []byte) []byte { b[20] |= 1; return b },
	} {
		if _, err := ReadIndexHeader(change(sample(t, "inbox.index"))); !errors.Is(err, ErrFormat) {
			t.Errorf("index %s: %v", name, err)
		}
	}
}

func TestMailboxLog(t *testing.T) {
	data := sample(t, "mailbox.log")
	all, err := ReadMailboxLog(bytes.NewReader(data))
	must(t, err)
	if len(all) != 4 {
		t.Fatalf("%d records", len(all))
	}
	for i, name := range []mail.Name{"Archive/2024/Q1", "Entwürfe", "INBOX", "日本語/メール"} {
		if e := all[i]; e.Kind != Subscribe || e.Time.Unix() != 0x6b0422e5 || e.ID != name.NameHash('/') {
			t.Errorf("record %d: %+v", i, e)
		}
	}
	var again []byte
	for _, e := range all {
		again = e.AppendTo(again)
	}
	if !bytes.Equal(again, data) {
		t.Errorf("encoded\n%s, want\n%s", hex.Dump(again), hex.Dump(data))
	}
	odd := append(slices.Clone(data[:24]), bytes.Repeat([]byte{9}, 24)...) // an unknown kind
	odd = append(odd, data[24:71]...)                                      // and half a record
	got, err := ReadMailboxLog(iotest.OneByteReader(bytes.NewReader(odd)))
	if err != nil || !slices.Equal(got, all[:2]) {
		t.Errorf("%+v %v", got, err)
	}
	for _, sec := range []int64{-5, 1 << 40} {
		b := MailboxEvent{Kind: Rename, Time: time.Unix(sec, 0)}.AppendTo(nil)
		if want := map[bool]uint32{true: 0, false: 1<<32 - 1}[sec < 0]; binary.BigEndian.Uint32(b[20:]) != want {
			t.Errorf("time %d: %x", sec, b[20:])
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"inbox.log", "inbox.log.2", "rnd.log", "mbox.log"} {
		f.Add(sample(f, name))
	}
	f.Add(newLog(1, 0).uidValidity(7).record(typeBoundary, 28).record(typeExpunge, 3, 1<<32-1).b)
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Read(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if l.End > int64(len(data)) || 8*len(l.gone)+8*len(l.requested) > len(data) {
			t.Fatalf("%+v of %d bytes", l, len(data))
		}
		e := Combine(l, l)
		for first, last := range e.Requested() {
			if first > last {
				t.Fatalf("range %d to %d", first, last)
			}
			for _, uid := range []mail.UID{first, last} {
				if x, ok := e.Lookup(uid); !ok || !x.Requested {
					t.Fatalf("UID %d of a range: %+v", uid, x)
				}
			}
		}
		if again := read(t, data[:l.End]); again.End != l.End || !slices.Equal(again.gone, l.gone) {
			t.Fatalf("read again %+v, first %+v", again, l)
		}
	})
}

func FuzzMailboxLog(f *testing.F) {
	f.Add(sample(f, "mailbox.log"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ReadMailboxLog(bytes.NewReader(data))
		must(t, err)
		var b []byte
		for _, e := range all {
			b = e.AppendTo(b)
		}
		again, err := ReadMailboxLog(bytes.NewReader(b))
		if err != nil || !slices.Equal(again, all) {
			t.Fatalf("%+v became %+v (%v)", all, again, err)
		}
	})
}
