package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// This file has what users do to mailboxes and to what belongs to the account.

func (u *user) create() error {
	name := names[u.pick(len(names))]
	dir, err := u.r.layout.DirOf(name)
	if err != nil {
		return err
	}
	if !u.r.born {
		if err := u.makeBox("", mail.Inbox); err != nil {
			return err
		}
		u.r.born = true
	}
	if err := u.makeBox(dir, name); err != nil {
		return err
	}
	return u.record(mail.Event{Op: mail.EventMailboxCreate, Mailbox: name}, "")
}

// makeBox makes a mailbox and the levels above it, durably.
func (u *user) makeBox(dir string, name mail.Name) error {
	path := ""
	if dir != "" {
		for part := range strings.SplitSeq(dir, "/") {
			up, err := u.open(path)
			if err != nil {
				return err
			}
			if err := up.Mkdir(part, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := up.Sync(); err != nil {
				return err
			}
			path = join(path, part)
		}
	}
	return u.makeSubdirs(dir)
}

// anyOther picks a mailbox but INBOX.
func (u *user) anyOther() (mail.Name, string, error) {
	all, dirs, err := u.boxes()
	if err != nil || len(all) < 2 {
		return "", "", err
	}
	all = slices.DeleteFunc(all, func(n mail.Name) bool { return n == mail.Inbox })
	name := all[u.pick(len(all))]
	return name, dirs[name], nil
}

// rename gives a mailbox, with those below it, a name that is free.
func (u *user) rename() error {
	from, dir, err := u.anyOther()
	if err != nil || from == "" {
		return err
	}
	to := names[u.pick(len(names))]
	all, dirs, err := u.boxes()
	if b, rerr := readBox(u.r.disk, from, dir); rerr != nil || b.noList && u.r.knows(from, dir) {
		return nil // what has lost its uidlist is known by its name only
	}
	if err != nil || to == from || to.IsBelow(from) || from.IsBelow(to) {
		return err
	}
	toDir, err := u.r.layout.DirOf(to)
	if err != nil {
		return err
	}
	for _, n := range all {
		if n == to || n.IsBelow(to) {
			return nil
		}
	}
	if err := u.record(mail.Event{Op: mail.EventMailboxRename, Mailbox: from, To: to}, ""); err != nil {
		return err
	}
	if strings.Contains(toDir, "/") || strings.Contains(dir, "/") {
		return u.renameDir(dir, toDir)
	}
	for _, n := range all {
		moved, with := n.Moved(from, to)
		if !with || n != from && !strings.HasPrefix(dirs[n], ".") {
			continue
		}
		target, err := u.r.layout.DirOf(moved)
		if err != nil {
			return err
		}
		if err := u.renameDir(dirs[n], target); err != nil {
			return err
		}
	}
	return nil
}

func (u *user) renameDir(from, to string) error {
	split := func(p string) (string, string) {
		if i := strings.LastIndexByte(p, '/'); i >= 0 {
			return p[:i], p[i+1:]
		}
		return "", p
	}
	fromUp, fromName := split(from)
	toUp, toName := split(to)
	a, err := u.open(fromUp)
	if err != nil {
		return err
	}
	b, err := u.open(toUp)
	if err != nil {
		return err
	}
	if err := a.RenameNew(fromName, b, toName); err != nil {
		return err
	}
	return u.sync(a, b)
}

func (u *user) delete() error {
	name, dir, err := u.anyOther()
	if err != nil || name == "" {
		return err
	}
	return u.deleteBox(name, dir)
}

// deleteBox removes a mailbox, and with LAYOUT=fs those below it.
func (u *user) deleteBox(name mail.Name, dir string) error {
	if err := u.record(mail.Event{Op: mail.EventMailboxDelete, Mailbox: name}, ""); err != nil {
		return err
	}
	u.w.ledger.deletes = true
	all, dirs, err := u.boxes()
	if err != nil {
		return err
	}
	for _, n := range all {
		if n != name && !(u.r.layout != 0 && n.IsBelow(name)) {
			continue
		}
		mails, err := u.mails(n, dirs[n])
		if err != nil {
			return err
		}
		for _, m := range mails {
			u.removed(m.file.content)
		}
		u.w.reset(u.r, dirs[n]) // if others have it still, it may come back
		if u.through != nil || u.pick(2) == 0 {
			u.r.witnessed[witnessed{n, ""}] = true
		}
	}
	return u.removeTree(dir)
}

func (u *user) removeTree(path string) error {
	d, err := u.open(path)
	if err != nil {
		return err
	}
	var subs []string
	err = d.Names(func(name string, typ vfs.Type) error {
		if typ == vfs.Directory {
			subs = append(subs, name)
			return nil
		}
		return d.Remove(name)
	})
	for _, s := range subs {
		if err == nil {
			err = u.removeTree(join(path, s))
		}
	}
	if err != nil {
		return err
	}
	up, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		up, name = path[:i], path[i+1:]
	}
	parent, err := u.open(up)
	if err != nil {
		return err
	}
	if err := parent.RemoveDir(name); err != nil {
		return err
	}
	if err := u.maybeSync(parent); !errors.Is(err, errRefused) {
		return err
	}
	return nil // who removes does not stop halfway because of an fsync: what is left of a mailbox would be without its uidlist
}

