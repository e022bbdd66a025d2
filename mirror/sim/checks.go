package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dsyncfs/mirror/index"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// checks holds what must be true at any time, and what was seen so far. The list:
//
// After every sync, however it went, and after every crash ([checks.now]):
//   - every mail that users made appear more often than they removed it is on some replica, whole ("lost");
//   - no replica has a mail more often than users put it there ("doubled");
//   - every file in cur/ and new/ is a mail that was delivered, to the byte ("damaged");
//   - a UID never stands for another mail than before under one GUID and UIDVALIDITY of a mailbox, and UIDNEXT does not fall;
//   - UIDVALIDITY stays, unless a user changed it or two mailboxes had one name;
//   - uidlists, keyword tables and subscriptions are well-formed, uidlists to their last byte after a sync that succeeded;
//   - the catalog agrees with itself ([index.CheckConsistency]).
//
// When no sync changes anything any more ([checks.equal], [checks.still], [checks.leftovers]):
//   - all replicas have the same mailboxes with the same GUID, UIDVALIDITY and UIDNEXT, the same subscriptions, and under each UID
//     the same mail with the same GUID, flags, keywords (with and without a letter), INTERNALDATE and bytes;
//   - the catalog says the same as the files;
//   - without crashes and the like, what users removed is gone;
//   - one more sync, of either type, changes no file and no time of one;
//   - a day later nothing of ours is left in tmp/ or beside the files that we replace, and there are no files but a Maildir's.
//
// About the guard ([vanished], [justified]): a sync stops if a mailbox of ten or more mails lost them all without a
// witness, and whatever stops one is a loss by the policy, counted from the files.
type checks struct {
	w       *world
	uids    map[boxKey]*uidHistory
	excused map[string]bool // GUIDs of mailboxes whose UIDVALIDITY may change
}

type boxKey struct{ replica, guid string }

// uidHistory is what was seen of a mailbox under one UIDVALIDITY.
type uidHistory struct {
	validity uint64
	settled  bool // it has to stay: it was there after a sync that succeeded, or somebody was told
	next     uint64
	mails    map[uint64]int // UID to the root of the content
}

func newChecks(w *world) *checks {
	return &checks{w: w, uids: make(map[boxKey]*uidHistory), excused: make(map[string]bool)}
}

// excuse lets the UIDVALIDITY of a mailbox change.
func (c *checks) excuse(r *replica, dir string) {
	if b, err := readBox(r.disk, "", dir); err == nil {
		c.excused[b.guid] = true
	}
}

// before notes what two replicas that are about to be synced may change.
func (c *checks) before(a, b *replica) {
	va, erra := readAccount(a.disk, a.layout)
	vb, errb := readAccount(b.disk, b.layout)
	if erra != nil || errb != nil {
		return // checked elsewhere
	}
	for _, x := range va.boxes {
		if y := vb.box(x.name); y != nil && x.guid != y.guid {
			c.excused[x.guid], c.excused[y.guid] = true, true
		}
		for _, y := range vb.boxes {
			// The mailbox above them may be renamed in this sync, so that they get one name.
			if x.name.Base() == y.name.Base() && x.guid != y.guid && !vb.has(x.guid) && !va.has(y.guid) {
				c.excused[x.guid], c.excused[y.guid] = true, true
			}
		}
	}
}

// now checks what must hold at any time.
func (c *checks) now() error {
	found := make(map[string]bool)
	for _, r := range c.w.replicas {
		if !r.born {
			continue
		}
		if err := r.pushed.nowhere(); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if err := c.account(r, found); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if err := index.CheckConsistency(r.cat); err != nil {
			return fmt.Errorf("%s: catalog: %w", r.name, err)
		}
	}
	c.excuseUnfinished()
	for _, content := range c.w.ledger.all() {
		if e := c.w.ledger.contents[content]; c.w.ledger.owed(e) && !found[content] {
			return fmt.Errorf("lost: mail %d, put %d times and removed %d times", e.n, e.puts, e.removes)
		}
	}
	return nil
}

