package brain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/tree"
)

// likeness is what is known of two mailboxes without a common state: the contents of mails that may be there on both sides
// under different GUIDs, by UID.
type likeness struct {
	shared        bool // some mails have the same GUID on both sides
	fill          bool // what is missing here is to be fetched
	local, remote map[mail.UID]mail.ContentHash
	received      map[mail.UID]int64 // INTERNALDATE of the remote ones
}

// mayBeCopy reports whether a mailbox here may be a copy of the Dovecot's that something else made: both have mail, and know of
// no common state.
func (r *round) mayBeCopy(box mail.Mailbox) bool {
	node, there := r.remote[box.Status.GUID]
	return there && r.isCopyOf(box, node.numbers.UIDNext)
}

func (r *round) isCopyOf(box mail.Mailbox, next mail.UID) bool {
	_, known := r.bases[box.Status.GUID]
	return r.stock != nil && r.master && r.dir == twoWay && !known && !r.h.DryRun && !r.h.Verify && !r.h.NoMailSync &&
		!r.restores(box.Name) && r.filter().Empty() && !slices.Contains(r.stock.remade, box.Name) &&
		box.Status.Messages > 0 && next > 1
}

// adoptMailboxes gives mailboxes that may be copies of the other side's their GUIDs there. Told of another GUID, a Dovecot's
// Maildir would take over that together with our UIDVALIDITY, and keep its UIDs.
func (r *round) adoptMailboxes(ctx context.Context, boxes []mail.Mailbox, remote *tree.Tree) (changed bool, err error) {
	known := make(map[mail.MailboxGUID]bool, len(boxes))
	for _, box := range boxes {
		known[box.Status.GUID] = true
	}
	for _, box := range boxes {
		there, ok := remote.Lookup(box.Name)
		own, guid := box.Status.GUID, there.Status.GUID
		if _, before := r.bases[guid]; ok && before && own != guid {
			r.stock.remade = append(r.stock.remade, box.Name)
			continue
		}
		if !ok || own == guid || own.IsZero() || guid.IsZero() || known[guid] || !r.isCopyOf(box, there.Status.UIDNext) {
			continue
		}
		if _, elsewhere := remote.ByGUID(own); elsewhere {
			continue
		}
		if err := r.store.SetGUID(ctx, own, guid); err != nil {
			return changed, fmt.Errorf("mailbox %s: %w", box.Name, err)
		}
		r.out.Changed, changed = true, true
	}
	return changed, nil
}

// adopt makes the mails of a mailbox here those of the Dovecot's that have the same content, with their GUIDs and UIDs, and
// fetches what is missing here. The comparison proper then finds a mailbox in which the Dovecot's is contained, so that it
// takes nothing for new and nothing for expunged. It returns the mailbox as it is then.
//
// A Dovecot matches by GUID alone, and would add every mail of the one side to the other.
func (r *round) adopt(ctx context.Context, box mail.Mailbox) (mail.Mailbox, error) {
	alike, x, err := r.findAlike(ctx, box)
	if err != nil || x == nil {
		return box, err
	}
	defer x.close()
	box.Status.GUID = x.own.GUID
	switch newUIDs := x.own.UIDValidity != x.theirs.UIDValidity; {
	case alike.common(), newUIDs && alike.shared:
		x.alike, alike.fill = alike, newUIDs
		theirs, err := x.listen(ctx)
		if err != nil || theirs == nil {
			return box, err
		}
		return box, x.run(ctx, theirs)
	case newUIDs:
		// Not by the number of messages: a Dovecot that has had the mailbox open damages its index when it changes its UIDVALIDITY.
		return box, x.adoptUIDValidity(ctx)
	}
	return box, nil
}

// listen announces the mailbox as a fresh one with a single mail: the Dovecot tells of all its mails then and finds nothing of
// its own to be changed. Nil: it does not have the mailbox.
func (x *exchange) listen(ctx context.Context) (*item.Mailbox, error) {
	own := *x.own
	defer func() { x.own.Status, x.own.HaveSaveGUIDs = own.Status, own.HaveSaveGUIDs }()
	s := &x.own.Status
	s.UIDNext, s.Messages, s.FirstRecent, s.HighestModSeq = 1, 1, 1, 1
	s.UIDValidity = min(s.UIDValidity, x.r.remote[x.own.GUID].uidValidity) // the greater would win over a single mail there
	x.own.HaveSaveGUIDs = x.alike != nil                                   // a Dovecot tells hashes of headers to one who does not keep GUIDs
	theirs, err := x.announceTo(ctx)
	own.GUID = x.own.GUID
	if err != nil || theirs.Lost || theirs.Ignore {
		return nil, err
	}
	return theirs, nil
}

// findAlike finds out which mails here have the content of one there, but another GUID. What the Dovecot has with the headers
// of a mail here is fetched, to be compared, and not kept. It returns the exchange too, with the mailbox open; nil if the
// Dovecot does not have it.
func (r *round) findAlike(ctx context.Context, box mail.Mailbox) (*likeness, *exchange, error) {
	mb, err := r.store.Open(ctx, box.Status.GUID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil // see announce
	}
	if err != nil {
		return nil, nil, err
	}
	x := r.newExchange(mb)
	var alike *likeness
	if err = x.prepare(ctx); err == nil {
		x.theirs, err = x.listen(ctx)
	}
	if err == nil && x.theirs != nil {
		alike, err = x.compareContents(ctx)
	}
	if err != nil || x.theirs == nil {
		x.close()
		return nil, nil, err
	}
	return alike, x, nil
}

