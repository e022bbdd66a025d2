package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

var refreshCases = map[string]func(*testing.T, *suite){
	"Refresh/new mail gets a UID, a GUID and its sizes": func(t *testing.T, s *suite) {
		before := s.node(t, mail.Inbox).Status
		text := "From: x\n\none\ntwo\r\nthree\n"
		s.Outside.Deliver(t, mail.Inbox, text, base)
		r := s.refresh(t)
		if r.Added != 1 || r.Flags != 0 || r.Expunged != 0 || !slices.Equal(r.Changed, []mail.Name{mail.Inbox}) {
			t.Errorf("report %+v", r)
		}
		all := s.messages(t, mail.Inbox)
		if len(all) != 1 || all[0].UID != before.UIDNext {
			t.Fatalf("messages %+v, UIDNEXT was %d", all, before.UIDNext)
		}
		m := all[0]
		if m.Size != int64(len(text)) || m.VirtualSize != -1 && m.VirtualSize != int64(len(text)+4) {
			t.Errorf("sizes %d and %d, want %d and %d", m.Size, m.VirtualSize, len(text), len(text)+4)
		}
		if m.Received != base || m.Flags != 0 || len(m.Keywords) != 0 {
			t.Errorf("message %+v", m)
		}
		if got := s.content(t, mail.Inbox, m.UID); got != text {
			t.Errorf("content %q", got)
		}
		after := s.node(t, mail.Inbox).Status
		if after.UIDNext != before.UIDNext+1 || after.HighestModSeq <= before.HighestModSeq || after.Messages != 1 {
			t.Errorf("status %+v after %+v", after, before)
		}
	},
	"Refresh/mails get UIDs in the order of their delivery": func(t *testing.T, s *suite) {
		var want []string
		for _, text := range []string{"first", "second", "third"} {
			s.Outside.Deliver(t, mail.Inbox, bodyOf(text), base)
			want = append(want, bodyOf(text))
		}
		s.refresh(t)
		var got []string
		for _, m := range s.messages(t, mail.Inbox) {
			got = append(got, s.content(t, mail.Inbox, m.UID))
		}
		if !slices.Equal(got, want) {
			t.Errorf("order %q", got)
		}
	},
	"Refresh/nothing changed is no change": func(t *testing.T, s *suite) {
		s.deliver(t, mail.Inbox, "one")
		before := s.node(t, mail.Inbox)
		s.quiet(t)
		if r := s.refreshWith(t, store.RefreshOptions{Full: true}); r.Added+r.Flags+r.Expunged+len(r.Changed) > 0 {
			t.Errorf("a full refresh found %+v", r)
		}
		if after := s.node(t, mail.Inbox); after != before {
			t.Errorf("mailbox is %+v, was %+v", after, before)
		}
	},
	"Refresh/changed flags get a modseq and are in the log": func(t *testing.T, s *suite) {
		m, file := s.deliver(t, mail.Inbox, "one")
		since := s.highest(t, mail.Inbox)
		s.Outside.SetFlags(t, mail.Inbox, file, mail.FlagSeen|mail.FlagFlagged)
		if r := s.refresh(t); r.Flags != 1 || r.Added != 0 || r.Expunged != 0 || !slices.Equal(r.Changed, []mail.Name{mail.Inbox}) {
			t.Errorf("report %+v", r)
		}
		got := s.message(t, mail.Inbox, m.UID)
		if got.Flags != mail.FlagSeen|mail.FlagFlagged || got.ModSeq <= since || got.GUID != m.GUID || got.Received != m.Received {
			t.Errorf("message %+v, was %+v with HIGHESTMODSEQ %d", got, m, since)
		}
		c := s.mustChanges(t, mail.Inbox, since, "")
		if len(c) != 1 || c[0].Expunged || c[0].Delta.Add != mail.FlagSeen|mail.FlagFlagged || c[0].Message.Flags != got.Flags {
			t.Errorf("changes %+v", c)
		}
	},
	"Refresh/a vanished mail is expunged and in the log": func(t *testing.T, s *suite) {
		m, file := s.deliver(t, mail.Inbox, "one")
		before := s.node(t, mail.Inbox).Status
		s.Outside.Remove(t, mail.Inbox, file)
		if r := s.refresh(t); r.Expunged != 1 || r.Added != 0 || r.Flags != 0 || !slices.Equal(r.Changed, []mail.Name{mail.Inbox}) {
			t.Errorf("report %+v", r)
		}
		if all := s.messages(t, mail.Inbox); len(all) != 0 {
			t.Errorf("messages %+v", all)
		}
		after := s.node(t, mail.Inbox).Status
		if after.UIDNext != before.UIDNext || after.HighestModSeq <= before.HighestModSeq {
			t.Errorf("status %+v after %+v", after, before)
		}
		c := s.mustChanges(t, mail.Inbox, before.HighestModSeq, "")
		if len(c) != 1 || !c[0].Expunged || c[0].UID != m.UID || c[0].GUID128 != m.GUID.Hash128() {
			t.Errorf("changes %+v, want the expunge of %v", c, m)
		}
	},
	"Refresh/a UID is never used twice": func(t *testing.T, s *suite) {
		first, file := s.deliver(t, mail.Inbox, "one")
		s.Outside.Remove(t, mail.Inbox, file)
		s.refresh(t)
		second, _ := s.deliver(t, mail.Inbox, "two")
		if second.UID <= first.UID || second.GUID == first.GUID {
			t.Errorf("the second mail is %+v, the first was %+v", second, first)
		}
	},
	"Refresh/a moved mail keeps its GUID and is no loss": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		m, file := s.deliver(t, mail.Inbox, "one")
		s.Outside.Move(t, mail.Inbox, file, work)
		guard := &guard{}
		r := s.refreshWith(t, store.RefreshOptions{Guard: guard.ask})
		if r.Added != 1 || r.Expunged != 1 || !slices.Equal(r.Changed, []mail.Name{mail.Inbox, work}) {
			t.Errorf("report %+v", r)
		}
		guard.wantNone(t)
		all := s.messages(t, work)
		if len(all) != 1 || all[0].GUID != m.GUID || all[0].Received != m.Received {
			t.Errorf("messages %+v, want GUID %s", all, m.GUID)
		}
	},
	"Refresh/a new mailbox appears with its mail": func(t *testing.T, s *suite) {
		s.Outside.CreateMailbox(t, work)
		s.Outside.Deliver(t, work, bodyOf("one"), base)
		if r := s.refresh(t); r.Added != 1 || !slices.Contains(r.Changed, work) {
			t.Errorf("report %+v", r)
		}
		if all := s.messages(t, work); len(all) != 1 {
			t.Errorf("messages %+v", all)
		}
	},
	"Refresh/a renamed mailbox keeps GUID, UIDs and flags": func(t *testing.T, s *suite) {
		s.Outside.CreateMailbox(t, work)
		s.refresh(t)
		m, file := s.deliver(t, work, "one")
		s.Outside.SetFlags(t, work, file, mail.FlagSeen)
		s.refresh(t)
		before, was := s.node(t, work), s.message(t, work, m.UID)
		s.Outside.RenameMailbox(t, work, play)
		guard := &guard{}
		s.refreshWith(t, store.RefreshOptions{Guard: guard.ask})
		guard.wantNone(t)
		after := s.node(t, play)
		if after.Status != before.Status {
			t.Errorf("status %+v, was %+v", after.Status, before.Status)
		}
		if got := s.message(t, play, m.UID); !equalMessage(got, was) {
			t.Errorf("message %+v, was %+v", got, was)
		}
		nodes, deletions := s.tree(t)
		if nodes[work].Existence == mail.Exists || len(deletions) > 0 {
			t.Errorf("the old name is %+v, deletions %+v", nodes[work], deletions)
		}
	},
	"Refresh/a mailbox deleted and made again under its name has another GUID": func(t *testing.T, s *suite) {
		s.Outside.CreateMailbox(t, work)
		s.refresh(t)
		s.deliver(t, work, "old")
		old := s.node(t, work).Status.GUID
		s.Outside.DeleteMailbox(t, work)
		s.Outside.CreateMailbox(t, work)
		s.Outside.Deliver(t, work, bodyOf("new"), base)
		s.refresh(t)
		if s.node(t, work).Status.GUID == old {
			t.Fatal("the GUID is the old one")
		}
		all := s.messages(t, work)
		if len(all) != 1 || s.content(t, work, all[0].UID) != bodyOf("new") {
			t.Errorf("messages %+v", all)
		}
		s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(old))
		_, err := s.store.Open(t.Context(), old)
		wantErr(t, "open the old mailbox", err, store.ErrNotFound)
	},
	"Refresh/only the named mailboxes are looked at": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.Outside.Deliver(t, work, bodyOf("one"), base)
		s.Outside.Deliver(t, play, bodyOf("two"), base)
		r := s.refreshWith(t, store.RefreshOptions{Mailboxes: []mail.Name{work}})
		if r.Added != 1 || !slices.Equal(r.Changed, []mail.Name{work}) {
			t.Errorf("report %+v", r)
		}
		if n := len(s.messages(t, play)); n != 0 {
			t.Errorf("%d messages in %q", n, play)
		}
		if r := s.refresh(t); r.Added != 1 || !slices.Equal(r.Changed, []mail.Name{play}) {
			t.Errorf("report %+v of all mailboxes", r)
		}
	},
	"Refresh/what cannot be listed is an error and not absence": func(t *testing.T, s *suite) {
		if s.Unreadable == nil {
			return
		}
		s.create(t, work, guidA)
		m, _ := s.deliver(t, work, "one")
		since := s.highest(t, work)
		restore := s.Unreadable(t, work)
		_, err := s.store.Refresh(t.Context(), store.RefreshOptions{Full: true})
		restore()
		if err == nil {
			t.Error("no error")
		}
		s.refresh(t)
		s.message(t, work, m.UID)
		if c := s.mustChanges(t, work, since, ""); len(c) != 0 {
			t.Errorf("changes %+v", c)
		}
	},
	"Refresh/all of it survives a reopening": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.deliver(t, work, "one")
		_, file := s.deliver(t, work, "two")
		since := s.highest(t, work)
		s.Outside.SetFlags(t, work, file, mail.FlagAnswered)
		s.refresh(t)
		before, was, epoch := s.node(t, work), s.messages(t, work), s.store.Epoch()
		s.reopen(t)
		if s.store.Epoch() != epoch {
			t.Error("another epoch")
		}
		s.quiet(t)
		if after := s.node(t, work); after != before {
			t.Errorf("mailbox is %+v, was %+v", after, before)
		}
		if got := s.messages(t, work); !slices.EqualFunc(got, was, equalMessage) {
			t.Errorf("messages %+v, were %+v", got, was)
		}
		if c := s.mustChanges(t, work, since, ""); len(c) != 1 {
			t.Errorf("changes %+v", c)
		}
	},
	"Refresh/what happens between two openings is noticed": func(t *testing.T, s *suite) {
		_, gone := s.deliver(t, mail.Inbox, "one")
		kept, file := s.deliver(t, mail.Inbox, "two")
		since := s.highest(t, mail.Inbox)
		s.closeStore(t)
		s.Outside.Remove(t, mail.Inbox, gone)
		s.Outside.SetFlags(t, mail.Inbox, file, mail.FlagDraft)
		s.Outside.Deliver(t, mail.Inbox, bodyOf("three"), base)
		s.store = s.Reopen(t)
		if r := s.refresh(t); r.Added != 1 || r.Flags != 1 || r.Expunged != 1 {
			t.Errorf("report %+v", r)
		}
		if m := s.message(t, mail.Inbox, kept.UID); m.GUID != kept.GUID || m.Flags != mail.FlagDraft {
			t.Errorf("message %+v, was %+v", m, kept)
		}
		if c := s.mustChanges(t, mail.Inbox, since, ""); len(c) != 2 {
			t.Errorf("changes %+v", c)
		}
	},
	"Refresh/a lost memory costs the log, and no UID": func(t *testing.T, s *suite) {
		if s.LoseMemory == nil {
			return
		}
		s.create(t, work, guidA)
		_, gone := s.deliver(t, work, "one")
		kept, file := s.deliver(t, work, "two")
		s.Outside.SetFlags(t, work, file, mail.FlagSeen)
		s.Outside.Remove(t, work, gone)
		s.refresh(t)
		before, epoch := s.node(t, work).Status, s.store.Epoch()
		s.closeStore(t)
		s.store = s.LoseMemory(t)
		s.refresh(t)
		after := s.node(t, work).Status
		if after.GUID != before.GUID || after.UIDValidity != before.UIDValidity || after.UIDNext < before.UIDNext {
			t.Errorf("status %+v, was %+v", after, before)
		}
		if m := s.message(t, work, kept.UID); m.GUID != kept.GUID || m.Flags != mail.FlagSeen {
			t.Errorf("message %+v, was %+v", m, kept)
		}
		if s.store.Epoch() == epoch {
			t.Error("the epoch is the old one")
		}
		if c, ok := s.changes(t, work, 1, ""); ok && !slices.ContainsFunc(c, func(c store.Change) bool { return c.Expunged }) {
			t.Errorf("the log claims to reach back to 1, without the expunge: %+v", c)
		}
	},
	"Refresh/a dry run notices and a real one makes it so": func(t *testing.T, s *suite) {
		s.Outside.Deliver(t, mail.Inbox, bodyOf("one"), base)
		if r := s.refreshWith(t, store.RefreshOptions{DryRun: true}); r.Added != 1 {
			t.Errorf("report %+v of the dry run", r)
		}
		if all := s.messages(t, mail.Inbox); len(all) != 1 {
			t.Errorf("messages after the dry run %+v", all)
		}
		s.reopen(t)
		s.refresh(t)
		all := s.messages(t, mail.Inbox)
		if len(all) != 1 || s.content(t, mail.Inbox, all[0].UID) != bodyOf("one") {
			t.Errorf("messages %+v", all)
		}
		s.quiet(t)
	},
	"Refresh/a cancelled context stops it": func(t *testing.T, s *suite) {
		s.Outside.Deliver(t, mail.Inbox, bodyOf("one"), base)
		if _, err := s.store.Refresh(cancelled(t), store.RefreshOptions{}); err == nil {
			t.Error("no error")
		}
		if r := s.refresh(t); r.Added != 1 {
			t.Errorf("report %+v", r)
		}
	},
}

