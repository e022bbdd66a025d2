package brain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Between two rounds of a kept connection, a side whose store changed pushes: it sends the changes of each mailbox since the
// last common state together with the bodies, without asking first, and gets one answer. The items are those of a round.
//
//	sender    for each mailbox: Mailbox, State (the last common one); end; for each mailbox: Change..., end, Mail..., end
//	receiver  for each mailbox: State (with ChangesDuringSync: not taken); end
//
// A push is taken as it was sent or not at all. It is not taken when the receiver has another last common state of one of the
// mailboxes or changed there too: then a round merges both sides' changes. Two pushes that cross are void, without an answer; so
// is a push that crosses the start of a round. The master starts a round after each of these. Nothing depends on how far a push
// came: what was made durable at the receiver is found there by the next round, as after a round that broke off.

// pushVersion is the first version of the extension whose speakers know of pushes.
const pushVersion = 2

// What is more than this goes by a round, which asks for what it needs and commits as it goes. A single large body goes ahead
// instead; see ahead.go.
const (
	maxPushChanges = 500     // records of one push; fewer than a batch, so that nothing is committed before all is known to fit
	maxPushBytes   = 1 << 20 // bodies of one push
)

// Verdict says how a push went.
type Verdict uint8

// The verdicts.
const (
	Settled   Verdict = iota // both sides are in sync, as far as this one can see; nothing was sent
	Taken                    // the receiver has made the changes durable
	Partly                   // likewise, if there were any, but for mails whose bodies go ahead
	NeedRound                // only a round can tell
)

// link is what a side of a kept connection remembers of the last round, so that it can push.
type link struct {
	o      *Options
	c      *conversation
	master bool
	h      *item.Handshake // nil: only a round can follow
	peer   *item.Handshake
	tree   [sha256.Size]byte
	taken  func() // see Master.Taken; may be nil

	out *outgoing // a body that goes ahead; nil: none
	in  *arriving // one that comes ahead

	receipts *receipts // of the exchange under way; nil: none are due
}

func newLink(o *Options, c *conversation, master bool) *link {
	l := &link{o: o, c: c, master: master}
	c.aside = l.aside
	return l
}

// remember takes note of a round that succeeded. It sent all bodies.
func (l *link) remember(r *round) {
	l.drop()
	l.h = nil
	if !r.ours() || min(r.h.Dsyncfs, r.peer.Dsyncfs) < pushVersion || !r.continuous() {
		return
	}
	h := *r.h
	h.Type = item.SyncState // pushes start from the common states, however they were reached
	l.h, l.peer, l.tree = &h, r.peer, fingerprint(r.local)
}

// continuous reports whether the round was one of a two-way mirror without peculiarities.
func (r *round) continuous() bool {
	h := r.h
	return h.Live && (h.Type == item.SyncState || h.Type == item.SyncFull) && r.dir == twoWay && !h.DryRun && !h.Verify && !h.NoMailSync && !h.NoBackupOverwrite &&
		len(h.Restore)+len(h.AllowExpunge) == 0 && r.filter().Empty()
}

// fingerprint tells two mailbox trees apart, whatever is in the mailboxes.
func fingerprint(boxes []mail.Mailbox) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, box := range boxes {
		fmt.Fprintf(h, "%q %d %s %v\n", box.Name, box.Existence, box.Status.GUID, box.Subscribed)
	}
	h.Sum(sum[:0])
	return sum
}

// round makes a round of the side's store that has no conversation of its own yet.
func (l *link) round(s store.Store, hurry bool) *round {
	return &round{
		Options: l.o, h: l.h, peer: l.peer, master: l.master, dir: twoWay, store: s, c: l.c, link: l,
		newBases: make(map[mail.MailboxGUID]store.State), hurry: hurry,
	}
}

// fail tells the other side of an error that came before a push was begun or taken.
func (l *link) fail(err error) error {
	if l.h == nil {
		return err
	}
	return l.round(nil, false).fail(err)
}

// push tells the other side what changed in s since the last common states. With NeedRound it may have crossed something of the
// other side's, so that the master is about to start a round, or has: then its Handshake is returned.
func (l *link) push(ctx context.Context, s store.Store, hurry bool) (Verdict, Outcome, crossing, error) {
	if l.h == nil {
		return NeedRound, Outcome{}, crossing{}, nil
	}
	p := &push{round: l.round(s, hurry)}
	defer p.close()
	verdict, err := p.prepare(ctx, l.tree)
	if errors.Is(err, store.ErrNotFound) {
		verdict, err = NeedRound, nil // a mailbox was renamed or removed since the look at the tree
	}
	if err != nil || verdict != Taken {
		return verdict, p.out, crossing{}, err
	}
	err = p.exchange(ctx)
	if err == nil && !p.crossed.happened && !p.refused && !p.later && l.taken != nil {
		l.taken()
	}
	if err := p.saveBases(context.WithoutCancel(ctx), err); err != nil {
		return NeedRound, p.out, crossing{}, err
	}
	if p.crossed.happened || p.refused {
		return NeedRound, p.out, p.crossed, nil
	}
	if l.out != nil && l.out.told {
		if err := l.dropOutgoing(); err != nil {
			return NeedRound, p.out, crossing{}, err
		}
	}
	if p.later {
		return Partly, p.out, crossing{}, nil
	}
	return Taken, p.out, crossing{}, nil
}