// compareContents is the exchange behind findAlike.
func (x *exchange) compareContents(ctx context.Context) (*likeness, error) {
	c, said := x.r.c, false
	if err := x.r.sendNow(&item.EndOfList{}, &item.EndOfList{}); err != nil { // no attributes, no changes
		return nil, err
	}
	if err := skip[*item.Attribute](ctx, c, "attributes", &said); err != nil {
		return nil, err
	}
	var theirs []*item.Change
	if err := list(ctx, c, "mail changes", func(it *item.Change) error {
		if it.Type == item.ChangeSave {
			theirs = append(theirs, it)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	alike, wanted, err := x.candidatesFor(ctx, theirs)
	if err != nil {
		return nil, err
	}
	for _, uid := range wanted {
		if err := c.send(&item.Request{UID: uid}); err != nil {
			return nil, err
		}
	}
	if err := x.r.sendNow(&item.EndOfList{}, &item.EndOfList{}); err != nil { // no more requests, no mails
		return nil, err
	}
	if err := skip[*item.Request](ctx, c, "requests", &said); err != nil {
		return nil, err
	}
	if err := list(ctx, c, "mails", func(it *item.Mail) error { return x.hashTheirs(alike, it) }); err != nil {
		return nil, err
	}
	if _, err := expect[*item.State](ctx, c, "the state of the mailbox"); err != nil {
		return nil, err
	}
	if err := c.send(&item.State{GUID: x.own.GUID, UIDValidity: x.theirs.UIDValidity}); err != nil {
		return nil, err
	}
	return alike, nil
}

// candidatesFor hashes the contents of the mails here that have the headers of one there and whose GUID nobody has there, and
// returns the UIDs there of the latter.
func (x *exchange) candidatesFor(ctx context.Context, theirs []*item.Change) (*likeness, []mail.UID, error) {
	here := make(map[mail.GUID]bool)
	there := make(map[mail.GUID]bool, len(theirs))
	for m, err := range x.mb.Messages(0) {
		if err != nil {
			return nil, nil, err
		}
		here[m.GUID] = true
	}
	alike := &likeness{
		local: make(map[mail.UID]mail.ContentHash), remote: make(map[mail.UID]mail.ContentHash), received: make(map[mail.UID]int64),
	}
	for _, c := range theirs {
		there[c.GUID] = true
		alike.shared = alike.shared || here[c.GUID]
	}
	byHeader := make(map[string][]mail.UID)
	for _, c := range theirs {
		if c.HeaderHash != "" && !here[c.GUID] {
			byHeader[c.HeaderHash] = append(byHeader[c.HeaderHash], c.UID)
		}
	}
	var wanted []mail.UID
	for m, err := range x.mb.Messages(0) {
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return nil, nil, err
		}
		if there[m.GUID] || len(byHeader) == 0 {
			continue
		}
		header, err := x.hashOurs(ctx, alike, m.UID, byHeader)
		if err != nil {
			return nil, nil, err
		}
		if uids := byHeader[header]; len(uids) > 0 {
			wanted, byHeader[header] = append(wanted, uids...), []mail.UID{}
		}
	}
	return alike, wanted, nil
}

// hashOurs returns the hash of a mail's headers, and notes that of its content if one there has these headers.
func (x *exchange) hashOurs(ctx context.Context, alike *likeness, uid mail.UID, byHeader map[string][]mail.UID) (header string, err error) {
	body, err := x.mb.Body(ctx, uid)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil // it is on its way out
	}
	if err != nil {
		return "", err
	}
	defer body.Close()
	text := &textReader{r: body, buf: x.r.buffer()}
	if header, err = headerHash(text.peek(), x.r.h.HashedHeaders), text.err; err != nil {
		return "", fmt.Errorf("reading message %d: %w", uid, err)
	}
	if _, there := byHeader[header]; !there {
		return "", nil
	}
	if alike.local[uid], err = text.hash(); err != nil {
		return "", fmt.Errorf("reading message %d: %w", uid, err)
	}
	return header, nil
}

// hashTheirs notes the content of a mail that was asked for.
func (x *exchange) hashTheirs(alike *likeness, it *item.Mail) error {
	if it.Body == nil {
		return nil // it went away meanwhile
	}
	text := &textReader{r: it.Body, buf: x.r.buffer()}
	sum, err := text.hash()
	if err = errors.Join(err, it.Body.Close()); err != nil {
		return fmt.Errorf("message %d: %w", it.UID, err)
	}
	alike.remote[it.UID], alike.received[it.UID] = sum, it.Received
	return nil
}

// common reports whether a content is there on both sides.
func (a *likeness) common() bool {
	there := make(map[mail.ContentHash]bool, len(a.remote))
	for _, sum := range a.remote {
		there[sum] = true
	}
	for _, sum := range a.local {
		if there[sum] {
			return true
		}
	}
	return false
}

// tell adds what is known of their contents to the other side's records.
func (a *likeness) tell(theirs []*item.Change) {
	if a == nil {
		return
	}
	for _, c := range theirs {
		if sum, known := a.remote[c.UID]; known {
			c.Content, c.Received = sum, a.received[c.UID]
		}
	}
}