// excuseUnfinished lets the UIDVALIDITY of a mailbox change that an interrupted sync left with one GUID and two of those.
func (c *checks) excuseUnfinished() {
	validity := make(map[string]uint64)
	for key, h := range c.uids {
		if v, seen := validity[key.guid]; seen && v != h.validity {
			c.excused[key.guid] = true
		}
		validity[key.guid] = h.validity
	}
}

func (c *checks) account(r *replica, found map[string]bool) error {
	a, err := readAccount(r.disk, r.layout)
	if err != nil {
		return err
	}
	count := make(map[string]int)
	for i := range a.setAside {
		if err := c.mails(r, &a.setAside[i], count, found); err != nil {
			return err
		}
	}
	for i := range a.boxes {
		b := &a.boxes[i]
		if b.torn && r.clean {
			return fmt.Errorf("mailbox %q: the uidlist ends in half a line", string(b.name))
		}
		if err := c.mails(r, b, count, found); err != nil {
			return err
		}
		if err := c.history(r, b); err != nil {
			return fmt.Errorf("mailbox %q: %w", string(b.name), err)
		}
	}
	return nil
}

// mails looks at the mails of a mailbox, counts them by content, and notes what was found.
func (c *checks) mails(r *replica, b *boxView, count map[string]int, found map[string]bool) error {
	for _, f := range b.files {
		e := c.w.ledger.contents[f.content]
		if e == nil {
			return fmt.Errorf("damaged: %q in %q: %.80q", f.name, string(b.name), f.content)
		}
		found[f.content] = true
		e.seen(r.name)
		if count[f.content]++; count[f.content] > e.puts {
			return fmt.Errorf("doubled: mail %d is there %d times and was put %d times; once more in %q", e.n, count[f.content], e.puts, string(b.name))
		}
	}
	return nil
}

// history compares UIDs with what was seen before. What is seen after a failed sync need not be on disk yet.
func (c *checks) history(r *replica, b *boxView) error {
	if b.noList {
		return nil
	}
	if r == c.w.backup {
		return nil // it goes back to the UIDs of its source
	}
	key := boxKey{r.name, b.guid}
	h := c.uids[key]
	if h == nil || h.validity != b.validity {
		if h != nil && h.settled && !c.excused[b.guid] {
			return fmt.Errorf("UIDVALIDITY was %d and is %d", h.validity, b.validity)
		}
		h = &uidHistory{validity: b.validity, mails: make(map[uint64]int)}
		c.uids[key] = h
	}
	if b.next < h.next && !c.excused[b.guid] {
		return fmt.Errorf("UIDNEXT was %d and is %d", h.next, b.next)
	}
	if r.clean {
		h.next, h.settled = b.next, h.settled || b.next > 1 // without a UID there is nothing for which it could stand
	}
	for _, row := range b.list {
		f := b.file(row.base)
		if f == nil {
			continue
		}
		root := c.w.ledger.contents[f.content].root
		if was, seen := h.mails[row.uid]; seen && was != root && !c.excused[b.guid] {
			return fmt.Errorf("UID %d was mail %d and is mail %d", row.uid, was, root)
		}
		if r.clean {
			h.mails[row.uid] = root
		}
	}
	return nil
}

// sent checks that the remote has what the journal of a mount says it has: mail that appeared through the mount and that no
// user removed since.
func (c *checks) sent(mount, remote *replica) error {
	up := mount.journal.Mark(journal.Sent)
	if up <= mount.checked {
		return nil
	}
	a, err := readAccount(remote.disk, remote.layout)
	if err != nil {
		return nil // in the middle of something; looked at again
	}
	there := make(map[string]bool)
	for _, b := range a.boxes {
		for _, f := range b.files {
			there[f.content] = true
		}
	}
	for seq := mount.checked + 1; seq <= up; seq++ {
		content := mount.journaled[seq].content
		if e := c.w.ledger.contents[content]; e != nil && e.removes == 0 && !there[content] {
			return fmt.Errorf("%s does not have mail %d, though record %d of the journal of %s counts as sent", remote.name, e.n, seq, mount.name)
		}
	}
	mount.checked = up
	return nil
}

