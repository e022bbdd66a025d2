package brain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// A body that is larger than what may be under way at once goes ahead of the push that tells of its mail: in slices, between
// pushes, while neither side has its store open. Pushes tell the mailbox as it was before that mail came, so that what happens
// to older mails, and in other mailboxes, does not wait. When the receiver has confirmed all of the body, the push that tells of
// the mail sends the rest of it, which is empty.
//
//	sender    Parcel...
//	receiver  Receipt...
//
// Parcels and receipts mean nothing to the order of a conversation: they may come wherever the other side has not yet heard of
// what this one begins. What arrived is lost with the connection.

// aheadVersion is the first version of the extension whose speakers know of parcels.
const aheadVersion = 3

// defaultSlice is the size of a parcel in bytes, and openSlices how many of them may be unconfirmed. What comes after them on
// the connection waits for as much; with 50 ms of round trip it takes 5 MB/s to make them the bottleneck.
const (
	defaultSlice = 64 << 10
	openSlices   = 4
)

// Spool is a file without a name for a body that comes ahead: it is written once, from its start, and read then.
type Spool interface {
	io.Writer
	io.ReaderAt
	io.Closer // and gone
}

// version is that of the extension that this side speaks.
func (o *Options) version() uint32 {
	if o.Spool == nil {
		return aheadVersion - 1
	}
	return extension
}

// ahead reports whether both sides know of parcels.
func (l *link) ahead() bool {
	return l != nil && l.h != nil && min(l.h.Dsyncfs, l.peer.Dsyncfs, l.o.version()) >= aheadVersion
}

func (l *link) slice() int64 { return int64(cmp.Or(l.o.Slice, defaultSlice)) }

// large is the size of a body from which on it goes ahead.
func (l *link) large() int64 { return openSlices * l.slice() }

// outgoing is a body that goes ahead.
type outgoing struct {
	guid      mail.GUID
	body      store.Body // open, whatever becomes of its mail
	sent      int64
	confirmed int64
	told      bool // a push looked at it since the receiver has all of it
}

// whole reports whether the receiver has all of a mail's body. o may be nil.
func (o *outgoing) whole(guid mail.GUID) bool {
	return o != nil && o.guid == guid && o.confirmed == o.body.Size()
}

// arriving is a body that comes ahead.
type arriving struct {
	guid  mail.GUID
	size  int64 // as the other side says
	got   int64
	spool Spool
	owed  bool // a receipt is
}

// send begins to send a body ahead.
func (l *link) send(ctx context.Context, mb store.Mailbox, m *mail.Message) error {
	body, err := mb.Body(ctx, m.UID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	l.out = &outgoing{guid: m.GUID, body: body}
	return nil
}

// arrived reports, once, that a push is due because the receiver has all of a body.
func (l *link) arrived() bool { return l.out != nil && !l.out.told && l.out.whole(l.out.guid) }

// pump confirms what came in and sends what may be under way, if both sides are between two pushes.
func (l *link) pump() error {
	o, in := l.out, l.in
	owed := in != nil && in.owed
	if !owed && (o == nil || !l.open()) {
		return nil
	}
	l.c.idle(false)
	defer l.c.idle(true)
	if owed {
		in.owed = false
		if err := l.c.send(&item.Receipt{GUID: in.guid, Got: uint64(in.got)}); err != nil {
			return err
		}
	}
	for o != nil && l.open() {
		if err := l.sendSlice(o); err != nil {
			return err
		}
	}
	return l.c.flush()
}

// open reports whether a slice may be sent.
func (l *link) open() bool {
	o := l.out
	return o.sent < o.body.Size() && o.sent-o.confirmed < openSlices*l.slice()
}

func (l *link) sendSlice(o *outgoing) error {
	buf := make([]byte, min(l.slice(), o.body.Size()-o.sent))
	if _, err := io.ReadFull(o.body, buf); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("reading message %q: it became shorter meanwhile", o.guid)
	} else if err != nil {
		return fmt.Errorf("reading message %q: %w", o.guid, err)
	}
	p := &item.Parcel{GUID: o.guid, Offset: uint64(o.sent), Size: uint64(o.body.Size()), Data: string(buf)}
	o.sent += int64(len(buf))
	return l.c.send(p)
}

// aside takes items that may come between all others.
func (l *link) aside(it item.Item) (taken bool, err error) {
	switch it := it.(type) {
	case *item.Parcel:
		return true, l.take(it)
	case *item.Receipt:
		l.confirm(it)
		return true, nil
	}
	return false, nil
}

// confirm notes what the receiver has. It may still speak of a body that is not wanted any more.
func (l *link) confirm(r *item.Receipt) {
	if o := l.out; o != nil && o.guid == r.GUID && r.Got <= uint64(o.sent) {
		o.confirmed = max(o.confirmed, int64(r.Got))
	}
	if l.receipts != nil {
		l.receipts.note(r)
	}
}

