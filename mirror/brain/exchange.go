package brain

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sync/errgroup"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
	"dsyncfs/mirror/store"
)

// exchange is the comparison of one mailbox.
type exchange struct {
	r           *round
	mb          store.Mailbox
	own, theirs *item.Mailbox
	base        store.State // zero without hasBase
	hasBase     bool        // both sides start from the last common state
	commonKnown bool        // both sides know it, but may compare everything all the same
	met         bool        // it was saved that the two mailboxes met
	past        pasts       // what earlier exchanges left
	alignment   alignment
	withContent bool                                                // the own messages are described with their content's hash
	logVoid     bool                                                // the own log is of no use any more
	alike       *likeness                                           // this exchange only adopts: see round.adopt
	aligned     func(after mail.UID) iter.Seq2[mail.Message, error] // the own messages after the alignment; nil: as they are
	withheld    mail.UID                                            // the own messages from here on are left out; 0: none
	hidden      uint32                                              // how many these are

	requested requests
	sent      int
	unsent    []mail.UID // asked for, and gone when they were to be sent
	altered   alterations
	lastOwn   item.State // what this side says at the end

	// The receiver closes each of these when it got that far; the sender waits for them.
	alignedNow, planned, asked, complete chan struct{}
	attributesSent                       chan struct{} // closed by the sender when it is done with the attributes, if any
	sentAll                              chan struct{} // closed by the sender when all bodies are out
	incoming                             incoming
	localAttributes                      map[attributeKey]store.Attribute

	told     told
	receipts receipts
}

// alignment says how two mailboxes without a common state get one identity per message.
type alignment uint8

const (
	noAlignment alignment = iota
	alignOther            // the other side takes over this one's identities
	alignOwn              // this side does
)

func (r *round) newExchange(mb store.Mailbox) *exchange {
	return &exchange{
		r: r, mb: mb,
		alignedNow: make(chan struct{}), planned: make(chan struct{}), asked: make(chan struct{}), complete: make(chan struct{}),
		attributesSent: make(chan struct{}), sentAll: make(chan struct{}),
	}
}

func (x *exchange) close() {
	if err := x.mb.Close(); err != nil {
		x.r.Logger.Warn("closing mailbox", "mailbox", x.mb.Name(), "err", err)
	}
}

// prepare builds what this side announces, as far as it depends on this side alone.
func (x *exchange) prepare(ctx context.Context) error {
	caps := x.r.store.Capabilities()
	x.own = &item.Mailbox{Status: x.mb.Status(), HaveGUIDs: true, HaveSaveGUIDs: caps.SaveGUIDs, HaveOnlyGUID128: caps.OnlyGUID128}
	knows, base := x.plausible(), x.r.bases[x.own.GUID]
	x.own.NoBase = !knows || x.r.h.Type != item.SyncState || x.r.stock == nil && onlyMet(base)
	if knows && x.r.ours() {
		x.own.Since = base.Local.HighestModSeq
		var err error
		if x.past, err = pastsOf(base.Unsettled); err != nil {
			return err
		}
	}
	if x.r.stock != nil {
		return x.usableGUIDs(ctx)
	}
	return x.addDigest()
}

// plausible reports whether this side could start from the last common state: it knows one, its UIDVALIDITY is still that one,
// and its log reaches back to it (dovecot 2.3 dsync-brain-mailbox.c: dsync_brain_sync_mailbox_init_box).
func (x *exchange) plausible() bool {
	s := x.mb.Status()
	base, known := x.r.bases[s.GUID]
	if !known || x.r.restores(x.mb.Name()) || x.r.stock != nil && !x.r.stock.told[s.GUID] {
		return false
	}
	if x.r.dir == importOnly && !x.r.h.NoBackupOverwrite && s.HighestModSeq != base.Local.HighestModSeq {
		return false // a changed destination is compared as a whole, to be made equal again
	}
	_, reaches := x.mb.Changes(base.Local.HighestModSeq, "")
	return reaches && base.UIDValidity == s.UIDValidity && s.UIDNext > base.LastCommonUID &&
		s.HighestModSeq >= base.Local.HighestModSeq
}

