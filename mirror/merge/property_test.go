package merge_test

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// history makes random changes on both sides and remembers what a user ever expunged.
type history struct {
	*pair
	t        *rapid.T
	counter  int
	expunged map[mail.GUID]bool
}

func (h *history) changes(n int) {
	for range rapid.IntRange(0, n).Draw(h.t, "changes") {
		b := h.a
		other := h.b
		if rapid.Bool().Draw(h.t, "at b") {
			b, other = other, b
		}
		h.change(b, other)
	}
}

func (h *history) change(b, other *box) {
	pick := func(from *box) *mail.Message {
		if len(from.mails) == 0 {
			return nil
		}
		return &from.mails[rapid.IntRange(0, len(from.mails)-1).Draw(h.t, "mail")]
	}
	switch what := rapid.SampledFrom([]string{"deliver", "deliver", "deliver", "copy", "same", "flags", "flags", "keyword", "expunge"}).Draw(h.t, "what"); what {
	case "deliver":
		h.counter++
		// Names in any order: the rule of heads must not depend on GUIDs that grow.
		guid := mail.GUID(fmt.Sprintf("%c%d", 'a'+rapid.IntRange(0, 5).Draw(h.t, "name"), h.counter))
		b.deliver(guid, "body of "+string(guid))
	case "copy":
		if m := pick(b); m != nil {
			b.deliver(m.GUID, b.body[m.GUID])
		}
	case "same":
		if m := pick(other); m != nil {
			b.deliver(m.GUID, other.body[m.GUID])
		}
	case "flags":
		if m := pick(b); m != nil {
			f := mail.Flags(1) << rapid.IntRange(0, 4).Draw(h.t, "flag")
			b.change(m.UID, mail.DeltaBetween(m.Flags, nil, m.Flags^f, nil), 0, false)
		}
	case "keyword":
		if m := pick(b); m != nil {
			k := mail.NewKeywords(rapid.SampledFrom([]string{"work", "later"}).Draw(h.t, "keyword"))
			d := mail.Delta{AddKeywords: k}
			if m.Keywords.Has(k[0]) {
				d = mail.Delta{RemoveKeywords: k}
			}
			b.change(m.UID, d, 0, false)
		}
	case "expunge":
		if m := pick(b); m != nil {
			h.expunged[m.GUID] = true
			b.remove(m.UID, false)
		}
	}
}

func counts(b *box) map[mail.GUID]int {
	n := map[mail.GUID]int{}
	for _, m := range b.mails {
		n[m.GUID]++
	}
	return n
}

// settled fails unless both sides are equal, sound, and have lost nothing of what was there before.
func (h *history) settled(before *pair) {
	h.t.Helper()
	h.sound()
	if a, b := h.a.content(), h.b.content(); a != b {
		h.t.Fatalf("sides differ:\n%s---\n%s", a, b)
	}
	after := counts(h.a)
	for _, side := range []*box{before.a, before.b} {
		for guid, n := range counts(side) {
			if after[guid] < n && !h.expunged[guid] {
				h.t.Fatalf("%d of %d mails %s are left", after[guid], n, guid)
			}
		}
	}
}

func (h *history) sound() {
	h.t.Helper()
	for _, b := range []*box{h.a, h.b} {
		if len(b.problems) > 0 {
			h.t.Fatalf("%s", b.problems[0])
		}
	}
}

func newHistory(t *rapid.T) *history {
	return &history{pair: newPair(), t: t, expunged: map[mail.GUID]bool{}}
}

func mustSync(t *rapid.T, p *pair, absence merge.Absence, useBase, union bool) (a, b merge.Plan) {
	t.Helper()
	a, b, err := p.sync(absence, useBase, union)
	if err != nil {
		t.Fatal(err)
	}
	if a.Resync || b.Resync {
		t.Fatal("records do not fit the base")
	}
	return a, b
}

func TestTwoReplicasBecomeEqualInOneRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			h.changes(12)
			before := h.clone()
			absence := rapid.SampledFrom([]merge.Absence{merge.Expunged, merge.Keep}).Draw(t, "absence")
			useBase, union := rapid.Bool().Draw(t, "base"), rapid.Bool().Draw(t, "union")
			mustSync(t, h.pair, absence, useBase, union)
			h.settled(before)
			for _, withBase := range []bool{true, false} {
				again := h.pair.clone()
				if a, b := mustSync(t, again, absence, withBase, union); !a.Empty() || !b.Empty() {
					t.Fatalf("second round (base %v) plans\n%+v\n%+v", withBase, a, b)
				}
			}
		}
	})
}

func TestExchangingTheSidesChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.changes(8)
		mustSync(t, h.pair, merge.Expunged, false, true)
		h.changes(12)
		absence := rapid.SampledFrom([]merge.Absence{merge.Expunged, merge.Keep}).Draw(t, "absence")
		useBase := rapid.Bool().Draw(t, "base")
		swapped := h.clone()
		swapped.a, swapped.b = swapped.b, swapped.a
		swapped.base.a, swapped.base.b = swapped.base.b, swapped.base.a
		mustSync(t, h.pair, absence, useBase, true)
		mustSync(t, swapped, absence, useBase, true)
		if one, other := h.a.content(), swapped.a.content(); one != other {
			t.Fatalf("started by a:\n%s--- by b:\n%s", one, other)
		}
	})
}

