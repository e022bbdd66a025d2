package sim

import (
	"slices"

	"dsyncfs/mirror/vfs"
)

// kept is the copy that a user has of a mailbox.
type kept struct {
	dir   string
	guid  string
	files map[string]string // uidlist and keywords
	mails []fileView
}

// keep copies a mailbox to somewhere else. A mail that was edited is left alone, see target; so is a mailbox without uidlist, which
// would be a new one.
func (u *user) keep() error {
	name, dir, err := u.anyOther()
	if err != nil || name == "" {
		return err
	}
	b, err := readBox(u.r.disk, name, dir)
	if err != nil || b.noList || b.torn || slices.ContainsFunc(b.files, u.isEdited) {
		return nil
	}
	d, err := u.open(dir)
	if err != nil {
		return err
	}
	k := &kept{dir: dir, guid: b.guid, files: make(map[string]string), mails: b.files}
	for _, file := range []string{"dovecot-uidlist", "dovecot-keywords"} {
		if data, err := vfs.ReadFile(d, file, maxFile); err == nil {
			k.files[file] = string(data)
		}
	}
	u.w.kept = k
	return nil
}

func (u *user) isEdited(f fileView) bool {
	e := u.w.ledger.contents[f.content]
	return e != nil && e.n != e.root
}

// keptBox is the mailbox of which there is a copy, as the replica has it now; nil if it does not.
func (u *user) keptBox() (*boxView, error) {
	a, err := readAccount(u.r.disk, u.r.layout)
	if err != nil || u.w.kept == nil {
		return nil, err
	}
	i := slices.IndexFunc(a.boxes, func(b boxView) bool { return b.guid == u.w.kept.guid })
	if i < 0 {
		return nil, nil
	}
	return &a.boxes[i], nil
}

// fillKept delivers some mails into the mailbox.
func (u *user) fillKept() error {
	b, err := u.keptBox()
	if err != nil || b == nil {
		return err
	}
	for range 1 + u.pick(4) {
		if err := u.deliverOne(b.name, b.dir, u.w.ledger.fresh(100, false)); err != nil {
			return err
		}
	}
	return nil
}

// dropKept deletes the mailbox.
func (u *user) dropKept() error {
	b, err := u.keptBox()
	if err != nil || b == nil || b.dir == "" {
		return err
	}
	return u.deleteBox(b.name, b.dir)
}

// putBack puts the copy in the place of the mailbox, which is gone.
func (u *user) putBack() error {
	k := u.w.kept
	if b, err := u.keptBox(); err != nil || b != nil || k == nil {
		return err
	}
	if _, err := u.r.disk.OpenDir(k.dir); err == nil {
		return nil // it has another one's name
	}
	name, _ := u.r.layout.MailboxOf(k.dir)
	if err := u.makeBox(k.dir, name); err != nil {
		return err
	}
	for _, f := range k.mails {
		d, err := u.open(join(k.dir, f.sub))
		if err != nil {
			return err
		}
		if err := u.write(d, f.name, f.content); err != nil {
			return err
		}
		if err := d.SetTimes(f.name, f.info.Mtime); err != nil {
			return err
		}
		if err := d.Sync(); err != nil {
			return err
		}
		u.put(f.content)
	}
	d, err := u.open(k.dir)
	if err != nil {
		return err
	}
	for file, text := range k.files {
		if err := u.replace(d, file, text); err != nil {
			return err
		}
	}
	u.w.reset(u.r, k.dir)
	return nil
}
