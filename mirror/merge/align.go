package merge

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"

	"dsyncfs/mirror/mail"
)

// Entry is what [Align] has to know of one message.
type Entry struct {
	UID     mail.UID
	GUID    mail.GUID
	Content mail.ContentHash // zero: unknown; such a mail is matched by GUID only
}

// Alignment says how the losing side's messages take over the identities of the winner's. It may be
// carried out at once, with UIDs started anew if there is a UIDValidity. Better is to go on as if it were (see
// [Alignment.View]) and to do it together with what comes of the merge (see [Alignment.Into]): then no client ever sees a
// mailbox in which lower UIDs appear later. If the UIDVALIDITY changes, a log of the old UIDs means nothing any more.
type Alignment struct {
	UIDValidity mail.UIDValidity // the winner's, if it is another; else 0
	UIDNext     mail.UID         // above all UIDs given out
	Realign     []Realign        // by ascending UID; with a new UIDVALIDITY all messages, else those that change

	Matched  int // pairs
	NewHere  int // messages of the loser without a partner
	NewThere int // messages of the winner without one

	moved []int32 // Realign by ascending NewUID, with a new UIDVALIDITY
}

// Align pairs the messages of the losing side (local) with the winner's (remote; see [Winner]), both by ascending UID: first
// by GUID, then by the hash of the whole content, the k-th with the k-th of equal ones. Each pair gets the winner's GUID
// and, if the UIDVALIDITYs differ, the winner's UID; what is left over here gets UIDs above all others then, and else keeps
// its own. With equal UIDVALIDITYs, mails under the same UID are paired before others.
//
// Equal GUIDs with contents known to differ are two mails; the one here gets a GUID made of its content, lest one of them
// be taken for the other and get lost.
func Align(local, remote []Entry, localStatus, remoteStatus mail.Status) (Alignment, error) {
	for _, side := range [][]Entry{local, remote} {
		for i := 1; i < len(side); i++ {
			if side[i].UID <= side[i-1].UID {
				return Alignment{}, fmt.Errorf("align mailbox %s: %w: UID %d after %d", localStatus.GUID, ErrProtocol, side[i].UID, side[i-1].UID)
			}
		}
	}
	al := aligner{local: local, remote: remote, partner: make([]int32, len(local)), taken: make([]bool, len(remote))}
	for i := range al.partner {
		al.partner[i] = none
	}
	sameUIDs := localStatus.UIDValidity == remoteStatus.UIDValidity
	al.pair(sameUIDs)
	a := Alignment{Matched: al.matched, NewHere: len(local) - al.matched, NewThere: len(remote) - al.matched}
	a.UIDNext = localStatus.UIDNext
	if !sameUIDs {
		a.UIDValidity = remoteStatus.UIDValidity
		a.UIDNext = max(localStatus.UIDNext, remoteStatus.UIDNext, 1)
		if n := len(remote); n > 0 {
			a.UIDNext = max(a.UIDNext, remote[n-1].UID+1)
		}
	}
	al.realign(&a, !sameUIDs)
	if a.UIDNext > mail.MaxUID {
		return Alignment{}, fmt.Errorf("align mailbox %s: %w", localStatus.GUID, ErrUIDsExhausted)
	}
	return a, nil
}

// aligner is the work of one Align.
type aligner struct {
	local, remote []Entry
	partner       []int32 // per local entry: its remote one; none
	taken         []bool  // per remote entry
	matched       int
}

func byGUID(a, b *Entry) int    { return cmp.Compare(a.GUID, b.GUID) }
func byContent(a, b *Entry) int { return slices.Compare(a.Content[:], b.Content[:]) }
func byBoth(a, b *Entry) int    { return cmp.Or(byGUID(a, b), byContent(a, b)) }