// hearReceipts lets receipts be about what is sent in a round, until done is called; see kept.go. l may be nil.
func (l *link) hearReceipts(to *receipts, most int) (done func()) {
	if l == nil {
		return func() {}
	}
	to.expect(most)
	l.receipts = to
	return func() { l.receipts = nil }
}

// take writes a slice to the spool.
func (l *link) take(p *item.Parcel) error {
	if !l.ahead() {
		return fmt.Errorf("%w: a parcel is not due", ErrProtocol)
	}
	if p.Offset == 0 {
		if err := l.dropArriving(); err != nil {
			return err
		}
		spool, err := l.o.Spool()
		if err != nil {
			return fmt.Errorf("a body that comes ahead: %w", err)
		}
		l.in = &arriving{guid: p.GUID, size: int64(p.Size), spool: spool}
	}
	in, n := l.in, int64(len(p.Data))
	if in == nil || in.guid != p.GUID || uint64(in.size) != p.Size || uint64(in.got) != p.Offset || n == 0 || n > in.size-in.got {
		return fmt.Errorf("%w: parcel at %d of message %q does not follow", ErrProtocol, p.Offset, p.GUID)
	}
	if _, err := io.WriteString(in.spool, p.Data); err != nil {
		return fmt.Errorf("a body that comes ahead: %w", err)
	}
	in.got += n
	in.owed = true
	return nil
}

// have is how much of a mail's body came ahead.
func (l *link) have(guid mail.GUID) int64 {
	if l == nil || l.in == nil || l.in.guid != guid {
		return 0
	}
	return l.in.got
}

// join puts what came ahead in front of the rest of a body.
func (l *link) join(m *item.Mail) (io.Reader, error) {
	if m.Offset == 0 {
		return m.Body, nil
	}
	if m.Offset > uint64(l.have(m.GUID)) {
		return nil, fmt.Errorf("%w: %d bytes of message %q did not come ahead", ErrProtocol, m.Offset, m.GUID)
	}
	return io.MultiReader(io.NewSectionReader(l.in.spool, 0, int64(m.Offset)), m.Body), nil
}

// without leaves out the beginning of a body that the other side has.
func without(body store.Body, n int64) (io.ReadCloser, error) {
	if at, ok := body.(io.ReaderAt); ok {
		return &tail{io.NewSectionReader(at, n, body.Size()-n), body}, nil
	}
	_, err := io.CopyN(io.Discard, body, n)
	return body, err
}

type tail struct {
	io.Reader
	io.Closer
}

// dropOutgoing gives up sending a body ahead.
func (l *link) dropOutgoing() error {
	o := l.out
	if l.out = nil; o == nil {
		return nil
	}
	return o.body.Close()
}

// dropArriving forgets what came ahead.
func (l *link) dropArriving() error {
	in := l.in
	if l.in = nil; in == nil {
		return nil
	}
	return in.spool.Close()
}

// drop ends both. Files that were only read, or are thrown away, have nothing to lose.
func (l *link) drop() {
	_ = l.dropOutgoing()
	_ = l.dropArriving()
}

// withhold leaves out the own messages from a UID on, as if they had not come yet: what is common before that is a common state
// like any other. each is told of them.
func (x *exchange) withhold(from mail.UID, each func(*mail.Message)) error {
	x.withheld, x.hidden = from, 0
	for m, err := range x.mb.Messages(from - 1) {
		if err != nil {
			return err
		}
		x.hidden++
		each(&m)
	}
	x.own.UIDNext, x.own.Messages = from, x.own.Messages-x.hidden
	x.own.FirstRecent = min(x.own.FirstRecent, from)
	return nil
}

// unchanged reports whether the mailbox is as it was in the last common state, but for newer mails, which are withheld then.
func (x *exchange) unchanged(ctx context.Context) (bool, error) {
	base := x.base
	if base.Local == store.NumbersOf(x.own.Status) {
		return true, nil
	}
	if !x.r.link.ahead() || base.Local.UIDNext != base.LastCommonUID+1 || x.own.UIDNext <= base.Local.UIDNext {
		return false, nil
	}
	if attrs, err := x.mb.Attributes(ctx, base.Local.HighestModSeq); err != nil || len(attrs) > 0 {
		return false, err
	}
	for e, err := range x.logged() {
		if err != nil || e.UID <= base.LastCommonUID {
			return false, err
		}
	}
	if err := x.withhold(base.Local.UIDNext, func(*mail.Message) {}); err != nil {
		return false, err
	}
	return x.own.Messages == base.Local.Messages, nil
}
