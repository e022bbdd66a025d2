package brain

import (
	"context"
	"fmt"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// untouched reports whether nothing happened here to a mailbox since the last common state that a stock slave was told:
// there is nothing to tell, and only the other side's answer is of interest.
func (r *round) untouched(box mail.Mailbox) bool {
	s := box.Status
	if r.stock == nil || r.h.Type != item.SyncState || !r.dir.imports() || !r.stock.told[s.GUID] {
		return false
	}
	base := r.bases[s.GUID]
	node, there := r.remote[s.GUID]
	_, conflict := r.stock.conflicts[s.GUID]
	return there && !conflict && node.uidValidity == s.UIDValidity && base.UIDValidity == s.UIDValidity &&
		base.Local == store.NumbersOf(s) && s.UIDNext == base.LastCommonUID+1
}

// glance asks a stock slave what it has to say of an untouched mailbox, in one trip: the announcement goes out together with
// the own half, which is empty, and with the last word on the mailbox before. What the other side tells is not taken up; quiet
// says that there was nothing, and that no UIDs were used up there either.
//
// The own state has to wait for the other side's: a Dovecot dies of one that comes before it has said everything (dovecot
// 2.3 dsync-brain-mails.c: dsync_brain_recv_last_common). One that does not have the mailbox takes the first end of a list
// for that of all mailboxes, so the round is over then.
func (r *round) glance(ctx context.Context, box mail.Mailbox) (quiet bool, err error) {
	x := r.newExchange(nil)
	caps := r.store.Capabilities()
	x.own = &item.Mailbox{Status: box.Status, HaveGUIDs: true, HaveSaveGUIDs: caps.SaveGUIDs, HaveOnlyGUID128: caps.OnlyGUID128}
	half := []item.Item{x.own, &item.EndOfList{}} // no requests
	if r.dir.exports() {
		half = append(half, &item.EndOfList{}, &item.EndOfList{}, &item.EndOfList{}) // no attributes, changes, mails
	}
	if err := r.sendNow(half...); err != nil {
		return false, err
	}
	if x.theirs, err = expect[*item.Mailbox](ctx, r.c, "the answer to a mailbox"); err != nil {
		return false, err
	}
	if x.theirs.Lost || x.theirs.Ignore {
		r.desync(fmt.Sprintf("%s: the other side does not have mailbox %s as expected", r.Side, box.Name))
		r.doubt(box.Status.GUID)
		r.ended = true
		return true, nil
	}
	said, err := x.hearHalf(ctx)
	if err != nil {
		return false, err
	}
	state, err := expect[*item.State](ctx, r.c, "the state of the mailbox")
	if err != nil {
		return false, err
	}
	base := r.bases[box.Status.GUID]
	x.startFrom(base)
	x.lastOwn = item.State{
		GUID: box.Status.GUID, UIDValidity: box.Status.UIDValidity, LastCommonUID: base.LastCommonUID,
		LastCommonModSeq: base.Local.HighestModSeq, Messages: base.Local.Messages, UIDNext: base.Local.UIDNext, HighestModSeq: base.Local.HighestModSeq,
	}
	if err := r.c.send(&x.lastOwn); err != nil { // it leaves together with what comes next
		return false, err
	}
	if said || x.theirs.UIDNext > box.Status.UIDNext { // a mail may have come and gone there
		return false, nil
	}
	if err := x.settle(state); err != nil {
		return false, err
	}
	r.compared(box.Name, box.Status.GUID)
	return true, nil
}

// hearHalf reads all that the other side tells of a mailbox without taking it up, and reports whether there was anything.
func (x *exchange) hearHalf(ctx context.Context) (said bool, err error) {
	c := x.r.c
	if err := skip[*item.Attribute](ctx, c, "attributes", &said); err != nil {
		return said, err
	}
	if err := skip[*item.Change](ctx, c, "mail changes", &said); err != nil {
		return said, err
	}
	if x.r.dir.exports() {
		if err := skip[*item.Request](ctx, c, "requests", &said); err != nil {
			return said, err
		}
	}
	return said, skip[*item.Mail](ctx, c, "mails", &said)
}

// skip reads a list and notes whether it had items.
func skip[T item.Item](ctx context.Context, c *conversation, what string, said *bool) error {
	return list(ctx, c, what, func(T) error { *said = true; return nil })
}
