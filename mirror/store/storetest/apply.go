package storetest

import (
	"fmt"
	"slices"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

var applyCases = map[string]func(*testing.T, *suite){
	"Add/keeps everything about a mail": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		caps := s.store.Capabilities()
		want := mail.Message{
			UID: 17, GUID: guidOf(17), Flags: mail.FlagSeen | mail.FlagAnswered, Keywords: mail.NewKeywords("$Forwarded", "Work"),
			Received: base + 3, Saved: base + 5, POP3UIDL: "uidl-17", POP3Order: 4, ModSeq: 900,
		}
		r := s.save(t, work, "peer", want)
		if !r.Changed || len(r.Vanished)+len(r.Reassigned) > 0 || r.Status.UIDNext != 18 || r.Status.Messages != 1 {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			got := s.message(t, work, 17)
			want.Size = int64(len(bodyOf(textOf(want))))
			want.ModSeq = got.ModSeq
			if !caps.HasSaveDates {
				want.Saved = got.Saved
			}
			if !equalMessage(got, want) {
				t.Errorf("message %+v, want %+v", got, want)
			}
			if got.ModSeq < 900 {
				t.Errorf("modseq %d below the peer's", got.ModSeq)
			}
			if st := s.node(t, work).Status; st != r.Status {
				t.Errorf("status %+v, the result said %+v", st, r.Status)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Add/many mails of one batch keep their UIDs and order": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		var in []mail.Message
		for uid := mail.UID(3); uid < 200; uid += 2 {
			in = append(in, sample(uid))
		}
		s.save(t, work, "peer", in...)
		got := s.messages(t, work)
		if len(got) != len(in) {
			t.Fatalf("%d messages of %d", len(got), len(in))
		}
		for i, m := range got {
			if m.UID != in[i].UID || m.GUID != in[i].GUID || m.Received != in[i].Received {
				t.Errorf("message %+v, want %+v", m, in[i])
			}
		}
		s.quiet(t)
	},
	"Add/without UID or GUID is given some": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(4))
		s.save(t, work, "peer", mail.Message{Received: base}, mail.Message{Received: base})
		all := s.messages(t, work)
		if len(all) != 3 || all[1].UID < 5 || all[1].GUID == all[2].GUID {
			t.Errorf("messages %+v", all)
		}
	},
	"Add/a taken UID is reassigned": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		first, second := s.open(t, work), s.open(t, work)
		a := store.Add{Message: sample(5), Staged: stage(t, first, sample(5), "first")}
		other := sample(5)
		other.GUID = guidOf(6)
		b := store.Add{Message: other, Staged: stage(t, second, other, "second")}
		applyTo(t, first, store.Batch{Adds: []store.Add{a}})
		r := applyTo(t, second, store.Batch{Adds: []store.Add{b}})
		if len(r.Reassigned) != 1 || r.Reassigned[0].Wanted != 5 || r.Reassigned[0].Got < 6 || r.Status.UIDNext <= r.Reassigned[0].Got {
			t.Fatalf("result %+v", r)
		}
		if got := s.content(t, work, 5); got != bodyOf("first") {
			t.Errorf("content of 5: %q", got)
		}
		if m := s.message(t, work, r.Reassigned[0].Got); m.GUID != guidOf(6) || s.content(t, work, m.UID) != bodyOf("second") {
			t.Errorf("message %+v", m)
		}
	},
	"Add/a mail that was delivered meanwhile keeps its UID": func(t *testing.T, s *suite) {
		m := s.open(t, mail.Inbox)
		next := m.Status().UIDNext
		s.deliver(t, mail.Inbox, "delivered")
		add := sample(next)
		r := applyTo(t, m, store.Batch{Adds: []store.Add{{Message: add, Staged: stage(t, m, add, "saved")}}})
		if len(r.Reassigned) != 1 || r.Reassigned[0].Wanted != next {
			t.Errorf("result %+v", r)
		}
		if got := s.content(t, mail.Inbox, next); got != bodyOf("delivered") {
			t.Errorf("content of %d: %q", next, got)
		}
		if all := s.messages(t, mail.Inbox); len(all) != 2 {
			t.Errorf("messages %+v", all)
		}
	},
	"Reserve/UIDs are for the other side's mails": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		if err := s.store.Reserve(t.Context(), guidA, 5); err != nil {
			t.Fatal(err)
		}
		s.reopen(t)
		s.save(t, work, "peer", sample(3))
		if m := s.message(t, work, 3); m.GUID != sample(3).GUID {
			t.Errorf("the other side's: %+v", m)
		}
		for uid := mail.UID(5); uid < 7; uid++ {
			body := bodyOf(fmt.Sprint("own ", uid))
			s.Outside.Deliver(t, work, body, base)
			s.refresh(t)
			if got := s.content(t, work, uid); got != body {
				t.Errorf("UID %d: %q", uid, got)
			}
		}
		wantErr(t, "reserve in none", s.store.Reserve(t.Context(), guidB, 5), store.ErrNotFound)
	},
	"Add/two mails of one GUID in one mailbox both stay": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		twin := sample(2)
		twin.GUID = guidOf(1)
		s.save(t, work, "peer", sample(1), twin)
		for range 2 {
			all := s.messages(t, work)
			if len(all) != 2 || all[0].GUID != guidOf(1) || all[1].GUID != guidOf(1) {
				t.Fatalf("messages %+v", all)
			}
			if s.content(t, work, 1) == s.content(t, work, 2) {
				t.Error("both have the bytes of one")
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Add/copies from another mailbox and from the same": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.save(t, work, "peer", sample(3))
		copied := sample(8)
		copied.GUID, copied.Flags = guidOf(3), mail.FlagDraft
		r := s.apply(t, play, store.Batch{Adds: []store.Add{{Message: copied, From: store.Location{Mailbox: guidA, UID: 3}}}})
		if len(r.Vanished) > 0 {
			t.Errorf("result %+v", r)
		}
		again := sample(9)
		again.GUID = guidOf(3)
		s.apply(t, work, store.Batch{Adds: []store.Add{{Message: again, From: store.Location{Mailbox: guidA, UID: 3}}}})
		want := bodyOf(textOf(sample(3)))
		if m := s.message(t, play, 8); m.GUID != guidOf(3) || m.Flags != mail.FlagDraft || m.Received != copied.Received || s.content(t, play, 8) != want {
			t.Errorf("copy %+v", m)
		}
		if m := s.message(t, work, 3); m.Flags != 0 || m.Received != sample(3).Received || s.content(t, work, 3) != want {
			t.Errorf("original %+v", m)
		}
		if s.content(t, work, 9) != want {
			t.Error("the copy in the same mailbox has other bytes")
		}
		s.quiet(t)
	},
	"Add/copies what the same batch expunges": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(3))
		moved := sample(10)
		moved.GUID = guidOf(3)
		r := s.apply(t, work, store.Batch{
			Expunges: []store.Expunge{{UID: 3, GUID: guidOf(3)}},
			Adds:     []store.Add{{Message: moved, From: store.Location{Mailbox: guidA, UID: 3}}},
		})
		if len(r.Vanished)+len(r.Reassigned) > 0 || r.Status.Messages != 1 {
			t.Errorf("result %+v", r)
		}
		all := s.messages(t, work)
		if len(all) != 1 || all[0].UID != 10 || all[0].GUID != guidOf(3) || s.content(t, work, 10) != bodyOf(textOf(sample(3))) {
			t.Errorf("messages %+v", all)
		}
		s.endRound(t)
		s.reopen(t)
		s.quiet(t)
		if s.content(t, work, 10) != bodyOf(textOf(sample(3))) {
			t.Error("other bytes after the round")
		}
	},
	"Add/a copy takes over the dates and POP3 fields that it is not given": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		original := sample(3)
		original.POP3UIDL, original.POP3Order = "uidl-3", 9
		s.save(t, work, "peer", original)
		was := s.message(t, work, 3)
		s.apply(t, work, store.Batch{Adds: []store.Add{{
			Message: mail.Message{UID: 4, GUID: guidOf(3)}, From: store.Location{Mailbox: guidA, UID: 3},
		}}})
		got := s.message(t, work, 4)
		if got.Received != was.Received || got.POP3UIDL != "uidl-3" || got.POP3Order != 9 || s.store.Capabilities().HasSaveDates && got.Saved != was.Saved {
			t.Errorf("copy %+v of %+v", got, was)
		}
	},
	"Add/a copy whose original is gone is reported": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		r := s.apply(t, work, store.Batch{Adds: []store.Add{{Message: sample(6), From: store.Location{Mailbox: guidA, UID: 1}}}})
		if !slices.Contains(r.Vanished, 6) {
			t.Errorf("result %+v", r)
		}
		if all := s.messages(t, work); len(all) != 0 {
			t.Errorf("messages %+v", all)
		}
	},
	"Flags/are changed by difference": func(t *testing.T, s *suite) {
		msg, file := s.deliver(t, mail.Inbox, "one")
		since := s.highest(t, mail.Inbox)
		m := s.open(t, mail.Inbox)
		s.Outside.SetFlags(t, mail.Inbox, file, mail.FlagFlagged)
		r := applyTo(t, m, store.Batch{Origin: "peer", Deltas: []store.FlagChange{{UID: msg.UID, Delta: mail.Delta{Add: mail.FlagSeen}}}})
		if !r.Changed || len(r.Vanished) > 0 {
			t.Errorf("result %+v", r)
		}
		s.refresh(t)
		if got := s.message(t, mail.Inbox, msg.UID); got.Flags != mail.FlagFlagged|mail.FlagSeen {
			t.Errorf("flags %v", got.Flags)
		}
		c := s.mustChanges(t, mail.Inbox, since, "peer")
		if len(c) != 1 || c[0].Delta.Add != mail.FlagFlagged {
			t.Errorf("changes that are not the peer's: %+v", c)
		}
		s.quiet(t)
	},
	"Flags/get at least the modseq asked for": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2))
		was := s.messages(t, work)
		s.apply(t, work, store.Batch{Deltas: []store.FlagChange{
			{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen}, MinModSeq: 5000},
			{UID: 2, Delta: mail.Delta{AddKeywords: mail.NewKeywords("k")}},
		}})
		one, two := s.message(t, work, 1), s.message(t, work, 2)
		if one.ModSeq < 5000 || two.ModSeq <= was[1].ModSeq || one.Flags != mail.FlagSeen || !two.Keywords.Equal(mail.NewKeywords("k")) {
			t.Errorf("messages %+v and %+v", one, two)
		}
		s.quiet(t)
	},
	"Flags/a change that changes nothing is none": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		msg := sample(1)
		msg.Flags, msg.Keywords = mail.FlagSeen, mail.NewKeywords("k")
		s.save(t, work, "peer", msg)
		since := s.highest(t, work)
		r := s.apply(t, work, store.Batch{Deltas: []store.FlagChange{{UID: 1, Delta: mail.Delta{
			Add: mail.FlagSeen, Remove: mail.FlagDraft, AddKeywords: mail.NewKeywords("k"), RemoveKeywords: mail.NewKeywords("none"),
		}}}})
		if r.Changed || r.Status.HighestModSeq != since {
			t.Errorf("result %+v", r)
		}
		if c := s.mustChanges(t, work, since, ""); len(c) > 0 {
			t.Errorf("changes %+v", c)
		}
	},
	"Flags/more keywords than a Maildir has letters survive": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		want := map[mail.UID]mail.Keywords{}
		var in []mail.Message
		for uid := mail.UID(1); uid <= 40; uid++ {
			m := sample(uid)
			m.Keywords = mail.NewKeywords("all", fmt.Sprintf("kw-%02d", uid))
			in = append(in, m)
		}
		s.save(t, work, "peer", in...)
		var deltas []store.FlagChange
		var all []string
		for i := range 40 {
			all = append(all, fmt.Sprintf("kw-%02d", i+1))
		}
		deltas = append(deltas,
			store.FlagChange{UID: 1, Delta: mail.Delta{AddKeywords: mail.NewKeywords(all...)}},
			store.FlagChange{UID: 40, Delta: mail.Delta{AddKeywords: mail.NewKeywords("späte"), RemoveKeywords: mail.NewKeywords("kw-40")}},
		)
		s.apply(t, work, store.Batch{Deltas: deltas})
		for _, m := range in {
			want[m.UID] = m.Keywords
		}
		want[1] = mail.NewKeywords(append(all, "all")...)
		want[40] = mail.NewKeywords("all", "späte")
		for range 2 {
			for _, m := range s.messages(t, work) {
				if !m.Keywords.Equal(want[m.UID]) {
					t.Errorf("UID %d has keywords %q, want %q", m.UID, m.Keywords, want[m.UID])
				}
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Flags/of a mail that is gone are reported": func(t *testing.T, s *suite) {
		gone, file := s.deliver(t, mail.Inbox, "one")
		kept, _ := s.deliver(t, mail.Inbox, "two")
		m := s.open(t, mail.Inbox)
		s.Outside.Remove(t, mail.Inbox, file)
		seen := mail.Delta{Add: mail.FlagSeen}
		r := applyTo(t, m, store.Batch{Deltas: []store.FlagChange{{UID: gone.UID, Delta: seen}, {UID: kept.UID, Delta: seen}, {UID: 999, Delta: seen}}})
		slices.Sort(r.Vanished)
		if !slices.Equal(r.Vanished, []mail.UID{gone.UID, 999}) {
			t.Errorf("result %+v", r)
		}
		if got := s.message(t, mail.Inbox, kept.UID); got.Flags != mail.FlagSeen {
			t.Errorf("message %+v", got)
		}
	},
	"Expunge/removes the mail for good": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2))
		before := s.node(t, work).Status
		r := s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 1, GUID: guidOf(1)}}})
		if !r.Changed || len(r.Vanished) > 0 || r.Status.Messages != 1 || r.Status.UIDNext != before.UIDNext || r.Status.HighestModSeq <= before.HighestModSeq {
			t.Errorf("result %+v", r)
		}
		s.endRound(t)
		for range 2 {
			if all := s.messages(t, work); len(all) != 1 || all[0].UID != 2 {
				t.Errorf("messages %+v", all)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Expunge/of another GUID is skipped": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1))
		r := s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 1, GUID: guidOf(9)}}})
		if r.Changed {
			t.Errorf("result %+v", r)
		}
		s.message(t, work, 1)
		if got := s.content(t, work, 1); got != bodyOf(textOf(sample(1))) {
			t.Errorf("content %q", got)
		}
	},
	"Expunge/tells of flags that somebody changed meanwhile": func(t *testing.T, s *suite) {
		changed, file := s.deliver(t, mail.Inbox, "one")
		same, _ := s.deliver(t, mail.Inbox, "two")
		m := s.open(t, mail.Inbox)
		s.Outside.SetFlags(t, mail.Inbox, file, mail.FlagFlagged)
		r := applyTo(t, m, store.Batch{Expunges: []store.Expunge{{UID: changed.UID, GUID: changed.GUID}, {UID: same.UID, GUID: same.GUID}}})
		if len(r.Vanished) > 0 || r.Status.Messages != 0 {
			t.Errorf("result %+v", r)
		}
		if len(r.Late) != 1 || r.Late[0].UID != changed.UID || r.Late[0].Delta.Add != mail.FlagFlagged || r.Late[0].Delta.Remove != 0 {
			t.Errorf("late changes %+v", r.Late)
		}
	},
	"Expunge/of a mail that is gone is reported": func(t *testing.T, s *suite) {
		gone, file := s.deliver(t, mail.Inbox, "one")
		m := s.open(t, mail.Inbox)
		s.Outside.Remove(t, mail.Inbox, file)
		r := applyTo(t, m, store.Batch{Expunges: []store.Expunge{{UID: gone.UID, GUID: gone.GUID}, {UID: 999, GUID: "x"}}})
		slices.Sort(r.Vanished)
		if !slices.Equal(r.Vanished, []mail.UID{gone.UID, 999}) {
			t.Errorf("result %+v", r)
		}
	},
	"Numbers/are raised and never lowered": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		r := s.apply(t, work, store.Batch{UIDNext: 100, FirstRecent: 50, HighestModSeq: 1000})
		if r.Status.UIDNext != 100 || r.Status.FirstRecent != 50 || r.Status.HighestModSeq < 1000 {
			t.Errorf("result %+v", r)
		}
		s.apply(t, work, store.Batch{UIDNext: 7, FirstRecent: 7, HighestModSeq: 7})
		for range 2 {
			if st := s.node(t, work).Status; st != r.Status {
				t.Errorf("status %+v, was %+v", st, r.Status)
			}
			s.reopen(t)
			s.quiet(t)
		}
		if m, _ := s.deliver(t, work, "next"); m.UID != 100 {
			t.Errorf("the next mail got UID %d", m.UID)
		}
	},
	"Numbers/an empty batch changes nothing": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1))
		before := s.node(t, work)
		if r := s.apply(t, work, store.Batch{Origin: "peer"}); r.Changed || r.Status != before.Status {
			t.Errorf("result %+v", r)
		}
		if after := s.node(t, work); after != before {
			t.Errorf("mailbox is %+v, was %+v", after, before)
		}
	},
	"Numbers/a UID beyond the limit is refused": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		before := s.node(t, work)
		m := s.open(t, work)
		add := sample(mail.MaxUID + 1)
		staged := stage(t, m, add, "huge")
		if _, err := m.Apply(t.Context(), store.Batch{Adds: []store.Add{{Message: add, Staged: staged}}}); err == nil {
			t.Error("no error for the UID")
		}
		if _, err := m.Apply(t.Context(), store.Batch{UIDNext: mail.MaxUID + 1}); err == nil {
			t.Error("no error for UIDNEXT")
		}
		if after := s.node(t, work); after != before {
			t.Errorf("mailbox is %+v, was %+v", after, before)
		}
	},
	"Apply/a batch is done in its order": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2), sample(3))
		m := s.open(t, work)
		r := applyTo(t, m, store.Batch{
			Origin:      "peer",
			Deltas:      []store.FlagChange{{UID: 2, Delta: mail.Delta{Add: mail.FlagSeen}}},
			Expunges:    []store.Expunge{{UID: 1, GUID: guidOf(1)}, {UID: 3, GUID: guidOf(3)}},
			Adds:        []store.Add{{Message: sample(4), Staged: stage(t, m, sample(4), "four")}, {Message: sample(6), Staged: stage(t, m, sample(6), "six")}},
			UIDNext:     30,
			FirstRecent: 5,
		})
		if !r.Changed || r.Status.UIDNext != 30 || r.Status.Messages != 3 || r.Status.FirstRecent != 5 {
			t.Errorf("result %+v", r)
		}
		all := s.messages(t, work)
		if !slices.Equal(uids(all), []mail.UID{2, 4, 6}) || all[0].Flags != mail.FlagSeen {
			t.Errorf("messages %+v", all)
		}
		s.quiet(t)
	},
	"Apply/to a mailbox that was deleted is not found": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		m := s.open(t, work)
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		_, err := m.Apply(t.Context(), store.Batch{UIDNext: 9})
		wantErr(t, "apply", err, store.ErrNotFound)
		nodes, _ := s.tree(t)
		if nodes[work].Existence == mail.Exists {
			t.Error("the mailbox came back")
		}
	},
	"Apply/a cancelled context stops it before anything is done": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		m := s.open(t, work)
		add := store.Add{Message: sample(1), Staged: stage(t, m, sample(1), "one")}
		if _, err := m.Apply(cancelled(t), store.Batch{Adds: []store.Add{add}}); err == nil {
			t.Error("no error")
		}
		if all := s.messages(t, work); len(all) != 0 {
			t.Errorf("messages %+v", all)
		}
	},
}

func wanted(guids ...mail.GUID) map[mail.GUID]struct{} {
	want := map[mail.GUID]struct{}{}
	for _, g := range guids {
		want[g] = struct{}{}
	}
	return want
}

func (s *suite) endRound(t *testing.T) {
	t.Helper()
	if err := s.store.EndRound(t.Context()); err != nil {
		t.Fatalf("end round: %v", err)
	}
}
