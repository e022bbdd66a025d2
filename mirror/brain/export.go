package brain

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
	"dsyncfs/mirror/store"
)

// activeScript is the attribute of INBOX that names the active Sieve script. A Dovecot takes it only when it has the script,
// so it comes last (dovecot 2.3 dsync-mailbox-export.c, pigeonhole 0.5 doveadm-sieve-sync.c).
const activeScript = "vendor/vendor.dovecot/pvt/server/sieve/default"

// sendAttributes sends what changed of the mailbox's attributes since the last common state.
func (x *exchange) sendAttributes(ctx context.Context) error {
	if x.alike != nil {
		return x.r.sendNow(&item.EndOfList{})
	}
	attrs, err := x.mb.Attributes(ctx, x.base.Local.HighestModSeq)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(attrs, func(a store.Attribute) bool { return a.Key == activeScript }); i >= 0 {
		attrs = append(slices.Delete(slices.Clone(attrs), i, i+1), attrs[i])
	}
	for _, a := range attrs {
		it := &item.Attribute{Shared: a.Shared, Key: a.Key, Value: a.Value, Deleted: a.Deleted, LastChange: a.LastChange, ModSeq: a.ModSeq}
		if err := x.r.c.send(it); err != nil {
			return err
		}
	}
	return x.r.sendNow(&item.EndOfList{})
}

// sendChanges describes the own messages: with a common state what the log says of older messages and all newer ones,
// without one every message and every expunge of the log.
func (x *exchange) sendChanges(ctx context.Context) error {
	if x.alike != nil {
		return x.r.sendNow(&item.EndOfList{})
	}
	for c, err := range x.changes(ctx) {
		if err != nil {
			return err
		}
		if err := x.r.c.send(c); err != nil {
			return err
		}
	}
	return x.r.sendNow(&item.EndOfList{})
}

