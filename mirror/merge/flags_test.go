package merge_test

import (
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

func TestFlags(t *testing.T) {
	const seen = mail.FlagSeen
	for _, c := range []struct {
		name          string
		local, remote merge.FlagState
		preference    merge.Preference
		want          mail.Flags
	}{
		{"a logged change beats none, whoever is preferred", merge.FlagState{Now: seen, Added: seen}, merge.FlagState{}, merge.PreferRemote, seen},
		{"a logged removal beats none, whoever is preferred", merge.FlagState{Now: seen}, merge.FlagState{Removed: seen}, merge.PreferLocal, 0},
		{"of opposite changes the preferred one wins", merge.FlagState{Now: seen, Added: seen}, merge.FlagState{Removed: seen}, merge.PreferLocal, seen},
		{"of opposite changes the preferred one wins there", merge.FlagState{Now: seen, Added: seen}, merge.FlagState{Removed: seen}, merge.PreferRemote, 0},
		{"of opposite changes a union keeps the flag", merge.FlagState{Removed: seen}, merge.FlagState{Now: seen, Added: seen}, merge.Union, seen},
		{"an unexplained difference goes by preference", merge.FlagState{Now: seen}, merge.FlagState{}, merge.PreferRemote, 0},
		{"an unexplained difference stays in a union", merge.FlagState{Now: seen}, merge.FlagState{}, merge.Union, seen},
		{"what both agree on needs no explanation", merge.FlagState{Added: seen}, merge.FlagState{}, merge.PreferLocal, 0},
		{"a union believes a removal", merge.FlagState{Now: seen}, merge.FlagState{Removed: seen}, merge.Union, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := merge.Flags(c.local, c.remote, c.preference); got != c.want {
				t.Errorf("flags %q, want %q", got, c.want)
			}
		})
	}
}

func TestFlagsAreSymmetric(t *testing.T) {
	state := rapid.Custom(func(t *rapid.T) merge.FlagState {
		f := rapid.Uint8Range(0, uint8(mail.AllFlags))
		s := merge.FlagState{Now: mail.Flags(f.Draw(t, "now")), Added: mail.Flags(f.Draw(t, "added"))}
		s.Removed = mail.Flags(f.Draw(t, "removed")) &^ s.Added
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		l, r := state.Draw(t, "local"), state.Draw(t, "remote")
		for p, mirrored := range map[merge.Preference]merge.Preference{
			merge.PreferLocal: merge.PreferRemote, merge.PreferRemote: merge.PreferLocal, merge.Union: merge.Union,
		} {
			here, there := merge.Flags(l, r, p), merge.Flags(r, l, mirrored)
			if here != there {
				t.Fatalf("preference %d: %q here, %q there", p, here, there)
			}
			if outside := ^(l.Now ^ r.Now); here&outside != l.Now&outside {
				t.Fatalf("preference %d: %q changes what both agree on", p, here)
			}
		}
	})
}

func TestRecordsSayWhatTheyAreMadeOf(t *testing.T) {
	m := mail.Message{UID: 3, GUID: "A", Flags: mail.FlagSeen, Keywords: mail.NewKeywords("new", "old"), ModSeq: 7}
	d := mail.Delta{
		Add: mail.FlagSeen, Remove: mail.FlagDraft,
		AddKeywords: mail.NewKeywords("new", "gone"), RemoveKeywords: mail.NewKeywords("off"),
	}
	c := merge.SaveRecord(&m, d)
	var ops string
	for _, k := range c.Keywords {
		ops += string(rune(k.Op)) + k.Name + " "
	}
	equal(t, "keywords", ops, "-off &new =old +gone ")
	got := merge.MarksOf(c)
	if got.Flags != m.Flags || !got.Keywords.Equal(m.Keywords) || got.ModSeq != m.ModSeq || got.Logged.Add != d.Add || got.Logged.Remove != d.Remove {
		t.Errorf("marks %+v", got)
	}
	if f := merge.FlagsRecord(&m, d); f.Type != item.ChangeFlags || f.UID != 3 {
		t.Errorf("record %+v", f)
	}
}

func TestFilterFlagOption(t *testing.T) {
	for s, want := range map[string]merge.Filter{
		`\flagged`: {Flag: mail.FlagFlagged}, `-\Seen`: {Flag: mail.FlagSeen, Not: true}, "work": {Keyword: "work"}, "-work": {Keyword: "work", Not: true},
	} {
		var got merge.Filter
		if got.ParseFlagFilter(s); got != want {
			t.Errorf("%s: %+v, want %+v", s, got, want)
		}
	}
}

