package sim

import (
	"slices"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// This file has what users do to mails that are there: expunge, move, copy and edit in place.

// saw lets a removal be witnessed, as one through a mount.
func (u *user) saw(box mail.Name, base string) {
	if u.through != nil || u.pick(3) == 0 {
		u.r.witnessed[witnessed{box, base}] = true
	}
}

func (u *user) expunge() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok {
		return err
	}
	u.saw(m.box, m.file.Base)
	return u.unlink(m)
}

func (u *user) unlink(m found) error {
	d, err := u.open(join(m.dir, m.file.sub))
	if err != nil {
		return err
	}
	if err := u.record(mail.Event{Op: mail.EventExpunge, Mailbox: m.box, File: m.file.name}, ""); err != nil {
		return err
	}
	// A disk tells by its time whether a directory changed: two changes, of which a power cut takes one, are not at the same time.
	u.r.offset += time.Millisecond
	if err := d.Remove(m.file.name); err != nil {
		return err
	}
	u.removed(m.file.content)
	if e := u.w.ledger.contents[m.file.content]; e != nil && e.n != e.root {
		return u.sync(d) // if a power cut brought it back, nothing would tell it from the mail in whose place it was written
	}
	return u.maybeSync(d)
}

// empty removes all mails of a mailbox.
func (u *user) empty() error {
	name, dir, err := u.anyBox()
	if err != nil {
		return err
	}
	mails, err := u.mails(name, dir)
	if err != nil {
		return err
	}
	return u.unlinkAll(mails)
}

// cleanUp removes all mails of the mailbox that has the most.
func (u *user) cleanUp() error {
	all, dirs, err := u.boxes()
	if err != nil {
		return err
	}
	var most []found
	for _, name := range all {
		mails, err := u.mails(name, dirs[name])
		if err != nil {
			return err
		}
		if len(mails) > len(most) {
			most = mails
		}
	}
	return u.unlinkAll(most)
}

func (u *user) unlinkAll(mails []found) error {
	for _, m := range mails {
		if u.through != nil {
			u.saw(m.box, m.file.Base)
		}
		if err := u.unlink(m); err != nil {
			return err
		}
	}
	return nil
}

// move moves a mail to another mailbox: by its name, or with a new one as some readers do.
func (u *user) move() error {
	m, d, to, err := u.target()
	if err != nil || to == nil || d == m.dir {
		return err
	}
	from, err := u.open(join(m.dir, m.file.sub))
	if err != nil {
		return err
	}
	name := m.file.name
	if u.pick(4) == 0 {
		f := m.file.FileName
		f.Base = u.base(len(m.file.content))
		name = f.String()
	} else if same, err := u.hasLink(d, m.file); err != nil || same {
		return err
	}
	box, _ := u.r.layout.MailboxOf(d)
	if err := u.record(mail.Event{Op: mail.EventMove, Mailbox: m.box, File: m.file.name, To: box, NewFile: name}, ""); err != nil {
		return err
	}
	if err := from.RenameNew(m.file.name, to, name); err != nil {
		return err
	}
	u.saw(m.box, m.file.Base)
	u.put(m.file.content)
	u.removed(m.file.content)
	if len(u.r.turn) == 0 && name == m.file.name {
		u.w.moved[m.file.content] = true
	} else {
		delete(u.w.moved, m.file.content) // see pushed
	}
	return u.sync(to, from) // else a power cut could take the mail if the old mailbox is removed
}

// target picks a mail and a directory for it or its copy. to is nil if there is none. A mail that was edited is left alone: until
// that is noticed, a copy of it has the GUID of what it was before. So is what it was before: another copy of that has its name.
func (u *user) target() (m found, dir string, to vfs.Dir, err error) {
	m, ok, err := u.anyMail()
	if e := u.w.ledger.contents[m.file.content]; err != nil || !ok || e != nil && (e.edited || e.n != e.root) {
		return m, "", nil, err
	}
	_, dir, err = u.anyBox()
	if err != nil {
		return m, "", nil, err
	}
	to, err = u.open(join(dir, m.file.sub))
	return m, dir, to, err
}

// copy makes a hard link: under the same name in another mailbox, or under a new one anywhere.
func (u *user) copy() error {
	m, dir, to, err := u.target()
	if err != nil || to == nil {
		return err
	}
	from, err := u.open(join(m.dir, m.file.sub))
	if err != nil {
		return err
	}
	name := m.file.name
	if dir == m.dir || u.pick(2) == 0 {
		f := m.file.FileName
		f.Base = u.base(len(m.file.content))
		name = f.String()
	} else if b, err := u.hasBase(dir, m.file.Base); err != nil || b {
		return err
	}
	if err := from.Link(m.file.name, to, name); err != nil {
		return err
	}
	u.copied(m.file.content)
	box, _ := u.r.layout.MailboxOf(dir)
	if err := u.record(mail.Event{Op: mail.EventAppend, Mailbox: box, File: name}, ""); err != nil {
		return err
	}
	return u.sync(to) // else a power cut could take the copy, and then the user removes what he takes for one of two
}

// hasLink reports whether a mailbox has the file itself under the base name, which would then be there twice.
func (u *user) hasLink(dir string, f fileView) (bool, error) {
	mails, err := u.mails("", dir)
	return slices.ContainsFunc(mails, func(m found) bool { return m.file.Base == f.Base && m.file.info.Ino == f.info.Ino }), err
}

// hasBase reports whether a mailbox has a mail of that base name.
func (u *user) hasBase(dir, base string) (bool, error) {
	mails, err := u.mails("", dir)
	return slices.ContainsFunc(mails, func(m found) bool { return m.file.Base == base }), err
}

// edit replaces a mail by another one of the same name. It is found by comparing with what is remembered of the mail, so
// there must be a memory.
func (u *user) edit() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok {
		return err
	}
	return u.editMail(m)
}

// editOne is edit of a mail of which there never was a copy: while a round is under way, a side that has one takes it for what
// the other side has in the place of the mail, until that looks at the bytes.
func (u *user) editOne() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok || u.w.ledger.contents[m.file.content].puts > 1 {
		return err
	}
	return u.editMail(m)
}

func (u *user) editMail(m found) error {
	if !u.r.remembers(m.box, m.file.Base) {
		return nil
	}
	d, err := u.open(join(m.dir, m.file.sub))
	if err != nil {
		return err
	}
	content := u.w.ledger.fresh(80+u.pick(300), false)
	for len(content) == len(m.file.content) {
		content = u.w.ledger.fresh(500, false) // an editor changes the size or the time, and the time here stands still
	}
	if err := u.replace(d, m.file.name, content); err != nil {
		return err
	}
	u.r.edited = true
	u.edited(m.file.content, content)
	return nil
}
