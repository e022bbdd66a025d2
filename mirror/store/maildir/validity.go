package maildir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

const validityName = "dovecot-uidvalidity"

// newValidity draws a UIDVALIDITY that was not used before: the next value of Dovecot's counter, and above all that this
// store ever saw.
//
// A dry one leaves the counter as it is.
//
// The counter is the name of an empty file dovecot-uidvalidity.<8 hex digits>, raised by a rename; the file
// dovecot-uidvalidity repeats it (dovecot 2.3.19 mailbox-uidvalidity.c).
func (s *Store) newValidity(dry bool) (mail.UIDValidity, error) {
	floor, err := s.highestValidity()
	if err != nil {
		return 0, err
	}
	floor = max(floor+1, mail.UIDValidity(uint32(s.now())))
	for range 100 {
		old, found, err := s.validityCounter()
		if err != nil {
			return 0, err
		}
		next := max(old+1, floor)
		if dry {
			return next, s.noteValidity(next)
		}
		err = s.raiseCounter(old, next, found)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			continue // another program was faster
		}
		if err != nil {
			return 0, noSpace(err)
		}
		return next, s.noteValidity(next)
	}
	return 0, fmt.Errorf("%s: %w", validityName, store.ErrLocked)
}

func (s *Store) validityCounter() (value mail.UIDValidity, found bool, err error) {
	err = s.root.Names(func(name string, _ vfs.Type) error {
		digits, ok := strings.CutPrefix(name, validityName+".")
		if !ok || len(digits) != 8 {
			return nil
		}
		if n, err := strconv.ParseUint(digits, 16, 32); err == nil {
			value, found = max(value, mail.UIDValidity(n)), true
		}
		return nil
	})
	return value, found, err
}

func (s *Store) raiseCounter(old, next mail.UIDValidity, found bool) error {
	name := func(v mail.UIDValidity) string { return fmt.Sprintf("%s.%08x", validityName, uint32(v)) }
	perm := s.fileMode(s.root)
	if found {
		if err := s.root.RenameNew(name(old), s.root, name(next)); err != nil {
			return err
		}
	} else {
		f, err := s.root.Create(name(next), perm&0o444)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return vfs.WriteFile(s.root, validityName, perm, fmt.Appendf(nil, "%08x", uint32(next)))
}

// fileMode is the mode of files that we make in a directory: its own without the x bits, as Dovecot does.
func (s *Store) fileMode(dir vfs.Dir) uint32 {
	info, err := dir.Info()
	if err != nil {
		return 0o600
	}
	return info.Mode & 0o666
}

// highestValidity is the highest UIDVALIDITY that the catalog remembers.
func (s *Store) highestValidity() (highest mail.UIDValidity, err error) {
	err = s.cat.View(func(tx store.CatalogTx) error {
		value, err := tx.Value(bucketMeta, keyValidity)
		if err == nil && len(value) == 4 {
			highest = mail.UIDValidity(binary.BigEndian.Uint32(value))
		}
		return err
	})
	return highest, err
}

// noteValidity remembers that a value is used up.
func (s *Store) noteValidity(v mail.UIDValidity) error {
	highest, err := s.highestValidity()
	if err != nil || v <= highest {
		return err
	}
	return s.cat.Update(func(tx store.CatalogTx) error {
		return tx.SetValue(bucketMeta, keyValidity, binary.BigEndian.AppendUint32(nil, uint32(v)))
	})
}