func TestFilterLimits(t *testing.T) {
	record := func(received int64, size uint64) *item.Change {
		return &item.Change{Type: item.ChangeSave, UID: 1, GUID: "A", Received: received, HasSize: true, VirtualSize: size}
	}
	for _, c := range []struct {
		name   string
		filter merge.Filter
		change *item.Change
		wanted bool
	}{
		{"too old", merge.Filter{Since: 100}, record(99, 1), false},
		{"old enough", merge.Filter{Since: 100}, record(100, 1), true},
		{"too young", merge.Filter{Until: 100}, record(101, 1), false},
		{"too large", merge.Filter{MaxSize: 10}, record(1, 11), false},
		{"as large as may be", merge.Filter{MaxSize: 10}, record(1, 10), true},
		{"of unknown size", merge.Filter{MaxSize: 10}, record(1, item.UnknownSize), true},
	} {
		p, err := plan(merge.Options{Filter: c.filter, Local: list()}, []*item.Change{c.change})
		if err != nil {
			t.Fatal(err)
		}
		if wanted := len(p.Adds) == 1; wanted != c.wanted {
			t.Errorf("%s: wanted %v", c.name, wanted)
		}
	}
}

func TestNeedsComparison(t *testing.T) {
	s := mail.Status{GUID: mail.MailboxGUID{1}, UIDValidity: 1, UIDNext: 2, Messages: 3, FirstRecent: 4, HighestModSeq: 5}
	renamed := s
	renamed.GUID = mail.MailboxGUID{2}
	if merge.NeedsComparison(item.SyncChanged, s, renamed) {
		t.Error("equal numbers are compared")
	}
	for _, full := range []item.SyncType{item.SyncFull, item.SyncState} {
		if !merge.NeedsComparison(full, s, s) {
			t.Errorf("type %c is not compared", full)
		}
	}
	for i, change := range []func(*mail.Status){
		func(s *mail.Status) { s.UIDValidity++ }, func(s *mail.Status) { s.UIDNext++ }, func(s *mail.Status) { s.Messages++ },
		func(s *mail.Status) { s.FirstRecent++ }, func(s *mail.Status) { s.HighestModSeq++ },
	} {
		other := s
		if change(&other); !merge.NeedsComparison(item.SyncChanged, s, other) {
			t.Errorf("difference %d is not compared", i)
		}
	}
}

func TestWinners(t *testing.T) {
	few := mail.Status{Messages: 1, UIDValidity: 9, UIDNext: 2}
	many := mail.Status{Messages: 2, UIDValidity: 8, UIDNext: 3}
	if merge.UIDValidityWinner(few, many) != 8 || merge.UIDValidityWinner(many, few) != 8 {
		t.Error("the UIDVALIDITY of fewer mails won")
	}
	few.Messages = 2
	if merge.UIDValidityWinner(few, many) != 9 || merge.UIDValidityWinner(many, few) != 9 {
		t.Error("the smaller UIDVALIDITY won")
	}
	rapid.Check(t, func(t *rapid.T) {
		status := func(name string) mail.Status {
			n := rapid.IntRange(0, 1)
			return mail.Status{
				Messages: uint32(n.Draw(t, name)), UIDValidity: mail.UIDValidity(n.Draw(t, name)), UIDNext: mail.UID(n.Draw(t, name)),
				GUID: mail.MailboxGUID{byte(n.Draw(t, name))}, HighestModSeq: mail.ModSeq(n.Draw(t, name)),
			}
		}
		a, b := status("a"), status("b")
		w := merge.Winner(a, b, 1, 2)
		if w == 0 || w != -merge.Winner(b, a, 2, 1) {
			t.Fatalf("%+v against %+v: %d", a, b, w)
		}
		winner := b
		if w > 0 {
			winner = a
		}
		if v := merge.UIDValidityWinner(a, b); v != winner.UIDValidity {
			t.Fatalf("UIDVALIDITY %d, winner's %d", v, winner.UIDValidity)
		}
	})
}

func TestBaseFits(t *testing.T) {
	s := mail.Status{UIDNext: 5, HighestModSeq: 10}
	for _, c := range []struct {
		uid    mail.UID
		modSeq mail.ModSeq
		want   bool
	}{{4, 10, true}, {5, 10, false}, {4, 11, false}, {0, 11, true}, {0, 1, true}} {
		if got := merge.BaseFits(s, c.uid, c.modSeq); got != c.want {
			t.Errorf("base %d, %d: %v", c.uid, c.modSeq, got)
		}
	}
}