// changes yields the items of sendChanges, by ascending UID.
func (x *exchange) changes(ctx context.Context) iter.Seq2[*item.Change, error] {
	return func(yield func(*item.Change, error) bool) {
		log, stop := iter.Pull2(x.logged())
		defer stop()
		entry, err, more := log()
		// emitLogged yields the log's word on messages below a UID; what it says of an existing message above the common
		// ones is told with the message itself.
		emitLogged := func(below mail.UID) bool {
			for more && err == nil && entry.UID < below {
				if c := x.logItem(entry); c != nil && !yield(c, nil) {
					return false
				}
				entry, err, more = log()
			}
			return true
		}
		for m, merr := range x.messages()(x.base.LastCommonUID) {
			if err = errors.Join(err, merr, context.Cause(ctx)); err != nil {
				break
			}
			if !emitLogged(m.UID) {
				return
			}
			var delta mail.Delta
			if more && err == nil && entry.UID == m.UID {
				delta = entry.Delta
				entry, err, more = log()
			}
			c := merge.SaveRecord(&m, delta)
			c.Past = x.past.message(m.UID)
			if err = x.complement(ctx, c, &m); err != nil {
				break
			}
			if x.withContent {
				if c.Content, err = x.contentHash(ctx, m.UID); err != nil {
					break
				}
			}
			if !yield(c, nil) {
				return
			}
		}
		if err == nil && !emitLogged(mail.MaxUID+1) {
			return
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// complement adds what filters and verification need to know of a message.
func (x *exchange) complement(ctx context.Context, c *item.Change, m *mail.Message) (err error) {
	h := x.r.h
	// A stock master of 2.3 does not tell of -e without -t, and dies of a message without a date then.
	if h.Since > 0 || h.Until > 0 || h.Verify || x.alignment == alignOther || x.r.stock != nil && !x.r.master {
		c.Received = max(m.Received, 1)
	}
	if h.MaxSize > 0 {
		c.HasSize = true
		c.VirtualSize, err = x.virtualSize(ctx, m)
	}
	if h.Verify {
		c.POP3 = fmt.Sprintf("%d %s", m.POP3Order, m.POP3UIDL)
	}
	return err
}

// logged yields what the log holds since the last common state, of messages that are not withheld.
func (x *exchange) logged() iter.Seq2[store.Change, error] {
	if x.withheld == 0 {
		return x.wholeLog()
	}
	return func(yield func(store.Change, error) bool) {
		for e, err := range x.wholeLog() {
			if err == nil && e.UID >= x.withheld || !yield(e, err) {
				return
			}
		}
	}
}

func (x *exchange) wholeLog() iter.Seq2[store.Change, error] {
	if x.logVoid {
		return func(func(store.Change, error) bool) {}
	}
	since := x.base.Local.HighestModSeq
	if !x.hasBase {
		since = max(since, x.r.agreed[x.own.GUID])
	}
	changes, ok := x.mb.Changes(since, "")
	if !ok && x.base.Local.HighestModSeq > 0 {
		return func(yield func(store.Change, error) bool) {
			yield(store.Change{}, fmt.Errorf("change log of %s does not reach back to modseq %d", x.mb.Name(), x.base.Local.HighestModSeq))
		}
	}
	return changes
}

// logItem turns a log entry into an item; nil if it is not to be sent.
func (x *exchange) logItem(e store.Change) *item.Change {
	above := e.UID > x.base.LastCommonUID
	if e.Expunged {
		if x.hasBase && above && !x.r.ours() {
			return nil // the other side never had it, or asks Dovecot's way
		}
		c := merge.ExpungeRecord(e.UID, e.GUID128, 0) // a Dovecot says nothing of when
		if x.r.ours() {
			c.ModSeq, c.Past = e.ModSeq, x.pastOf(e)
		}
		return c
	}
	if above {
		return nil // the message itself comes with the messages, or is gone again
	}
	return merge.FlagsRecord(&e.Message, e.Delta)
}

// contentHash reads a message; one that vanished meanwhile has no hash.
func (x *exchange) contentHash(ctx context.Context, uid mail.UID) (mail.ContentHash, error) {
	body, err := x.mb.Body(ctx, uid)
	if errors.Is(err, store.ErrNotFound) {
		return mail.ContentHash{}, nil
	}
	if err != nil {
		return mail.ContentHash{}, err
	}
	defer body.Close()
	h, err := hashContent(body, x.r.buffer())
	if err != nil {
		return h, fmt.Errorf("reading message %d: %w", uid, err)
	}
	return h, nil
}

// digest is the sum over the GUIDs and sizes of all messages, whatever their order. The sizes are for a mail that was written in
// the place of another one: who has lost his memory, or the uidlist, takes it for that by its name.
func digest(mb store.Mailbox) (sum mail.ContentHash, err error) {
	for m, err := range mb.Messages(0) {
		if err != nil {
			return sum, err
		}
		for i, b := range sha256.Sum256(fmt.Appendf(nil, "%s %d", m.GUID, m.Size)) {
			sum[i] += b
		}
	}
	return sum, nil
}

// requests is what the other side asked for.
type requests struct {
	uids  []mail.UID
	guids map[mail.GUID]struct{} // asked for without a UID
	have  map[mail.UID]uint64    // what came ahead of a body
}

func (q *requests) add(it *item.Request) {
	switch {
	case it.UID != 0:
		q.uids = append(q.uids, it.UID)
		q.has(it.UID, it.Have)
	case it.GUID != "":
		if q.guids == nil {
			q.guids = make(map[mail.GUID]struct{})
		}
		q.guids[it.GUID] = struct{}{}
	}
}

// has notes that the other side has so many bytes of a body.
func (q *requests) has(uid mail.UID, n uint64) {
	if n == 0 {
		return
	}
	if q.have == nil {
		q.have = make(map[mail.UID]uint64)
	}
	q.have[uid] = n
}

// sendMails answers the requests by ascending UID, so that the other side can commit as they come.
func (x *exchange) sendMails(ctx context.Context) error {
	slices.Sort(x.requested.uids)
	want := slices.Compact(x.requested.uids)
	byGUID := x.requested.guids
	for m, err := range x.requestedMessages(want) {
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		if _, wanted := byGUID[m.GUID]; wanted {
			delete(byGUID, m.GUID)
		} else if len(want) == 0 || want[0] != m.UID {
			continue
		}
		if len(want) > 0 && want[0] == m.UID {
			want = want[1:]
		}
		if err := x.sendMail(ctx, m); err != nil {
			return err
		}
	}
	return x.r.sendNow(&item.EndOfList{})
}

// requestedMessages yields all messages from the first wanted one on.
func (x *exchange) requestedMessages(want []mail.UID) iter.Seq2[mail.Message, error] {
	switch {
	case len(x.requested.guids) > 0:
		return x.mb.Messages(0)
	case len(want) > 0:
		return x.mb.Messages(want[0] - 1)
	}
	return func(func(mail.Message, error) bool) {}
}

func (x *exchange) sendMail(ctx context.Context, m mail.Message) error {
	it := &item.Mail{GUID: m.GUID, POP3UIDL: m.POP3UIDL, POP3Order: m.POP3Order, Received: max(m.Received, 1), Saved: m.Saved}
	body, err := x.mb.Body(ctx, m.UID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		x.unsent = append(x.unsent, m.UID)
	case err != nil:
		return err
	case x.r.stock != nil:
		x.sent++
		ends := &lineEnds{Body: body}
		it.Body = ends
		if err := x.r.c.send(it); err != nil {
			return err
		}
		x.altered.note(m.UID, ends)
		return nil
	default:
		it.Body = body
		x.sent++
		if n := max(x.requested.have[m.UID], x.receipts.of(m.GUID)); n > 0 && n <= uint64(body.Size()) {
			it.Offset = n
			if it.Body, err = without(body, int64(n)); err != nil {
				return errors.Join(err, body.Close())
			}
		}
	}
	return x.r.c.send(it)
}
