package brain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
	"dsyncfs/mirror/store"
)

// A batch is committed when it has this many messages or bytes, or began in an earlier second: durability is paid per batch,
// what a lost connection has to repeat is bounded, and who watches the mailbox sees what came over a slow link.
const (
	batchMails = 1000
	batchBytes = 64 << 20
)

// incoming is the importing half of an exchange.
type incoming struct {
	x    *exchange
	plan merge.Plan
	adds []add // by ascending UID; the first next of them are done

	next      int
	ready     int   // adds[next:ready] can be applied
	bytes     int64 // staged and not applied
	began     int64 // when the first of these came, in seconds; 0: none did
	waiting   map[mail.GUID]int32
	rest      store.Batch // everything of the plan that is no add
	lowest    mail.UID    // of the new UIDs in rest; adds above it are committed with it or after it
	highest   mail.UID    // of these; adds below it are committed with it or before it
	finishing bool        // the own bodies have been sent: mails may change their UIDs or go
	restDone  bool

	status  mail.Status // after the last batch; zero: none yet
	desync  bool
	again   bool // mails were kept that the other side hears of in the next round
	resync  bool // the last common state turned out not to fit
	outcome Outcome
}

// add is one message that is to appear.
type add struct {
	plan     *merge.Add
	instance int32 // of plan.Instances
	renews   bool  // the plan expunges a mail of this GUID
	origin   source
	have     uint64 // bytes of the body came ahead
	staged   store.Staged
	from     store.Location
	details  *item.Mail // dates and POP3 fields of a mail that came from the peer
}

// source says where an add's bytes come from.
type source uint8

const (
	fromPeer  source = iota // not arrived yet
	staged                  // arrived
	copied                  // from a message that is here
	vanished                // the peer does not have it any more
	duplicate               // copy of the first instance, which is committed before
)

// lastCommon is the highest UID up to which both sides are equal when the exchange is over.
func (in *incoming) lastCommon(own *item.Mailbox) mail.UID {
	if in.x == nil {
		return own.UIDNext - 1 // this side only exports
	}
	return in.plan.LastCommon
}

func (in *incoming) uidValidity(own *item.Mailbox) mail.UIDValidity {
	if in.status.UIDValidity != 0 {
		return in.status.UIDValidity
	}
	return own.UIDValidity
}

// begin takes the plan.
func (in *incoming) begin(x *exchange, p merge.Plan) error {
	in.x, in.plan = x, p
	if err := in.judge(); err != nil {
		return err
	}
	in.prepareRest()
	for _, e := range p.Expunges {
		if !e.Logged.IsZero() {
			x.r.moved.lost(e.GUID, e.Logged)
		}
	}
	in.waiting = make(map[mail.GUID]int32)
	goes := make(map[mail.GUID]bool)
	for _, e := range p.Expunges {
		goes[e.GUID] = true
	}
	for i := range p.Adds {
		for k := range p.Adds[i].Instances {
			in.adds = append(in.adds, add{plan: &p.Adds[i], instance: int32(k), renews: goes[p.Adds[i].GUID], origin: duplicate})
		}
	}
	sortAdds(in.adds)
	for i := range in.adds {
		if a := &in.adds[i]; a.instance == 0 {
			in.chooseSource(a, int32(i))
		}
	}
	return nil
}