// answerBase corrects the own announcement once the master's is known.
func (x *exchange) answerBase(theirs *item.Mailbox) error {
	if theirs.NoBase || theirs.UIDValidity != x.own.UIDValidity {
		x.own.NoBase = true
	}
	return x.addDigest()
}

func (x *exchange) addDigest() (err error) {
	if x.r.ours() && x.own.NoBase && x.own.Digest.IsZero() && x.own.Messages > 0 {
		x.own.Digest, err = digest(x.mb)
	}
	return err
}

// startFrom has the exchange start from a last common state that both sides are known to know.
func (x *exchange) startFrom(base store.State) { x.hasBase, x.commonKnown, x.base = true, true, base }

// run compares the mailbox now that both announcements are known.
func (x *exchange) run(ctx context.Context, theirs *item.Mailbox) error {
	x.theirs = theirs
	if x.r.h.NoMailSync || x.alike == nil && x.r.h.Type == item.SyncChanged && !merge.NeedsComparison(x.r.h.Type, x.own.Status, theirs.Status) {
		return nil
	}
	x.hasBase = !x.own.NoBase && !theirs.NoBase && x.own.UIDValidity == theirs.UIDValidity
	if x.hasBase {
		x.base = x.r.bases[x.own.GUID]
	}
	x.commonKnown = x.own.Since > 0 && theirs.Since > 0 && x.own.UIDValidity == theirs.UIDValidity
	if err := x.chooseAlignment(ctx); err != nil {
		return err
	}
	err := both(ctx, x.send, x.receive)
	x.noteUnsent()
	if err != nil {
		x.incoming.salvage(context.WithoutCancel(ctx))
		return err
	}
	x.finish()
	return nil
}

// both sends and receives at once. What the other side gave as a reason is why sending failed.
func both(ctx context.Context, send, receive func(context.Context) error) error {
	g, gctx := errgroup.WithContext(ctx)
	var heard error
	g.Go(func() error { heard = receive(gctx); return heard })
	g.Go(func() error { return send(gctx) })
	err := g.Wait()
	if err != nil && errors.Is(heard, ErrPeer) {
		return heard
	}
	return err
}

// noteUnsent tells the round what the sender, which has a goroutine of its own, found missing.
func (x *exchange) noteUnsent() {
	for _, uid := range x.unsent {
		x.r.desync(fmt.Sprintf("%s: message %d of %s vanished before it was sent", x.r.Side, uid, x.mb.Name()))
	}
}

// chooseAlignment decides who takes over whose identities at first contact. Against a stock peer only the UIDVALIDITY is
// settled (protocol reference 6.3).
func (x *exchange) chooseAlignment(ctx context.Context) error {
	if x.r.h.Verify {
		x.withContent = x.r.stock == nil
		return nil
	}
	if x.hasBase {
		return nil
	}
	if x.alike != nil {
		x.alignment = alignOwn
		return nil
	}
	if x.r.stock != nil {
		return x.settleUIDValidity(ctx)
	}
	win := x.wins()
	x.alignment = alignOwn
	if win {
		x.alignment = alignOther
	}
	bothHaveMail := x.own.Messages > 0 && x.theirs.Messages > 0
	x.withContent = bothHaveMail && x.own.Digest != x.theirs.Digest
	return nil
}

// wins reports whether the own messages keep their identities.
func (x *exchange) wins() bool {
	if x.r.dir != twoWay {
		return x.r.dir == exportOnly
	}
	w := merge.Winner(x.own.Status, x.theirs.Status, x.r.store.Epoch(), x.r.peer.Epoch)
	return w > 0 || w == 0 && x.r.master
}

