package storetest

import (
	"maps"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// find looks for GUIDs and checks that nothing else comes back.
func (s *suite) find(t *testing.T, guids ...mail.GUID) map[mail.GUID]store.Location {
	t.Helper()
	want := wanted(guids...)
	found, err := s.store.Find(t.Context(), want, nil)
	if err != nil {
		t.Fatalf("find %q: %v", guids, err)
	}
	for g, where := range found {
		if _, ok := want[g]; !ok {
			t.Errorf("found %q, which nobody wanted", g)
		}
		if (where.UID == 0) != (where.Held != "") {
			t.Errorf("location of %q is %+v", g, where)
		}
	}
	return found
}

var findCases = map[string]func(*testing.T, *suite){
	"Find/finds messages in all mailboxes": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.save(t, work, "peer", sample(1), sample(2))
		s.save(t, play, "peer", sample(3))
		delivered, _ := s.deliver(t, mail.Inbox, "one")
		found := s.find(t, guidOf(2), guidOf(3), delivered.GUID, "nowhere")
		want := map[mail.GUID]store.Location{
			guidOf(2):      {Mailbox: guidA, UID: 2},
			guidOf(3):      {Mailbox: guidB, UID: 3},
			delivered.GUID: {Mailbox: s.node(t, mail.Inbox).Status.GUID, UID: delivered.UID},
		}
		if !maps.Equal(found, want) {
			t.Errorf("found %+v, want %+v", found, want)
		}
		if found := s.find(t); len(found) != 0 {
			t.Errorf("found %+v of nothing", found)
		}
	},
	"Find/leaves out what does not fit": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.save(t, work, "peer", sample(1))
		s.save(t, play, "peer", sample(1))
		for _, box := range []mail.MailboxGUID{guidA, guidB, {}} {
			found, err := s.store.Find(t.Context(), wanted(guidOf(1)), func(at store.Location) bool { return at.Mailbox == box })
			if at, ok := found[guidOf(1)]; err != nil || ok == box.IsZero() || at.Mailbox != box {
				t.Errorf("looking in %s: found %+v, %v", box, found, err)
			}
		}
	},
	"Find/an expunged mail is held until the round ends": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.save(t, work, "peer", sample(1), sample(2))
		s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 1, GUID: guidOf(1)}, {UID: 2, GUID: guidOf(2)}}})
		found := s.find(t, guidOf(1), guidOf(2))
		if found[guidOf(1)].Held == "" || found[guidOf(2)].Held == "" {
			t.Fatalf("found %+v", found)
		}
		s.quiet(t)
		added := sample(5)
		added.GUID = guidOf(1)
		again := sample(6)
		again.GUID = guidOf(1)
		r := s.apply(t, play, store.Batch{Adds: []store.Add{{Message: added, From: found[guidOf(1)]}, {Message: again, From: found[guidOf(1)]}}})
		if len(r.Vanished)+len(r.Reassigned) > 0 || r.Status.Messages != 2 {
			t.Errorf("result %+v", r)
		}
		for _, uid := range []mail.UID{5, 6} {
			if m := s.message(t, play, uid); m.GUID != guidOf(1) || s.content(t, play, uid) != bodyOf(textOf(sample(1))) {
				t.Errorf("copy %+v", m)
			}
		}
		s.endRound(t)
		found = s.find(t, guidOf(1), guidOf(2))
		if len(found) != 1 || found[guidOf(1)].Mailbox != guidB {
			t.Errorf("found %+v after the round", found)
		}
		s.quiet(t)
	},
	"Find/mails of a deleted mailbox are held too": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.create(t, play, guidB)
		s.save(t, work, "peer", sample(1))
		if err := s.store.Delete(t.Context(), guidA); err != nil {
			t.Fatal(err)
		}
		found := s.find(t, guidOf(1))
		if found[guidOf(1)].Held == "" {
			t.Fatalf("found %+v", found)
		}
		s.apply(t, play, store.Batch{Adds: []store.Add{{Message: sample(1), From: found[guidOf(1)]}}})
		if s.content(t, play, 1) != bodyOf(textOf(sample(1))) {
			t.Error("other bytes")
		}
		s.endRound(t)
		s.quiet(t)
	},
	"Find/what is held does not outlive the store": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1))
		s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 1, GUID: guidOf(1)}}})
		s.reopen(t)
		s.quiet(t)
		if found := s.find(t, guidOf(1)); len(found) > 0 {
			t.Errorf("found %+v", found)
		}
	},
	"Find/a message of this GUID in a mailbox beats a held one": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		twin := sample(2)
		twin.GUID = guidOf(1)
		s.save(t, work, "peer", sample(1), twin)
		s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 1, GUID: guidOf(1)}}})
		if found := s.find(t, guidOf(1)); found[guidOf(1)] != (store.Location{Mailbox: guidA, UID: 2}) {
			t.Errorf("found %+v", found)
		}
	},
}

