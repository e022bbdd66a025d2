package maildir

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// mailbox implements [store.Mailbox].
type mailbox struct {
	s   *Store
	rec store.MailboxRecord // as it was when opened
	dir string
	d   dirs // cur, new and tmp are guarded by mu until swept
	ns  dirs // the same directories in the namespace of visible changes

	mu     sync.Mutex // guards what follows
	staged map[store.Staged]stagedMail
	swept  bool   // leftovers in tmp/ were looked for
	mode   uint32 // of new files
	chmod  bool   // they do not get it by themselves

	// old is what messages were at the opening that the store has changed since; nil: they were not there.
	old map[mail.UID]*mail.Message

	scanMu sync.Mutex // guards what follows; held while scanning
	files  *listing   // the last scan that Body had to make
	seen   signature  // how the directories looked then
}

var _ store.Mailbox = (*mailbox)(nil)

// Open implements [store.Store].
func (s *Store) Open(ctx context.Context, guid mail.MailboxGUID) (store.Mailbox, error) {
	return s.open(guid)
}

func (s *Store) open(guid mail.MailboxGUID) (*mailbox, error) {
	rec, err := s.record(guid)
	if err != nil {
		return nil, err
	}
	m := &mailbox{s: s, rec: rec, staged: make(map[store.Staged]stagedMail)}
	if m.dir, err = s.o.Layout.DirOf(rec.Name); err != nil {
		return nil, err
	}
	if m.d, err = openDirs(s.fs, m.dir); err == nil {
		m.ns, err = openDirs(s.ns, m.dir)
	}
	if err != nil {
		if notExist(err) {
			err = fmt.Errorf("%w: %w", store.ErrNotFound, err)
		}
		return nil, errors.Join(fmt.Errorf("open %s: %w", describe(rec.Name), err), m.d.Close(), m.ns.Close())
	}
	if s.opened[guid] == nil {
		s.opened[guid] = make(map[*mailbox]struct{})
	}
	s.opened[guid][m] = struct{}{}
	return m, nil
}

// preserve lets the open mailboxes of a GUID show their messages as they were, before a batch changes or adds some.
func (s *Store) preserve(guid mail.MailboxGUID, before map[mail.UID]store.MessageRecord, inserts []uidLine) {
	for m := range s.opened[guid] {
		keep := func(uid mail.UID, msg *mail.Message) {
			if uid >= m.rec.Status.UIDNext {
				return
			}
			if _, kept := m.old[uid]; kept {
				return
			}
			if m.old == nil {
				m.old = make(map[mail.UID]*mail.Message)
			}
			m.old[uid] = msg
		}
		for uid, r := range before {
			keep(uid, &r.Message)
		}
		for _, l := range inserts {
			keep(l.uid, nil)
		}
	}
}

func (m *mailbox) Name() mail.Name     { return m.rec.Name }
func (m *mailbox) Status() mail.Status { return m.rec.Status }

// Close removes what was staged and not applied.
func (m *mailbox) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	delete(m.s.opened[m.rec.Status.GUID], m)
	if len(m.s.opened[m.rec.Status.GUID]) == 0 {
		delete(m.s.opened, m.rec.Status.GUID)
	}
	for name := range m.staged {
		errs = append(errs, ignoreGone(m.d.tmp.Remove(string(name))))
	}
	clear(m.staged)
	return errors.Join(errors.Join(errs...), m.d.Close(), m.ns.Close())
}

// Messages implements [store.Mailbox].
func (m *mailbox) Messages(after mail.UID) iter.Seq2[mail.Message, error] {
	return func(yield func(mail.Message, error) bool) {
		c := newCursor(m.s.cat, m.rec.Status.GUID, after)
		var old []mail.UID // changed since the opening, above the last UID seen, ascending
		known := 0
		for {
			r, ok, err := c.next()
			if err != nil {
				yield(mail.Message{}, err)
				return
			}
			if known != len(m.old) {
				old, known = m.oldUIDs(after), len(m.old)
			}
			ok = ok && r.UID < m.rec.Status.UIDNext
			for len(old) > 0 && (!ok || old[0] <= r.UID) {
				after = old[0]
				if msg := m.old[after]; msg != nil && !yield(*msg, nil) {
					return
				}
				old = old[1:]
			}
			if !ok {
				return
			}
			if r.UID == after {
				continue // that was it
			}
			after = r.UID
			if !yield(r.Message, nil) {
				return
			}
		}
	}
}

