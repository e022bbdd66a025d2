package merge

import (
	"maps"
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
// A log with two expunges of one GUID is that of a side which gave the mail its UID of the end before it went. A stray would
// have that UID and need not be looked for: a mail with another one was put back by a user, and is the last that there is.
type strays struct {
	p     *Planner
	told  map[mail.GUID128]int  // expunges that the peer logged, whatever this side knows of them
	above mail.UID              // the last UID of the last common state, from which on the logs tell of what came later
	gone  map[mail.GUID128]int  // expunges that the peer logged and this side did not
	both  map[mail.UID]struct{} // UIDs of logged expunges here that the peer has a record of

	// What is in neither column as the other side's log has its UID for expunged: mails here, negative: at the peer. If that was a
	// change of the UID, the other side has the mail under another one.
	passed map[mail.GUID128]int
}

// newStrays returns nil where nothing is to be found: who does not want every mail does not see all of the other's, and the
// log of a peer with short GUIDs tells less. Only expunges after a last common state count, whose UIDs are above the given one
// or whose modseqs are above those of the options. Older ones both sides made known to each other, and what one of them forgot
// of these since then is no difference.
func newStrays(p *Planner, above mail.UID) *strays {
	if p.o.Mode != TwoWay || p.o.ShortGUIDs || !p.o.Filter.Empty() {
		return nil
	}
	return &strays{p: p, above: above, told: make(map[mail.GUID128]int), gone: make(map[mail.GUID128]int), both: make(map[mail.UID]struct{}), passed: make(map[mail.GUID128]int)}
}

// counts reports whether an expunge is one after the last common state.
func (s *strays) counts(uid mail.UID, guid mail.GUID128, at, since mail.ModSeq) bool {
	return uid > s.above && !guid.IsZero() && (since == 0 || at > since)
}

// theyTold takes note of any expunge in the peer's log.
func (s *strays) theyTold(c *item.Change) {
	if s != nil && s.counts(c.UID, c.GUID128, c.ModSeq, s.p.o.RemoteSince) {
		s.told[c.GUID128]++
	}
}

func (s *strays) bothKnow(uid mail.UID) {
	if s != nil {
		s.both[uid] = struct{}{}
	}
}

func (s *strays) theyExpunged(c *item.Change) {
	if s != nil && s.counts(c.UID, c.GUID128, c.ModSeq, s.p.o.RemoteSince) {
		s.gone[c.GUID128]++
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
	maps.DeleteFunc(s.gone, func(guid mail.GUID128, _ int) bool { return s.told[guid] > 1 })
	goneHere, err := s.goneHere()
	if err != nil || len(s.gone)+len(goneHere) == 0 {
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
		stray := takeStray(s.gone, guid, &surplus[h.group], 1)
		if stray {
			p.plan.Expunges = append(p.plan.Expunges, Expunge{UID: h.uid, GUID: guid, Witnessed: true, Logged: p.marksOf(&h).Logged})
		}
		return stray
	})
	p.remotes = slices.DeleteFunc(p.remotes, func(h fresher) bool {
		return takeStray(goneHere, p.groups[h.group], &surplus[h.group], -1)
	})
	return nil
}

// takeStray reports whether the next mail of a GUID, in the column of that sign, is a stray, and counts it.
func takeStray(gone map[mail.GUID128]int, guid mail.GUID, surplus *int, sign int) bool {
	if *surplus*sign <= 0 {
		return false
	}
	key := guid.Hash128()
	if gone[key] == 0 {
		return false
	}
	gone[key]--
	*surplus -= sign
	return true
}

// goneHere returns the expunges that this side logged after the last common state, once each, and the peer's log does not know.
func (s *strays) goneHere() (map[mail.GUID128]int, error) {
	out, all := make(map[mail.GUID128]int), make(map[mail.GUID128]int)
	log := &s.p.log
	for l, err := log.seek(s.above); l != nil || err != nil; l, err = log.peek() {
		if err != nil {
			return nil, err
		}
		if l.Expunged && s.counts(l.UID, l.GUID128, l.ModSeq, s.p.o.LocalSince) {
			all[l.GUID128]++
			if _, known := s.both[l.UID]; !known {
				out[l.GUID128]++
			}
		}
		log.advance()
	}
	maps.DeleteFunc(out, func(guid mail.GUID128, _ int) bool { return all[guid] > 1 })
	return out, nil
}
