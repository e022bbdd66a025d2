package maildir

import (
	"fmt"
	"io"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// uidlistState is what Apply needs to know of a uidlist: it is read once and then kept up to date with our own writes, for
// as long as nobody else changes the file.
type uidlistState struct {
	sig    fileSignature
	header uidHeader
	next   mail.UID            // effective
	torn   bool                // must be rewritten before anything is appended
	bases  map[uint64]struct{} // hashes of all base names in it
}

// listState reads the uidlist of a mailbox, whose lock is held, unless it is still as it was known.
func (s *Store) listState(guid mail.MailboxGUID, box vfs.Dir) (*uidlistState, error) {
	st := s.lists[guid]
	if st != nil {
		sig, err := fileSignatureOf(box, uidlistName)
		if err != nil {
			return nil, err
		}
		if sig == st.sig {
			return st, nil
		}
	}
	list, err := openUIDList(box)
	if notExist(err) {
		return nil, fmt.Errorf("%s is gone; it is made again by a refresh: %w", uidlistName, store.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return nil, err
	}
	st = &uidlistState{sig: signatureOf(list.info), bases: make(map[uint64]struct{})}
	for {
		row, err := u.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		st.bases[hashBase(row.base)] = struct{}{}
	}
	st.header, st.next = u.header, u.effectiveNext()
	st.torn = u.torn || u.header.version != 3
	s.lists[guid] = st
	return st, nil
}

func signatureOf(info vfs.Info) fileSignature {
	return fileSignature{ino: info.Ino, size: info.Size, mtime: info.Mtime.UnixNano()}
}

func fileSignatureOf(dir vfs.Dir, name string) (fileSignature, error) {
	info, err := dir.Stat(name)
	if err != nil {
		return fileSignature{}, ignoreGone(err)
	}
	return signatureOf(info), nil
}

// uidEdits is what a batch changes in a uidlist.
type uidEdits struct {
	header   uidHeader
	raise    bool                  // the header changes
	drop     map[mail.UID]struct{} // lines that go
	moved    []uidLine             // lines that replace others, by ascending UID
	fields   map[mail.UID]map[byte]string
	lines    []uidLine // new lines, by ascending UID, all at or above the effective next UID
	validity bool      // UIDVALIDITY changes: lines of nobody's give way to moved ones
}

// uidLine is a line to be written.
type uidLine struct {
	uid    mail.UID
	fields []byte
	base   string
}

func (e *uidEdits) mustRewrite() bool {
	return e.raise || len(e.drop)+len(e.moved)+len(e.fields) > 0 || len(e.lines) > appendLimit
}

// write writes the whole list: the old lines as they are edited, and the moved and the new ones in between.
func (e *uidEdits) write(w *uidlistWriter, u *uidlistReader) error {
	if err := w.writeHeader(e.header); err != nil {
		return err
	}
	moved := e.moved
	emitBefore := func(uid mail.UID) error {
		for len(moved) > 0 && moved[0].uid < uid {
			if err := w.write(moved[0].uid, moved[0].fields, []byte(moved[0].base)); err != nil {
				return err
			}
			moved = moved[1:]
		}
		return nil
	}
	for {
		row, ok, err := nextRow(u)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if _, gone := e.drop[row.uid]; gone {
			continue
		}
		if err := emitBefore(row.uid); err != nil {
			return err
		}
		if len(moved) > 0 && moved[0].uid == row.uid {
			continue // a line that no message of ours has: its file gets another UID
		}
		fields := row.fields
		if set, ok := e.fields[row.uid]; ok {
			fields = withFields(fields, set)
		}
		if err := w.write(row.uid, fields, row.base); err != nil {
			return err
		}
	}
	if err := emitBefore(mail.MaxUID + 1); err != nil {
		return err
	}
	for _, l := range e.lines {
		if err := w.write(l.uid, l.fields, []byte(l.base)); err != nil {
			return err
		}
	}
	return nil
}
