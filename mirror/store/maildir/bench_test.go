package maildir_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
)

const benchMails = 20_000

// benchBody is a mail of 7 KB, which is different for every n.
func benchBody(n int) []byte {
	head := fmt.Sprintf("Message-ID: <%d@example.org>\nSubject: mail %d\n\n", n, n)
	line := []byte("The quick brown fox jumps over the lazy dog, again and again.\n")
	return append([]byte(head), bytes.Repeat(line, (7000-len(head))/len(line))...)
}

// diskAccount is newAccount on a real disk.
func diskAccount(b *testing.B) *account {
	return newAccountAt(b, &account{root: b.TempDir(), state: b.TempDir()})
}

// importMails saves mails as a first mirror does: staged, then applied in batches.
func importMails(tb testing.TB, s *maildir.Store, n int) {
	nodes, _, err := s.Tree(tb.Context())
	must(tb, err)
	box, err := s.Open(tb.Context(), nodes[0].Status.GUID)
	must(tb, err)
	defer func() { must(tb, box.Close()) }()
	var batch store.Batch
	for i := 1; i <= n; i++ {
		m := mail.Message{UID: mail.UID(i), GUID: mail.GUID(fmt.Sprintf("%032x", i)), Flags: mail.FlagSeen, Received: 1_700_000_000 + int64(i)}
		staged, err := box.Stage(tb.Context(), m, bytes.NewReader(benchBody(i)))
		must(tb, err)
		batch.Adds = append(batch.Adds, store.Add{Message: m, Staged: staged})
		if len(batch.Adds) == 1000 || i == n {
			_, err := box.Apply(tb.Context(), batch)
			must(tb, err)
			batch = store.Batch{}
		}
	}
	must(tb, s.EndRound(tb.Context()))
}

func BenchmarkImport(b *testing.B) {
	for _, n := range []int{benchMails, 5 * benchMails} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				a := diskAccount(b)
				s := a.open(b)
				_, err := s.Refresh(b.Context(), store.RefreshOptions{})
				must(b, err)
				importMails(b, s, n)
				must(b, s.Close())
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "mails/s")
		})
	}
}

// settled is an account of 20,000 mails whose refresh finds nothing.
func settled(b *testing.B) (*account, *maildir.Store) {
	a := diskAccount(b)
	s := a.open(b)
	_, err := s.Refresh(b.Context(), store.RefreshOptions{})
	must(b, err)
	importMails(b, s, benchMails)
	a.age(b, mail.Inbox)
	_, err = s.Refresh(b.Context(), store.RefreshOptions{})
	must(b, err)
	return a, s
}

// age makes a mailbox look as if nothing had happened to it for a while.
func (a *account) age(b *testing.B, name mail.Name) {
	past := time.Now().Add(-time.Minute)
	for _, sub := range []string{"cur", "new"} {
		must(b, os.Chtimes(filepath.Join(a.dir(b, name), sub), past, past))
	}
}

func BenchmarkRefreshUnchanged(b *testing.B) {
	_, s := settled(b)
	defer s.Close()
	for b.Loop() {
		r, err := s.Refresh(b.Context(), store.RefreshOptions{})
		must(b, err)
		if len(r.Changed) > 0 {
			b.Fatalf("report %+v", r)
		}
	}
}

func BenchmarkRefreshOneFlag(b *testing.B) {
	a, s := settled(b)
	defer s.Close()
	path := filepath.Join(a.root, "cur", fmt.Sprintf("%032x:2,S", benchMails/2))
	other := path + "T"
	for b.Loop() {
		must(b, os.Rename(path, other))
		path, other = other, path
		r, err := s.Refresh(b.Context(), store.RefreshOptions{})
		must(b, err)
		if r.Flags != 1 {
			b.Fatalf("report %+v", r)
		}
	}
}

func BenchmarkRefreshFirst(b *testing.B) {
	a, s := settled(b)
	must(b, s.Close())
	for b.Loop() {
		b.StopTimer()
		must(b, a.cat.Close())
		a.cat = nil
		must(b, os.Remove(filepath.Join(a.state, "index")))
		b.StartTimer()
		s := a.open(b)
		r, err := s.Refresh(b.Context(), store.RefreshOptions{})
		must(b, err)
		if r.Added != benchMails {
			b.Fatalf("report %+v", r)
		}
		must(b, s.Close())
	}
}
