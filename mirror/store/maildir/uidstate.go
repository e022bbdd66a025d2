package maildir

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// uidlistState is what Apply needs to know of a uidlist: it is read once and then kept up to date with our own writes, for
// as long as nobody else changes the file.
type uidlistState struct {
	sig    fileSignature
	header uidHeader
	next   mail.UID // effective
	torn   bool     // must be rewritten before anything is appended
	bases  uidTable // of all base names in it
}

// listState reads the uidlist of a mailbox, whose lock is held, unless it is still as it was known.
func (m *mailbox) listState() (*uidlistState, error) {
	s, guid, box := m.s, m.rec.Status.GUID, m.d.box
	st := s.lists[guid]
	if st == nil {
		st = s.o.Memory.listOf(m.dir)
	}
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
	st = &uidlistState{sig: signatureOf(list.info)}
	for {
		row, err := u.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		st.bases.add(hashBase(row.base), row.uid)
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
	header  uidHeader
	raise   bool                         // the header changes
	drop    map[mail.UID]struct{}        // lines that go
	fields  map[mail.UID]map[byte]string // of lines that stay
	inserts []uidLine                    // new lines, by ascending UID
	stays   func(mail.UID) (bool, error) // asked about each old line, by ascending UID; nil: all stay
}

// uidLine is a line to be written.
type uidLine struct {
	uid    mail.UID
	fields []byte
	base   string
}

// mustRewrite reports whether the edits cannot be appended to a list with that effective next UID.
func (e *uidEdits) mustRewrite(next mail.UID) bool {
	return e.raise || len(e.drop)+len(e.fields) > 0 || e.stays != nil || len(e.inserts) > appendLimit ||
		len(e.inserts) > 0 && e.inserts[0].uid < next
}

// sort orders the inserts and refuses two of one UID.
func (e *uidEdits) sort() error {
	slices.SortFunc(e.inserts, func(x, y uidLine) int { return cmp.Compare(x.uid, y.uid) })
	for i := 1; i < len(e.inserts); i++ {
		if e.inserts[i].uid == e.inserts[i-1].uid {
			return fmt.Errorf("two messages would have the UID %d", e.inserts[i].uid)
		}
	}
	return nil
}

// lines writes the inserts below a UID and returns the rest.
func (e *uidEdits) lines(w *uidlistWriter, inserts []uidLine, below mail.UID) ([]uidLine, error) {
	for len(inserts) > 0 && inserts[0].uid < below {
		if err := w.write(inserts[0].uid, inserts[0].fields, []byte(inserts[0].base)); err != nil {
			return nil, err
		}
		inserts = inserts[1:]
	}
	return inserts, nil
}

// write writes the whole list: the old lines as they are edited, with the inserts in between.
func (e *uidEdits) write(w *uidlistWriter, u *uidlistReader) error {
	if err := w.writeHeader(e.header); err != nil {
		return err
	}
	inserts := e.inserts
	for {
		row, ok, err := nextRow(u)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		stays, err := e.keeps(row.uid)
		if err != nil {
			return err
		}
		if inserts, err = e.lines(w, inserts, row.uid); err != nil {
			return err
		}
		// A line in the way of an insert has no message of ours: its file gets another UID.
		if !stays || len(inserts) > 0 && inserts[0].uid == row.uid {
			continue
		}
		fields := row.fields
		if set, ok := e.fields[row.uid]; ok {
			fields = withFields(fields, set)
		}
		if err := w.write(row.uid, fields, row.base); err != nil {
			return err
		}
	}
	_, err := e.lines(w, inserts, mail.MaxUID+1)
	return err
}

func (e *uidEdits) keeps(uid mail.UID) (bool, error) {
	if _, gone := e.drop[uid]; gone {
		return false, nil
	}
	if e.stays == nil {
		return true, nil
	}
	return e.stays(uid)
}
