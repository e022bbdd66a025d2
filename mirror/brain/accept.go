package brain

import (
	"context"
	"fmt"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// maxPushMailboxes bounds the mailboxes of one push.
const maxPushMailboxes = 1 << 16

// errNoPush is the error about a push after a round that allows none.
var errNoPush = fmt.Errorf("%w: a push is not due", ErrProtocol)

// pushHead is what a push says of a mailbox before any changes.
type pushHead struct {
	box   *item.Mailbox
	claim *item.State
}

// accept takes a push that begins with first, or refuses it. An error has been told to the other side.
func (l *link) accept(ctx context.Context, s store.Store, first *item.Mailbox) (Verdict, Outcome, error) {
	if l.h == nil {
		return NeedRound, Outcome{}, errNoPush
	}
	a := &acceptance{round: l.round(s, false)}
	defer a.close()
	taken, err := a.take(ctx, first)
	err = a.saveBases(context.WithoutCancel(ctx), err)
	if err != nil {
		return NeedRound, a.out, a.fail(err)
	}
	if err := a.answer(); err != nil {
		return NeedRound, a.out, err
	}
	if !taken || a.out.Desync {
		return NeedRound, a.out, nil
	}
	return Taken, a.out, nil
}

// acceptance is the receiver's side of a push.
type acceptance struct {
	*round
	heads  []pushHead
	opened []*exchange
	acks   []item.State // of the mailboxes that were taken
}

func (a *acceptance) close() {
	for _, x := range a.opened {
		x.close()
	}
}

// take carries the push out. Not taken: it does not fit, and nothing was changed; some of it may have been, if something
// happened in the store meanwhile, which is as if a round had broken off.
func (a *acceptance) take(ctx context.Context, first *item.Mailbox) (taken bool, err error) {
	if err := a.refresh(ctx); err != nil {
		return false, err
	}
	if err := a.loadBases(ctx); err != nil {
		return false, err
	}
	if a.heads, err = a.pushHeads(ctx, first); err != nil {
		return false, err
	}
	boxes, err := a.fitting(ctx)
	if err != nil {
		return false, err
	}
	taken = boxes != nil
	for i, head := range a.heads {
		if !taken {
			err = a.drainGroup(ctx)
		} else {
			taken, err = a.takeOne(ctx, head, boxes[i])
		}
		if err != nil {
			return false, err
		}
	}
	if taken {
		if err := a.carryFlags(ctx); err != nil {
			return false, err
		}
	}
	return taken, a.store.EndRound(ctx)
}

// takeOne takes what is said of one mailbox.
func (a *acceptance) takeOne(ctx context.Context, head pushHead, x *exchange) (taken bool, err error) {
	if taken, err = x.takeChanges(ctx); err != nil {
		return false, err
	}
	if !taken {
		return false, a.drainMails(ctx)
	}
	if taken, err = x.takeMails(ctx); err != nil || !taken {
		return false, err
	}
	if err := x.settlePush(head); err != nil {
		return false, err
	}
	a.acks = append(a.acks, x.lastOwn)
	return true, nil
}

// pushHeads reads what the push says of its mailboxes.
func (r *round) pushHeads(ctx context.Context, first *item.Mailbox) (heads []pushHead, err error) {
	box := first
	for {
		claim, err := expect[*item.State](ctx, r.c, "the last common state of a pushed mailbox")
		if err != nil {
			return nil, err
		}
		if claim.GUID != box.GUID || len(heads) == maxPushMailboxes {
			return nil, fmt.Errorf("%w: push of mailbox %s", ErrProtocol, box.GUID)
		}
		heads = append(heads, pushHead{box, claim})
		it, err := r.c.recv(ctx)
		if err != nil {
			return nil, fmt.Errorf("receiving a push: %w", unexpectedEOF(err))
		}
		switch it := it.(type) {
		case *item.Mailbox:
			box = it
		case *item.EndOfList:
			return heads, nil
		default:
			return nil, fmt.Errorf("receiving a push: %w", unexpected(it))
		}
	}
}

// fitting opens the mailboxes of the push; nil if one of them is not as the sender believes.
func (a *acceptance) fitting(ctx context.Context) ([]*exchange, error) {
	boxes, _, err := a.store.Tree(ctx)
	if err != nil {
		return nil, err
	}
	boxes = a.selected(boxes)
	a.out.Untold = a.untold(boxes)
	part := make(map[mail.MailboxGUID]bool)
	for _, box := range boxes {
		part[box.Status.GUID] = box.Existence == mail.Exists
	}
	var out []*exchange
	for _, head := range a.heads {
		if !part[head.box.GUID] {
			return nil, nil
		}
		x, err := a.open(ctx, head)
		if err != nil || x == nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// untold reports whether something happened here, besides in the mailboxes of the push, which fit only if nothing did there. The look
// has taken notice of it, so that whoever watches the store may take it for old news.
func (a *acceptance) untold(boxes []mail.Mailbox) bool {
	if fingerprint(boxes) != a.link.tree {
		return true
	}
	pushed := make(map[mail.MailboxGUID]bool)
	for _, head := range a.heads {
		pushed[head.box.GUID] = true
	}
	return slices.ContainsFunc(boxes, func(box mail.Mailbox) bool {
		if box.Existence != mail.Exists || box.Status.GUID.IsZero() || pushed[box.Status.GUID] {
			return false
		}
		base, known := a.bases[box.Status.GUID]
		return !known || base.Local != store.NumbersOf(box.Status)
	})
}

func (a *acceptance) open(ctx context.Context, head pushHead) (*exchange, error) {
	mb, err := a.store.Open(ctx, head.box.GUID)
	if err != nil {
		return nil, err
	}
	x := a.newExchange(mb)
	a.opened = append(a.opened, x)
	if err := x.prepare(ctx); err != nil {
		return nil, err
	}
	base := a.bases[head.box.GUID]
	if x.own.NoBase || !head.agrees(base, x.own.Status, a.store.Epoch()) || base.RemoteEpoch != a.peer.Epoch {
		return nil, nil
	}
	x.theirs = head.box
	x.startFrom(base)
	if ok, err := x.unchanged(ctx); err != nil || !ok {
		return nil, err
	}
	return x, nil
}

// agrees reports whether the sender means the common state that is known here.
func (h *pushHead) agrees(base store.State, own mail.Status, epoch uint64) bool {
	c := h.claim
	return c.Epoch == epoch && c.UIDValidity == base.UIDValidity && h.box.UIDValidity == own.UIDValidity &&
		c.LastCommonUID == base.LastCommonUID && c.LastCommonModSeq == base.Remote.HighestModSeq &&
		base.Local == store.Numbers{UIDNext: c.UIDNext, Messages: c.Messages, HighestModSeq: c.HighestModSeq}
}

// takeChanges plans what the sender says of a mailbox. Not taken: it cannot be carried out as it was said.
func (x *exchange) takeChanges(ctx context.Context) (taken bool, err error) {
	if err := x.planChanges(ctx); err != nil {
		return false, err
	}
	in, p := &x.incoming, &x.incoming.plan
	if in.resync || in.again || p.Restart || len(p.Realign) > 0 || p.UIDValidity != 0 && p.UIDValidity != x.own.UIDValidity ||
		p.LastCommon+1 != x.theirs.UIDNext {
		return false, nil
	}
	if x.withheld != 0 && x.theirs.UIDNext != x.withheld {
		return false, nil // both sides gave out the same UIDs
	}
	for _, a := range in.adds {
		if a.uid() >= x.theirs.UIDNext {
			return false, nil // the planner gave it another UID than the sender did
		}
	}
	return true, nil
}

// takeMails takes the bodies and carries out the plan. What did not come as a body is here already.
func (x *exchange) takeMails(ctx context.Context) (taken bool, err error) {
	err = list(ctx, x.r.c, "mails", func(m *item.Mail) error {
		if _, wanted := x.incoming.waiting[m.GUID]; !wanted {
			return discardMail(m)
		}
		return x.incoming.receive(ctx, m)
	})
	if err != nil {
		return false, err
	}
	if err := x.incoming.findElsewhere(ctx); err != nil {
		return false, err
	}
	if len(x.incoming.waiting) > 0 || x.incoming.desync {
		return false, nil
	}
	return true, x.incoming.complete(ctx)
}

// settlePush notes the new common state, as the receiver.
func (x *exchange) settlePush(head pushHead) error {
	x.lastOwn = x.stateNow()
	theirs := head.box.Status
	x.finish()
	return x.settle(&item.State{
		GUID: theirs.GUID, UIDValidity: theirs.UIDValidity, LastCommonUID: theirs.UIDNext - 1,
		Messages: theirs.Messages, UIDNext: theirs.UIDNext, HighestModSeq: theirs.HighestModSeq, Epoch: x.r.peer.Epoch,
	})
}

// answer says of each mailbox what became of it.
func (a *acceptance) answer() error {
	for i, head := range a.heads {
		ack := &item.State{GUID: head.box.GUID, UIDValidity: head.box.UIDValidity, Epoch: a.store.Epoch(), ChangesDuringSync: true}
		if i < len(a.acks) {
			ack = &a.acks[i]
		}
		if err := a.c.send(ack); err != nil {
			return err
		}
	}
	return a.sendNow(&item.EndOfList{})
}
