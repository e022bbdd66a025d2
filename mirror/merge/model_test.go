package merge_test

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// box is a mailbox in memory with the promises of a real store: UIDs only go up, every change has a modseq and a log entry.
type box struct {
	name     string
	validity mail.UIDValidity
	next     mail.UID
	highest  mail.ModSeq
	mails    []mail.Message // by UID
	body     map[mail.GUID]string
	log      []logEntry
	used     map[identity]string // what each UID has ever stood for
	past     map[mail.UID]item.Past
	problems []string
}

type logEntry struct {
	modSeq   mail.ModSeq
	fromPeer bool
	merge.Logged
}

type identity struct {
	validity mail.UIDValidity
	uid      mail.UID
}

func newBox(name string) *box {
	return &box{name: name, validity: 7, next: 1, highest: 1, body: map[mail.GUID]string{}, used: map[identity]string{}, past: map[mail.UID]item.Past{}}
}

func (b *box) clone() *box {
	c := *b
	c.mails, c.log = slices.Clone(b.mails), slices.Clone(b.log)
	c.body, c.used, c.past = maps.Clone(b.body), maps.Clone(b.used), maps.Clone(b.past)
	return &c
}

func (b *box) problem(format string, args ...any) {
	b.problems = append(b.problems, b.name+": "+fmt.Sprintf(format, args...))
}

func (b *box) status() mail.Status {
	return mail.Status{
		GUID: mail.MailboxGUID{1}, UIDValidity: b.validity, UIDNext: b.next, Messages: uint32(len(b.mails)), FirstRecent: 1, HighestModSeq: b.highest,
	}
}

func (b *box) pastOf(uid mail.UID) item.Past { return b.past[uid] }

func (b *box) tick() mail.ModSeq {
	b.highest++
	return b.highest
}

// deliver puts a mail in as a user would.
func (b *box) deliver(guid mail.GUID, body string) mail.UID {
	uid := b.next
	b.insert(mail.Message{UID: uid, GUID: guid, ModSeq: b.tick()}, body)
	b.claim()
	return uid
}

// claim holds each UID to what it stood for before.
func (b *box) claim() {
	for _, m := range b.mails {
		id, body := identity{b.validity, m.UID}, b.body[m.GUID]
		if old, ok := b.used[id]; ok && old != body {
			b.problem("UID %d stood for %q and now for %q", m.UID, old, body)
		}
		b.used[id] = body
	}
}

func (b *box) insert(m mail.Message, body string) {
	i, exists := b.find(m.UID)
	if exists {
		b.problem("UID %d is taken", m.UID)
	}
	if old, ok := b.body[m.GUID]; ok && old != body {
		b.problem("GUID %s stands for %q and %q", m.GUID, old, body)
	}
	b.body[m.GUID] = body
	b.mails = slices.Insert(b.mails, i, m)
	b.next = max(b.next, m.UID+1)
}

func (b *box) find(uid mail.UID) (int, bool) {
	return slices.BinarySearchFunc(b.mails, uid, func(m mail.Message, uid mail.UID) int { return cmp.Compare(m.UID, uid) })
}

func (b *box) remove(uid mail.UID, fromPeer bool) {
	i, ok := b.find(uid)
	if !ok {
		b.problem("UID %d to be removed is not there", uid)
		return
	}
	b.log = append(b.log, logEntry{b.tick(), fromPeer, merge.Logged{UID: uid, Expunged: true, GUID128: b.mails[i].GUID.Hash128()}})
	b.mails = slices.Delete(b.mails, i, i+1)
}

func (b *box) change(uid mail.UID, d mail.Delta, least mail.ModSeq, fromPeer bool) {
	i, ok := b.find(uid)
	if !ok {
		b.problem("UID %d to be marked is not there", uid)
		return
	}
	m := &b.mails[i]
	m.Flags, m.Keywords = d.Apply(m.Flags, m.Keywords)
	if d.IsZero() {
		m.ModSeq = max(m.ModSeq, least)
		b.highest = max(b.highest, m.ModSeq)
		return
	}
	m.ModSeq = max(b.tick(), least)
	b.highest = max(b.highest, m.ModSeq)
	b.log = append(b.log, logEntry{m.ModSeq, fromPeer, merge.Logged{UID: uid, Delta: d}})
}