// crossing is that the other side said something else before it heard of a push.
type crossing struct {
	happened  bool
	handshake *item.Handshake // of the round that it started; nil: it pushed too
}

// push is the sender's side of one.
type push struct {
	*round
	boxes   []*pushedMailbox
	left    []*pushedMailbox // opened, and nothing is said of them
	changes int
	bytes   int64
	later   bool // there are mails whose bodies go ahead

	crossed crossing
	refused bool
}

// pushedMailbox is what is to be said of one mailbox.
type pushedMailbox struct {
	*exchange
	changes []*item.Change
}

func (p *push) close() {
	for _, b := range slices.Concat(p.boxes, p.left) {
		b.close()
	}
}

// prepare looks at the own store and gathers what to say. Taken means that there is something.
func (p *push) prepare(ctx context.Context, tree [sha256.Size]byte) (Verdict, error) {
	if err := p.refresh(ctx); err != nil {
		return NeedRound, err
	}
	boxes, _, err := p.store.Tree(ctx)
	if err != nil {
		return NeedRound, err
	}
	p.local = p.selected(boxes)
	if fingerprint(p.local) != tree {
		return NeedRound, nil
	}
	if err := p.loadBases(ctx); err != nil {
		return NeedRound, err
	}
	for _, box := range p.local {
		if ok, err := p.gather(ctx, box); err != nil || !ok {
			return NeedRound, err
		}
	}
	if fits, err := p.choose(ctx); err != nil || !fits {
		return NeedRound, err
	}
	if fits, err := p.describe(ctx); err != nil || !fits {
		return NeedRound, err
	}
	switch {
	case len(p.boxes) > 0:
		return Taken, nil
	case p.later:
		return Partly, nil
	}
	return Settled, nil
}

// gather opens a mailbox if anything changed in it. Not ok: it is not fit for a push.
func (p *push) gather(ctx context.Context, box mail.Mailbox) (ok bool, err error) {
	if box.Existence != mail.Exists || box.Status.GUID.IsZero() {
		return true, nil
	}
	base, known := p.bases[box.Status.GUID]
	if !known || base.RemoteEpoch != p.peer.Epoch || base.UIDValidity != box.Status.UIDValidity {
		return false, nil
	}
	if base.Local == store.NumbersOf(box.Status) {
		return true, nil
	}
	mb, err := p.store.Open(ctx, box.Status.GUID)
	if err != nil {
		return false, err
	}
	b := &pushedMailbox{exchange: p.newExchange(mb)}
	p.boxes = append(p.boxes, b)
	if err := b.prepare(ctx); err != nil || b.own.NoBase {
		return false, err
	}
	b.startFrom(base)
	attrs, err := mb.Attributes(ctx, base.Local.HighestModSeq)
	return len(attrs) == 0, err
}

// describe collects the changes of the mailboxes, and leaves out those of which there is nothing to say.
func (p *push) describe(ctx context.Context) (fits bool, err error) {
	for _, b := range p.boxes {
		for c, err := range b.exchange.changes(ctx) {
			if err != nil {
				return false, err
			}
			if p.changes++; p.changes > maxPushChanges {
				return false, nil
			}
			b.changes = append(b.changes, c)
		}
	}
	p.boxes = slices.DeleteFunc(p.boxes, func(b *pushedMailbox) bool {
		if b.eventful() {
			return false
		}
		p.left = append(p.left, b)
		return true
	})
	return true, nil
}

// eventful reports whether there is something to say of the mailbox besides what is withheld.
func (b *pushedMailbox) eventful() bool {
	return b.withheld == 0 || len(b.changes) > 0 || b.base.Local.UIDNext != b.own.UIDNext || b.base.Local.Messages != b.own.Messages
}

// worthLooking is the size in bytes from which on it costs less to look for another instance of a mail than to send it.
const worthLooking = 64 << 10

// hasElsewhere reports whether a mail is also in a mailbox as one that both sides have.
func (p *push) hasElsewhere(ctx context.Context, guid mail.GUID) (bool, error) {
	found, err := p.store.Find(ctx, map[mail.GUID]struct{}{guid: {}}, func(at store.Location) bool {
		return at.UID != 0 && at.UID <= p.bases[at.Mailbox].LastCommonUID
	})
	return len(found) > 0, err
}

