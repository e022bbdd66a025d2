package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

const (
	// newestMails is how many mails of a Dovecot's INBOX are shown before the first round.
	newestMails = 200
	// newestTime bounds how long that round waits for them.
	newestTime = 15 * time.Second
)

// newest reads the newest mails of a Dovecot's INBOX and shows them. A Dovecot does not say how large a mail is, so that only what
// was read can be shown. Each appears when it has come; the round takes it from here.
func (f *fill) newest(ctx context.Context, v *brain.Viewer) error {
	ctx, cancel := context.WithTimeout(ctx, newestTime)
	defer cancel()
	stop := context.AfterFunc(ctx, v.Abort)
	defer stop()
	f.stock.Store(true)
	f.filling.noMore() // each mail appears when it has come
	at, err := f.inbox(ctx)
	if err != nil {
		return err
	}
	err = v.Newest(ctx, newestMails, func(m mail.Message, it *item.Mail) error {
		if _, here := at.here[m.GUID]; here {
			return nil
		}
		details := *it
		details.Body = nil
		var sizes virtualSize
		size, err := f.fetcher.kept.addWhole(mail.Inbox, &details, io.TeeReader(it.Body, &sizes))
		if err != nil {
			return err
		}
		m.Size = size
		m.VirtualSize = m.Size + sizes.bare
		return f.promise(at, appendPromised(nil, at, []mail.Message{m}))
	})
	if errors.Is(err, errFull) || ctx.Err() != nil {
		return fmt.Errorf("%w: the rest comes with the rounds", errNoPreview)
	}
	return err
}

// inbox is where the newest mails are shown.
func (f *fill) inbox(ctx context.Context) (at place, err error) {
	at = place{name: mail.Inbox, there: mail.Inbox, key: boxKey(mail.Inbox)}
	if at.dir, err = f.m.o.Local.Layout.DirOf(mail.Inbox); err != nil {
		return at, err
	}
	f.names.know(at.key, names{mail.Inbox, mail.Inbox})
	return at, f.withStore(ctx, func(s store.Store) error {
		boxes, _, err := s.Tree(ctx)
		for _, box := range boxes {
			if box.Name == mail.Inbox && !box.Status.GUID.IsZero() && err == nil {
				at.here, at.gone, err = knownIn(ctx, s, box.Status.GUID)
			}
		}
		return err
	})
}

// virtualSize counts the line ends that have no CR.
type virtualSize struct {
	bare int64
	last byte
}

func (v *virtualSize) Write(p []byte) (int, error) {
	for _, c := range p {
		if c == '\n' && v.last != '\r' {
			v.bare++
		}
		v.last = c
	}
	return len(p), nil
}
