package maildir

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// identify matches mailboxes on disk with mailboxes of the catalog by the GUIDs in their uidlists: what was renamed behind
// our back is the same mailbox, and of two mailboxes with one GUID the one with the unknown name is a copy.
func (r *refresh) identify() error {
	claimed := make(map[mail.MailboxGUID]bool)
	taken := make(map[mail.MailboxGUID]bool)
	var renamed []*look
	for _, l := range r.looks {
		if l.header == nil || l.header.guid.IsZero() || l.rec != nil && l.rec.Status.GUID == l.header.guid {
			continue
		}
		guid := l.header.guid
		owner, known := r.byGUID[guid]
		l.displaced, l.rec = l.rec, nil
		switch {
		case known && r.guidAt(owner) != guid && !claimed[guid]:
			rec := r.byName[owner]
			l.rec, l.old = &rec, decodeSignature(rec.Signature)
			claimed[guid] = true
			renamed = append(renamed, l)
		case known || taken[guid]:
			l.newGUID = true
		default:
			taken[guid] = true
		}
	}
	for _, l := range r.looks {
		if l.displaced != nil && claimed[l.displaced.Status.GUID] {
			l.displaced = nil // it went elsewhere
		}
		if l.rec != nil && l.rec.Name == l.name && claimed[l.rec.Status.GUID] {
			l.rec, l.old = nil, signature{} // so did this one, and another directory without a uidlist has its name
		}
	}
	r.findGone(claimed)
	return r.recordRenames(renamed)
}

// guidAt returns the GUID that the mailbox of a name has on disk, zero if there is none or it has none.
func (r *refresh) guidAt(name mail.Name) mail.MailboxGUID {
	for _, l := range r.looks {
		if l.name != name {
			continue
		}
		if l.header != nil {
			return l.header.guid
		}
		if l.now.list.ino == 0 && l.now.cur.ino != l.old.cur.ino {
			return mail.MailboxGUID{} // another directory, whose uidlist has yet to be made
		}
	}
	if _, there := r.places[name]; there {
		return r.byName[name].Status.GUID
	}
	return mail.MailboxGUID{}
}

// findGone notes the mailboxes of the catalog that have no directory any more.
func (r *refresh) findGone(claimed map[mail.MailboxGUID]bool) {
	for name, rec := range r.byName {
		if _, there := r.places[name]; !there && !claimed[rec.Status.GUID] && r.isWanted(name) {
			r.gone = append(r.gone, rec)
		}
	}
	slices.SortFunc(r.gone, func(a, b store.MailboxRecord) int { return compareNames(a.Name, b.Name) })
}

// errMoved is that a mailbox was renamed while the tree was walked, from where it was not looked for yet to where it was no more.
var errMoved = errors.New("renamed while the mailboxes were listed")

// findMoved looks for the mailboxes that seem to be gone, by GUID and, where there is no uidlist, by directory: a walk is no
// snapshot, and misses what moves meanwhile. By now every mailbox that it found has a GUID of its own.
func (r *refresh) findMoved(ctx context.Context) error {
	gone := make(map[mail.MailboxGUID]*missingBox)
	inodes := make(map[uint64]*missingBox)
	for _, m := range r.missing {
		if m.gone {
			gone[m.rec.Status.GUID] = m
			inodes[decodeSignature(m.rec.Signature).cur.ino] = m
		}
	}
	if len(gone) == 0 {
		return nil
	}
	delete(inodes, 0)
	tree, err := r.s.walk(ctx, func(mail.Name) bool { return false })
	if err != nil {
		return err
	}
	for _, p := range tree.boxes {
		m, err := r.isOneOf(p, gone, inodes)
		if err != nil {
			return err
		}
		if m != nil {
			return fmt.Errorf("%s, now %q: %w", describe(m.rec.Name), string(p.name), errMoved)
		}
	}
	return nil
}

// isOneOf returns the mailbox that is in a directory, of those with the given GUIDs and inodes of cur/; nil if it is none of them.
func (r *refresh) isOneOf(p place, guids map[mail.MailboxGUID]*missingBox, inodes map[uint64]*missingBox) (*missingBox, error) {
	dir, err := r.s.fs.OpenDir(p.dir)
	if err != nil {
		return nil, ignoreGone(err)
	}
	defer dir.Close()
	header, err := readHeader(dir)
	if err != nil {
		return nil, err
	}
	if header != nil {
		return guids[header.guid], nil
	}
	sig, err := takeSignature(dir)
	return inodes[sig.cur.ino], err
}

// recordRenames gives the mailboxes that moved their new names. One that took the place of a mailbox that is gone has to
// wait until that is judged.
func (r *refresh) recordRenames(renamed []*look) error {
	now := r.s.now()
	var ready []*look
	for _, l := range renamed {
		l.rec.Renamed = max(now, l.rec.Renamed+1) // later than a rename on a side whose clock is ahead
		r.changed[l.name] = struct{}{}
		if l.displaced != nil {
			l.replaced = true
			continue
		}
		ready = append(ready, l)
	}
	if len(ready) == 0 {
		return nil
	}
	return r.s.cat.Update(func(tx store.CatalogTx) error {
		for _, l := range ready {
			l.rec.Name = l.name
			if err := tx.PutMailbox(*l.rec); err != nil {
				return err
			}
		}
		return nil
	})
}

func compareNames(a, b mail.Name) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
