package merge_test

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"runtime"
	"testing"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// equalMails are n messages of one GUID above a UID.
func equalMails(n int, guid mail.GUID, first mail.UID) func(mail.UID) iter.Seq2[mail.Message, error] {
	return func(after mail.UID) iter.Seq2[mail.Message, error] {
		return func(yield func(mail.Message, error) bool) {
			for uid := max(first, after+1); uid < first+mail.UID(n); uid++ {
				if !yield(mail.Message{UID: uid, GUID: guid, ModSeq: 2}, nil) {
					return
				}
			}
		}
	}
}

// equalGUIDs plans for a mailbox of n mails of one GUID here and as many others of it at the peer.
func equalGUIDs(tb testing.TB, n int, o merge.Options, guidHere mail.GUID) merge.Plan {
	o.LocalStatus.UIDNext, o.RemoteStatus.UIDNext = mail.UID(2*n+1), mail.UID(n+1)
	o.Local = equalMails(n, guidHere, mail.UID(n+1))
	p := merge.NewPlanner(o)
	c := item.Change{Type: item.ChangeSave, GUID: "G", ModSeq: 2}
	for range n {
		c.UID++
		if err := p.Add(&c); err != nil {
			tb.Fatal(err)
		}
	}
	out, err := p.Finish()
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func equalContents(tb testing.TB, n int) merge.Alignment {
	side := func(name string) []merge.Entry {
		out := make([]merge.Entry, n)
		for i := range out {
			out[i] = merge.Entry{UID: mail.UID(i + 1), GUID: mail.GUID(fmt.Sprint(name, i)), Content: sha256.Sum256(nil)}
		}
		return out
	}
	a, err := merge.Align(side("here"), side("there"), mail.Status{UIDValidity: 1}, mail.Status{UIDValidity: 2})
	if err != nil || a.Matched != n {
		tb.Fatalf("%d matched: %v", a.Matched, err)
	}
	return a
}

var equalCases = []struct {
	name string
	run  func(tb testing.TB, n int)
}{
	{"new mails", func(tb testing.TB, n int) { equalGUIDs(tb, n, merge.Options{}, "G") }},
	{"new mails beside one other", func(tb testing.TB, n int) { equalGUIDs(tb, n, merge.Options{}, "A") }},
	{"union", func(tb testing.TB, n int) { equalGUIDs(tb, n, merge.Options{Absence: merge.Keep}, "G") }},
	{"backup", func(tb testing.TB, n int) { equalGUIDs(tb, n, merge.Options{Mode: merge.Backup}, "G") }},
	{"contents", func(tb testing.TB, n int) { equalContents(tb, n) }},
}

func BenchmarkEqualMails(b *testing.B) {
	for _, c := range equalCases {
		for _, n := range []int{5_000, 50_000} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for b.Loop() {
					c.run(b, n)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/mail")
			})
		}
	}
}

// Of 50,000 equal mails under the peer's UIDs and as many under free ones, each is the partner of one.
func TestManyEqualMails(t *testing.T) {
	const n = 50_000
	for _, absence := range []merge.Absence{merge.Expunged, merge.Keep} {
		p := equalGUIDs(t, n, merge.Options{Absence: absence}, "G")
		if !p.Empty() || p.LastCommon != 2*n {
			t.Errorf("%d realigned, %d added, common up to %d", len(p.Realign), len(p.Adds), p.LastCommon)
		}
	}
	p := equalGUIDs(t, n, merge.Options{Mode: merge.Backup}, "G")
	if len(p.Realign) != n || len(p.Adds)+len(p.Expunges) > 0 {
		t.Errorf("backup: %d realigned, %d added, %d expunged", len(p.Realign), len(p.Adds), len(p.Expunges))
	}
	equalContents(t, n)
}

// Both columns full of different mails is the most that a planner keeps.
func TestMemoryPerMail(t *testing.T) {
	const n = 100_000
	side := func(name string) func(after mail.UID) iter.Seq2[mail.Message, error] {
		return func(after mail.UID) iter.Seq2[mail.Message, error] {
			return func(yield func(mail.Message, error) bool) {
				for uid := after + 1; uid <= n; uid++ {
					if !yield(mail.Message{UID: uid, GUID: mail.GUID(fmt.Sprintf("1767261600.M%06dP1.%s", uid, name)), ModSeq: 2}, nil) {
						return
					}
				}
			}
		}
	}
	for _, c := range []struct {
		name  string
		local func(mail.UID) iter.Seq2[mail.Message, error]
		mails int
	}{{"into an empty mailbox", list(), n}, {"two different mailboxes", side("here"), 2 * n}} {
		runtime.GC()
		var before, planned, finished runtime.MemStats
		runtime.ReadMemStats(&before)
		p := merge.NewPlanner(merge.Options{Local: c.local, Absence: merge.Keep})
		for m := range side("there")(0) {
			if err := p.Add(merge.SaveRecord(&m, mail.Delta{})); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&planned)
		out, err := p.Finish()
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&finished)
		for phase, m := range map[string]uint64{"planning": planned.HeapAlloc, "with the plan": finished.HeapAlloc} {
			if per := int64(m-before.HeapAlloc) / int64(c.mails); per > 250 {
				t.Errorf("%s, %s: %d bytes per mail", c.name, phase, per)
			} else {
				t.Logf("%s, %s: %d bytes per mail", c.name, phase, per)
			}
		}
		if len(out.Adds) != n {
			t.Errorf("%d adds", len(out.Adds))
		}
		runtime.KeepAlive(p)
	}
}
