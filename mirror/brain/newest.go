package brain

import (
	"context"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// A Dovecot has no preview, and sends the bodies of a mailbox by ascending UID once it has heard all requests (dovecot 2.3
// dsync-mailbox-export.c), so that a first round brings the newest mails last. Taking them first by rounds is no way out: a
// mailbox that has new mails and lacks old ones is, by the rule of section "matching new mails" in docs/dsync.md, one that the
// old ones were expunged from, and the next Dovecot that hears of it expunges them too. So the newest ones are read beside the
// rounds, and the store does not know of them.

// Newest hands the newest messages of a stock slave's INBOX to take, at most that many, by ascending UID and with their bodies,
// which take reads. It is the exchange of a one-way sync whose source is the other side: that changes nothing there.
func (v *Viewer) Newest(ctx context.Context, most int, take func(mail.Message, *item.Mail) error) error {
	h := &item.Handshake{
		Hostname: "preview", Box: string(mail.Inbox), Type: item.SyncFull, SendMailRequests: true, BackupSend: true, NoBackupOverwrite: true,
		HashedHeaders: []string{"Date", "Message-ID"},
	}
	if err := v.say(h); err != nil {
		return v.c.explain(err)
	}
	if _, err := expect[*item.Handshake](ctx, v.c, "the handshake"); err != nil {
		return v.c.explain(err)
	}
	inbox, err := v.stockInbox(ctx)
	if err == nil && inbox != nil {
		err = v.readNewest(ctx, inbox, most, take)
	}
	if err == nil {
		err = v.say(&item.EndOfList{})
	}
	if err == nil {
		err = v.finished(ctx)
	}
	return err
}

func (v *Viewer) say(items ...item.Item) error { return errors.Join(v.c.send(items...), v.c.flush()) }

// stockInbox exchanges the trees and returns the node of the INBOX, nil if there is none.
func (v *Viewer) stockInbox(ctx context.Context) (inbox *item.Node, err error) {
	err = list(ctx, v.c, "the mailbox tree", func(n *item.Node) error {
		if n.Existence == mail.Exists && !n.GUID.IsZero() && mail.JoinName(n.Parts...) == mail.Inbox {
			inbox = n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	d, err := expect[*item.Deletes](ctx, v.c, "the deleted mailboxes")
	if err != nil {
		return nil, err
	}
	return inbox, v.say(&item.EndOfList{}, &item.Deletes{Separator: d.Separator, Escape: d.Escape})
}

// readNewest is the exchange of a mailbox of which nothing is here.
func (v *Viewer) readNewest(ctx context.Context, n *item.Node, most int, take func(mail.Message, *item.Mail) error) error {
	own := &item.Mailbox{
		Status:    mail.Status{GUID: n.GUID, UIDValidity: n.UIDValidity, UIDNext: 1, HighestModSeq: 1, FirstRecent: 1},
		HaveGUIDs: true, HaveSaveGUIDs: true,
	}
	if err := v.say(own); err != nil {
		return err
	}
	theirs, err := expect[*item.Mailbox](ctx, v.c, "the answer to a mailbox")
	if err != nil || theirs.Lost || theirs.Ignore {
		return err
	}
	if !merge.NeedsComparison(item.SyncFull, own.Status, theirs.Status) {
		return nil
	}
	if err := list(ctx, v.c, "attributes", skipAttribute); err != nil {
		return err
	}
	wanted, err := v.newest(ctx, most)
	if err != nil {
		return err
	}
	for _, m := range wanted {
		if err := v.c.send(&item.Request{GUID: m.GUID, UID: m.UID}); err != nil {
			return err
		}
	}
	if err := v.say(&item.EndOfList{}); err != nil {
		return err
	}
	if err := v.takeMails(ctx, wanted, take); err != nil {
		return err
	}
	if err := v.say(&item.State{GUID: n.GUID, UIDValidity: n.UIDValidity}); err != nil {
		return err
	}
	_, err = expect[*item.State](ctx, v.c, "the state of the mailbox")
	return err
}

func skipAttribute(a *item.Attribute) error {
	if a.Stream == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, a.Stream)
	return errors.Join(err, a.Stream.Close())
}

// newest hears of all messages and keeps the last ones.
func (v *Viewer) newest(ctx context.Context, most int) ([]mail.Message, error) {
	var last []mail.Message
	err := list(ctx, v.c, "mail changes", func(c *item.Change) error {
		if c.Type != item.ChangeSave || c.GUID == "" {
			return nil
		}
		if len(last) == 2*most {
			last = append(last[:0], last[most:]...)
		}
		last = append(last, mail.Message{UID: c.UID, GUID: c.GUID, Flags: c.Final, Size: -1, VirtualSize: -1})
		return nil
	})
	return last[max(0, len(last)-most):], err
}

// takeMails hands on what was asked for.
func (v *Viewer) takeMails(ctx context.Context, wanted []mail.Message, take func(mail.Message, *item.Mail) error) error {
	byGUID := make(map[mail.GUID]mail.Message, len(wanted))
	for _, m := range wanted {
		byGUID[m.GUID] = m
	}
	return list(ctx, v.c, "mails", func(it *item.Mail) error {
		m, ok := byGUID[it.GUID]
		if !ok {
			return fmt.Errorf("%w: mail %q was not asked for", ErrProtocol, it.GUID)
		}
		delete(byGUID, it.GUID)
		if it.Body == nil {
			return nil
		}
		m.Received = it.Received
		return errors.Join(take(m, it), discardMail(it))
	})
}