// A side that lost its log can still be synced. Read as Dovecot reads it, absence may be taken for an expunge; kept, nothing
// gets lost.
func TestSidesWithoutLogBecomeEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 2).Draw(t, "rounds") {
			h.changes(12)
			mustSync(t, h.pair, merge.Expunged, true, false)
		}
		h.changes(12)
		if rapid.Bool().Draw(t, "a forgets") {
			h.a.log = nil
		}
		if rapid.Bool().Draw(t, "b forgets") {
			h.b.log = nil
		}
		h.base = base{}
		absence := rapid.SampledFrom([]merge.Absence{merge.Expunged, merge.Keep}).Draw(t, "absence")
		before := h.clone()
		union := rapid.Bool().Draw(t, "union")
		mustSync(t, h.pair, absence, false, union)
		if absence == merge.Keep {
			h.settled(before)
		} else {
			h.sound()
			if a, b := h.a.content(), h.b.content(); a != b {
				t.Fatalf("sides differ:\n%s---\n%s", a, b)
			}
		}
		if a, b := mustSync(t, h.pair, absence, false, union); !a.Empty() || !b.Empty() {
			t.Fatalf("second round plans\n%+v\n%+v", a, b)
		}
	})
}

// backup makes b equal to a.
func (p *pair) backup(useBase bool) (merge.Plan, error) {
	state := p.base
	if !useBase {
		state = base{}
	}
	planB, err := plan(merge.Options{
		Mode: merge.Backup, HaveBase: state.have, Base: state.uid, LocalStatus: p.b.status(), RemoteStatus: p.a.status(),
		Local: p.b.messages, Log: p.b.logged(state.b),
	}, records(p.a.messages, p.a.logged(state.a), state.have, state.uid))
	if err != nil || planB.Resync {
		return planB, err
	}
	p.b.apply(planB, p.a)
	p.base = base{have: true, uid: planB.LastCommon, a: p.a.highest, b: p.b.highest}
	return planB, nil
}

func TestBackupMakesTheDestinationEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.b.validity = mail.UIDValidity(rapid.IntRange(6, 8).Draw(t, "validity"))
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			h.changes(12)
			source := h.a.content()
			useBase := rapid.Bool().Draw(t, "base")
			p, err := h.backup(useBase)
			if err == nil && p.Resync {
				_, err = h.backup(false)
			}
			if err != nil {
				t.Fatal(err)
			}
			h.sound()
			if a, b := h.a.content(), h.b.content(); a != source || b != source {
				t.Fatalf("source was\n%s, is\n%s, destination\n%s", source, a, b)
			}
			for _, useBase := range []bool{true, false} {
				if p, err := h.clone().backup(useBase); err != nil || !p.Empty() {
					t.Fatalf("second backup (base %v): %+v, %v", useBase, p, err)
				}
			}
		}
	})
}

// A peer that reads absence as Dovecot does meets a side that doubts it, and any part of any round may be left undone there: what
// one of them had is on both in the end, unless a user expunged it.
func TestDoubtLosesNothingToAPeerThatGuesses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			h.changes(10)
			before := h.clone()
			if rapid.Bool().Draw(t, "b loses its log") {
				h.b.log = nil
			}
			h.brokenRound(t)
			for range 3 {
				planA, planB := h.doubtfulRound(t)
				h.apply(planA, planB)
			}
			h.sound()
			if a, b := counts(h.a), counts(h.b); !maps.Equal(a, b) {
				t.Fatalf("sides differ: %v, %v", a, b)
			}
			for guid := range before.mails() {
				if !h.expunged[guid] && counts(h.a)[guid] == 0 {
					t.Fatalf("mail %s is lost", guid)
				}
			}
		}
	})
}

// mails are the GUIDs of both sides.
func (p *pair) mails() map[mail.GUID]int {
	all := counts(p.a)
	maps.Copy(all, counts(p.b))
	return all
}

// doubtfulRound plans a full comparison in which a doubts and b guesses.
func (h *history) doubtfulRound(t *rapid.T) (planA, planB merge.Plan) {
	t.Helper()
	options := func(own, other *box, absence merge.Absence, tie merge.Preference) merge.Options {
		return merge.Options{
			Absence: absence, Tie: tie, LocalStatus: own.status(), RemoteStatus: other.status(), Local: own.messages, Log: own.logged(0),
		}
	}
	planA, err := plan(options(h.a, h.b, merge.Doubt, merge.PreferLocal), records(h.b.messages, h.b.logged(0), false, 0))
	if err == nil {
		planB, err = plan(options(h.b, h.a, merge.Expunged, merge.PreferRemote), records(h.a.messages, h.a.logged(0), false, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	return planA, planB
}

// brokenRound is a round of which b carries out a part and a everything or nothing.
func (h *history) brokenRound(t *rapid.T) {
	t.Helper()
	planA, planB := h.doubtfulRound(t)
	kept := planB.Adds[:0:0]
	for _, a := range planB.Adds {
		if rapid.Bool().Draw(t, "arrives") {
			kept = append(kept, a)
		}
	}
	planB.Adds = kept
	if rapid.Bool().Draw(t, "a does nothing") {
		planA = merge.Plan{}
	}
	if rapid.Bool().Draw(t, "b does nothing") {
		planB = merge.Plan{}
	}
	h.apply(planA, planB)
}
