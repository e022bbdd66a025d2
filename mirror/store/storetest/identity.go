package storetest

import (
	"slices"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// identityCases are about UIDVALIDITY, UIDs and GUIDs that change.
var identityCases = map[string]func(*testing.T, *suite){
	"UIDValidity/changes and UIDs stay": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(4))
		r := s.apply(t, work, store.Batch{UIDValidity: 815})
		if !r.Changed || r.Status.UIDValidity != 815 || r.Status.UIDNext < 5 {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			all := s.messages(t, work)
			if !slices.Equal(uids(all), []mail.UID{1, 4}) || all[0].GUID != guidOf(1) || all[1].GUID != guidOf(4) {
				t.Errorf("messages %+v", all)
			}
			if st := s.node(t, work).Status; st != r.Status {
				t.Errorf("status %+v, the result said %+v", st, r.Status)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Realign/under a new UIDVALIDITY UIDs may be any": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		one := sample(1)
		one.Flags, one.Keywords = mail.FlagSeen, mail.NewKeywords("k")
		s.save(t, work, "peer", one, sample(2), sample(3), sample(9))
		r := s.apply(t, work, store.Batch{
			UIDValidity: 815,
			Realign: []store.Realign{
				{UID: 1, NewUID: 2}, {UID: 2, NewUID: 1}, {UID: 9, NewUID: 4}, {UID: 77, NewUID: 78},
			},
			UIDNext: 20,
		})
		if r.Status.UIDValidity != 815 || r.Status.UIDNext < 20 || !slices.Equal(r.Vanished, []mail.UID{77}) || len(r.Reassigned) > 0 {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			want := map[mail.UID]mail.UID{1: 2, 2: 1, 3: 3, 4: 9} // new to old
			all := s.messages(t, work)
			if len(all) != len(want) {
				t.Fatalf("messages %+v", all)
			}
			for _, m := range all {
				if old := want[m.UID]; m.GUID != guidOf(old) || m.Received != sample(old).Received || s.content(t, work, m.UID) != bodyOf(textOf(sample(old))) {
					t.Errorf("UID %d is %+v, should be the old %d", m.UID, m, old)
				}
			}
			if m := s.message(t, work, 2); m.Flags != mail.FlagSeen || !m.Keywords.Equal(one.Keywords) {
				t.Errorf("flags of %+v", m)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
	"Restart/the UIDs start anew": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(3), sample(5), sample(7), sample(90))
		m := s.open(t, work)
		since := m.Status().HighestModSeq
		added := sample(4)
		r := applyTo(t, m, store.Batch{
			Origin: "peer", UIDValidity: 815, Restart: true,
			Realign:  []store.Realign{{UID: 3, NewUID: 91}, {UID: 5, NewUID: 3}, {UID: 7, NewUID: 5}},
			Deltas:   []store.FlagChange{{UID: 5, Delta: mail.Delta{Add: mail.FlagSeen}}},
			Expunges: []store.Expunge{{UID: 91, GUID: guidOf(3)}, {UID: 90, GUID: guidOf(90)}}, // the first was moved aside
			Adds:     []store.Add{{Message: added, Staged: stage(t, m, added, textOf(added))}},
			UIDNext:  10, FirstRecent: 2,
		})
		if !r.Changed || len(r.Vanished)+len(r.Reassigned) > 0 || r.Status.UIDValidity != 815 || r.Status.UIDNext != 10 ||
			r.Status.Messages != 3 || r.Status.HighestModSeq <= since {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			want := map[mail.UID]mail.UID{3: 5, 4: 4, 5: 7} // new to old
			all := s.messages(t, work)
			if len(all) != len(want) {
				t.Fatalf("messages %+v", all)
			}
			for _, m := range all {
				if old := want[m.UID]; m.GUID != guidOf(old) || s.content(t, work, m.UID) != bodyOf(textOf(sample(old))) {
					t.Errorf("UID %d is %+v, should be the old %d", m.UID, m, old)
				}
				if (m.UID == 5) != (m.Flags == mail.FlagSeen) {
					t.Errorf("flags of %+v", m)
				}
			}
			if st := s.node(t, work).Status; st != r.Status {
				t.Errorf("status %+v, the result said %+v", st, r.Status)
			}
			s.reopen(t)
			s.quiet(t)
		}
		if c, ok := s.changes(t, work, since, ""); ok && len(c) == 0 {
			t.Error("the log claims that nothing changed")
		}
		if m, _ := s.deliver(t, work, "next"); m.UID != 10 {
			t.Errorf("the next mail got UID %d", m.UID)
		}
	},
	"Realign/under the same UIDVALIDITY UIDs move up": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		one := sample(1)
		one.Flags = mail.FlagFlagged
		s.save(t, work, "peer", one, sample(2))
		since := s.highest(t, work)
		r := s.apply(t, work, store.Batch{Origin: "peer", Realign: []store.Realign{{UID: 1, NewUID: 8}}})
		if !r.Changed || len(r.Vanished)+len(r.Reassigned) > 0 || r.Status.UIDNext != 9 || r.Status.HighestModSeq <= since || r.Status.Messages != 2 {
			t.Errorf("result %+v", r)
		}
		all := s.messages(t, work)
		if !slices.Equal(uids(all), []mail.UID{2, 8}) || all[1].GUID != guidOf(1) || all[1].Flags != mail.FlagFlagged || s.content(t, work, 8) != bodyOf(textOf(one)) {
			t.Errorf("messages %+v", all)
		}
		s.reopen(t)
		s.quiet(t)
	},
	"Realign/gives another GUID": func(t *testing.T, s *suite) {
		msg, _ := s.deliver(t, mail.Inbox, "one")
		r := s.apply(t, mail.Inbox, store.Batch{Origin: "peer", Realign: []store.Realign{{UID: msg.UID, NewGUID: guidOf(5)}}})
		if !r.Changed || len(r.Vanished)+len(r.Reassigned) > 0 {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			all := s.messages(t, mail.Inbox)
			if len(all) != 1 || all[0].UID != msg.UID || all[0].GUID != guidOf(5) || s.content(t, mail.Inbox, msg.UID) != bodyOf("one") {
				t.Errorf("messages %+v, was %+v", all, msg)
			}
			s.reopen(t)
			s.quiet(t)
		}
		both := s.apply(t, mail.Inbox, store.Batch{Realign: []store.Realign{{UID: msg.UID, NewUID: msg.UID + 10, NewGUID: guidOf(6)}}})
		if m := s.message(t, mail.Inbox, msg.UID+10); m.GUID != guidOf(6) || both.Status.Messages != 1 {
			t.Errorf("message %+v, result %+v", m, both)
		}
	},
	"Realign/gives another date": func(t *testing.T, s *suite) {
		msg, _ := s.deliver(t, mail.Inbox, "one")
		r := s.apply(t, mail.Inbox, store.Batch{Realign: []store.Realign{{UID: msg.UID, NewGUID: guidOf(5), Received: base + 77}}})
		if !r.Changed || len(r.Vanished)+len(r.Reassigned) > 0 {
			t.Errorf("result %+v", r)
		}
		for range 2 {
			if m := s.message(t, mail.Inbox, msg.UID); m.Received != base+77 || m.GUID != guidOf(5) {
				t.Errorf("message %+v, was %+v", m, msg)
			}
			s.reopen(t)
			s.quiet(t)
		}
	},
}
