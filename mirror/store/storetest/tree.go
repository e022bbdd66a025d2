package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// wantDeletion checks that the tree remembers a deletion.
func (s *suite) wantDeletion(t *testing.T, kind mail.DeletionKind, id mail.GUID128) {
	t.Helper()
	_, deletions := s.tree(t)
	if !slices.ContainsFunc(deletions, func(d mail.Deletion) bool { return d.Kind == kind && d.ID == id && nearNow(d.Time) }) {
		t.Errorf("no deletion of kind %d and ID %v in %+v", kind, id, deletions)
	}
}

func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// equalMessage compares all but what a store may work out later.
func equalMessage(x, y mail.Message) bool {
	return x.UID == y.UID && x.GUID == y.GUID && x.Flags == y.Flags && x.Keywords.Equal(y.Keywords) && x.ModSeq == y.ModSeq &&
		x.Received == y.Received && x.Saved == y.Saved && x.POP3UIDL == y.POP3UIDL && x.POP3Order == y.POP3Order && x.Size == y.Size
}

var treeCases = map[string]func(*testing.T, *suite){
	"Tree/an empty account has an INBOX": func(t *testing.T, s *suite) {
		n := s.node(t, mail.Inbox)
		if n.Status.Messages != 0 {
			t.Errorf("INBOX is %+v", n)
		}
	},
	"Create/gives the GUID and UIDVALIDITY asked for": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		for range 2 {
			n := s.node(t, work)
			if n.Status.GUID != guidA || n.Status.UIDValidity != 4711 || n.Status.Messages != 0 || n.Subscribed {
				t.Errorf("mailbox %+v", n)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Create/makes missing parents": func(t *testing.T, s *suite) {
		s.create(t, "a/b/c", guidA)
		nodes, _ := s.tree(t)
		for _, name := range []mail.Name{"a", "a/b"} {
			if n, ok := nodes[name]; !ok || !n.Status.GUID.IsZero() || n.Existence == mail.Deleted {
				t.Errorf("%q is %+v", name, n)
			}
		}
		s.node(t, "a/b/c")
		s.quiet(t)
	},
	"Create/makes a mailbox of a level of hierarchy": func(t *testing.T, s *suite) {
		s.create(t, "a/b", guidA)
		s.create(t, "a", guidB)
		if n := s.node(t, "a"); n.Status.GUID != guidB {
			t.Errorf("mailbox %+v", n)
		}
		s.node(t, "a/b")
		s.reopen(t)
		s.quiet(t)
		s.node(t, "a/b")
	},
	"Create/refuses a name that is there": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		wantErr(t, "create twice", s.store.Create(t.Context(), work, guidB, 1), store.ErrExists)
		wantErr(t, "create INBOX", s.store.Create(t.Context(), mail.Inbox, guidB, 1), store.ErrExists)
		if n := s.node(t, work); n.Status.GUID != guidA {
			t.Errorf("mailbox %+v", n)
		}
	},
	"Create/names that no store can hold are refused": func(t *testing.T, s *suite) {
		for _, name := range []mail.Name{
			"", "../x", "a/../b", "a//b", "/a", "a/", ".", "a\x00b", "a\nb", "~root", "\xff\xfe", mail.Name(strings.Repeat("x", 300)),
		} {
			wantErr(t, "create "+string(name), s.store.Create(t.Context(), name, guidA, 1), store.ErrName)
			wantErr(t, "create directory "+string(name), s.store.CreateDirectory(t.Context(), name), store.ErrName)
		}
		nodes, _ := s.tree(t)
		if len(nodes) != 1 {
			t.Errorf("tree %+v", nodes)
		}
	},
	"Create/odd names come back as they are, or are refused": func(t *testing.T, s *suite) {
		held := map[mail.Name]bool{}
		for i, name := range []mail.Name{
			"Entwürfe", "日本語/受信", "a b", "a.b", "x & y", "&", "it's \"quoted\"", "cur", "new", "tmp", "x.y/z", ".hidden", "%41", "a\\b", "inbox2",
			"dovecot-uidlist", "e\u0301", "\u00e9", "=", "-m", mail.Name(strings.Repeat("ü", 60)), "INBOX/sub", "a*b?",
		} {
			guid := guidA
			guid[15] = byte(100 + i)
			switch err := s.store.Create(t.Context(), name, guid, 1); {
			case err == nil:
				held[name] = true
			case !errors.Is(err, store.ErrName):
				t.Errorf("create %q: %v", name, err)
			}
		}
		s.reopen(t)
		s.quiet(t)
		nodes, _ := s.tree(t)
		for name, n := range nodes {
			if !n.Status.GUID.IsZero() && !held[name] && name != mail.Inbox {
				t.Errorf("there is a mailbox %q, which was not created", name)
			}
		}
		for name := range held {
			if nodes[name].Status.GUID.IsZero() {
				t.Errorf("%q was created and is %+v", name, nodes[name])
			}
		}
	},
	"CreateDirectory/makes a level without messages": func(t *testing.T, s *suite) {
		if err := s.store.CreateDirectory(t.Context(), work); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "create it again", s.store.CreateDirectory(t.Context(), work), store.ErrExists)
		s.create(t, play, guidA)
		wantErr(t, "create a directory over a mailbox", s.store.CreateDirectory(t.Context(), play), store.ErrExists)
		for range 2 {
			nodes, _ := s.tree(t)
			if n, ok := nodes[work]; !ok || !n.Status.GUID.IsZero() || n.Existence != mail.Exists {
				t.Errorf("directory %+v", n)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"DeleteDirectory/removes it and remembers": func(t *testing.T, s *suite) {
		if err := s.store.CreateDirectory(t.Context(), work); err != nil {
			t.Fatal(err)
		}
		if err := s.store.DeleteDirectory(t.Context(), work); err != nil {
			t.Fatal(err)
		}
		s.refresh(t)
		nodes, _ := s.tree(t)
		if n := nodes[work]; n.Existence == mail.Exists {
			t.Errorf("directory %+v", n)
		}
		s.wantDeletion(t, mail.DeletedDirectory, work.NameHash(s.store.Capabilities().Separator))
	},
	"Delete/removes the mailbox and remembers": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2))
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			nodes, _ := s.tree(t)
			if n := nodes[work]; n.Existence == mail.Exists {
				t.Errorf("mailbox %+v", n)
			}
			s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(guidA))
			_, err := s.store.Open(t.Context(), guidA)
			wantErr(t, "open", err, store.ErrNotFound)
			wantErr(t, "delete again", s.store.Delete(t.Context(), guidA), store.ErrNotFound)
			s.reopen(t)
			g := &guard{}
			s.refreshWith(t, store.RefreshOptions{Guard: g.ask})
			g.wantNone(t)
		}
	},
	"Delete/leaves the mailboxes below": func(t *testing.T, s *suite) {
		s.create(t, "a", guidA)
		s.create(t, "a/b", guidB)
		s.save(t, "a/b", "peer", sample(1))
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		s.refresh(t)
		if n := len(s.messages(t, "a/b")); n != 1 {
			t.Errorf("%d messages", n)
		}
		nodes, _ := s.tree(t)
		if n := nodes["a"]; !n.Status.GUID.IsZero() {
			t.Errorf("the parent is %+v", n)
		}
	},
	"Delete/empties INBOX and keeps it": func(t *testing.T, s *suite) {
		m, _ := s.deliver(t, mail.Inbox, "one")
		before := s.node(t, mail.Inbox).Status
		if err := s.store.Delete(t.Context(), before.GUID); err != nil {
			t.Fatal(err)
		}
		s.refresh(t)
		after := s.node(t, mail.Inbox).Status
		if after.Messages != 0 || after.UIDNext < before.UIDNext && after.UIDValidity == before.UIDValidity {
			t.Errorf("status %+v, was %+v", after, before)
		}
		next, _ := s.deliver(t, mail.Inbox, "two")
		if next.UID <= m.UID && after.UIDValidity == before.UIDValidity {
			t.Errorf("UID %d after %d", next.UID, m.UID)
		}
	},
	"Delete/made again under the same name it is another mailbox": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1))
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		s.create(t, work, guidB)
		s.refresh(t)
		if n := s.node(t, work); n.Status.GUID != guidB || n.Status.Messages != 0 {
			t.Errorf("mailbox %+v", n)
		}
		s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(guidA))
	},
	"Delete/made again under the same GUID it has no last common states": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		for _, peer := range []string{"one", "two"} {
			if err := s.store.SetBase(t.Context(), peer, map[mail.MailboxGUID]store.State{guidA: {LastCommonUID: 7}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		base := func(peer string) map[mail.MailboxGUID]store.State {
			states, err := s.store.Base(t.Context(), peer)
			if err != nil {
				t.Fatal(err)
			}
			return states
		}
		if base("one")[guidA].LastCommonUID != 7 {
			t.Error("nobody can be told up to where the mailbox was known that was deleted")
		}
		s.create(t, work, guidA)
		if states := base("one"); len(states) > 0 {
			t.Errorf("states %+v", states)
		}
		s.reopen(t)
		if states := base("two"); len(states) > 0 {
			t.Errorf("states with another peer %+v", states)
		}
	},
	"Delete/a mailbox that comes back under its GUID is not recorded as deleted": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		s.wantDeletion(t, mail.DeletedMailbox, mail.GUID128(guidA))
		s.create(t, play, guidA)
		s.reopen(t)
		s.quiet(t)
		if n := s.node(t, play); n.Status.GUID != guidA {
			t.Errorf("mailbox %+v", n)
		}
		if _, deletions := s.tree(t); len(deletions) > 0 {
			t.Errorf("deletions %+v", deletions)
		}
	},
	"Rename/remembers when it was done elsewhere": func(t *testing.T, s *suite) {
		s.create(t, "a", guidA)
		if err := s.store.Rename(t.Context(), "a", "b", 86400); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := s.node(t, "b").Renamed; got != 86400 {
				t.Errorf("time of the rename %d", got)
			}
			s.reopen(t)
			s.refresh(t)
		}
	},
	"SetGUID/a mailbox that takes over the GUID of a deleted one takes over nothing else": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.setBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: {UIDValidity: 1, LastCommonUID: 3}})
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		s.create(t, work, guidB)
		if err := s.store.SetGUID(t.Context(), guidB, guidA); err != nil {
			t.Fatal(err)
		}
		if _, deletions := s.tree(t); len(deletions) > 0 {
			t.Errorf("deletions %+v", deletions)
		}
		s.wantBase(t, "peer", map[mail.MailboxGUID]store.State{}) // that was of the other one
	},
	"Rename/moves the mailbox and everything below": func(t *testing.T, s *suite) {
		s.create(t, "a", guidA)
		s.create(t, "a/b/c", guidB)
		s.create(t, "ab", mail.MailboxGUID{7})
		s.save(t, "a", "peer", sample(1))
		s.save(t, "a/b/c", "peer", sample(1), sample(2))
		before, was := s.node(t, "a/b/c").Status, s.messages(t, "a/b/c")
		if err := s.store.Rename(t.Context(), "a", "x/y", 0); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			top, below := s.node(t, "x/y"), s.node(t, "x/y/b/c")
			if top.Status.GUID != guidA || top.Status.Messages != 1 || below.Status != before {
				t.Errorf("mailboxes %+v and %+v", top, below)
			}
			if !nearNow(top.Renamed) {
				t.Errorf("time of the rename %d", top.Renamed)
			}
			if got := s.messages(t, "x/y/b/c"); !slices.EqualFunc(got, was, equalMessage) {
				t.Errorf("messages %+v, were %+v", got, was)
			}
			if got := s.content(t, "x/y/b/c", 2); got != bodyOf(textOf(sample(2))) {
				t.Errorf("content %q", got)
			}
			s.node(t, "ab")
			nodes, deletions := s.tree(t)
			if nodes["a"].Existence == mail.Exists || nodes["a/b/c"].Existence == mail.Exists || len(deletions) > 0 {
				t.Errorf("the old name is %+v, deletions %+v", nodes["a"], deletions)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Rename/moves a level of hierarchy": func(t *testing.T, s *suite) {
		s.create(t, "a/b", guidA)
		if err := s.store.Rename(t.Context(), "a", "z", 0); err != nil {
			t.Fatal(err)
		}
		s.quiet(t)
		if n := s.node(t, "z/b"); n.Status.GUID != guidA {
			t.Errorf("mailbox %+v", n)
		}
	},
	"Rename/refuses what cannot be": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		wantErr(t, "rename what is not there", s.store.Rename(t.Context(), "none", "other", 0), store.ErrNotFound)
		wantErr(t, "rename over a mailbox", s.store.Rename(t.Context(), work, play, 0), store.ErrExists)
		wantErr(t, "rename out of the store", s.store.Rename(t.Context(), work, "../x", 0), store.ErrName)
		if s.store.Rename(t.Context(), work, "work/below", 0) == nil {
			t.Error("renamed below itself")
		}
		if s.store.Rename(t.Context(), mail.Inbox, "other", 0) == nil {
			t.Error("renamed INBOX")
		}
		s.quiet(t)
		if s.node(t, work).Status.GUID != guidA || s.node(t, play).Status.GUID != guidB {
			t.Error("mailboxes changed")
		}
	},
	"Subscribe/is kept, with its time": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		for _, on := range []bool{true, false, true} {
			for _, name := range []mail.Name{work, "only/subscribed", "Entwürfe"} {
				if err := s.store.Subscribe(t.Context(), name, on); err != nil {
					t.Fatalf("subscribe %q %v: %v", name, on, err)
				}
			}
			s.reopen(t)
			s.quiet(t)
			nodes, deletions := s.tree(t)
			for _, name := range []mail.Name{work, "only/subscribed", "Entwürfe"} {
				if nodes[name].Subscribed != on {
					t.Errorf("%q is %+v, want subscribed %v", name, nodes[name], on)
				}
				id := name.NameHash(s.store.Capabilities().Separator)
				remembered := slices.ContainsFunc(deletions, func(d mail.Deletion) bool {
					return d.Kind == mail.Unsubscribed && d.ID == id
				})
				if !on && !remembered && !nearNow(nodes[name].SubscriptionChanged) {
					t.Errorf("%q: nothing tells when it was unsubscribed", name)
				}
			}
			if on && nodes["only/subscribed"].Existence == mail.Exists {
				t.Error("a name that is only subscribed exists")
			}
		}
	},
	"SetGUID/keeps messages and UIDs": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(5))
		was := s.messages(t, work)
		if err := s.store.SetGUID(t.Context(), guidA, guidB); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if n := s.node(t, work); n.Status.GUID != guidB || n.Status.UIDValidity != 4711 || n.Status.UIDNext != 6 {
				t.Errorf("mailbox %+v", n)
			}
			if got := s.messages(t, work); !slices.EqualFunc(got, was, equalMessage) {
				t.Errorf("messages %+v, were %+v", got, was)
			}
			if _, deletions := s.tree(t); len(deletions) > 0 {
				t.Errorf("deletions %+v", deletions)
			}
			_, err := s.store.Open(t.Context(), guidA)
			wantErr(t, "open by the old GUID", err, store.ErrNotFound)
			s.reopen(t)
			s.quiet(t)
		}
		wantErr(t, "set the GUID of what is not there", s.store.SetGUID(t.Context(), guidA, guidB), store.ErrNotFound)
	},
	"Open/an unknown GUID is not found": func(t *testing.T, s *suite) {
		_, err := s.store.Open(t.Context(), guidA)
		wantErr(t, "open", err, store.ErrNotFound)
	},
}
