package merge

import (
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// strays are mails that an exchange which did not end as planned left on one side, and that the other one has expunged since then,
// under the UID that they had there. Without this they would count as new, and what a user removed or moved on would be back.
//
// A mail that its side has once more than the other is one if the other's log has an expunge of its GUID, and if one of the two came
// from the other: an exchange brought the mail here, or brought there what was expunged. Both sides remember which UIDs were given
// like that, and tell with each record. What a user put here himself is none, whatever was expunged there before.
//
// Not all that is logged counts: the expunge of a UID whose message got another one is nobody's, one that still finds its mail on
// the other side has done its part, and one for each that this side's user did at the same time is about the same mail.
//
// Both sides see both lists and both logs, and so find the same.
type strays struct {
	p     *Planner
	above mail.UID                  // the last UID of the last common state, from which on the logs tell of what came later
	there map[mail.GUID128]expunges // what the peer logged
	spent map[mail.UID]struct{}     // UIDs of logged expunges here that find their mail at the peer

	// What is in neither column as the other side's log has its UID for expunged, though its message only got another one there:
	// mails here, negative: at the peer.
	passed map[mail.GUID128]int
}

// expunges count those of one GUID that one side logged.
type expunges struct {
	all     int // by its users
	brought int // of these, so many of mails that came from the other side
	told    int // that the other side had told
}

func (e expunges) and(past item.Past) expunges {
	switch past {
	case item.PastTold:
		e.told++
		return e
	case item.PastBrought:
		e.brought++
	}
	e.all++
	return e
}

// without returns how many mails of the other side can be strays by expunges, at which it logged so many itself: in doubt none.
func (e expunges) without(own expunges) expunges {
	gone := own.all + own.told
	all := max(0, e.all-gone)
	return expunges{all: all, brought: min(all, max(0, e.brought-gone))}
}

// newStrays returns nil where nothing is to be found: who does not want every mail does not see all of the other's, and the
// log of a peer with short GUIDs tells less. Only expunges after a last common state count, whose UIDs are above the given one
// or whose modseqs are above those of the options. Older ones both sides made known to each other, and what one of them forgot
// of these since then is no difference.
func newStrays(p *Planner, above mail.UID) *strays {
	if p.o.Mode != TwoWay || p.o.ShortGUIDs || !p.o.Filter.Empty() {
		return nil
	}
	return &strays{p: p, above: above, there: make(map[mail.GUID128]expunges), spent: make(map[mail.UID]struct{}), passed: make(map[mail.GUID128]int)}
}

// counts reports whether an expunge is one after the last common state, and someone's.
func (s *strays) counts(uid mail.UID, guid mail.GUID128, past item.Past, at, since mail.ModSeq) bool {
	return uid > s.above && !guid.IsZero() && past != item.PastRenumbered && (since == 0 || at > since)
}

// theyExpunged takes note of an expunge in the peer's log whose UID nothing has here.
func (s *strays) theyExpunged(c *item.Change) {
	if s != nil && s.counts(c.UID, c.GUID128, c.Past, c.ModSeq, s.p.o.RemoteSince) {
		s.there[c.GUID128] = s.there[c.GUID128].and(c.Past)
	}
}

// meets takes note of an expunge in one log that finds its mail on the other side: here, negative: at the peer.
func (s *strays) meets(uid mail.UID, guid mail.GUID128, past item.Past, sign int) {
	switch {
	case s == nil:
	case past == item.PastRenumbered:
		s.passed[guid] += sign
	case sign < 0:
		s.spent[uid] = struct{}{}
	}
}

// remove takes the strays out of both columns, those here by an expunge.
func (s *strays) remove() error {
	if s == nil {
		return nil
	}
	here, err := s.loggedHere()
	if err != nil || len(s.there)+len(here) == 0 {
		return err
	}
	p := s.p
	surplus := make([]int, len(p.groups)) // mails here without one at the peer, negative: the other way round
	for i := range p.locals {
		surplus[p.locals[i].group]++
	}
	for i := range p.remotes {
		surplus[p.remotes[i].group]--
	}
	left := make(map[uint32]expunges)
	for group, guid := range p.groups {
		key := guid.Hash128()
		surplus[group] += s.passed[key]
		switch n := surplus[group]; {
		case n > 0:
			left[uint32(group)] = s.there[key].without(here[key])
		case n < 0:
			left[uint32(group)] = here[key].without(s.there[key])
		}
	}
	p.locals = slices.DeleteFunc(p.locals, func(h fresher) bool {
		if surplus[h.group] <= 0 || !takeStray(&h, left) {
			return false
		}
		surplus[h.group]--
		p.plan.Expunges = append(p.plan.Expunges, Expunge{UID: h.uid, GUID: p.groups[h.group], Witnessed: true, Logged: p.marksOf(&h).Logged})
		return true
	})
	p.remotes = slices.DeleteFunc(p.remotes, func(h fresher) bool {
		if surplus[h.group] >= 0 || !takeStray(&h, left) {
			return false
		}
		surplus[h.group]++
		return true
	})
	return nil
}

// takeStray reports whether a mail is a stray by one of the expunges that are left for its GUID, and takes that.
func takeStray(h *fresher, left map[uint32]expunges) bool {
	e := left[h.group]
	if e.all == 0 || !h.shared && e.brought == 0 {
		return false
	}
	e.all--
	if !h.shared {
		e.brought--
	}
	e.brought = min(e.brought, e.all)
	left[h.group] = e
	return true
}

// loggedHere returns the expunges that this side logged after the last common state, but for those that are spent.
func (s *strays) loggedHere() (map[mail.GUID128]expunges, error) {
	out := make(map[mail.GUID128]expunges)
	log := &s.p.log
	for l, err := log.seek(s.above); l != nil || err != nil; l, err = log.peek() {
		if err != nil {
			return nil, err
		}
		if _, spent := s.spent[l.UID]; !spent && l.Expunged && s.counts(l.UID, l.GUID128, l.Past, l.ModSeq, s.p.o.LocalSince) {
			out[l.GUID128] = out[l.GUID128].and(l.Past)
		}
		log.advance()
	}
	return out, nil
}