func (al *aligner) pair(sameUIDs bool) {
	any := func(*Entry) bool { return true }
	known := func(e *Entry) bool { return !e.Content.IsZero() }
	unknown := func(e *Entry) bool { return e.Content.IsZero() }
	if sameUIDs {
		al.sameUID(func(l, r *Entry) bool {
			return l.GUID == r.GUID && (unknown(l) || unknown(r) || l.Content == r.Content)
		})
	}
	al.join(byBoth, known, known)
	al.join(byGUID, unknown, any)
	al.join(byGUID, known, unknown)
	if sameUIDs {
		al.sameUID(func(l, r *Entry) bool { return known(l) && l.Content == r.Content })
	}
	al.join(byContent, known, known)
}

func (al *aligner) match(i, j int32) {
	al.partner[i], al.taken[j] = j, true
	al.matched++
}

// sameUID pairs what has the same UID and is the same.
func (al *aligner) sameUID(same func(l, r *Entry) bool) {
	j := 0
	for i := range al.local {
		l := &al.local[i]
		for j < len(al.remote) && al.remote[j].UID < l.UID {
			j++
		}
		if j < len(al.remote) && al.remote[j].UID == l.UID && al.partner[i] == none && !al.taken[j] && same(l, &al.remote[j]) {
			al.match(int32(i), int32(j))
		}
	}
}

// join pairs the k-th with the k-th of those with equal keys, among the entries that are still alone and wanted.
func (al *aligner) join(compare func(a, b *Entry) int, wantLocal, wantRemote func(*Entry) bool) {
	ls := pick(al.local, compare, func(i int) bool { return al.partner[i] == none && wantLocal(&al.local[i]) })
	if len(ls) == 0 {
		return
	}
	rs := pick(al.remote, compare, func(j int) bool { return !al.taken[j] && wantRemote(&al.remote[j]) })
	for len(ls) > 0 && len(rs) > 0 {
		switch c := compare(&al.local[ls[0]], &al.remote[rs[0]]); {
		case c < 0:
			ls = ls[1:]
		case c > 0:
			rs = rs[1:]
		default:
			al.match(ls[0], rs[0])
			ls, rs = ls[1:], rs[1:]
		}
	}
}

// pick returns the places of wanted entries, sorted by key and then by UID.
func pick(entries []Entry, compare func(a, b *Entry) int, want func(i int) bool) []int32 {
	var out []int32
	for i := range entries {
		if want(i) {
			out = append(out, int32(i))
		}
	}
	slices.SortFunc(out, func(a, b int32) int {
		return cmp.Or(compare(&entries[a], &entries[b]), cmp.Compare(a, b))
	})
	return out
}

// realign writes the new identities.
func (al *aligner) realign(a *Alignment, newUIDs bool) {
	impostors := al.impostors()
	for i := range al.local {
		l := &al.local[i]
		c := Realign{UID: l.UID, NewUID: l.UID}
		if j := al.partner[i]; j != none {
			if r := &al.remote[j]; r.GUID != l.GUID {
				c.NewGUID = r.GUID
			}
			if newUIDs {
				c.NewUID = al.remote[j].UID
			}
		} else {
			if len(impostors) > 0 && impostors[0] == int32(i) {
				c.NewGUID = mail.GUID(hex.EncodeToString(l.Content[:16]))
				impostors = impostors[1:]
			}
			if newUIDs {
				c.NewUID = a.UIDNext
				a.UIDNext++
			}
		}
		if newUIDs || c.NewGUID != "" {
			a.Realign = append(a.Realign, c)
		}
	}
	if !newUIDs {
		return
	}
	a.moved = make([]int32, len(a.Realign))
	for i := range a.moved {
		a.moved[i] = int32(i)
	}
	slices.SortFunc(a.moved, func(x, y int32) int { return cmp.Compare(a.Realign[x].NewUID, a.Realign[y].NewUID) })
}

