package brain

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// maxPreview bounds the messages that a preview may tell of.
const maxPreview = 1 << 23

// Viewer is the master's side of a preview. It is used by one goroutine at a time.
type Viewer struct {
	c     *conversation
	epoch uint64
	asked int // mails that were asked for and not taken
}

// NewViewer takes over the Peer.
func NewViewer(p Peer) *Viewer { return &Viewer{c: newConversation(p)} }

// Stock reports whether the other side is no dsyncfs, and so has no preview.
func (v *Viewer) Stock() bool { return v.c.isStock() }

// Close ends the connection.
func (v *Viewer) Close() error {
	_ = v.c.send(&item.Done{}) // a Dovecot takes an end without it for an error
	_ = v.c.flush()
	return v.c.close()
}

// Abort ends the connection from another goroutine; whoever waits in a method gets an error. Close is still to be called.
func (v *Viewer) Abort() { _ = v.c.peer.Close() }

// PeerName is under which a store keeps its common states with the other side, known after Look; see Outcome.Peer.
func (v *Viewer) PeerName() string { return indexName(v.epoch) }

// Meet opens a preview of which only mails are wanted.
func (v *Viewer) Meet(ctx context.Context) error {
	if err := v.open(ctx, true); err != nil {
		return err
	}
	return v.finished(ctx)
}

// previewPart is how many messages of a preview are handed on at once.
const previewPart = 1024

// Look opens a preview and tells f of the tree, and then g of the messages of each mailbox, by ascending UID: some at a time, and
// none when that were all. What g was told holds whatever becomes of the rest. f and g must not keep their slices.
func (v *Viewer) Look(ctx context.Context, f func([]*item.Node) error, g func(mail.Status, []mail.Message) error) error {
	if err := v.open(ctx, false); err != nil {
		return err
	}
	var nodes []*item.Node
	err := list(ctx, v.c, "the mailbox tree", func(n *item.Node) error {
		if len(nodes) == maxNodes {
			return fmt.Errorf("%w: more than %d mailboxes", ErrProtocol, maxNodes)
		}
		nodes = append(nodes, n)
		return nil
	})
	if err == nil {
		err = f(nodes)
	}
	part := make([]mail.Message, 0, previewPart)
	for total := 0; err == nil; {
		var it item.Item
		if it, err = v.c.recv(ctx); err != nil {
			return fmt.Errorf("waiting for a mailbox: %w", unexpectedEOF(err))
		}
		switch it := it.(type) {
		case *item.Mailbox:
			var n int
			n, err = v.mails(ctx, part, maxPreview-total, func(mails []mail.Message) error { return g(it.Status, mails) })
			total += n
		case *item.Finish:
			return finishError(it)
		default:
			return fmt.Errorf("waiting for a mailbox: %w", unexpected(it))
		}
	}
	return err
}

// mails hears the messages of a mailbox, most at most, and hands them to g when part is full, and at the end.
func (v *Viewer) mails(ctx context.Context, part []mail.Message, most int, g func([]mail.Message) error) (n int, err error) {
	last := mail.UID(0)
	pass := func() error {
		if len(part) == 0 {
			return nil
		}
		n += len(part)
		err := g(part)
		part = part[:0]
		return err
	}
	err = list(ctx, v.c, "messages", func(c *item.Change) error {
		switch {
		case c.Type != item.ChangeSave || c.UID <= last:
			return fmt.Errorf("%w: message %d of a preview", ErrProtocol, c.UID)
		case n+len(part) == most:
			return fmt.Errorf("%w: more than %d messages", ErrProtocol, maxPreview)
		}
		last = c.UID
		m := mail.Message{UID: c.UID, GUID: c.GUID, Flags: c.Final, Received: c.Received, Size: c.Size, VirtualSize: -1}
		if c.HasSize && c.VirtualSize <= 1<<62 {
			m.VirtualSize = int64(c.VirtualSize)
		}
		if part = append(part, m); len(part) == cap(part) {
			return pass()
		}
		return nil
	})
	if err == nil {
		err = pass()
	}
	if err == nil {
		err = g(nil)
	}
	return n, err
}

func (v *Viewer) open(ctx context.Context, bodies bool) error {
	if err := errors.Join(v.c.send(&item.Preview{Version: previewVersion, Bodies: bodies}), v.c.flush()); err != nil {
		return v.c.explain(err)
	}
	h, err := expect[*item.Handshake](ctx, v.c, "the preview")
	if err != nil {
		return v.c.explain(err)
	}
	v.epoch = h.Epoch
	return nil
}

func (v *Viewer) finished(ctx context.Context) error {
	f, err := expect[*item.Finish](ctx, v.c, "the end of the preview")
	if err != nil {
		return err
	}
	return finishError(f)
}

// Body hands a mail to take. There is none if take is not called and the error is nil: it is not at the other side (any more).
func (v *Viewer) Body(ctx context.Context, box mail.Name, guid mail.GUID, take func(io.Reader) error) error {
	if err := v.Ask(box, guid); err != nil {
		return err
	}
	return v.Take(ctx, guid, take)
}

// Ask asks for a mail. Take is to be called for each, in the same order; the requests of all that were not taken have to fit into
// what the connection holds.
func (v *Viewer) Ask(box mail.Name, guid mail.GUID) error {
	if v.asked++; v.asked == 1 {
		v.c.idle(false)
	}
	return errors.Join(v.c.send(&item.Request{GUID: guid, Mailbox: box}), v.c.flush())
}

// Take hands the next mail that was asked for to take; see Body.
func (v *Viewer) Take(ctx context.Context, guid mail.GUID, take func(io.Reader) error) error {
	m, err := expect[*item.Mail](ctx, v.c, "a mail")
	switch {
	case err != nil:
		return err
	case m.GUID != guid:
		return fmt.Errorf("%w: mail %q instead of %q", ErrProtocol, m.GUID, guid)
	}
	if v.asked--; v.asked == 0 {
		defer v.c.idle(true)
	}
	if m.Body == nil {
		return nil
	}
	return errors.Join(take(m.Body), m.Body.Close())
}