// recreate deletes a mailbox and makes another one of its name.
func (u *user) recreate() error {
	name, dir, err := u.anyOther()
	if err != nil || name == "" {
		return err
	}
	if err := u.deleteBox(name, dir); err != nil {
		return err
	}
	if u.through == nil {
		delete(u.r.witnessed, witnessed{name, ""})
	}
	if err := u.makeBox(dir, name); err != nil {
		return err
	}
	return u.record(mail.Event{Op: mail.EventMailboxCreate, Mailbox: name}, "")
}

func (u *user) subscribe() error   { return u.setSubscription(true) }
func (u *user) unsubscribe() error { return u.setSubscription(false) }

func (u *user) setSubscription(on bool) error {
	name := names[u.pick(len(names))]
	dir, err := u.r.layout.DirOf(name)
	if err != nil {
		return err
	}
	line := strings.ReplaceAll(dir, "/", "\t")
	if u.r.layout == 0 {
		line = strings.ReplaceAll(strings.TrimPrefix(dir, "."), ".", "\t")
	}
	root, err := u.open("")
	if err != nil {
		return err
	}
	lines, err := readSubscriptions(root, u.r.layout)
	if err != nil {
		return err
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == line })
	if on {
		lines = append(lines, line)
	}
	text := subscriptionsV2
	for _, l := range lines {
		text += l + "\n"
	}
	return u.replace(root, "subscriptions", text)
}

// loseList removes the uidlist of a mailbox that the store knows under its name: by that alone it can be known again.
func (u *user) loseList() error {
	name, dir, err := u.anyBox()
	if err != nil || !u.r.knows(name, dir) {
		return err
	}
	d, err := u.open(dir)
	if err != nil {
		return err
	}
	u.w.reset(u.r, dir)
	u.r.lostList = true
	return d.Remove("dovecot-uidlist")
}

// assign gives UIDs to new mails as a Dovecot does that uses the same Maildir: under the lock, in an order of its own, and
// clients see them at once.
func (u *user) assign() error {
	name, dir, err := u.anyBox()
	if err != nil {
		return err
	}
	d, err := u.open(dir)
	if err != nil {
		return err
	}
	if _, err := d.Stat("dovecot-uidlist.lock"); err == nil {
		return nil // it waits for its turn
	}
	b, err := readBox(u.r.disk, name, dir)
	if err != nil || b.noList || b.torn {
		return nil // it would begin anew, see resetValidity
	}
	known := make(map[string]bool)
	for _, row := range b.list {
		known[row.base] = true
	}
	var lines []byte
	for i := range b.files {
		if f := &b.files[i]; !known[f.Base] {
			lines = fmt.Appendf(lines, "%d :%s\n", b.next, f.Base)
			b.list = append(b.list, listRow{uid: b.next, base: f.Base})
			b.next++
		}
	}
	if len(lines) == 0 {
		return nil
	}
	f, err := d.OpenAppend("dovecot-uidlist")
	if err != nil {
		return err
	}
	if _, err := f.Write(lines); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	u.w.checks.shown(u.r, b)
	return nil
}

// resetValidity makes a uidlist anew as Dovecot does when it cannot read it: another UIDVALIDITY, UIDs from 1.
func (u *user) resetValidity() error { return u.resetList(false) }

// resetGUID is resetValidity when the mailbox gets another GUID, too. With a rename elsewhere this makes two mailboxes of one,
// as nothing is left by which to know it; so it comes in histories without renames.
func (u *user) resetGUID() error { return u.resetList(true) }

func (u *user) resetList(newGUID bool) error {
	name, dir, err := u.anyBox()
	if err != nil {
		return err
	}
	d, err := u.open(dir)
	if err != nil {
		return err
	}
	b, err := readBox(u.r.disk, name, dir)
	if err != nil {
		return nil // torn by a crash; Dovecot has other ways
	}
	if b.noList {
		return nil
	}
	guid := b.guid
	if newGUID {
		guid = fmt.Sprintf("%016x%016x", u.rng.Uint64(), u.rng.Uint64())
	}
	u.w.validity = max(u.w.validity, uint64(u.r.now().Unix()), b.validity) + 1
	text := ""
	for i, f := range b.files {
		text += fmt.Sprintf("%d :%s\n", i+1, f.Base)
	}
	u.w.reset(u.r, dir)
	return u.replace(d, "dovecot-uidlist", fmt.Sprintf("3 V%d N%d G%s\n", u.w.validity, len(b.files)+1, guid)+text)
}