// shown notes the UIDs that clients of a Dovecot have seen.
func (c *checks) shown(r *replica, b *boxView) {
	key := boxKey{r.name, b.guid}
	h := c.uids[key]
	if h == nil || h.validity != b.validity {
		return // not looked at yet
	}
	h.next, h.settled = max(h.next, b.next), true
	for _, row := range b.list {
		if f := b.file(row.base); f != nil {
			h.mails[row.uid] = c.w.ledger.contents[f.content].root
		}
	}
}

// equal compares all replicas with the first.
func (c *checks) equal() error {
	var first map[string]string
	for _, r := range c.w.replicas {
		view, err := c.describe(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if first == nil {
			first = view
		} else if err := difference(first, view); err != nil {
			return fmt.Errorf("%s and %s differ: %w", c.w.replicas[0].name, r.name, err)
		}
	}
	return c.removed()
}

// removed checks that what users removed is gone, if nothing happened that may bring it back.
func (c *checks) removed() error {
	if !c.w.calm {
		return nil
	}
	for _, r := range c.w.replicas {
		a, err := readAccount(r.disk, r.layout)
		if err != nil {
			return err
		}
		for _, b := range a.boxes {
			for _, f := range b.files {
				if e := c.w.ledger.contents[f.content]; e.puts == 1 && e.removes > 0 {
					return fmt.Errorf("%s: mail %d is in %q and was removed", r.name, e.n, string(b.name))
				}
			}
		}
	}
	return nil
}

func difference(a, b map[string]string) error {
	keys := maps.Clone(a)
	maps.Copy(keys, b)
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if a[k] != b[k] {
			lines = append(lines, fmt.Sprintf("%s: %.300q, %.300q", k, a[k], b[k]))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines[:min(len(lines), 12)], "\n"))
}

// describe says what a client sees of a replica, and checks on the way that the catalog says the same as the files.
func (c *checks) describe(r *replica) (map[string]string, error) {
	a, err := readAccount(r.disk, r.layout)
	if err != nil {
		return nil, err
	}
	out := map[string]string{"subscriptions": strings.Join(a.subscribed, " ")}
	records := make(map[mail.Name]store.MailboxRecord)
	err = r.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			records[rec.Name] = rec
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range a.boxes {
		b := &a.boxes[i]
		rec, known := records[b.name]
		delete(records, b.name)
		s := rec.Status
		if !known || s.GUID.String() != b.guid || uint64(s.UIDValidity) != b.validity || uint64(s.UIDNext) != b.next {
			return nil, fmt.Errorf("mailbox %q is G%s V%d N%d in its uidlist and %v V%d N%d in the catalog", string(b.name), b.guid, b.validity, b.next, s.GUID, s.UIDValidity, s.UIDNext)
		}
		out[string(b.name)] = fmt.Sprintf("G%s V%d N%d", b.guid, b.validity, b.next)
		if err := c.describeMails(r, b, s.GUID, out); err != nil {
			return nil, fmt.Errorf("mailbox %q: %w", string(b.name), err)
		}
	}
	for name := range records {
		return nil, fmt.Errorf("mailbox %q is in the catalog and not on disk", string(name))
	}
	return out, nil
}

