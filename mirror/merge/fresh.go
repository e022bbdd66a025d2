package merge

import (
	"cmp"
	"slices"
	"strings"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// fresher is a mail that only one side has, as far as known: one of the two columns out of which the new part of a mailbox
// is made. Kept small, for there may be a million of them.
type fresher struct {
	modSeq   mail.ModSeq
	uid      mail.UID // on its side
	final    mail.UID // on both sides in the end
	group    uint32   // mails of one GUID
	marks    uint32   // place in the table of marks
	order    uint32   // in which the rule of heads took it
	partner  int32    // in the other column; none
	waiting  int32    // the next of its group and column without a partner; none
	keeps    bool     // its UID is free on the other side, or the same mail is there
	settled  bool     // by its partner
	shared   bool     // an exchange brought it here, or the peer may have had it when the two met
	unwanted bool     // the filter does not want it here; it takes part so that both sides count alike
}

const none int32 = -1

// fresh collects the mails of both columns (locals and remotes, each by ascending UID) and settles which are the same and
// what UIDs they get: sections "matching new mails" and "final UIDs" of docs/dsync.md, dovecot 2.3.19
// dsync_mailbox_import_assign_new_uids.
type fresh struct {
	locals, remotes []fresher
	taken           uint32   // how many mails have got their order
	after           mail.UID // local mails up to here are none of ours
	groups          []mail.GUID
	groupOf         map[mail.GUID]uint32
	table           marksTable
}

// group returns the number of the mails of that GUID. The first one's spelling is kept, but a peer's spelling replaces one
// of ours: requests need it.
func (p *Planner) group(g mail.GUID, remote bool) uint32 {
	key := p.key(g)
	n, ok := p.groupOf[key]
	if !ok {
		own := mail.GUID(strings.Clone(string(g))) // g may be a part of a whole line
		if key == g {
			key = own
		}
		n = uint32(len(p.groups))
		p.groups = append(p.groups, own)
		p.groupOf[key] = n
	} else if remote && p.o.ShortGUIDs {
		p.groups[n] = mail.GUID(strings.Clone(string(g)))
	}
	return n
}

func (p *Planner) ofRecord(c *item.Change) fresher {
	p.remoteNext = max(p.remoteNext, c.UID+1)
	return fresher{
		modSeq: c.ModSeq, uid: c.UID, group: p.group(c.GUID, true), marks: p.table.put(MarksOf(c)),
		partner: none, waiting: none, shared: c.Past != item.PastNone, unwanted: !p.o.Filter.wantsRecord(c),
	}
}

func (p *Planner) ofMessage(m *mail.Message) (fresher, error) {
	p.localNext = max(p.localNext, m.UID+1)
	marks, err := p.localMarks(m)
	return fresher{
		modSeq: m.ModSeq, uid: m.UID, group: p.group(m.GUID, false), marks: p.table.put(marks), partner: none, waiting: none,
		shared: p.o.Past != nil && p.o.Past(m.UID) != item.PastNone,
	}, err
}

// nextLocal returns the head of the local column, nil at its end.
func (p *Planner) nextLocal() (*mail.Message, error) {
	if p.local.past < p.after {
		return p.local.seek(p.after)
	}
	return p.local.peek()
}

// remoteMail takes a record for a new mail.
func (p *Planner) remoteMail(c *item.Change) error {
	h := p.ofRecord(c)
	return p.remoteHead(&h)
}

// remoteHead takes the next mail of the remote column, after those local ones that come before it: always the smaller of
// both heads, by GUID and then by UID. Exchanging the sides exchanges the columns and leaves the order.
func (p *Planner) remoteHead(h *fresher) error {
	key := p.key(p.groups[h.group])
	for {
		m, err := p.nextLocal()
		if err != nil {
			return err
		}
		order := 1
		if m != nil {
			order = cmp.Or(cmp.Compare(p.key(m.GUID), key), cmp.Compare(m.UID, h.uid))
		}
		switch {
		case order == 0: // the same new mail; its UID stays and disturbs nobody
			p.localNext = max(p.localNext, m.UID+1)
			p.local.advance()
			remote := p.marksOf(h)
			to, err := p.settle(m, remote)
			p.plan.Unmerged = p.plan.Unmerged || !to.equal(remote)
			return err
		case order > 0:
			p.remotes = append(p.remotes, p.take(*h))
			return nil
		}
		if err := p.takeLocal(m); err != nil {
			return err
		}
	}
}

func (p *Planner) takeLocal(m *mail.Message) error {
	h, err := p.ofMessage(m)
	if err != nil {
		return err
	}
	p.locals = append(p.locals, p.take(h))
	p.local.advance()
	return nil
}

func (f *fresh) take(h fresher) fresher {
	h.order = f.taken
	f.taken++
	return h
}

// localMails takes the rest of the local column and settles everything.
func (p *Planner) localMails() error {
	if len(p.remotes) == 0 && len(p.locals) == 0 {
		return p.onlyLocal()
	}
	for {
		m, err := p.nextLocal()
		if err != nil {
			return err
		}
		if m == nil {
			return p.assign()
		}
		if err := p.takeLocal(m); err != nil {
			return err
		}
	}
}

// onlyLocal is localMails where the peer has nothing new: each mail stands for itself, so that none need be kept.
func (p *Planner) onlyLocal() error {
	var move []mail.UID
	for {
		m, err := p.nextLocal()
		if err != nil {
			return err
		}
		if m == nil {
			break
		}
		p.localNext = max(p.localNext, m.UID+1)
		if !p.localKeeps(m.UID) {
			move = append(move, m.UID)
		}
		p.local.advance()
	}
	next := max(p.localNext, p.remoteNext)
	for _, uid := range move {
		p.plan.Realign = append(p.plan.Realign, Realign{UID: uid, NewUID: next})
		next++
	}
	return p.conclude(next)
}

// interleave gives two whole columns the order in which remoteHead would have taken them.
func (p *Planner) interleave() {
	var i, j int
	for i < len(p.locals) || j < len(p.remotes) {
		local := j == len(p.remotes)
		if !local && i < len(p.locals) {
			l, r := &p.locals[i], &p.remotes[j]
			local = cmp.Or(cmp.Compare(p.key(p.groups[l.group]), p.key(p.groups[r.group])), cmp.Compare(l.uid, r.uid)) < 0
		}
		if local {
			p.locals[i] = p.take(p.locals[i])
			i++
		} else {
			p.remotes[j] = p.take(p.remotes[j])
			j++
		}
	}
}

func (p *Planner) localKeeps(uid mail.UID) bool {
	return uid >= p.remoteNext || p.o.Aligned == Remote
}

func (p *Planner) remoteKeeps(uid mail.UID) bool {
	return uid >= p.localNext || p.o.Aligned == Local
}

// assign settles partners and UIDs and writes what follows into the plan.
func (p *Planner) assign() error {
	p.keepers()
	p.findPartners()
	next := p.finalUIDs(max(p.localNext, p.remoteNext))
	p.groupOf = nil
	p.place(p.units())
	if p.o.Aligned == Local && len(p.plan.Adds) > 0 {
		p.plan.Restart = true // the winner's mails keep UIDs that may be below UIDNEXT here
	}
	return p.conclude(next)
}

// keepers marks the mails that keep their UID: it was never used on the other side, or there is the same mail. Of two equal
// mails under one UID the one that was taken first is marked.
func (p *Planner) keepers() {
	for i := range p.locals {
		p.locals[i].keeps = p.localKeeps(p.locals[i].uid)
	}
	i := 0
	for j := range p.remotes {
		r := &p.remotes[j]
		r.keeps = p.remoteKeeps(r.uid)
		for i < len(p.locals) && p.locals[i].uid < r.uid {
			i++
		}
		if i == len(p.locals) || p.locals[i].uid != r.uid || p.locals[i].group != r.group {
			continue
		}
		if l := &p.locals[i]; l.order < r.order {
			l.keeps = true
		} else {
			r.keeps = true
		}
	}
}

// inOrder calls f for every mail in the order in which they were taken.
func (f *fresh) inOrder(do func(h *fresher, index int32, local bool)) {
	var i, j int
	for i < len(f.locals) || j < len(f.remotes) {
		if j == len(f.remotes) || i < len(f.locals) && f.locals[i].order < f.remotes[j].order {
			do(&f.locals[i], int32(i), true)
			i++
		} else {
			do(&f.remotes[j], int32(j), false)
			j++
		}
	}
}

// other returns the column of a mail's partners.
func (f *fresh) other(local bool) []fresher {
	if local {
		return f.remotes
	}
	return f.locals
}

// findPartners pairs equal mails of the two sides: each with the first one before it, in the order of taking, that has no
// partner yet. In a group only one side can have mails waiting, so one queue is enough for it.
func (f *fresh) findPartners() {
	if len(f.locals) == 0 || len(f.remotes) == 0 {
		return
	}
	type queue struct {
		first, last int32
		local       bool
	}
	queues := make([]queue, len(f.groups))
	for i := range queues {
		queues[i].first = none
	}
	f.inOrder(func(h *fresher, index int32, local bool) {
		q := &queues[h.group]
		switch {
		case q.first == none:
			*q = queue{first: index, last: index, local: local}
		case q.local == local:
			f.other(!local)[q.last].waiting = index
			q.last = index
		default:
			mate := &f.other(local)[q.first]
			h.partner, mate.partner = q.first, index
			q.first = mate.waiting
		}
	})
}

// finalUIDs gives each mail or pair its UID and returns the next free one.
func (f *fresh) finalUIDs(next mail.UID) mail.UID {
	f.inOrder(func(h *fresher, _ int32, local bool) {
		if h.settled {
			return
		}
		var mate *fresher
		if h.partner != none {
			mate = &f.other(local)[h.partner]
		}
		switch {
		case h.keeps:
			h.final = h.uid
		case mate != nil && mate.keeps:
			h.final = mate.uid
		default:
			h.final = next
			next++
		}
		if mate != nil {
			mate.final, mate.settled = h.final, true
		}
	})
	return next
}

// unit is one mail of the future: a mail of one side, or a pair.
type unit struct {
	group         uint32
	final         mail.UID
	local, remote int32 // in the columns; none
}

// units returns the future mails by group and UID.
func (f *fresh) units() []unit {
	n := len(f.locals) + len(f.remotes)
	for i := range f.locals {
		if f.locals[i].partner != none {
			n--
		}
	}
	units := make([]unit, 0, n)
	for i := range f.locals {
		l := &f.locals[i]
		units = append(units, unit{group: l.group, final: l.final, local: int32(i), remote: l.partner})
	}
	for j := range f.remotes {
		if r := &f.remotes[j]; r.partner == none {
			units = append(units, unit{group: r.group, final: r.final, local: none, remote: int32(j)})
		}
	}
	slices.SortFunc(units, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.final, b.final))
	})
	return units
}

// marksOf returns the marks of a mail of either column.
func (f *fresh) marksOf(h *fresher) Marks {
	m := f.table.get(h.marks)
	m.ModSeq = h.modSeq
	return m
}