// judge asks the deletion guard about expunges that nobody saw. In a backup that was made before, what came into the
// destination since then was never in the source, and undoing it is no loss.
func (in *incoming) judge() error {
	base, common := in.x.r.bases[in.x.own.GUID]
	n := 0
	for _, e := range in.plan.Expunges {
		if !e.Witnessed && (!common || e.UID <= base.LastCommonUID) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	s := in.x.mb.Status()
	return in.x.r.judge([]store.Loss{{Mailbox: in.x.mb.Name(), Known: int(s.Messages), Missing: n}})
}

// prepareRest makes the batch of everything that is no add. What only has to be raised, and is not below already, is left
// out, so that an unchanged mailbox is not touched.
func (in *incoming) prepareRest() {
	p, s := &in.plan, in.x.mb.Status()
	b := store.Batch{Origin: in.x.r.origin(), Peer: in.x.r.noted(), UIDValidity: p.UIDValidity, Restart: p.Restart}
	in.lowest = mail.MaxUID + 1
	for _, r := range p.Realign {
		b.Realign = append(b.Realign, store.Realign{UID: r.UID, NewUID: r.NewUID, NewGUID: r.NewGUID})
		if r.NewUID != r.UID {
			in.lowest, in.highest = min(in.lowest, r.NewUID), max(in.highest, r.NewUID)
		}
	}
	for _, d := range p.Deltas {
		b.Deltas = append(b.Deltas, store.FlagChange(d))
	}
	for _, e := range p.Expunges {
		b.Expunges = append(b.Expunges, store.Expunge{UID: e.UID, GUID: e.GUID})
	}
	if p.Restart || p.UIDNext > s.UIDNext && len(p.Adds) == 0 {
		b.UIDNext = p.UIDNext
	}
	if p.FirstRecent > s.FirstRecent {
		b.FirstRecent = p.FirstRecent
	}
	if p.HighestModSeq > s.HighestModSeq {
		b.HighestModSeq = p.HighestModSeq
	}
	in.rest = b
}

func (in *incoming) chooseSource(a *add, index int32) {
	if a.plan.Copy != 0 {
		a.origin, a.from = copied, store.Location{Mailbox: in.x.own.GUID, UID: a.plan.Copy}
		return
	}
	a.origin, a.have = fromPeer, uint64(in.x.r.link.have(a.plan.GUID))
	in.waiting[a.plan.GUID] = index
}

// findElsewhere looks for wanted bodies in other mailboxes of the own store, so that a moved mail is not sent again.
func (in *incoming) findElsewhere(ctx context.Context) error {
	if len(in.waiting) == 0 {
		return nil
	}
	if in.x.withContent {
		// GUIDs did not tell which mails are the same, so a mail that has one here may be another one.
		return in.takeKept(ctx)
	}
	want := make(map[mail.GUID]struct{}, len(in.waiting))
	for guid := range in.waiting {
		want[guid] = struct{}{}
	}
	found, err := in.x.r.store.Find(ctx, want, nil)
	if err != nil {
		return err
	}
	for guid, where := range found {
		a := &in.adds[in.waiting[guid]]
		a.origin, a.from = copied, where
		delete(in.waiting, guid)
	}
	return in.takeKept(ctx)
}

// requests yields what to ask the peer for, by ascending UID of the message here.
func (in *incoming) requests(yield func(*item.Request) bool) {
	for i := range in.adds {
		a := &in.adds[i]
		if a.instance == 0 && a.origin == fromPeer && !yield(&item.Request{GUID: a.plan.GUID, UID: a.plan.RemoteUID, Have: a.have}) {
			return
		}
	}
}

// receive stages a mail that was asked for.
func (in *incoming) receive(ctx context.Context, it *item.Mail) error {
	index, wanted := in.waiting[it.GUID]
	if !wanted {
		return fmt.Errorf("%w: mail %q was not asked for", ErrProtocol, it.GUID)
	}
	delete(in.waiting, it.GUID)
	a := &in.adds[index]
	if it.Body == nil {
		a.origin = vanished
		in.noteDesync(fmt.Sprintf("message %q vanished on the other side", it.GUID))
		return nil
	}
	whole, err := in.whole(it)
	if err != nil {
		return err
	}
	body := &countingReader{r: whole}
	st, err := in.x.mb.Stage(ctx, in.message(a, it), body.unwrap())
	if err = errors.Join(err, it.Body.Close()); err != nil {
		return fmt.Errorf("saving message %q: %w", it.GUID, err)
	}
	if in.x.r.link.have(it.GUID) > 0 {
		if err := in.x.r.link.dropArriving(); err != nil {
			return err
		}
	}
	size := body.size()
	it.Body = nil
	a.origin, a.staged, a.details = staged, st, it
	in.bytes += size
	if p := in.x.r.Progress; p != nil {
		p.Mails(1, size)
	}
	if in.advance(); in.full() {
		return in.commit(ctx)
	}
	return nil
}

// whole puts what is here of a body in front of what came of it.
func (in *incoming) whole(it *item.Mail) (io.Reader, error) {
	m, kept := in.x.told.take(it.GUID)
	if kept && it.Offset > 0 && it.Offset == uint64(m.Size) {
		return m.reader(), nil
	}
	return in.x.r.link.join(it)
}

// full reports whether it is time to commit what is ready.
func (in *incoming) full() bool {
	now := in.x.r.Now()
	if in.began == 0 {
		in.began = now
	}
	return in.ready-in.next >= batchMails || in.bytes >= batchBytes || in.ready > in.next && now > in.began
}

// advance finds how many adds from the next one on can be applied. A duplicate has to wait until its first instance is
// committed, so it ends the batch. A copy of an own message may be its new UID, and so may any mail that goes under another one,
// wherever its bytes come from: it has to come together with the expunge of the old one, which is in rest, or a round that breaks
// off in between leaves the mail twice, as if someone wanted that.
func (in *incoming) advance() {
	for in.ready = max(in.ready, in.next); in.ready < len(in.adds); in.ready++ {
		a := &in.adds[in.ready]
		if a.origin == fromPeer || a.origin == duplicate && !in.firstCommitted(a) || !in.finishing && in.waitsForRest(a) {
			return
		}
	}
}

// waitsForRest reports whether an add must not be committed before the rest is.
func (in *incoming) waitsForRest(a *add) bool {
	return in.plan.Restart || a.renews || a.uid() > in.lowest || a.origin == copied && a.from.Mailbox == in.x.own.GUID
}

func (in *incoming) firstCommitted(a *add) bool {
	return in.next > 0 && a.plan.Instances[0].UID <= in.adds[in.next-1].uid()
}

func (a *add) uid() mail.UID { return a.plan.Instances[a.instance].UID }

// complete commits the rest when the peer's list of mails has ended and the own one is sent.
func (in *incoming) complete(ctx context.Context) error {
	in.finishing = true
	if n := len(in.waiting); n > 0 {
		return fmt.Errorf("%w: %d mails that were asked for did not come", ErrProtocol, n)
	}
	for {
		in.advance()
		if in.restDone && in.next == len(in.adds) {
			return in.raiseUIDNext(ctx)
		}
		if err := in.commit(ctx); err != nil {
			return err
		}
	}
}

// raiseUIDNext covers UIDs at the end that no message has.
func (in *incoming) raiseUIDNext(ctx context.Context) error {
	have := in.x.mb.Status().UIDNext
	if in.status.UIDNext > 0 {
		have = in.status.UIDNext
	}
	if in.plan.UIDNext <= have {
		return nil
	}
	return in.apply(ctx, store.Batch{Origin: in.x.r.origin(), UIDNext: in.plan.UIDNext})
}

// commit applies the next batch. After a crash or a lost connection the rest is found missing by the next round; nothing
// that was committed is asked for again.
func (in *incoming) commit(ctx context.Context) error {
	b := store.Batch{Origin: in.x.r.origin(), Peer: in.x.r.noted()}
	if in.finishing && !in.restDone {
		b, in.restDone = in.rest, true
	}
	last := min(in.ready, in.next+2*batchMails)
	for last < in.ready && (in.plan.Restart || in.adds[last].uid() < in.highest) {
		last++
	}
	for i := in.next; i < last; i++ {
		a := &in.adds[i]
		switch a.origin {
		case vanished:
			continue
		case duplicate:
			a.from = store.Location{Mailbox: in.x.own.GUID, UID: a.plan.Instances[0].UID}
		}
		b.Adds = append(b.Adds, store.Add{Message: in.message(a, a.details), Staged: a.staged, From: a.from})
	}
	if in.plan.Restart { // copies of what the batch before saved come after it, and their UIDs are as free as those
		b.Restart, b.UIDNext = true, in.plan.UIDNext
	}
	if last == in.next && emptyBatch(b) && in.restDone && last < len(in.adds) {
		return fmt.Errorf("mailbox %s: UID %d waits for a message that never comes", in.x.mb.Name(), in.adds[last].uid())
	}
	in.next, in.bytes, in.began = last, 0, 0
	return in.apply(ctx, b)
}

// apply carries out a batch, unless there is nothing in it, and adds up what it did.
func (in *incoming) apply(ctx context.Context, b store.Batch) error {
	if emptyBatch(b) {
		return nil
	}
	res, err := in.x.mb.Apply(ctx, b)
	if err != nil {
		return err
	}
	in.status = res.Status
	o := &in.outcome
	o.Changed = o.Changed || res.Changed
	for _, d := range b.Deltas {
		if !d.Delta.IsZero() {
			o.Flags++
		}
	}
	for _, a := range b.Adds {
		if a.From.Mailbox == in.x.own.GUID {
			o.Renumbered++
		} else {
			o.Added++
		}
	}
	o.Expunged += len(b.Expunges)
	in.noteCopies(b.Adds, res.Reassigned)
	if len(res.Vanished) > 0 {
		in.noteDesync(fmt.Sprintf("%d messages went away meanwhile", len(res.Vanished)))
	}
	for _, late := range res.Late {
		for _, e := range b.Expunges {
			if e.UID == late.UID {
				in.x.r.moved.lost(e.GUID, late.Delta)
			}
		}
	}
	if res.Noticed {
		in.noteDesync("flags changed meanwhile")
	}
	if len(res.Reassigned) > 0 {
		in.noteDesync(fmt.Sprintf("%d messages got other UIDs because new mail came meanwhile", len(res.Reassigned)))
	}
	return nil
}

// noteCopies tells where mails are now that were copied from what is here. They may be one half of a move.
func (in *incoming) noteCopies(adds []store.Add, reassigned []store.Assigned) {
	got := make(map[mail.UID]mail.UID, len(reassigned))
	for _, r := range reassigned {
		got[r.Wanted] = r.Got
	}
	for _, a := range adds {
		if a.Staged == "" {
			uid := cmp.Or(got[a.Message.UID], a.Message.UID)
			in.x.r.moved.found(a.Message.GUID, store.Location{Mailbox: in.x.own.GUID, UID: uid})
		}
	}
}

func emptyBatch(b store.Batch) bool {
	return b.UIDValidity == 0 && !b.Restart && len(b.Realign)+len(b.Deltas)+len(b.Expunges)+len(b.Adds) == 0 &&
		b.UIDNext == 0 && b.FirstRecent == 0 && b.HighestModSeq == 0
}

func (in *incoming) noteDesync(what string) {
	in.desync = true
	in.x.r.desync(fmt.Sprintf("%s: mailbox %s: %s", in.x.r.Side, in.x.mb.Name(), what))
}

// salvage commits what has arrived when an exchange failed, so that it need not come again.
func (in *incoming) salvage(ctx context.Context) {
	if in.x == nil || in.plan.Restart || in.x.r.h.DryRun {
		return
	}
	in.advance()
	if in.ready == in.next {
		return
	}
	if err := in.commit(ctx); err != nil {
		in.x.r.Logger.Warn("keeping what had arrived", "mailbox", in.x.mb.Name(), "err", err)
	}
	in.x.r.out.Add(in.outcome)
}

// message is the message that an add makes.
func (in *incoming) message(a *add, it *item.Mail) mail.Message {
	inst := a.plan.Instances[a.instance]
	m := mail.Message{
		UID: inst.UID, GUID: a.plan.GUID, Flags: inst.Flags, Keywords: inst.Keywords, ModSeq: inst.ModSeq, Size: -1, VirtualSize: -1,
	}
	if it != nil {
		m.Received, m.Saved, m.POP3UIDL, m.POP3Order = it.Received, it.Saved, it.POP3UIDL, it.POP3Order
	}
	return m
}
