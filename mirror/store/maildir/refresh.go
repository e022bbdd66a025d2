package maildir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// refresh is one run of [Store.Refresh], in these steps:
//
//  1. walk the tree and compare each mailbox with its signature in the catalog; what did not change is done;
//  2. find out which mailbox is which (renamed, copied, replaced) by the GUIDs in the uidlists;
//  3. scan what changed, under its lock, and record what is new and what has other flags;
//  4. ask the guard about what is missing;
//  5. record expunges and deletions, and scan the mailboxes whose identity was in doubt.
type refresh struct {
	s *Store
	o store.RefreshOptions
	w writer

	byName map[mail.Name]store.MailboxRecord
	byGUID map[mail.MailboxGUID]mail.Name
	places map[mail.Name]place
	wanted map[mail.Name]struct{} // nil: all

	looks   []*look
	gone    []store.MailboxRecord  // mailboxes whose directory is gone
	late    []*look                // whose scan has to wait for the guard
	missing []*missingBox          // by name
	moved   map[uint64]movedMail   // mails that went away, by key of their name
	pending map[string]pendingMail // of a batch that a crash cut short

	begun      map[string]struct{} // directories of the mailboxes whose look has begun; see Memory
	remembered []remembered        // those that came to an end

	noticed *mailboxLogMark // of what is read and yet to be recorded; nil: nothing new

	report  store.Report
	changed map[mail.Name]struct{}
}

// look is a mailbox that may have changed.
type look struct {
	place
	now, old  signature
	rec       *store.MailboxRecord // what the catalog knows of it; nil: nothing
	displaced *store.MailboxRecord // what the catalog knows under this name, if the uidlist has another GUID
	header    *uidHeader           // of the uidlist as found; nil: there is none, or it was not read
	newGUID   bool                 // its GUID belongs to another mailbox of which this is a copy
	replaced  bool                 // displaced is gone and this mailbox took its place
	deferred  bool                 // was put off until the other mailboxes had been scanned
	touched   bool                 // it is enough to look at the names that were touched
}

// Refresh implements [store.Store].
func (s *Store) Refresh(ctx context.Context, o store.RefreshOptions) (store.Report, error) {
	for try := 1; ; try++ {
		r := &refresh{s: s, o: o, w: writer{cat: s.cat, sync: s.fs.Sync}, moved: make(map[uint64]movedMail), changed: make(map[mail.Name]struct{}), begun: make(map[string]struct{})}
		err := r.run(ctx)
		if err == nil {
			r.report.Changed = slices.Sorted(maps.Keys(r.changed))
			s.looked = s.looked || o.Mailboxes == nil && !o.DryRun && !r.report.Undecided
			return r.report, nil
		}
		r.forgetBegun()
		// A mailbox that was renamed or deleted while we looked is no error. What was recorded stays true.
		if !notExist(err) && !errors.Is(err, errMoved) || try == maxLooks {
			return store.Report{}, err
		}
	}
}

// maxLooks is how often a refresh begins anew because mailboxes come and go.
const maxLooks = 5

func (r *refresh) run(ctx context.Context) error {
	clear(r.s.lists)
	r.s.o.Memory.startRefresh()
	if err := r.load(); err != nil {
		return err
	}
	if r.o.Mailboxes == nil {
		if err := r.takeNotice(); err != nil {
			return err
		}
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.identify(); err != nil {
		return err
	}
	if err := r.scanAll(ctx); err != nil {
		return err
	}
	if err := r.judge(ctx); err != nil {
		return err
	}
	if err := r.s.refreshSubscriptions(&r.w); err != nil {
		return err
	}
	if err := r.saveNotice(); err != nil {
		return err
	}
	if err := r.w.flush(); err != nil {
		return err
	}
	return r.settleMemory()
}

// load reads what the catalog knows of the mailboxes.
func (r *refresh) load() error {
	r.byName = make(map[mail.Name]store.MailboxRecord)
	r.byGUID = make(map[mail.MailboxGUID]mail.Name)
	r.pending = make(map[string]pendingMail)
	return r.s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			r.byName[rec.Name] = rec
			r.byGUID[rec.Status.GUID] = rec.Name
		}
		return loadPending(tx, r.pending)
	})
}

