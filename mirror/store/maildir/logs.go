package maildir

import (
	"bytes"
	"errors"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir/dovecotlog"
	"dsyncfs/mirror/vfs"
)

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
