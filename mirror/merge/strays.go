package merge

import (
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// strays are mails that one side has got in a round that broke off, under the UID that they were to have in the end, and that
// the other one has expunged since then under the UID that they had there. Nothing but the GUID tells that they are the same:
// without this they would count as new, and what a user removed or moved on would be back.
//
// A mail is one if its side has it once more than the other, and that other one's log has an expunge of its GUID of which
// this side's log knows nothing. Both sides see both lists and both logs, and so find the same.
//
// A log with two expunges of one GUID is that of a side which gave the mail a new UID before it went, perhaps the one of the
// end. A mail with a UID above the last of these can have been put back by a user who knew of them all. One below it was there
// before, if its side has not expunged it, too.
type strays struct {
	p     *Planner
	above mail.UID                  // the last UID of the last common state, from which on the logs tell of what came later
	there map[mail.GUID128]expunges // what the peer logged
	both  map[mail.UID]struct{}     // UIDs of logged expunges here that the peer has a record of

	// What is in neither column as the other side's log has its UID for expunged: mails here, negative: at the peer. If that was a
	// change of the UID, the other side has the mail under another one.
	passed map[mail.GUID128]int
}

// expunges are what a log tells of one GUID.
type expunges struct {
	logged int
	last   mail.UID
	alone  int // of these, the other side logged so many not
}

func (e expunges) and(uid mail.UID, known bool) expunges {
	e.logged++
	e.last = max(e.last, uid)
	if !known {
		e.alone++
	}
	return e
}

// newStrays returns nil where nothing is to be found: who does not want every mail does not see all of the other's, and the
// log of a peer with short GUIDs tells less. Only expunges after a last common state count, whose UIDs are above the given one
// or whose modseqs are above those of the options. Older ones both sides made known to each other, and what one of them forgot
// of these since then is no difference.
func newStrays(p *Planner, above mail.UID) *strays {
	if p.o.Mode != TwoWay || p.o.ShortGUIDs || !p.o.Filter.Empty() {
		return nil
	}
	return &strays{p: p, above: above, there: make(map[mail.GUID128]expunges), both: make(map[mail.UID]struct{}), passed: make(map[mail.GUID128]int)}
}

// counts reports whether an expunge is one after the last common state and after a round had begun that could leave the mail.
func (s *strays) counts(uid mail.UID, guid mail.GUID128, at, since, tried mail.ModSeq) bool {
	after := max(since, tried)
	return uid > s.above && !guid.IsZero() && (after == 0 || at > after)
}

// theyExpunged takes note of an expunge in the peer's log, which this side's log knows or not.
func (s *strays) theyExpunged(c *item.Change, known bool) {
	if s != nil && s.counts(c.UID, c.GUID128, c.ModSeq, s.p.o.RemoteSince, s.p.o.RemoteTried) {
		s.there[c.GUID128] = s.there[c.GUID128].and(c.UID, known)
	}
}

func (s *strays) bothKnow(uid mail.UID) {
	if s != nil {
		s.both[uid] = struct{}{}
	}
}

func (s *strays) passOver(guid mail.GUID, sign int) {
	if s != nil {
		s.passed[guid.Hash128()] += sign
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
	for group, guid := range p.groups {
		surplus[group] += s.passed[guid.Hash128()]
	}
	p.locals = slices.DeleteFunc(p.locals, func(h fresher) bool {
		guid := p.groups[h.group]
		stray := s.take(s.there, here, &h, guid, &surplus[h.group], 1)
		if stray {
			p.plan.Expunges = append(p.plan.Expunges, Expunge{UID: h.uid, GUID: guid, Witnessed: true, Logged: p.marksOf(&h).Logged})
		}
		return stray
	})
	p.remotes = slices.DeleteFunc(p.remotes, func(h fresher) bool {
		return s.take(here, s.there, &h, p.groups[h.group], &surplus[h.group], -1)
	})
	return nil
}

// take reports whether the next mail of a GUID, in the column of that sign, is a stray, and counts it: gone are the
// expunges of the other side, own those of its own.
func (s *strays) take(gone, own map[mail.GUID128]expunges, h *fresher, guid mail.GUID, surplus *int, sign int) bool {
	key := guid.Hash128()
	e := gone[key]
	if *surplus*sign <= 0 || e.alone == 0 {
		return false
	}
	if e.logged > 1 && (h.uid > e.last || own[key].alone > 0) {
		return false
	}
	s.p.plan.Strays = true
	e.alone--
	gone[key] = e
	*surplus -= sign
	return true
}

// loggedHere returns the expunges that this side logged after the last common state.
func (s *strays) loggedHere() (map[mail.GUID128]expunges, error) {
	out := make(map[mail.GUID128]expunges)
	log := &s.p.log
	for l, err := log.seek(s.above); l != nil || err != nil; l, err = log.peek() {
		if err != nil {
			return nil, err
		}
		if l.Expunged && s.counts(l.UID, l.GUID128, l.ModSeq, s.p.o.LocalSince, s.p.o.LocalTried) {
			_, known := s.both[l.UID]
			out[l.GUID128] = out[l.GUID128].and(l.UID, known)
		}
		log.advance()
	}
	return out, nil
}
