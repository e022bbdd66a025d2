package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir/dovecotlog"
)

// This file has dovecot.mailbox.log, in which a Dovecot, and we, write down which mailboxes were deleted.

const mailboxLogName = "dovecot.mailbox.log"

// mailboxLogMark is up to where the catalog took notice of the log. A mailbox that the catalog has was there after everything
// before that: its deletion is no witness of one that goes later, having come back under its GUID, as from a copy.
type mailboxLogMark struct {
	signature []byte // of the file when it was read; nil: never
	last      []byte // record; nil: there was none
}

func loadMailboxLogMark(cat store.Catalog) (m mailboxLogMark, err error) {
	err = cat.View(func(tx store.CatalogTx) (err error) {
		if m.signature, err = tx.Value(bucketMeta, keyMailboxLog); err != nil {
			return err
		}
		m.last, err = tx.Value(bucketMeta, keyMailboxLogLast)
		return err
	})
	return m, err
}

func (m mailboxLogMark) save(tx store.CatalogTx) error {
	return errors.Join(tx.SetValue(bucketMeta, keyMailboxLog, m.signature), tx.SetValue(bucketMeta, keyMailboxLogLast, m.last))
}

// newer returns the events after the mark. If its record is not there any more, as a Dovecot began two files since then or a
// power cut took it, the times tell.
func (m mailboxLogMark) newer(events []dovecotlog.MailboxEvent) ([]dovecotlog.MailboxEvent, error) {
	marked, err := dovecotlog.ReadMailboxLog(bytes.NewReader(m.last))
	if err != nil || len(marked) == 0 {
		return events, err
	}
	for i := len(events) - 1; i >= 0; i-- {
		if bytes.Equal(events[i].AppendTo(nil), m.last) {
			return events[i+1:], nil
		}
	}
	return slices.DeleteFunc(events, func(e dovecotlog.MailboxEvent) bool { return !e.Time.After(marked[0].Time) }), nil
}

// takeNotice reads up to where the log goes now, before the mailboxes are looked at: those that are found are there after that.
// It is called by a refresh that looks at all.
func (r *refresh) takeNotice() error {
	old, err := loadMailboxLogMark(r.s.cat)
	if err != nil {
		return err
	}
	info, err := r.s.root.Stat(mailboxLogName)
	if err != nil && !notExist(err) {
		return err
	}
	now := mailboxLogMark{signature: []byte{0}}
	if err == nil {
		now.signature = signatureOf(info).appendTo(nil)
	}
	if bytes.Equal(now.signature, old.signature) {
		return nil
	}
	events, err := r.s.mailboxEvents()
	if err != nil {
		return err
	}
	if len(events) > 0 {
		now.last = events[len(events)-1].AppendTo(nil)
	}
	r.noticed = &now
	return nil
}

// saveNotice moves the mark, now that the deletions of all mailboxes that were gone are recorded.
func (r *refresh) saveNotice() error {
	if r.noticed == nil {
		return nil
	}
	return r.w.add(r.noticed.save)
}

// deletionSeen looks for a deletion of a mailbox that the catalog has.
func (s *Store) deletionSeen(id mail.GUID128) (out seen, err error) {
	mark, err := loadMailboxLogMark(s.cat)
	if err != nil {
		return out, err
	}
	events, err := s.mailboxEvents()
	if err != nil {
		return out, err
	}
	if events, err = mark.newer(events); err != nil {
		return out, err
	}
	for _, e := range events {
		if e.Kind == dovecotlog.DeleteMailbox && e.ID == id {
			out.deleted = e.Time
		}
	}
	return out, nil
}

// mailboxEvents reads dovecot.mailbox.log, the older part first.
func (s *Store) mailboxEvents() ([]dovecotlog.MailboxEvent, error) {
	var all []dovecotlog.MailboxEvent
	for _, name := range []string{mailboxLogName + ".2", mailboxLogName} {
		f, err := s.root.Open(name)
		if notExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		events, err := dovecotlog.ReadMailboxLog(f)
		f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, events...)
	}
	return all, nil
}

// logMailbox tells a Dovecot that replicates this account what we did to a mailbox. Without the record it could bring the
// mailbox back, but nothing is lost, so that an error is not one of the caller's.
func (s *Store) logMailbox(kind dovecotlog.Kind, id mail.GUID128, now int64) {
	record := dovecotlog.MailboxEvent{Kind: kind, ID: id, Time: time.Unix(now, 0)}.AppendTo(nil)
	if err := s.appendMailboxLog(record); err != nil {
		s.log.Warn("write Dovecot's mailbox log", "err", err)
	}
}

// logName is logMailbox for what is known by the hash of its name. Dovecot takes the name with the separator of the
// namespace, which we cannot know: '/' as it mostly is, and '.' as it is by default.
func (s *Store) logName(kind dovecotlog.Kind, name mail.Name, now int64) {
	s.logMailbox(kind, name.NameHash('/'), now)
	if name.Parent() != "" {
		s.logMailbox(kind, name.NameHash('.'), now)
	}
}

func (s *Store) appendMailboxLog(record []byte) (err error) {
	f, err := s.root.OpenAppend(mailboxLogName)
	if notExist(err) {
		f, err = s.root.Create(mailboxLogName, s.fileMode(s.root))
		if errors.Is(err, fs.ErrExist) {
			f, err = s.root.OpenAppend(mailboxLogName)
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	// Half a record, left by a full disk, would shift all that follow.
	if info, err := f.Stat(); err != nil || info.Size%int64(len(record)) != 0 {
		return fmt.Errorf("%s: odd size: %w", mailboxLogName, err)
	}
	_, err = f.Write(record)
	return err
}