// impostors returns the messages left over here whose GUID stands for other contents at the winner, in UID order.
func (al *aligner) impostors() []int32 {
	alone := pick(al.local, byBoth, func(i int) bool { return al.partner[i] == none && !al.local[i].Content.IsZero() })
	if len(alone) == 0 {
		return nil
	}
	theirs := pick(al.remote, byBoth, func(j int) bool { return !al.remote[j].Content.IsZero() })
	var out []int32
	for _, i := range alone {
		l := &al.local[i]
		at := func(compare func(a, b *Entry) int) bool {
			_, found := slices.BinarySearchFunc(theirs, l, func(j int32, l *Entry) int { return compare(&al.remote[j], l) })
			return found
		}
		if at(byGUID) && !at(byBoth) {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

// change returns what becomes of the message of that UID.
func (a *Alignment) change(uid mail.UID) Realign {
	i, ok := slices.BinarySearchFunc(a.Realign, uid, func(c Realign, uid mail.UID) int { return cmp.Compare(c.UID, uid) })
	if !ok {
		return Realign{UID: uid, NewUID: uid}
	}
	return a.Realign[i]
}

// Original returns the present UID of the message that has the given one after the alignment, 0 if there is none.
func (a *Alignment) Original(uid mail.UID) mail.UID {
	if a.UIDValidity == 0 {
		return uid
	}
	i, ok := a.findNew(uid)
	if !ok {
		return 0
	}
	return a.Realign[a.moved[i]].UID
}

// findNew returns the place in moved of the first message whose new UID is not below uid.
func (a *Alignment) findNew(uid mail.UID) (int, bool) {
	return slices.BinarySearchFunc(a.moved, uid, func(k int32, uid mail.UID) int { return cmp.Compare(a.Realign[k].NewUID, uid) })
}

// View shows the messages as they will be after the alignment, by ascending new UID, out of the messages as they are: what
// the planner and the exporter of the losing side have to work on.
func (a *Alignment) View(local func(after mail.UID) iter.Seq2[mail.Message, error]) func(after mail.UID) iter.Seq2[mail.Message, error] {
	return func(after mail.UID) iter.Seq2[mail.Message, error] {
		return func(yield func(mail.Message, error) bool) {
			if a.UIDValidity == 0 {
				a.renamed(local(after), yield)
				return
			}
			c := cursor[mail.Message]{open: local, uidOf: func(m *mail.Message) mail.UID { return m.UID }}
			defer c.close()
			a.renumbered(&c, after, yield)
		}
	}
}

func (a *Alignment) renamed(messages iter.Seq2[mail.Message, error], yield func(mail.Message, error) bool) {
	for m, err := range messages {
		if err == nil {
			m.GUID = cmp.Or(a.change(m.UID).NewGUID, m.GUID)
		}
		if !yield(m, err) {
			return
		}
	}
}

// renumbered goes through the messages by new UID. In most copies that is nearly the order of the old ones, so that the
// cursor seldom has to jump.
func (a *Alignment) renumbered(c *cursor[mail.Message], after mail.UID, yield func(mail.Message, error) bool) {
	first, _ := a.findNew(after + 1)
	for _, k := range a.moved[first:] {
		r := &a.Realign[k]
		m, err := c.at(r.UID)
		if err != nil {
			yield(mail.Message{}, err)
			return
		}
		if m == nil {
			continue
		}
		out := *m
		out.UID, out.GUID = r.NewUID, cmp.Or(r.NewGUID, m.GUID)
		if !yield(out, nil) {
			return
		}
	}
}

// Into makes a plan that was made on the aligned view carry out the alignment as well, so that one batch does both: no
// client ever sees the mailbox half aligned, and nothing is lost if the round breaks off.
func (a *Alignment) Into(p *Plan) {
	var out []Realign
	used := make([]bool, len(p.Realign))
	for _, c := range a.Realign {
		i, ok := slices.BinarySearchFunc(p.Realign, c.NewUID, func(r Realign, uid mail.UID) int { return cmp.Compare(r.UID, uid) })
		if ok {
			c.NewUID, used[i] = p.Realign[i].NewUID, true
		}
		if c.NewUID != c.UID || c.NewGUID != "" {
			out = append(out, c)
		}
	}
	for i, r := range p.Realign {
		if !used[i] {
			out = append(out, r)
		}
	}
	p.Realign = out
	if a.UIDValidity != 0 {
		p.UIDValidity, p.Restart = a.UIDValidity, true
	}
	p.sort()
}
