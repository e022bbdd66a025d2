package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir/dovecotlog"
	"dsyncfs/mirror/vfs"
)

const mailboxLogName = "dovecot.mailbox.log"

// maxLogFile bounds what is read of Dovecot's logs; it rotates its own long before.
const maxLogFile = 64 << 20

// seen is what Dovecot's own logs say about one mailbox.
type seen struct {
	deleted time.Time // the mailbox; zero if no record
	mails   *dovecotlog.Expunges
}

// expunged reports whether a session of Dovecot was told to expunge the mail.
func (s seen) expunged(m missingMail) bool {
	if s.mails == nil {
		return false
	}
	x, ok := s.mails.Lookup(m.uid)
	return ok && x.Requested && (x.GUID.IsZero() || x.GUID == m.guid)
}

// witnesses reads Dovecot's logs for what happened to what is missing. Logs that are not there or cannot be understood say
// nothing.
func (s *Store) witnesses(m *missingBox) (seen, error) {
	if m.gone {
		return s.deletionSeen(mail.GUID128(m.rec.Status.GUID))
	}
	dir, err := s.o.Layout.DirOf(m.rec.Name)
	if err != nil {
		return seen{}, err
	}
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return seen{}, ignoreGone(err)
	}
	defer d.Close()
	current, err := s.readIndexLog(d, "dovecot.index.log")
	if err != nil || current == nil {
		return seen{}, err
	}
	previous, err := s.readIndexLog(d, "dovecot.index.log.2")
	if err != nil {
		return seen{}, err
	}
	all := dovecotlog.Combine(current, previous)
	validity := all.UIDValidity
	if validity == 0 {
		validity = indexValidity(d, all.IndexID)
	}
	if validity != m.rec.Status.UIDValidity {
		return seen{}, nil
	}
	return seen{mails: all}, nil
}

func (s *Store) readIndexLog(d vfs.Dir, name string) (*dovecotlog.Log, error) {
	data, err := vfs.ReadFile(d, name, maxLogFile)
	if err != nil {
		if notExist(err) || errors.Is(err, vfs.ErrTooLarge) {
			return nil, nil
		}
		return nil, err
	}
	log, err := dovecotlog.Read(bytes.NewReader(data))
	if err != nil {
		s.log.Debug("read Dovecot's log", "path", joinPath(d.Path(), name), "err", err)
		return nil, nil
	}
	return log, nil
}

// indexValidity returns the UIDVALIDITY in dovecot.index, 0 if that does not belong to the log.
func indexValidity(d vfs.Dir, indexID uint32) mail.UIDValidity {
	f, err := d.Open("dovecot.index")
	if err != nil {
		return 0
	}
	defer f.Close()
	head := make([]byte, dovecotlog.IndexHeaderSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0
	}
	h, err := dovecotlog.ReadIndexHeader(head)
	if err != nil || h.IndexID != indexID {
		return 0
	}
	return h.UIDValidity
}

func (s *Store) deletionSeen(id mail.GUID128) (seen, error) {
	events, err := s.mailboxEvents()
	var out seen
	for _, e := range events {
		if e.Kind == dovecotlog.DeleteMailbox && e.ID == id {
			out.deleted = e.Time
		}
	}
	return out, err
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