// send is the own half of the exchange.
func (x *exchange) send(ctx context.Context) error {
	exports, imports := x.r.dir.exports(), x.r.dir.imports()
	if exports {
		if err := x.sendAttributes(ctx); err != nil {
			return err
		}
	}
	close(x.attributesSent)
	if exports {
		if x.alignment == alignOwn && x.r.dir == twoWay {
			if err := await(ctx, x.alignedNow); err != nil {
				return err
			}
		}
		if err := x.meet(ctx); err != nil {
			return err
		}
		if err := x.sendChanges(ctx); err != nil {
			return err
		}
	}
	if imports {
		if err := await(ctx, x.planned); err != nil {
			return err
		}
		if err := x.sendRequests(); err != nil {
			return err
		}
	}
	if exports {
		if err := await(ctx, x.asked); err != nil {
			return err
		}
		if err := x.sendMails(ctx); err != nil {
			return err
		}
	}
	close(x.sentAll)
	if err := x.awaitComplete(ctx); err != nil {
		return err
	}
	return x.r.sendNow(&x.lastOwn)
}

// receive is the other side's half. It waits for send only when it has nothing left to read but the final state.
func (x *exchange) receive(ctx context.Context) error {
	c := x.r.c
	if x.r.dir.imports() {
		if err := list(ctx, c, "attributes", func(a *item.Attribute) error { return x.receiveAttribute(ctx, a) }); err != nil {
			return err
		}
		if err := x.receiveChanges(ctx); err != nil {
			return err
		}
	}
	close(x.planned)
	if x.r.dir.exports() {
		if err := list(ctx, c, "requests", func(q *item.Request) error { x.requested.add(q); return nil }); err != nil {
			return err
		}
		defer x.r.link.hearReceipts(&x.receipts, len(x.requested.uids))()
	}
	close(x.asked)
	if x.r.dir.imports() {
		if err := x.receiveMails(ctx); err != nil {
			return err
		}
	}
	x.lastOwn = x.stateNow()
	close(x.complete)
	theirs, err := expect[*item.State](ctx, c, "the state of the mailbox")
	if err != nil {
		return err
	}
	return x.settle(theirs)
}

// meet saves that the two mailboxes have met, before either side can get mail of the other: a last common state in which they
// have nothing in common yet. Should this round break off, the next one compares everything again, and the logs say from here on
// of a mail that one side got in this round and the other one has expunged or moved since then that it is no new one. Both sides
// have saved it when one of them applies anything, since that takes the list of the other one.
func (x *exchange) meet(ctx context.Context) error {
	r := x.r
	if r.stock != nil || r.dir != twoWay || x.commonKnown || x.alike != nil || r.h.DryRun || r.h.Verify || !r.filter().Empty() ||
		r.restores(x.mb.Name()) || x.own.Messages+x.theirs.Messages == 0 {
		return nil
	}
	s := x.mb.Status()
	x.met = true
	met := store.State{
		UIDValidity: s.UIDValidity, Local: store.Numbers{HighestModSeq: s.HighestModSeq},
		RemoteEpoch: r.peer.Epoch, Remote: store.Numbers{HighestModSeq: x.theirs.HighestModSeq},
	}
	if s.UIDNext > 1 {
		met.Unsettled.Met = mail.UIDs{{First: 1, Last: s.UIDNext - 1}}.Set()
	}
	return r.store.SetBase(ctx, r.baseKey(), map[mail.MailboxGUID]store.State{x.own.GUID: met})
}

// onlyMet reports whether a last common state is one of meet. The mailboxes of any other had a UIDNEXT.
func onlyMet(s store.State) bool { return s.Local.UIDNext == 0 && s.LastCommonUID == 0 }

// await waits until the receiver got as far as ready says.
func await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stateNow is this side's state after its part is done.
func (x *exchange) stateNow() item.State {
	s := x.incoming.status
	if x.incoming.status.GUID.IsZero() {
		s = x.mb.Status() // nothing was applied
	}
	if x.withheld != 0 {
		s.UIDNext, s.Messages = x.withheld, s.Messages-x.hidden
	}
	validity := x.own.UIDValidity
	if x.incoming.resync {
		validity = 0
	}
	return item.State{
		GUID: x.own.GUID, UIDValidity: validity, LastCommonUID: x.incoming.lastCommon(x.own),
		LastCommonModSeq: x.own.HighestModSeq, Messages: s.Messages, ChangesDuringSync: x.incoming.desync || x.incoming.again,
		Epoch: x.r.store.Epoch(), UIDNext: s.UIDNext, HighestModSeq: s.HighestModSeq,
	}
}