var stateCases = map[string]func(*testing.T, *suite){
	"Base/is kept by peer and mailbox": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		one := store.State{
			UIDValidity: 4711, LastCommonUID: 12, RemoteEpoch: 1<<63 + 5,
			Local:  store.Numbers{UIDNext: 13, Messages: 7, HighestModSeq: 1 << 40},
			Remote: store.Numbers{UIDNext: 14, Messages: 8, HighestModSeq: 99},
		}
		two := store.State{UIDValidity: 1}
		s.setBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: one, guidB: two})
		s.setBase(t, "other", map[mail.MailboxGUID]store.State{guidA: two})
		s.reopen(t)
		s.wantBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: one, guidB: two})
		s.wantBase(t, "other", map[mail.MailboxGUID]store.State{guidA: two})
		s.wantBase(t, "nobody", map[mail.MailboxGUID]store.State{})

		s.setBase(t, "peer", map[mail.MailboxGUID]store.State{guidB: {}})
		s.wantBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: one})
		s.setBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: two})
		s.reopen(t)
		s.wantBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: two})
	},
	"Base/says which UIDs batches gave since then": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		common := store.State{UIDValidity: 4711, LastCommonUID: 2, Unsettled: store.Unsettled{Met: "1:2"}}
		s.setBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: common})
		s.setBase(t, "other", map[mail.MailboxGUID]store.State{guidA: common})
		s.save(t, work, "peer", sample(2))
		m := s.open(t, work)
		defer closeMailbox(t, m)
		b := store.Batch{Peer: "peer"}
		for uid := mail.UID(4); uid <= 6; uid++ {
			b.Adds = append(b.Adds, store.Add{Message: sample(uid), Staged: stage(t, m, sample(uid), "brought")})
		}
		applyTo(t, m, b)
		applyTo(t, m, store.Batch{Peer: "peer", Realign: []store.Realign{{UID: 2, NewUID: 8}, {UID: 5, NewUID: 9}}})
		copied := sample(10)
		copied.GUID = guidOf(6)
		applyTo(t, m, store.Batch{
			Peer:     "peer",
			Expunges: []store.Expunge{{UID: 6, GUID: guidOf(6)}},
			Adds:     []store.Add{{Message: copied, From: store.Location{Mailbox: guidA, UID: 6}}},
		})
		s.reopen(t)
		noted := common
		noted.Unsettled = store.Unsettled{Met: "1:2,8", Brought: "4:6,9:10", Renumbered: "2,5:6"}
		s.wantBase(t, "peer", map[mail.MailboxGUID]store.State{guidA: noted})
		s.wantBase(t, "other", map[mail.MailboxGUID]store.State{guidA: common})
	},
	"Epoch/is the same for the same memory": func(t *testing.T, s *suite) {
		epoch := s.store.Epoch()
		if epoch == 0 {
			t.Error("the epoch is 0")
		}
		s.reopen(t)
		if s.store.Epoch() != epoch {
			t.Error("another epoch after a reopening")
		}
	},
	"Capabilities/are plausible": func(t *testing.T, s *suite) {
		c := s.store.Capabilities()
		if c.Separator == 0 || c.NamePartMax <= 0 || c.Keywords < -1 {
			t.Errorf("capabilities %+v", c)
		}
	},
}

func (s *suite) setBase(t *testing.T, peer string, states map[mail.MailboxGUID]store.State) {
	t.Helper()
	if err := s.store.SetBase(t.Context(), peer, states); err != nil {
		t.Fatalf("set base of %q: %v", peer, err)
	}
}

func (s *suite) wantBase(t *testing.T, peer string, want map[mail.MailboxGUID]store.State) {
	t.Helper()
	got, err := s.store.Base(t.Context(), peer)
	if err != nil {
		t.Fatalf("base of %q: %v", peer, err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("base of %q is %+v, want %+v", peer, got, want)
	}
}