func (b *box) messages(after mail.UID) iter.Seq2[mail.Message, error] {
	return func(yield func(mail.Message, error) bool) {
		i, _ := b.find(after + 1)
		for _, m := range b.mails[i:] {
			if !yield(m, nil) {
				return
			}
		}
	}
}

// logged puts the log since a modseq together, without flag changes that came from the peer, and its expunges only where
// the whole log is told.
func (b *box) logged(since mail.ModSeq) iter.Seq2[merge.Logged, error] {
	all := map[mail.UID]merge.Logged{}
	for _, e := range b.log {
		if e.modSeq <= since || e.fromPeer && !(e.Expunged && since == 0) {
			continue
		}
		l := e.Logged
		if !l.Expunged {
			l.Delta = all[e.UID].Delta.Then(l.Delta)
		}
		all[e.UID] = l
	}
	return func(yield func(merge.Logged, error) bool) {
		for _, uid := range slices.Sorted(maps.Keys(all)) {
			if !yield(all[uid], nil) {
				return
			}
		}
	}
}

// records is what the box tells its peer: everything, or what changed since a base.
func records(messages func(mail.UID) iter.Seq2[mail.Message, error], log iter.Seq2[merge.Logged, error], haveBase bool, base mail.UID) []*item.Change {
	var out []*item.Change
	deltas := map[mail.UID]mail.Delta{}
	if log != nil {
		for l := range log {
			switch {
			case !l.Expunged:
				deltas[l.UID] = l.Delta
			default: // above the base too: an older base may have missed that both had it
				out = append(out, merge.ExpungeRecord(l.UID, l.GUID128, l.ModSeq))
			}
		}
	}
	for m := range messages(0) {
		d, changed := deltas[m.UID]
		switch {
		case !haveBase || m.UID > base:
			out = append(out, merge.SaveRecord(&m, d))
		case changed:
			out = append(out, merge.FlagsRecord(&m, d))
		}
	}
	slices.SortFunc(out, func(a, b *item.Change) int { return cmp.Compare(a.UID, b.UID) })
	return out
}

// apply carries out a plan, with the bodies of the peer as it was.
func (b *box) apply(p merge.Plan, peer *box) {
	limit := b.next
	if p.Restart {
		limit = 0
		if b.validity == p.UIDValidity {
			b.used = map[identity]string{} // a backup destination that had got ahead: the one case
		}
	}
	if p.UIDValidity != 0 {
		b.validity = p.UIDValidity
		defer func() { b.log = nil }() // its UIDs mean nothing any more
	}
	moved := map[mail.UID]merge.Realign{}
	for _, r := range p.Realign {
		if _, ok := b.find(r.UID); !ok {
			b.problem("UID %d to be realigned is not there", r.UID)
		}
		if r.NewUID != r.UID && r.NewUID < limit {
			b.problem("new UID %d is below UIDNEXT %d", r.NewUID, limit)
		}
		moved[r.UID] = r
	}
	old, oldBody := b.mails, b.body
	b.mails, b.body = nil, map[mail.GUID]string{}
	for _, m := range old {
		body := oldBody[m.GUID]
		if r, ok := moved[m.UID]; ok {
			if r.NewUID != m.UID {
				b.log = append(b.log, logEntry{b.tick(), true, merge.Logged{UID: m.UID, Expunged: true, GUID128: m.GUID.Hash128()}})
			}
			m.UID, m.GUID = r.NewUID, cmp.Or(r.NewGUID, m.GUID)
		}
		b.insert(m, body)
	}
	for _, d := range p.Deltas {
		b.change(d.UID, d.Delta, d.MinModSeq, true)
	}
	for _, e := range p.Expunges {
		if i, ok := b.find(e.UID); !ok || b.mails[i].GUID != e.GUID {
			b.problem("expunge of UID %d: not GUID %s", e.UID, e.GUID)
		}
		b.remove(e.UID, true)
	}
	b.adds(p, limit, peer)
	b.next = max(b.next, p.UIDNext)
	if p.Restart {
		b.next = p.UIDNext
	}
	if n := len(b.mails); n > 0 && b.mails[n-1].UID >= b.next {
		b.problem("UIDNEXT %d is not above UID %d", b.next, b.mails[n-1].UID)
	}
	b.highest = max(b.highest, p.HighestModSeq)
	b.claim()
}