// settle takes the other side's state and notes the new common one. A mailbox that did not end as planned keeps
// none, so that the next round compares it from scratch.
func (x *exchange) settle(theirs *item.State) error {
	if theirs.GUID != x.own.GUID {
		return fmt.Errorf("%w: state of mailbox %s instead of %s", ErrProtocol, theirs.GUID, x.own.GUID)
	}
	if theirs.ChangesDuringSync {
		x.r.out.Desync = true
	}
	if x.r.h.DryRun || x.alike != nil {
		return nil
	}
	if x.r.h.NoBackupOverwrite || !x.r.filter().Empty() {
		x.r.doubt(x.own.GUID) // there may be mails on either side that the other one did not get
		return nil
	}
	if theirs.ChangesDuringSync || x.incoming.desync {
		if (x.commonKnown || x.met) && x.r.stock == nil && !x.incoming.resync && theirs.UIDValidity != 0 {
			return nil // the old state still holds
		}
		x.r.doubt(x.own.GUID)
		return nil
	}
	own := x.lastOwn
	if x.r.stock != nil {
		x.r.newBases[x.own.GUID] = x.stockState(&own, theirs)
		return nil
	}
	s := store.State{
		UIDValidity:   x.incoming.uidValidity(x.own),
		LastCommonUID: min(own.LastCommonUID, theirs.LastCommonUID),
		Local:         store.Numbers{UIDNext: own.UIDNext, Messages: own.Messages, HighestModSeq: own.HighestModSeq},
		RemoteEpoch:   theirs.Epoch,
		Remote:        store.Numbers{UIDNext: theirs.UIDNext, Messages: theirs.Messages, HighestModSeq: theirs.HighestModSeq},
	}
	if x.r.dir == twoWay {
		// Another program may have used up UIDs meanwhile. With equal numbers nobody would tell of that any more.
		next := min(s.Local.UIDNext, s.Remote.UIDNext)
		s.Local.UIDNext, s.Remote.UIDNext = next, next
	}
	x.r.newBases[x.own.GUID] = s
	return nil
}

// finish adds up what the exchange did.
func (x *exchange) finish() {
	x.r.out.Sent += x.sent
	x.r.out.Add(x.incoming.outcome)
	if x.sent > 0 {
		x.r.out.Changed = true
	}
	x.altered.tell(x.r, x.mb.Name())
	if x.alike == nil {
		x.r.compared(x.mb.Name(), x.own.GUID)
	}
}

// compared counts a mailbox that is done.
func (r *round) compared(name mail.Name, guid mail.MailboxGUID) {
	r.boxesDone++
	if r.Progress != nil {
		r.Progress.Mailbox(name, guid, r.boxesDone, r.boxesTotal)
	}
}

// reopen looks at the mailbox anew after this side changed it.
func (x *exchange) reopen(ctx context.Context) error {
	mb, err := x.r.store.Open(ctx, x.own.GUID)
	if err != nil {
		return err
	}
	old := x.mb
	x.mb = mb
	return errors.Join(old.Close())
}

func (x *exchange) adoptUIDValidity(ctx context.Context) error {
	res, err := x.mb.Apply(ctx, store.Batch{Origin: x.r.origin(), UIDValidity: x.theirs.UIDValidity})
	if err != nil {
		return err
	}
	x.incoming.status = res.Status
	x.r.out.Changed = x.r.out.Changed || res.Changed
	return x.reopen(ctx)
}

// origin marks in the change log what came from this peer.
func (r *round) origin() store.Origin {
	if r.master {
		return store.Origin(r.PeerName)
	}
	return store.Origin(r.peer.Hostname)
}