func (c *checks) describeMails(r *replica, b *boxView, guid mail.MailboxGUID, out map[string]string) error {
	rows := make(map[string]listRow)
	for _, row := range b.list {
		rows[row.base] = row
	}
	known := make(map[mail.UID]store.MessageRecord)
	err := r.cat.View(func(tx store.CatalogTx) error {
		for m, err := range tx.Messages(guid, 0) {
			if err != nil {
				return err
			}
			known[m.UID] = m
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range b.files {
		f := &b.files[i]
		row, listed := rows[f.Base]
		if !listed {
			return fmt.Errorf("%q has no UID", f.name)
		}
		m, there := known[mail.UID(row.uid)]
		delete(known, m.UID)
		g := cmp.Or(row.fields['G'], row.base)
		if !there || string(m.GUID) != g || m.Flags != f.Flags || m.Received != f.info.Mtime.Unix() || m.Size != int64(len(f.content)) {
			return fmt.Errorf("UID %d is %q, GUID %q, of %v in the files and %+v in the catalog", row.uid, f.name, g, f.info.Mtime.Unix(), m)
		}
		for i := range 26 {
			if word := b.keywords[i]; word != "" && (f.Letters&(1<<i) != 0) != m.Keywords.Has(word) {
				return fmt.Errorf("UID %d is %q: keyword %q, in the catalog %v", row.uid, f.name, word, m.Keywords)
			}
		}
		out[fmt.Sprintf("%s UID %d", b.name, row.uid)] = fmt.Sprintf("GUID %s, (%v) %v, received %d, mail %d",
			g, f.Flags, m.Keywords, m.Received, c.w.ledger.contents[f.content].n)
		if e := c.w.ledger.contents[f.content]; e.n != e.root {
			continue // what a user wrote in place of a mail has the name of that, and its sizes
		}
		if err := checkSizes(f, row); err != nil {
			return fmt.Errorf("UID %d: %w", row.uid, err)
		}
	}
	for uid := range known {
		return fmt.Errorf("UID %d is in the catalog and has no file", uid)
	}
	return nil
}

// checkSizes holds the sizes that a name or a line claims to the truth: a Dovecot believes them.
func checkSizes(f *fileView, row listRow) error {
	size := int64(len(f.content))
	virtual := size + int64(strings.Count(f.content, "\n")-strings.Count(f.content, "\r\n"))
	s, w := f.Sizes()
	if s >= 0 && s != size || w >= 0 && w != virtual {
		return fmt.Errorf("the name %q tells wrong sizes, %d and %d are right", f.name, size, virtual)
	}
	for key, want := range map[byte]int64{'S': size, 'W': virtual} {
		if v, there := row.fields[key]; there && v != fmt.Sprint(want) {
			return fmt.Errorf("the uidlist tells %c%s, %d is right", key, v, want)
		}
	}
	return nil
}

// still checks that f changes nothing on any disk.
func (c *checks) still(f func() error) error {
	var before []map[string]string
	for _, r := range c.w.replicas {
		img, err := image(r.disk)
		if err != nil {
			return err
		}
		before = append(before, img)
	}
	if err := f(); err != nil {
		return err
	}
	for i, r := range c.w.replicas {
		after, err := image(r.disk)
		if err != nil {
			return err
		}
		if err := difference(before[i], after); err != nil {
			return fmt.Errorf("something changed on %s: %w", r.name, err)
		}
	}
	return nil
}

// leftovers checks that there is nothing but a Maildir.
func (c *checks) leftovers() error {
	for _, r := range c.w.replicas {
		img, err := image(r.disk)
		if err != nil {
			return err
		}
		for _, path := range slices.Sorted(maps.Keys(img)) {
			if !belongs(path) && !c.w.loose[path[strings.LastIndexByte(path, '/')+1:]] {
				return fmt.Errorf("%s: left over: %s %.60q", r.name, path, img[path])
			}
		}
	}
	return nil
}

// belongs reports whether a path is part of a Maildir at rest. What is in cur/ and new/ is looked at elsewhere.
func belongs(path string) bool {
	parts := strings.Split(path, "/")
	base := parts[len(parts)-1]
	if len(parts) > 1 {
		switch parts[len(parts)-2] {
		case "cur", "new":
			return true
		case "tmp":
			return false
		}
	}
	switch base {
	case "cur", "new", "tmp", "dovecot-uidlist", "dovecot-keywords", "subscriptions", "maildirfolder", "dovecot-uidvalidity":
		return true
	}
	if base == "dovecot-uidlist.lock" || base == "subscriptions.lock" {
		return true // of a crash; whoever needs the lock next breaks it
	}
	if strings.HasPrefix(base, "dovecot-uidvalidity.") || strings.HasPrefix(base, "dovecot.mailbox.log") {
		return true
	}
	return !strings.Contains(base, "dovecot") && !strings.HasSuffix(base, ".tmp") && !strings.HasSuffix(base, ".lock") && !strings.Contains(base, "dsyncfs-")
}