func (b *box) adds(p merge.Plan, limit mail.UID, peer *box) {
	for _, a := range p.Adds {
		body, ok := peer.body[a.GUID]
		if !ok {
			b.problem("GUID %s to be added is unknown", a.GUID)
		}
		if i, ok := b.find(a.Copy); a.Copy != 0 && (!ok || b.mails[i].GUID != a.GUID) {
			b.problem("copy of UID %d: not GUID %s", a.Copy, a.GUID)
		}
		if i, ok := peer.find(a.RemoteUID); a.Copy == 0 && (!ok || peer.mails[i].GUID != a.GUID) {
			b.problem("request of UID %d: not GUID %s", a.RemoteUID, a.GUID)
		}
		for _, in := range a.Instances {
			if in.UID < limit {
				b.problem("add of UID %d below UIDNEXT %d", in.UID, limit)
			}
			b.insert(mail.Message{UID: in.UID, GUID: a.GUID, Flags: in.Flags, Keywords: in.Keywords, ModSeq: max(b.tick(), in.ModSeq)}, body)
			b.highest = max(b.highest, in.ModSeq)
		}
	}
}

// content lists what a client sees, one line per mail.
func (b *box) content() string {
	var s strings.Builder
	fmt.Fprintf(&s, "V%d N%d\n", b.validity, b.next)
	for _, m := range b.mails {
		fmt.Fprintf(&s, "%d %s %s [%s] %s\n", m.UID, m.GUID, m.Flags, strings.Join(m.Keywords, " "), b.body[m.GUID])
	}
	return s.String()
}

// base is the last common state of two boxes.
type base struct {
	have bool
	uid  mail.UID
	a, b mail.ModSeq
}

// pair is two boxes that are kept equal.
type pair struct {
	a, b *box // a is the master
	base base
}

func newPair() *pair { return &pair{a: newBox("a"), b: newBox("b")} }

func (p *pair) clone() *pair {
	return &pair{a: p.a.clone(), b: p.b.clone(), base: p.base}
}

// sync runs one round two ways and returns both plans, a's first.
func (p *pair) sync(absence merge.Absence, useBase, union bool) (planA, planB merge.Plan, err error) {
	state := p.base
	if !useBase {
		state = base{}
	}
	options := func(own, other *box, since mail.ModSeq, tie merge.Preference) merge.Options {
		if union {
			tie = merge.Union
		}
		return merge.Options{
			Absence: absence, Tie: tie, HaveBase: state.have, Base: state.uid, LocalStatus: own.status(), RemoteStatus: other.status(),
			Local: own.messages, Log: own.logged(since),
		}
	}
	fromA := records(p.a.messages, p.a.logged(state.a), state.have, state.uid)
	fromB := records(p.b.messages, p.b.logged(state.b), state.have, state.uid)
	if planA, err = plan(options(p.a, p.b, state.a, merge.PreferLocal), fromB); err != nil {
		return
	}
	if planB, err = plan(options(p.b, p.a, state.b, merge.PreferRemote), fromA); err != nil {
		return
	}
	if planA.LastCommon != planB.LastCommon {
		p.a.problem("last common UID %d, there %d", planA.LastCommon, planB.LastCommon)
	}
	p.apply(planA, planB)
	p.base = base{have: true, uid: planA.LastCommon, a: p.a.highest, b: p.b.highest}
	return
}

func (p *pair) apply(planA, planB merge.Plan) {
	before := p.clone()
	p.a.apply(planA, before.b)
	p.b.apply(planB, before.a)
}

func plan(o merge.Options, changes []*item.Change) (merge.Plan, error) {
	p := merge.NewPlanner(o)
	for _, c := range changes {
		if err := p.Add(c); err != nil {
			return merge.Plan{}, err
		}
	}
	return p.Finish()
}
