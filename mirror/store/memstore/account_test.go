package memstore_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
)

var errGuard = errors.New("asked")

// refuse is a guard that lets no loss pass.
func refuse([]store.Loss) error { return errGuard }

func deliver(t *testing.T, a *memstore.Account, name mail.Name, body string) (base string) {
	t.Helper()
	base, err := a.Deliver(name, []byte(body), time.Unix(1_500_000_000, 0))
	must(t, err)
	return base
}

func refresh(t *testing.T, s *memstore.Store, o store.RefreshOptions) store.Report {
	t.Helper()
	r, err := s.Refresh(t.Context(), o)
	must(t, err)
	return r
}

func TestWhatTheUserExpungesNeedsNoGuard(t *testing.T) {
	a := memstore.NewAccount("a", clock())
	s := a.Open()
	must(t, a.CreateMailbox("work"))
	expunged, lost := deliver(t, a, mail.Inbox, "one"), deliver(t, a, mail.Inbox, "two")
	deliver(t, a, "work", "three")
	refresh(t, s, store.RefreshOptions{})

	must(t, a.Expunge(mail.Inbox, expunged))
	must(t, a.DeleteMailbox("work"))
	if r := refresh(t, s, store.RefreshOptions{Guard: refuse}); r.Expunged != 2 {
		t.Errorf("report %+v", r)
	}
	must(t, a.Vanish(mail.Inbox, lost))
	if _, err := s.Refresh(t.Context(), store.RefreshOptions{Guard: refuse}); err != errGuard {
		t.Errorf("error %v", err)
	}
}

func TestWitnessesAreKeptAcrossARename(t *testing.T) {
	a := memstore.NewAccount("a", clock())
	s := a.Open()
	must(t, a.CreateMailbox("old"))
	before, after := deliver(t, a, "old", "one"), deliver(t, a, "old", "two")
	refresh(t, s, store.RefreshOptions{})
	must(t, a.Expunge("old", before))
	must(t, a.RenameMailbox("old", "new"))
	must(t, a.Expunge("new", after))
	if r := refresh(t, s, store.RefreshOptions{Guard: refuse}); r.Expunged != 2 {
		t.Errorf("report %+v", r)
	}
}

func TestARestoredMailboxIsForgotten(t *testing.T) {
	a := memstore.NewAccount("a", clock())
	s := a.Open()
	must(t, a.CreateMailbox("work"))
	deliver(t, a, "work", "one")
	refresh(t, s, store.RefreshOptions{})
	must(t, a.LoseMailbox("work"))
	refresh(t, s, store.RefreshOptions{Guard: refuse, Restore: func(mail.Name) bool { return true }})
	nodes, deletions, err := s.Tree(t.Context())
	if err != nil || len(nodes) != 1 || len(deletions) > 0 {
		t.Errorf("tree %+v %+v, %v", nodes, deletions, err)
	}
}

func TestAForgottenMailVoidsTheLog(t *testing.T) {
	a := memstore.NewAccount("a", clock())
	s := a.Open()
	base := deliver(t, a, mail.Inbox, "one")
	refresh(t, s, store.RefreshOptions{})
	must(t, a.Vanish(mail.Inbox, base))
	refresh(t, s, store.RefreshOptions{Restore: func(mail.Name) bool { return true }})
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	m, err := s.Open(t.Context(), nodes[0].Status.GUID)
	must(t, err)
	if _, ok := m.Changes(nodes[0].Status.HighestModSeq-1, ""); ok {
		t.Error("the log reaches back before the loss")
	}
	if _, ok := m.Changes(nodes[0].Status.HighestModSeq, ""); !ok {
		t.Error("the log does not reach back to now")
	}
}

func TestEqualHistoriesGiveEqualAccounts(t *testing.T) {
	history := func() ([]mail.Mailbox, []mail.Message, uint64) {
		a := memstore.NewAccount("a", clock())
		s := a.Open()
		must(t, a.CreateMailbox("a/b"))
		must(t, a.CreateDirectory("c"))
		a.Subscribe("a/b", true)
		one := deliver(t, a, "a/b", "one")
		must(t, a.SetFlags("a/b", one, mail.Delta{Add: mail.FlagSeen, AddKeywords: mail.NewKeywords("k")}))
		copied, err := a.Copy("a/b", one, mail.Inbox)
		must(t, err)
		refresh(t, s, store.RefreshOptions{})
		must(t, a.Move(mail.Inbox, copied, "a/b"))
		if files := a.Files("a/b"); !slices.Equal(files, []string{one, copied}) || a.Files(mail.Inbox) != nil {
			t.Errorf("files %q and %q", files, a.Files(mail.Inbox))
		}
		if content, err := a.Content("a/b", copied); string(content) != "one" || err != nil {
			t.Errorf("content %q, %v", content, err)
		}
		refresh(t, s, store.RefreshOptions{})
		a.LoseMemory()
		nodes, _, err := s.Tree(t.Context())
		must(t, err)
		i := slices.IndexFunc(nodes, func(n mail.Mailbox) bool { return n.Name == "a/b" })
		m, err := s.Open(t.Context(), nodes[i].Status.GUID)
		must(t, err)
		var messages []mail.Message
		for msg := range m.Messages(0) {
			messages = append(messages, msg)
		}
		return nodes, messages, s.Epoch()
	}
	nodes, messages, epoch := history()
	nodes2, messages2, epoch2 := history()
	if !reflect.DeepEqual(nodes, nodes2) || !reflect.DeepEqual(messages, messages2) || epoch != epoch2 {
		t.Errorf("%+v %+v %d\n%+v %+v %d", nodes, messages, epoch, nodes2, messages2, epoch2)
	}
	if len(messages) != 2 || messages[0].Size != 3 || messages[0].GUID == messages[1].GUID || !messages[1].Keywords.Has("k") {
		t.Errorf("messages %+v", messages)
	}
	if other := memstore.NewAccount("b", clock()).Open(); other.Epoch() == epoch {
		t.Error("another account has the same epoch")
	}
}

func TestTheUserCannotDoWhatCannotBe(t *testing.T) {
	a := memstore.NewAccount("a", clock())
	must(t, a.CreateMailbox("work"))
	base := deliver(t, a, "work", "one")
	for what, c := range map[string]struct{ err, want error }{
		"create twice":             {a.CreateMailbox("work"), store.ErrExists},
		"a bad name":               {a.CreateMailbox("../x"), store.ErrName},
		"rename INBOX":             {a.RenameMailbox(mail.Inbox, "x"), store.ErrName},
		"rename below itself":      {a.RenameMailbox("work", "work/x"), store.ErrName},
		"rename what is not there": {a.RenameMailbox("none", "x"), store.ErrNotFound},
		"delete INBOX":             {a.DeleteMailbox(mail.Inbox), store.ErrName},
		"expunge twice":            {errors.Join(a.Expunge("work", base), a.Expunge("work", base)), store.ErrNotFound},
		"move to nowhere":          {a.Move(mail.Inbox, deliver(t, a, mail.Inbox, "x"), "none"), store.ErrNotFound},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", what, c.err, c.want)
		}
	}
}
