package index

import (
	"os"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

const million = 1_000_000

// BenchmarkMessages reads a mailbox of a million messages from end to end.
func BenchmarkMessages(b *testing.B) {
	x := open(b, newPath(b))
	fillWith(b, x, 1, million)
	info, err := os.Stat(x.path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		view(b, x, func(tx store.CatalogTx) error {
			for _, err := range tx.Messages(guid(1), 0) {
				if err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if n != million {
			b.Fatalf("%d messages", n)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/message")
	b.ReportMetric(float64(info.Size())/million, "file-bytes/message+log")
	b.ReportMetric(float64(residentAnonymous(b)), "anon-kB")
}

// residentAnonymous is the memory of this process that is no mapped file, in kB.
func residentAnonymous(b *testing.B) (kb int) {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skipf("no /proc: %v", err)
	}
	_, after, _ := strings.Cut(string(status), "RssAnon:")
	for _, c := range strings.TrimSpace(after) {
		if c < '0' || c > '9' {
			break
		}
		kb = kb*10 + int(c-'0')
	}
	return kb
}

// BenchmarkMessage looks single messages up.
func BenchmarkMessage(b *testing.B) {
	x := open(b, newPath(b))
	fillWith(b, x, 1, 100_000)
	view(b, x, func(tx store.CatalogTx) error {
		uid := mail.UID(1)
		for b.Loop() {
			if _, ok, err := tx.Message(guid(1), uid); !ok || err != nil {
				b.Fatal(ok, err)
			}
			uid = uid*7919%100_000 + 1
		}
		return nil
	})
}

// BenchmarkPut writes batches of 10,000 messages with their log entries.
func BenchmarkPut(b *testing.B) {
	x := open(b, newPath(b))
	box := byte(0)
	for b.Loop() {
		if box++; box == 250 {
			box = 1
		}
		fillWith(b, x, box, 10_000)
		update(b, x, func(tx store.CatalogTx) error { return tx.DropMailbox(guid(box)) })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/message")
}

// BenchmarkOpenClose opens and closes an index of 20,000 messages.
func BenchmarkOpenClose(b *testing.B) {
	path := newPath(b)
	x := open(b, path)
	fillWith(b, x, 1, 20_000)
	if err := x.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		x, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