// look walks the tree and picks the mailboxes that do not look as they did.
func (r *refresh) look(ctx context.Context) error {
	tree, err := r.s.walk(ctx, func(n mail.Name) bool { _, ok := r.byName[n]; return ok })
	if err != nil {
		return err
	}
	r.report.Notes = tree.notes
	r.places = make(map[mail.Name]place, len(tree.boxes))
	for _, p := range tree.boxes {
		r.places[p.name] = p
	}
	r.limit()
	for _, p := range tree.boxes {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !r.isWanted(p.name) {
			continue
		}
		still, err := r.lookAt(p)
		if err != nil {
			return err
		}
		if !still {
			delete(r.places, p.name)
			if r.s.o.Layout == FS {
				tree.levels = append(tree.levels, p.name)
			}
		}
	}
	return r.s.refreshLevels(tree.levels, tree.boxes, r.o.Mailboxes != nil, &r.w)
}

// limit makes the set of the names to look at. If one of those is gone it may have been renamed, so that all names that are
// new belong to the set.
func (r *refresh) limit() {
	if r.o.Mailboxes == nil {
		return
	}
	r.wanted = make(map[mail.Name]struct{})
	gone := false
	for _, n := range r.o.Mailboxes {
		n = n.FoldInbox()
		r.wanted[n] = struct{}{}
		_, known := r.byName[n]
		_, there := r.places[n]
		gone = gone || known && !there
	}
	if !gone {
		return
	}
	for n := range r.places {
		if _, known := r.byName[n]; !known {
			r.wanted[n] = struct{}{}
		}
	}
}

func (r *refresh) isWanted(n mail.Name) bool {
	if r.wanted == nil {
		return true
	}
	_, ok := r.wanted[n]
	return ok
}

// lookAt costs an open and four stats for a mailbox that did not change. It returns false for what only has the name of one
// that was known, like the parent of a new mailbox after a rename.
func (r *refresh) lookAt(p place) (still bool, err error) {
	dir, err := r.s.fs.OpenDir(p.dir)
	if err != nil {
		return false, fmt.Errorf("look at mailbox %q: %w", string(p.name), err)
	}
	defer dir.Close()
	l := &look{place: p}
	if l.now, err = takeSignature(dir); err != nil {
		return false, fmt.Errorf("look at mailbox %q: %w", string(p.name), err)
	}
	if p.dir != "" && l.now.cur.ino == 0 && l.now.list.ino == 0 && !hasMailboxMarks(dir) {
		return false, nil
	}
	rec, known := r.byName[p.name]
	if known {
		l.rec, l.old = &rec, decodeSignature(rec.Signature)
		mem, touched := r.s.o.Memory.recall(p.dir, l.rec, l.now)
		switch {
		case r.o.Full:
		case mem != nil && touched == 0, mem == nil && l.old.trusted(l.now):
			return true, nil
		case mem != nil && !r.o.DryRun:
			l.touched = true
			r.looks = append(r.looks, l)
			return true, nil
		}
	}
	if !known || l.now.list != l.old.list {
		if l.header, err = readHeader(dir); err != nil {
			return false, err
		}
	}
	r.looks = append(r.looks, l)
	return true, nil
}

// readHeader reads only the first line of a uidlist, nil if there is no file.
func readHeader(dir vfs.Dir) (*uidHeader, error) {
	list, err := openUIDList(dir)
	if err != nil {
		return nil, ignoreGone(err)
	}
	defer list.Close()
	u, err := list.read()
	if err != nil {
		return nil, err
	}
	return &u.header, nil
}

// scanAll scans the mailboxes that may have changed. One with new files waits until the others were scanned: a mail that
// moved there keeps its GUID only if it is known by then that it went away elsewhere.
func (r *refresh) scanAll(ctx context.Context) error {
	queue := r.looks
	for len(queue) > 0 {
		l := queue[0]
		queue = queue[1:]
		l.deferred = l.deferred || !slices.ContainsFunc(queue, func(o *look) bool { return o.rec != nil && o.rec.Status.Messages > 0 && !o.deferred })
		again, err := r.scan(ctx, l, false)
		if err != nil {
			return fmt.Errorf("mailbox %q: %w", string(l.name), err)
		}
		if again {
			l.deferred = true
			queue = append(queue, l)
		}
	}
	return r.w.flush()
}

func (r *refresh) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// baseOf returns the base name in a [store.MessageRecord].File.
func baseOf(file string) string {
	if len(file) <= 4 {
		return ""
	}
	base, _, _ := strings.Cut(file[4:], ":")
	return base
}

// moveKey identifies a mail by the unique part of its name, across mailboxes and across the size fields of other programs.
func moveKey(base []byte) uint64 {
	for i, c := range base {
		if c == ',' {
			return hashBase(base[:i])
		}
	}
	return hashBase(base)
}
