package maildir

import (
	"bytes"
	"context"
	"errors"

	"dsyncfs/mirror/mail"
)

// syncDirs makes the new names durable, and with them that others are not there any more: a mail that a user removed from the
// one directory just now would be there again after a power cut, beside the one that took its place in the other.
func (a *apply) syncDirs(context.Context) error {
	if !a.sync.cur && !a.sync.new {
		return nil
	}
	if err := a.m.d.cur.Sync(); err != nil {
		return err
	}
	return a.m.d.new.Sync()
}

// writeList brings the uidlist up to date: by an append if there are only new mails.
func (a *apply) writeList(ctx context.Context) error {
	if err := a.edits.sort(); err != nil {
		return err
	}
	if a.b.Restart {
		if err := a.restart(); err != nil {
			return err
		}
	} else if a.b.UIDNext > a.next {
		a.next, a.edits.raise = a.b.UIDNext, true
	}
	box := a.m.d.box
	if a.edits.mustRewrite(a.list.next) {
		a.edits.header.next = max(a.next, 1)
		if err := a.rewriteList(); err != nil {
			return err
		}
		a.res.Changed = true
		// A running Dovecot looks at the uidlist only when a directory has changed.
		if err := a.s.touchCur(box); err != nil {
			return err
		}
		return a.noteList()
	}
	if len(a.edits.inserts) == 0 {
		return nil
	}
	var lines bytes.Buffer
	if _, err := a.edits.lines(&uidlistWriter{w: &lines}, a.edits.inserts, mail.MaxUID+1); err != nil {
		return err
	}
	if err := a.s.wrote(box, uidlistName, appendUIDList(box, lines.Bytes())); err != nil {
		return errors.Join(err, a.healList())
	}
	return a.noteList()
}

// restart lets only the messages of the catalog keep their lines, and UIDNEXT be what it has to be. If UIDVALIDITY stays,
// Dovecot's index goes as well: it would take the low UIDs for expunged messages that came back.
func (a *apply) restart() error {
	c := newCursor(a.s.cat, a.rec.Status.GUID, 0)
	kept := make(map[mail.UID]struct{})
	highest := mail.UID(0)
	for {
		r, ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		_, gone := a.gone[r.UID]
		_, moved := a.edits.drop[r.UID]
		if !gone && !moved {
			kept[r.UID] = struct{}{}
			highest = max(highest, r.UID)
		}
	}
	if n := len(a.edits.inserts); n > 0 {
		highest = max(highest, a.edits.inserts[n-1].uid)
	}
	a.next = max(a.b.UIDNext, highest+1)
	a.edits.stays = func(uid mail.UID) (bool, error) {
		_, ok := kept[uid]
		return ok, nil
	}
	if a.rec.Status.UIDValidity != a.list.header.validity {
		return nil // Dovecot makes its index anew by itself
	}
	for _, name := range []string{"dovecot.index", "dovecot.index.log", "dovecot.index.log.2", "dovecot.index.cache"} {
		if err := ignoreGone(a.m.d.box.Remove(name)); err != nil {
			return err
		}
	}
	return nil
}

func (a *apply) rewriteList() error {
	list, err := openUIDList(a.m.d.box)
	if err != nil {
		return err
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return err
	}
	err = replaceUIDList(a.m.d.box, a.s.fileMode(a.m.d.box), func(w *uidlistWriter) error { return a.edits.write(w, u) })
	return a.s.wrote(a.m.d.box, uidlistName, err)
}

// healList removes the half line that an append on a full disk may have left: a Dovecot would glue its next line to it.
func (a *apply) healList() error {
	list, err := openUIDList(a.m.d.box)
	if err != nil {
		return err
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return err
	}
	e := uidEdits{header: a.edits.header}
	err = replaceUIDList(a.m.d.box, a.s.fileMode(a.m.d.box), func(w *uidlistWriter) error { return e.write(w, u) })
	return a.s.wrote(a.m.d.box, uidlistName, err)
}

// noteList keeps what is known of the uidlist up to date with what was written.
func (a *apply) noteList() (err error) {
	st := a.list
	if st.sig, err = fileSignatureOf(a.m.d.box, uidlistName); err != nil {
		return err
	}
	st.header, st.next, st.torn = a.edits.header, a.next, false
	for _, l := range a.edits.inserts {
		st.bases.add(hashBase([]byte(l.base)), l.uid)
	}
	a.s.lists[a.rec.Status.GUID] = st
	return nil
}