// guard is a Guard that notes what it is asked.
type guard struct {
	calls  int
	losses []store.Loss
	answer error
}

func (g *guard) ask(losses []store.Loss) error {
	g.calls++
	g.losses = slices.Clone(losses)
	return g.answer
}

func (g *guard) wantNone(t *testing.T) {
	t.Helper()
	if g.calls > 1 || len(g.losses) > 0 {
		t.Errorf("the guard was asked %d times, at last about %+v", g.calls, g.losses)
	}
}

func (g *guard) want(t *testing.T, losses ...store.Loss) {
	t.Helper()
	if g.calls != 1 || !slices.Equal(g.losses, losses) {
		t.Errorf("the guard was asked %d times, at last about %+v, want once about %+v", g.calls, g.losses, losses)
	}
}

var errGuard = errors.New("too many")

var guardCases = map[string]func(*testing.T, *suite){
	"Guard/is asked once and its error leaves nothing recorded": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		var files []string
		for _, text := range []string{"one", "two", "three"} {
			_, file := s.deliver(t, work, text)
			files = append(files, file)
		}
		_, other := s.deliver(t, play, "four")
		since, sincePlay, was := s.highest(t, work), s.highest(t, play), s.messages(t, work)
		s.Outside.Remove(t, work, files[0])
		s.Outside.Remove(t, work, files[2])
		s.Outside.Remove(t, play, other)
		want := []store.Loss{{Mailbox: play, Known: 1, Missing: 1}, {Mailbox: work, Known: 3, Missing: 2}}

		refuse := &guard{answer: errGuard}
		if _, err := s.store.Refresh(t.Context(), store.RefreshOptions{Guard: refuse.ask}); err != errGuard {
			t.Errorf("error %v, want the guard's own", err)
		}
		refuse.sort().want(t, want...)
		if got := s.messages(t, work); !slices.EqualFunc(got, was, equalMessage) {
			t.Errorf("messages %+v, were %+v", got, was)
		}
		for name, modseq := range map[mail.Name]mail.ModSeq{work: since, play: sincePlay} {
			if c := s.mustChanges(t, name, modseq, ""); len(c) > 0 {
				t.Errorf("changes of %q: %+v", name, c)
			}
		}
		s.reopen(t)
		accept := &guard{}
		if r := s.refreshWith(t, store.RefreshOptions{Guard: accept.ask}); r.Expunged != 3 {
			t.Errorf("report %+v", r)
		}
		accept.sort().want(t, want...)
	},
	"Guard/is not asked about what was witnessed": func(t *testing.T, s *suite) {
		_, seen := s.deliver(t, mail.Inbox, "one")
		_, unseen := s.deliver(t, mail.Inbox, "two")
		s.Outside.Remove(t, mail.Inbox, seen)
		s.Outside.Remove(t, mail.Inbox, unseen)
		g := &guard{}
		r := s.refreshWith(t, store.RefreshOptions{
			Guard:   g.ask,
			Witness: func(name mail.Name, file string) bool { return name == mail.Inbox && file == seen },
		})
		g.want(t, store.Loss{Mailbox: mail.Inbox, Known: 2, Missing: 1})
		if r.Expunged != 2 {
			t.Errorf("report %+v", r)
		}
	},
	"Guard/hears of a mailbox that is gone": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.deliver(t, work, "one")
		s.Outside.DeleteMailbox(t, work)
		refuse := &guard{answer: errGuard}
		if _, err := s.store.Refresh(t.Context(), store.RefreshOptions{Guard: refuse.ask}); err != errGuard {
			t.Errorf("error %v, want the guard's own", err)
		}
		refuse.want(t, store.Loss{Mailbox: work, Known: 1, Missing: 1, Gone: true})
		if _, deletions := s.tree(t); len(deletions) > 0 {
			t.Errorf("deletions %+v", deletions)
		}
		s.refresh(t)
		s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(guidA))
	},
	"Guard/is not asked about a mailbox whose deletion was witnessed": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.deliver(t, work, "one")
		s.Outside.DeleteMailbox(t, work)
		g := &guard{}
		s.refreshWith(t, store.RefreshOptions{
			Guard:   g.ask,
			Witness: func(name mail.Name, file string) bool { return name == work && file == "" },
		})
		g.wantNone(t)
		s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(guidA))
	},
	"Guard/small losses of late amount to a large one": func(t *testing.T, s *suite) {
		var files []string
		for i := range 8 {
			_, file := s.deliver(t, mail.Inbox, fmt.Sprint("mail ", i))
			files = append(files, file)
		}
		lose := func(n int) {
			for ; n > 0; n-- {
				s.Outside.Remove(t, mail.Inbox, files[0])
				files = files[1:]
			}
		}
		ask := func(o store.RefreshOptions, want store.Loss) {
			t.Helper()
			g := &guard{}
			o.Guard = g.ask
			s.refreshWith(t, o)
			g.want(t, want)
		}
		lately := store.RefreshOptions{Lately: time.Hour}
		lose(1)
		ask(store.RefreshOptions{}, store.Loss{Mailbox: mail.Inbox, Known: 8, Missing: 1}) // stands alone
		lose(1)
		ask(lately, store.Loss{Mailbox: mail.Inbox, Known: 7, Missing: 1})
		s.reopen(t)
		lose(2)
		refuse := &guard{answer: errGuard}
		for range 2 {
			if _, err := s.store.Refresh(t.Context(), store.RefreshOptions{Lately: time.Hour, Guard: refuse.ask}); err != errGuard {
				t.Errorf("error %v, want the guard's own", err)
			}
			s.reopen(t) // as a server that is started again does
		}
		refuse.calls--
		refuse.want(t, store.Loss{Mailbox: mail.Inbox, Known: 7, Missing: 3})
		ask(lately, store.Loss{Mailbox: mail.Inbox, Known: 7, Missing: 3})
		lose(1)
		ask(store.RefreshOptions{}, store.Loss{Mailbox: mail.Inbox, Known: 4, Missing: 1})
		lose(1)
		confirmed := lately
		confirmed.Confirmed = func(name mail.Name) bool { return name == mail.Inbox }
		ask(confirmed, store.Loss{Mailbox: mail.Inbox, Known: 6, Missing: 4})
		lose(1)
		ask(lately, store.Loss{Mailbox: mail.Inbox, Known: 2, Missing: 1})
	},
	"Guard/does not count a mail that turned up elsewhere": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		_, moved := s.deliver(t, mail.Inbox, "one")
		_, lost := s.deliver(t, mail.Inbox, "two")
		s.Outside.Move(t, mail.Inbox, moved, work)
		s.Outside.Remove(t, mail.Inbox, lost)
		g := &guard{}
		s.refreshWith(t, store.RefreshOptions{Guard: g.ask})
		g.want(t, store.Loss{Mailbox: mail.Inbox, Known: 2, Missing: 1})
	},
	"Guard/restored mails are forgotten and not expunged": func(t *testing.T, s *suite) {
		_, lost := s.deliver(t, mail.Inbox, "one")
		kept, _ := s.deliver(t, mail.Inbox, "two")
		since := s.highest(t, mail.Inbox)
		s.Outside.Remove(t, mail.Inbox, lost)
		g := &guard{answer: errGuard}
		r := s.refreshWith(t, store.RefreshOptions{
			Guard: g.ask, Restore: func(name mail.Name) bool { return name == mail.Inbox },
		})
		g.wantNone(t)
		if r.Expunged != 0 {
			t.Errorf("report %+v", r)
		}
		if all := s.messages(t, mail.Inbox); len(all) != 1 || all[0].UID != kept.UID {
			t.Errorf("messages %+v", all)
		}
		if c, ok := s.changes(t, mail.Inbox, since, ""); ok && len(c) > 0 {
			t.Errorf("changes %+v", c)
		}
		s.quiet(t)
	},
}

// sort puts losses in the order of their mailboxes; the port promises none.
func (g *guard) sort() *guard {
	slices.SortFunc(g.losses, func(x, y store.Loss) int {
		if x.Mailbox < y.Mailbox {
			return -1
		}
		return 1
	})
	return g
}
