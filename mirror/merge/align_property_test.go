package merge_test

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// entries is what a side tells of its mails for an alignment; the hash of some may be unknown.
func entries(b *box, known func() bool) []merge.Entry {
	var out []merge.Entry
	for _, m := range b.mails {
		e := merge.Entry{UID: m.UID, GUID: m.GUID}
		if known() {
			e.Content = sha256.Sum256([]byte(b.body[m.GUID]))
		}
		out = append(out, e)
	}
	return out
}

// adopt is the first round between two copies that know nothing of each other. The alignment is carried out at once, or
// together with the merge.
func (p *pair) adopt(known func() bool, atOnce bool) (merge.Alignment, error) {
	winner, loser := p.a, p.b
	if merge.Winner(p.a.status(), p.b.status(), 1, 2) < 0 {
		winner, loser = p.b, p.a
	}
	al, err := merge.Align(entries(loser, known), entries(winner, known), loser.status(), winner.status())
	if err != nil {
		return al, err
	}
	view := al.View(loser.messages)
	options := func(own, other *box, local func(mail.UID) iter.Seq2[mail.Message, error], aligned merge.Side) merge.Options {
		o := merge.Options{
			Absence: merge.Keep, Tie: merge.Union, LocalStatus: own.status(), RemoteStatus: other.status(), Local: local,
		}
		if own.validity != other.validity {
			o.Aligned = aligned
		}
		return o
	}
	planL, err := plan(options(loser, winner, view, merge.Local), records(winner.messages, nil, false, 0))
	if err != nil {
		return al, err
	}
	if !atOnce {
		al.Into(&planL)
	}
	planW, err := plan(options(winner, loser, winner.messages, merge.Remote), records(view, nil, false, 0))
	if err != nil {
		return al, err
	}
	for _, r := range planW.Realign {
		if loser.validity != winner.validity {
			winner.problem("the winner's UID %d becomes %d", r.UID, r.NewUID)
		}
	}
	loserBefore, winnerBefore := viewed(loser, &al), winner.clone()
	if atOnce {
		first := merge.Plan{Restart: al.UIDValidity != 0, UIDValidity: al.UIDValidity, Realign: al.Realign, UIDNext: al.UIDNext}
		loser.apply(first, winnerBefore)
	}
	loser.apply(planL, winnerBefore)
	winner.apply(planW, loserBefore)
	p.base = base{have: true, uid: planW.LastCommon, a: p.a.highest, b: p.b.highest}
	if planL.LastCommon != planW.LastCommon {
		loser.problem("last common UID %d, there %d", planL.LastCommon, planW.LastCommon)
	}
	return al, nil
}

// viewed is the losing side as the winner sees it.
func viewed(b *box, al *merge.Alignment) *box {
	v := newBox(b.name)
	for m := range al.View(b.messages)(0) {
		v.mails = append(v.mails, m)
		i, _ := b.find(al.Original(m.UID))
		v.body[m.GUID] = b.body[b.mails[i].GUID]
	}
	return v
}

func bodies(b *box) map[string]int {
	n := map[string]int{}
	for _, m := range b.mails {
		n[b.body[m.GUID]]++
	}
	return n
}

func TestTwoCopiesAreAdoptedAndNotDoubled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.b.validity = mail.UIDValidity(rapid.IntRange(6, 8).Draw(t, "validity"))
		allKnown := rapid.Bool().Draw(t, "all contents known")
		known := func() bool { return allKnown || rapid.Bool().Draw(t, "content known") }
		names := 4
		if !allKnown {
			names = 3 // nobody could tell an accident then
		}
		for _, b := range []*box{h.a, h.b} {
			for i := range rapid.IntRange(0, 10).Draw(t, "mails") {
				body := fmt.Sprint("body ", rapid.IntRange(0, 6).Draw(t, "body"))
				// Of one body there may be several GUIDs, and (by accident) a GUID may stand for another body at each side.
				guid := mail.GUID(rapid.SampledFrom([]string{"shared " + body, "own " + body + b.name, fmt.Sprint("own ", b.name, i), fmt.Sprint("accident ", i)}[:names]).Draw(t, "guid"))
				if old, ok := b.body[guid]; ok {
					body = old
				}
				b.next += mail.UID(rapid.IntRange(0, 2).Draw(t, "gap"))
				uid := b.deliver(guid, body)
				b.change(uid, mail.Delta{Add: mail.Flags(rapid.IntRange(0, 3).Draw(t, "flags"))}, 0, false)
			}
			b.log = nil
		}
		before := h.clone()
		al, err := h.adopt(known, rapid.Bool().Draw(t, "at once"))
		if err != nil {
			t.Fatal(err)
		}
		h.sound()
		if a, b := h.a.content(), h.b.content(); a != b {
			t.Fatalf("sides differ:\n%s---\n%s", a, b)
		}
		na, nb, after := bodies(before.a), bodies(before.b), bodies(h.a)
		total := 0
		for body, n := range after {
			if least := max(na[body], nb[body]); n < least || allKnown && n > least || n > na[body]+nb[body] {
				t.Fatalf("%d mails %q, before %d and %d", n, body, na[body], nb[body])
			}
			total += n
		}
		for _, lost := range []map[string]int{na, nb} {
			for body := range lost {
				if after[body] == 0 {
					t.Fatalf("%q is lost", body)
				}
			}
		}
		if want := al.Matched + al.NewHere + al.NewThere; total != want {
			t.Fatalf("%d mails, the alignment told %d", total, want)
		}
		for _, useBase := range []bool{true, false} {
			if a, b := mustSync(t, h.clone(), merge.Keep, useBase, true); !a.Empty() || !b.Empty() {
				t.Fatalf("second round (base %v) plans\n%+v\n%+v", useBase, a, b)
			}
		}
		if al, err := h.clone().adopt(known, false); err != nil || len(al.Realign) > 0 {
			t.Fatalf("second alignment: %+v, %v", al, err)
		}
	})
}
