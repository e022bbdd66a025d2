package brain

import (
	"context"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
)

// choice is what is found out about the new mails of all mailboxes of a push before anything is sent.
type choice struct {
	*push
	expunges map[*pushedMailbox][]mail.GUID128 // of mails that both sides have
	there    map[mail.GUID128]bool             // the receiver gets the body by this push, or can take it from what the push expunges
	withheld map[mail.GUID128]bool             // not told of by this push
	large    []candidate                       // the first of each mailbox whose body has to go ahead
	news     int
	whole    bool // the push tells of the mail whose body went ahead
}

// candidate is a mail whose body has to go ahead.
type candidate struct {
	box *pushedMailbox
	mail.Message
}

// choose finds out which bodies to send, and which mails to tell of later because their bodies, or those of mails before them,
// are large.
func (p *push) choose(ctx context.Context) (fits bool, err error) {
	c := &choice{
		push: p, expunges: make(map[*pushedMailbox][]mail.GUID128),
		there: make(map[mail.GUID128]bool), withheld: make(map[mail.GUID128]bool),
	}
	for _, b := range p.boxes {
		if err := c.lookAtLog(b); err != nil {
			return false, err
		}
	}
	for _, b := range p.boxes {
		if fits, err := c.chooseBodies(ctx, b); err != nil || !fits {
			return false, err
		}
	}
	p.later = len(c.withheld) > 0
	if err := c.keepMoved(); err != nil {
		return false, err
	}
	return c.settle(ctx)
}

// lookAtLog notes what was expunged of what the receiver has.
func (c *choice) lookAtLog(b *pushedMailbox) error {
	for e, err := range b.logged() {
		if err != nil {
			return err
		}
		if e.Expunged && e.UID <= b.base.LastCommonUID {
			c.there[e.GUID128] = true
			c.expunges[b] = append(c.expunges[b], e.GUID128)
		}
	}
	return nil
}

// chooseBodies chooses those of new messages that are not moves or copies of what the receiver has, up to the first that has
// to go ahead.
func (c *choice) chooseBodies(ctx context.Context, b *pushedMailbox) (fits bool, err error) {
	for m, err := range b.messages()(b.base.LastCommonUID) {
		if err != nil {
			return false, err
		}
		if c.news++; c.news > maxPushChanges {
			return false, nil
		}
		hash := m.GUID.Hash128()
		if c.there[hash] {
			continue
		}
		size, err := b.size(ctx, &m)
		if err != nil {
			return false, err
		}
		out := c.link.out
		if size >= worthLooking && (out == nil || out.guid != m.GUID) {
			elsewhere, err := c.hasElsewhere(ctx, m.GUID)
			if err != nil {
				return false, err
			}
			if elsewhere {
				continue
			}
		}
		switch {
		case out.whole(m.GUID):
			b.requested.has(m.UID, uint64(out.confirmed))
			c.whole, size = true, 0
		case size > c.link.large() && c.link.ahead():
			c.large = append(c.large, candidate{b, m})
			return true, c.hold(b, m.UID)
		}
		c.there[hash] = true
		b.requested.uids = append(b.requested.uids, m.UID)
		if c.bytes += size; c.bytes > maxPushBytes {
			return false, nil
		}
	}
	return true, nil
}

// hold leaves the mails of a mailbox from a UID on to later pushes.
func (c *choice) hold(b *pushedMailbox, from mail.UID) error {
	return b.withhold(from, func(m *mail.Message) { c.withheld[m.GUID.Hash128()] = true })
}

// keepMoved leaves out mailboxes that a mail was moved out of which the push does not tell of in its new place: the receiver
// would have it nowhere until then.
func (c *choice) keepMoved() error {
	moved := func(guid mail.GUID128) bool { return c.withheld[guid] }
	for {
		i := slices.IndexFunc(c.boxes, func(b *pushedMailbox) bool { return slices.ContainsFunc(c.expunges[b], moved) })
		if i < 0 {
			return nil
		}
		b := c.boxes[i]
		c.boxes = slices.Delete(c.boxes, i, i+1)
		c.left = append(c.left, b)
		c.whole = c.whole && len(b.requested.have) == 0
		if err := c.hold(b, b.base.LastCommonUID+1); err != nil {
			return err
		}
	}
}

// settle begins to send a body ahead, or goes on with the one that was begun if its mail is still there. It does not fit that the
// mail cannot be told of although its body is whole.
func (c *choice) settle(ctx context.Context) (fits bool, err error) {
	l := c.link
	if l.out != nil && l.out.whole(l.out.guid) {
		if l.out.told = true; c.whole {
			return true, nil
		}
		if c.withheld[l.out.guid.Hash128()] {
			return false, nil
		}
	}
	current := func(m candidate) bool { return l.out != nil && l.out.guid == m.GUID }
	if len(c.large) > 0 && slices.ContainsFunc(c.large, current) {
		return true, nil
	}
	if err := l.dropOutgoing(); err != nil {
		return false, err
	}
	if len(c.large) == 0 {
		return true, nil
	}
	first := c.large[0]
	if err := l.send(ctx, first.box.mb, &first.Message); err != nil {
		return false, fmt.Errorf("message %d of %s: %w", first.UID, first.box.mb.Name(), err)
	}
	return true, nil
}
