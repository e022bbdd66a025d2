package brain

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// A preview is a conversation of two dsyncfs ends that compares and changes nothing. It has a connection of its own beside that
// of the rounds, so that a mount can show what the other side holds, and read single mails, while the first round fills the
// store:
//
//	master                  slave
//	Preview
//	                        Handshake             who it is, and the epoch of its index
//	                        Node... EndOfList     the mailbox tree
//	                        for each mailbox that holds mail, the INBOX first:
//	                          Mailbox  Change... EndOfList
//	                        Finish                says what went wrong, if anything did
//	Request                                       any number, one after the other
//	                        Mail                  without a body if it is not there (any more)
//	Done
//
// A Preview that asks for bodies only is answered by the Handshake and the Finish.

// previewVersion is that of this conversation.
const previewVersion = 1

// Shelf is a store as a preview shows it. It is looked at once, at its opening; mails can be opened later, whoever has the store
// in use by then.
type Shelf interface {
	Epoch() uint64 // 0 if it was not looked at
	// Mailboxes are the nodes of the tree, parents before children.
	Mailboxes() []mail.Mailbox
	// Mails yields the messages of a mailbox that Body can find, by ascending UID, with Size and Received.
	Mails(ctx context.Context, box mail.Mailbox, yield func(mail.Message) error) error
	// Body opens a mail by its GUID; store.ErrNotFound if it is not there any more.
	Body(ctx context.Context, box mail.Name, guid mail.GUID) (store.Body, error)
	Close() error
}

// preview answers a Preview until the master leaves.
func (s *Slave) preview(ctx context.Context, c *conversation, p *item.Preview) (err error) {
	shelf, err := s.openShelf(ctx, p)
	if err == nil {
		defer func() { err = errors.Join(err, shelf.Close()) }()
		err = s.tellShelf(ctx, c, p, shelf)
	}
	f := &item.Finish{}
	if err != nil {
		f.Error, f.MailError = s.o.Side+": "+err.Error(), 1
	}
	if serr := errors.Join(c.send(f), c.flush()); err != nil || serr != nil {
		return errors.Join(err, serr)
	}
	c.idle(true)
	for {
		q, err := c.recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch q := q.(type) {
		case *item.Request:
			if err := s.handOut(ctx, c, shelf, q); err != nil {
				return err
			}
		case *item.Done:
			return nil
		default:
			return unexpected(q)
		}
	}
}

func (s *Slave) openShelf(ctx context.Context, p *item.Preview) (Shelf, error) {
	if p.Version != previewVersion {
		return nil, fmt.Errorf("%w: preview of version %d", ErrProtocol, p.Version)
	}
	if s.Shelf == nil {
		return nil, errors.New("this store has no preview")
	}
	return s.Shelf(ctx, !p.Bodies)
}

// tellShelf says what the store holds.
func (s *Slave) tellShelf(ctx context.Context, c *conversation, p *item.Preview, shelf Shelf) error {
	h := &item.Handshake{Hostname: s.o.Hostname, Dsyncfs: extension, Epoch: shelf.Epoch()}
	if err := c.send(h); err != nil || p.Bodies {
		return err
	}
	boxes := shelf.Mailboxes()
	for _, box := range boxes {
		n := &item.Node{Parts: box.Name.Parts(), Existence: box.Existence, GUID: box.Status.GUID, Subscribed: box.Subscribed}
		if !n.GUID.IsZero() {
			n.UIDValidity, n.UIDNext, n.Messages = box.Status.UIDValidity, box.Status.UIDNext, box.Status.Messages
		}
		if err := c.send(n); err != nil {
			return err
		}
	}
	if err := errors.Join(c.send(&item.EndOfList{}), c.flush()); err != nil {
		return err
	}
	for _, inbox := range []bool{true, false} {
		for _, box := range boxes {
			if (box.Name == mail.Inbox) != inbox || box.Status.GUID.IsZero() || box.Status.Messages == 0 {
				continue
			}
			if err := tellMails(ctx, c, shelf, box); err != nil {
				return fmt.Errorf("mailbox %s: %w", box.Name, err)
			}
		}
	}
	return nil
}

func tellMails(ctx context.Context, c *conversation, shelf Shelf, box mail.Mailbox) error {
	if err := c.send(&item.Mailbox{Status: box.Status, HaveGUIDs: true}); err != nil {
		return err
	}
	err := shelf.Mails(ctx, box, func(m mail.Message) error {
		return c.send(&item.Change{
			Type: item.ChangeSave, UID: m.UID, GUID: m.GUID, Final: m.Flags, Received: max(m.Received, 0), Size: max(m.Size, 0),
			VirtualSize: uint64(max(m.VirtualSize, 0)), HasSize: m.VirtualSize >= 0,
		})
	})
	return errors.Join(err, c.send(&item.EndOfList{}), c.flush())
}

// handOut sends a mail, or says that it is not there.
func (s *Slave) handOut(ctx context.Context, c *conversation, shelf Shelf, q *item.Request) error {
	c.idle(false)
	defer c.idle(true)
	it := &item.Mail{GUID: q.GUID, UID: q.UID}
	body, err := shelf.Body(ctx, q.Mailbox, q.GUID)
	switch {
	case err == nil:
		it.Body = body
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	return errors.Join(c.send(it), c.flush())
}