// size is that of a message's body in bytes; 0 if it vanished meanwhile.
func (x *exchange) size(ctx context.Context, m *mail.Message) (int64, error) {
	if m.Size >= 0 {
		return m.Size, nil
	}
	body, err := x.mb.Body(ctx, m.UID)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return body.Size(), body.Close()
}

// exchange sends while it listens, because the other side may be sending too.
func (p *push) exchange(ctx context.Context) error {
	var acks []*item.State
	err := both(ctx, p.send, func(ctx context.Context) (err error) {
		acks, err = p.hear(ctx)
		return err
	})
	for _, b := range p.boxes {
		b.noteUnsent()
	}
	if err != nil {
		return err
	}
	if p.crossed.happened {
		return nil
	}
	for i, b := range p.boxes {
		b.lastOwn = b.stateNow()
		if err := b.settle(acks[i]); err != nil {
			return err
		}
		p.refused = p.refused || acks[i].ChangesDuringSync
		p.out.Sent += b.sent
	}
	p.out.Changed = !p.refused
	return nil
}

func (p *push) send(ctx context.Context) error {
	for _, b := range p.boxes {
		if err := p.c.send(b.own, b.claim()); err != nil {
			return err
		}
	}
	if err := p.sendNow(&item.EndOfList{}); err != nil {
		return err
	}
	for _, b := range p.boxes {
		for _, c := range b.changes {
			if err := p.c.send(c); err != nil {
				return err
			}
		}
		if err := p.c.send(&item.EndOfList{}); err != nil {
			return err
		}
		if err := b.sendMails(ctx); err != nil {
			return err
		}
	}
	return p.store.EndRound(ctx)
}

// claim is the last common state as this side knows it: the receiver's numbers, and by LastCommonModSeq the own ones.
func (b *pushedMailbox) claim() *item.State {
	s := b.base
	return &item.State{
		GUID: b.own.GUID, UIDValidity: s.UIDValidity, LastCommonUID: s.LastCommonUID, LastCommonModSeq: s.Local.HighestModSeq,
		Messages: s.Remote.Messages, UIDNext: s.Remote.UIDNext, HighestModSeq: s.Remote.HighestModSeq, Epoch: s.RemoteEpoch,
	}
}

// hear waits for the answer, or for what makes the push void.
func (p *push) hear(ctx context.Context) ([]*item.State, error) {
	var acks []*item.State
	for {
		it, err := p.c.recv(ctx)
		if err != nil {
			return nil, fmt.Errorf("waiting for the answer to a push: %w", unexpectedEOF(err))
		}
		switch it := it.(type) {
		case *item.State:
			if len(acks) < len(p.boxes) && it.GUID == p.boxes[len(acks)].own.GUID && it.Epoch == p.peer.Epoch {
				acks = append(acks, it)
				continue
			}
		case *item.EndOfList:
			if len(acks) == len(p.boxes) {
				return acks, nil
			}
		case *item.Mailbox:
			p.crossed.happened = true
			return nil, p.drainPush(ctx, it)
		case *item.Handshake:
			if !p.master {
				p.crossed = crossing{true, it}
				return nil, nil
			}
		case *item.Finish:
			if it.Error != "" {
				return nil, finishError(it)
			}
		}
		return nil, fmt.Errorf("waiting for the answer to a push: %w", unexpected(it))
	}
}

// drainPush reads a void push to its end.
func (r *round) drainPush(ctx context.Context, first *item.Mailbox) error {
	heads, err := r.pushHeads(ctx, first)
	if err != nil {
		return err
	}
	for range heads {
		if err := r.drainGroup(ctx); err != nil {
			return err
		}
	}
	return nil
}

// drainGroup throws away what is said of one mailbox.
func (r *round) drainGroup(ctx context.Context) error {
	if err := list(ctx, r.c, "mail changes", func(*item.Change) error { return nil }); err != nil {
		return err
	}
	return r.drainMails(ctx)
}

func (r *round) drainMails(ctx context.Context) error { return list(ctx, r.c, "mails", discardMail) }

func discardMail(m *item.Mail) error {
	if m.Body == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, m.Body)
	return errors.Join(err, m.Body.Close())
}

// peerHandshake waits for the slave's handshake. A push that the slave sent before it heard of this round is void.
func (r *round) peerHandshake(ctx context.Context) (*item.Handshake, error) {
	for {
		it, err := r.c.recv(ctx)
		if err != nil {
			return nil, fmt.Errorf("waiting for the handshake: %w", unexpectedEOF(err))
		}
		switch it := it.(type) {
		case *item.Handshake:
			return it, nil
		case *item.Mailbox:
			if err := r.drainPush(ctx, it); err != nil {
				return nil, err
			}
			continue
		case *item.Finish:
			if it.Error != "" {
				return nil, finishError(it)
			}
		}
		return nil, fmt.Errorf("waiting for the handshake: %w", unexpected(it))
	}
}