// oldUIDs returns the UIDs above one that are in m.old.
func (m *mailbox) oldUIDs(after mail.UID) []mail.UID {
	var uids []mail.UID
	for uid := range m.old {
		if uid > after {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

// Changes implements [store.Mailbox].
func (m *mailbox) Changes(since mail.ModSeq, skip store.Origin) (iter.Seq2[store.Change, error], bool) {
	return func(yield func(store.Change, error) bool) {
		all, err := m.changes(since, skip)
		if err != nil {
			yield(store.Change{}, err)
			return
		}
		for _, c := range all {
			if !yield(c, nil) {
				return
			}
		}
	}, since >= m.rec.LogStart
}

// changes puts the entries of the log together, by UID.
func (m *mailbox) changes(since mail.ModSeq, skip store.Origin) ([]store.Change, error) {
	byUID := make(map[mail.UID]*store.Change)
	box := m.rec.Status.GUID
	err := m.s.cat.View(func(tx store.CatalogTx) error {
		for e, err := range tx.Log(box, since) {
			if err != nil {
				return err
			}
			if e.ModSeq > m.rec.Status.HighestModSeq {
				break
			}
			if skip != "" && e.Origin == skip || e.Kind == store.LogAppend {
				continue
			}
			c := byUID[e.UID]
			if c == nil {
				c = &store.Change{UID: e.UID}
				byUID[e.UID] = c
			}
			if e.Kind == store.LogExpunge {
				*c = store.Change{UID: e.UID, Expunged: true, GUID128: e.GUID128, ModSeq: e.ModSeq, Origin: e.Origin}
			} else {
				c.Delta = c.Delta.Then(e.Delta)
			}
		}
		for uid, c := range byUID {
			if c.Expunged {
				continue
			}
			r, found, err := tx.Message(box, uid)
			if err != nil {
				return err
			}
			if !found {
				delete(byUID, uid) // its expunge came from skip, or came later
			}
			c.Message = r.Message
		}
		return nil
	})
	out := make([]store.Change, 0, len(byUID))
	for _, c := range byUID {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b store.Change) int { return int(int64(a.UID) - int64(b.UID)) })
	return out, err
}

// body is a file of the Maildir.
type body struct {
	vfs.File
	size int64
	path string // as in MessageRecord.File
}

func (b *body) Size() int64 { return b.size }

// Body implements [store.Mailbox].
func (m *mailbox) Body(ctx context.Context, uid mail.UID) (store.Body, error) {
	var r store.MessageRecord
	err := m.s.cat.View(func(tx store.CatalogTx) (err error) {
		var found bool
		r, found, err = tx.Message(m.rec.Status.GUID, uid)
		if err == nil && !found {
			err = store.ErrNotFound
		}
		return err
	})
	if err == nil {
		var b *body
		if b, err = m.openFile(ctx, r.File); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%s: UID %d: %w", describe(m.rec.Name), uid, err)
}

// openFile opens a mail by the name that it had when it was last seen, or the one that it has now.
func (m *mailbox) openFile(ctx context.Context, file string) (*body, error) {
	for try := 0; ; try++ {
		if dir, name := m.dirOf(file); dir != nil {
			b, err := openBody(dir, name)
			if err == nil {
				b.path = file
			}
			if !notExist(err) {
				return b, err
			}
		}
		found, err := m.locate(ctx, baseOf(file), try > 0)
		if err != nil {
			return nil, err
		}
		if found == "" || try == 5 {
			return nil, fmt.Errorf("%s: %w", file, store.ErrNotFound)
		}
		file = found
	}
}

func (m *mailbox) dirOf(file string) (vfs.Dir, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.d.of(file)
}

func openBody(dir vfs.Dir, name string) (*body, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Type != vfs.Regular {
		err = fmt.Errorf("%s: not a file", joinPath(dir.Path(), name))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &body{File: f, size: info.Size}, nil
}

// locate returns where the mail of a base name is, "" if it is gone. It scans the directories once for as long as they do
// not change, however many mails are looked for.
func (m *mailbox) locate(ctx context.Context, base string, stale bool) (string, error) {
	m.scanMu.Lock()
	defer m.scanMu.Unlock()
	now, err := takeSignature(m.d.box)
	if err != nil {
		return "", err
	}
	if m.files == nil || now.cur != m.seen.cur || now.new != m.seen.new || stale {
		m.mu.Lock()
		d := m.d
		m.mu.Unlock()
		files, err := d.scan(ctx)
		if err != nil {
			return "", err
		}
		m.files, m.seen = files, now
	}
	i := m.files.find([]byte(base))
	if i < 0 {
		return "", nil
	}
	return m.files.file(i), nil
}

// Attributes implements [store.Mailbox].
func (m *mailbox) Attributes(ctx context.Context, since mail.ModSeq) ([]store.Attribute, error) {
	var out []store.Attribute
	err := m.s.cat.View(func(tx store.CatalogTx) error {
		for key, value := range tx.Values(bucketAttributes + m.rec.Status.GUID.String()) {
			a, err := decodeAttribute(key, value)
			if err != nil {
				return err
			}
			if a.ModSeq > since {
				out = append(out, a)
			}
		}
		return nil
	})
	return out, err
}

// SetAttribute implements [store.Mailbox].
func (m *mailbox) SetAttribute(ctx context.Context, a store.Attribute) error {
	box := m.rec.Status.GUID
	return m.s.cat.Update(func(tx store.CatalogTx) error {
		rec, found, err := tx.Mailbox(box)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%s: %w", describe(m.rec.Name), store.ErrNotFound)
		}
		rec.Status.HighestModSeq = max(rec.Status.HighestModSeq+1, a.ModSeq)
		a.ModSeq = rec.Status.HighestModSeq
		if a.Deleted {
			a.Value = ""
		}
		if err := putAttribute(tx, bucketAttributes+box.String(), a); err != nil {
			return err
		}
		return tx.PutMailbox(rec)
	})
}

// Base implements [store.Store].
func (s *Store) Base(ctx context.Context, peer string) (map[mail.MailboxGUID]store.State, error) {
	out := make(map[mail.MailboxGUID]store.State)
	err := s.cat.View(func(tx store.CatalogTx) error {
		for key, value := range tx.Values(bucketBase + peer) {
			guid, err := mail.ParseMailboxGUID(key)
			if err != nil {
				return fmt.Errorf("last common state: %w: %w", store.ErrCorrupt, err)
			}
			if out[guid], err = decodeState(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// SetBase implements [store.Store]. What is the same already is not written.
func (s *Store) SetBase(ctx context.Context, peer string, states map[mail.MailboxGUID]store.State) error {
	old, err := s.Base(ctx, peer)
	if err != nil {
		return err
	}
	changed := make(map[mail.MailboxGUID]store.State)
	for guid, st := range states {
		if old[guid] != st {
			changed[guid] = st
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return s.cat.Update(func(tx store.CatalogTx) error {
		if err := tx.SetValue(bucketPeers, peer, []byte("1")); err != nil {
			return err
		}
		for guid, st := range changed {
			if st == (store.State{}) {
				if err := tx.SetValue(bucketBase+peer, guid.String(), nil); err != nil {
					return err
				}
				continue
			}
			if err := putJSON(tx, bucketBase+peer, guid.String(), st); err != nil {
				return err
			}
		}
		return nil
	})
}
