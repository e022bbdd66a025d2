package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/tree"
)

const (
	// lookTime bounds how long the first round waits for a list of what the remote has.
	lookTime = 60 * time.Second
	// readyTime is how long the mount command waits for that list. Who lists a directory waits for what is in it, see filling.
	readyTime = 500 * time.Millisecond
	// lookPatience leaves to rounds what vanished from the backing directory.
	lookPatience = 24 * time.Hour
)

// fillName is the file that says that the first fill has begun and not ended, and of which Maildir from where.
const fillName = "filling"

// fill is the first fill of a Maildir from a dsyncfs. It makes the mailboxes that the remote has and lets the mount promise their
// mails, before the first round brings them; see fusefs/promise.go. Nothing of it is there any more once a round has succeeded.
type fill struct {
	m       *mounted
	fetcher *fetcher
	intents *intents
	filling *filling
	names   nameTable
	again   bool          // an earlier mount began it
	looked  chan struct{} // closed when everything is promised that will be
	stock   atomic.Bool   // the remote is a Dovecot

	mu    sync.Mutex
	total int // mails promised, ever
}

// newFill returns nil if there is nothing to be filled: mail is here, or the mirror takes only a part of what the remote has.
func newFill(ctx context.Context, m *mounted, dir string) (*fill, error) {
	marker, whose := filepath.Join(dir, fillName), m.o.Local.Canonical()+"\n"+m.o.Remote+"\n"
	began, err := os.ReadFile(marker)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if m.o.View == nil || !takesAll(m.o.Request) {
		return nil, nil
	}
	again := string(began) == whose
	if !again {
		if empty, err := m.isEmpty(ctx); err != nil || !empty {
			return nil, err
		}
		err := os.Remove(filepath.Join(dir, intentsName)) // about another pair
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.WriteFile(marker, []byte(whose), 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("state directory: %w", err)
		}
	}
	intents, err := openIntents(dir)
	if err != nil {
		return nil, err
	}
	return &fill{
		m: m, again: again, looked: make(chan struct{}), fetcher: newFetcher(m.o, dir, m.isOffline), intents: intents,
		filling: newFilling(m.o.Local.Layout),
	}, nil
}

// takesAll reports whether a mirror has no direction and leaves nothing out.
func takesAll(r brain.Request) bool {
	return r.Box == "" && r.BoxGUID == "" && r.Boxes == nil && len(r.Exclude) == 0 && r.Since == 0 && r.Until == 0 && r.MaxSize == 0 &&
		r.Flag == "" && !r.BackupSend && !r.BackupReceive && !r.NoMailSync
}

// isEmpty reports whether no mail of the Maildir is known.
func (m *mounted) isEmpty(ctx context.Context) (bool, error) {
	empty := true
	err := m.o.Local.View(ctx, func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			empty = empty && rec.Status.Messages == 0
		}
		return nil
	})
	return empty, err
}

// run promises what the remote has, and ends when everything is here or ctx ends.
func (f *fill) run(ctx context.Context) {
	defer f.fetcher.close()
	f.look(ctx)
	end := f.intents.close // the next mount goes on
	if f.m.engine.Barrier(ctx) == nil {
		f.filling.over.Store(true)
		if f.m.fuse.EndPromises() == 0 {
			end = f.intents.remove
		}
	}
	if err := end(); err != nil {
		f.m.o.Logger.Warn("end of the first fill", "err", err)
	}
}

// look asks the remote what it has. That it cannot be told is no error: then mails appear when they come.
func (f *fill) look(ctx context.Context) {
	defer close(f.looked)
	defer f.filling.noMore()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	start := time.Now()
	if f.again {
		if err := f.renew(ctx); err != nil {
			f.m.o.Logger.Warn("changes of mails that had not come yet wait for the next mount", "err", err)
		}
	}
	var shown map[mail.MailboxGUID]place
	err := f.fetcher.look(ctx,
		func(peer string, nodes []*item.Node) (err error) {
			if shown, err = f.prepare(ctx, peer, nodes); err == nil {
				f.filling.expect(shown)
			}
			return err
		},
		func(box mail.Status, mails []mail.Message) error {
			at, ok := shown[box.GUID]
			if !ok {
				return nil
			}
			defer f.filling.listed(at.dir)
			return f.promise(at, mails)
		},
		func(v *brain.Viewer) error { return f.newest(ctx, v) })
	switch {
	case errors.Is(err, errNoPreview):
		f.m.o.Logger.Debug("mails appear when they come", "reason", err)
	case err != nil && ctx.Err() == nil:
		f.m.o.Logger.Warn("not everything that the remote has can be shown before it is here", "err", err)
	}
	f.m.o.Logger.Info("first fill", "mails", f.count(), "dur", time.Since(start).Round(time.Millisecond))
}

// place is a mailbox that is shown before its mails are here.
type place struct {
	name  mail.Name // here
	there mail.Name // at the remote, which may not have heard of a rename yet
	key   boxKey
	dir   string // below the root
	some  bool   // the remote has mails there
	here  map[mail.GUID]struct{}
	gone  map[mail.GUID128]struct{} // expunged here
}

// boxKey names a mailbox whatever programs call it: by its GUID, but for the INBOX, which may take over another one.
type boxKey string

func keyOf(name mail.Name, guid mail.MailboxGUID) boxKey {
	if name == mail.Inbox {
		return boxKey(mail.Inbox)
	}
	return boxKey(guid.String())
}

// withStore looks at the Maildir and hands it to do.
func (f *fill) withStore(ctx context.Context, do func(store.Store) error) (err error) {
	s, err := f.m.o.Local.Store(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	refuse := func([]store.Loss) error { return errLoss }
	if _, err := s.Refresh(ctx, store.RefreshOptions{Guard: refuse, Patience: lookPatience}); err != nil {
		return err
	}
	return errors.Join(do(s), s.EndRound(ctx))
}

// prepare makes the mailboxes that are not here yet, as the first round would, and returns those whose mails may be promised: they
// have no common state with the remote and, unless an earlier mount began this fill, no mail.
func (f *fill) prepare(ctx context.Context, peer string, nodes []*item.Node) (shown map[mail.MailboxGUID]place, err error) {
	err = f.withStore(ctx, func(s store.Store) error {
		shown, err = f.prepareIn(ctx, s, peer, nodes)
		return err
	})
	return shown, err
}

func (f *fill) prepareIn(ctx context.Context, s store.Store, peer string, nodes []*item.Node) (map[mail.MailboxGUID]place, error) {
	bases, err := s.Base(ctx, peer)
	if err != nil {
		return nil, err
	}
	boxes, deletions, err := s.Tree(ctx)
	if err != nil {
		return nil, err
	}
	byName, byGUID := make(map[mail.Name]mail.Mailbox), make(map[mail.MailboxGUID]mail.Mailbox)
	for _, box := range boxes {
		byName[box.Name], byGUID[box.Status.GUID] = box, box
	}
	deleted := make(map[mail.GUID128]bool)
	for _, d := range deletions {
		deleted[d.ID] = true
	}
	shown := make(map[mail.MailboxGUID]place)
	for _, node := range f.sameNames(s, nodes) {
		if _, common := bases[node.guid]; common || deleted[mail.GUID128(node.guid)] {
			continue
		}
		box, there := byGUID[node.guid] // a program may have renamed it
		if !there {
			box, there = byName[node.name]
		}
		if !there {
			err := s.Create(ctx, node.name, node.guid, node.validity)
			if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrName) {
				continue // the round finds out what is to be done
			}
			if err != nil {
				return nil, err
			}
			box = mail.Mailbox{Name: node.name, Status: mail.Status{GUID: node.guid}}
		}
		status := box.Status
		if status.GUID.IsZero() || status.Messages > 0 && !f.again {
			continue
		}
		at := place{name: box.Name, there: node.name, key: keyOf(box.Name, status.GUID), some: node.messages > 0}
		if at.dir, err = f.m.o.Local.Layout.DirOf(at.name); err != nil {
			return nil, err
		}
		if status.Messages > 0 || f.again {
			if at.here, at.gone, err = knownIn(ctx, s, status.GUID); err != nil {
				return nil, err
			}
		}
		f.names.know(at.key, names{at.name, at.there})
		shown[node.guid] = at
	}
	return shown, nil
}

// remoteBox is a mailbox of the remote whose name can be the same here.
type remoteBox struct {
	name     mail.Name
	guid     mail.MailboxGUID
	validity mail.UIDValidity
	messages uint32
}

func (f *fill) sameNames(s store.Store, nodes []*item.Node) []remoteBox {
	caps := s.Capabilities()
	mapper := tree.Mapper{Separator: caps.Separator, AltChar: f.m.o.Request.AltChar, PartMax: caps.NamePartMax}
	parts := make([][]string, len(nodes))
	for i, n := range nodes {
		parts[i] = n.Parts
	}
	var out []remoteBox
	for i, name := range mapper.MapAll(parts) {
		n := nodes[i]
		if n.Existence == mail.Exists && !n.GUID.IsZero() && n.UIDValidity != 0 && mail.JoinName(n.Parts...) == name && name.Check() == nil {
			out = append(out, remoteBox{name, n.GUID, n.UIDValidity, n.Messages})
		}
	}
	return out
}

// knownIn returns what is in a mailbox, and what was expunged from it.
func knownIn(ctx context.Context, s store.Store, guid mail.MailboxGUID) (here map[mail.GUID]struct{}, gone map[mail.GUID128]struct{}, err error) {
	mb, err := s.Open(ctx, guid)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, mb.Close()) }()
	here, gone = make(map[mail.GUID]struct{}), make(map[mail.GUID128]struct{})
	for m, err := range mb.Messages(0) {
		if err != nil {
			return nil, nil, err
		}
		here[m.GUID] = struct{}{}
	}
	changes, _ := mb.Changes(0, "")
	for c, err := range changes {
		if err != nil {
			return nil, nil, err
		}
		if c.Expunged {
			gone[c.GUID128] = struct{}{}
		}
	}
	return here, gone, nil
}

// promise lets the mount show the mails of a mailbox.
func (f *fill) promise(at place, mails []mail.Message) error {
	list := make([]fusefs.Promised, 0, len(mails))
	for _, m := range mails {
		sub, name, ok := maildir.FileOf(m)
		if _, here := at.here[m.GUID]; here || !ok {
			continue
		}
		if _, gone := at.gone[m.GUID.Hash128()]; gone && at.gone != nil {
			continue
		}
		list = append(list, fusefs.Promised{Cur: sub == "cur", Name: name, Size: m.Size, Mtime: m.Received})
	}
	n, err := f.m.fuse.Promise(at.dir, f.source(at.key), list, f.intents.of(at.key))
	f.mu.Lock()
	f.total += n
	f.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a program has removed the mailbox
	}
	return err
}

func (f *fill) source(key boxKey) fusefs.Source { return &source{f, key} }

// renew has the mount remember what programs wanted of mails that had not come when the mount before ended. The mailboxes may have
// other names by now.
func (f *fill) renew(ctx context.Context) error {
	return f.withStore(ctx, func(s store.Store) error {
		boxes, _, err := s.Tree(ctx)
		if err != nil {
			return err
		}
		here := make(map[boxKey]mail.Name)
		for _, box := range boxes {
			here[keyOf(box.Name, box.Status.GUID)] = box.Name
		}
		var errs []error
		for _, key := range f.intents.mailboxes() {
			name, there := here[key]
			if !there {
				continue // a program has removed it
			}
			f.names.know(key, names{name, name})
			dir, err := f.m.o.Local.Layout.DirOf(name)
			if err == nil {
				_, err = f.m.fuse.Promise(dir, f.source(key), nil, f.intents.of(key))
			}
			errs = append(errs, err)
		}
		return errors.Join(append(errs, context.Cause(ctx))...)
	})
}

// names are those of the mailboxes in which mails are shown.
type names struct{ here, there mail.Name }

type nameTable struct {
	mu    sync.Mutex
	names map[boxKey]names
}

func (t *nameTable) know(key boxKey, n names) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = make(map[boxKey]names)
	}
	t.names[key] = n
}

func (t *nameTable) of(key boxKey) names {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[key]
}

// source implements [fusefs.Source] for a mailbox.
type source struct {
	f   *fill
	key boxKey
}

// Fetch implements [fusefs.Source]. The remote may have taken over a name that the mailbox got here.
func (s *source) Fetch(ctx context.Context, base string, size int64, next func(int) []fusefs.Following) (*os.File, error) {
	n := s.f.names.of(s.key)
	file, err := s.f.fetcher.fetch(ctx, wanted{n.there, mail.GUID(base), size}, next)
	if errors.Is(err, errGone) && n.here != n.there {
		return s.f.fetcher.fetch(ctx, wanted{n.here, mail.GUID(base), size}, next)
	}
	return file, err
}

func (s *source) Intend(i fusefs.Intent) error { return s.f.intents.add(s.key, i) }
func (s *source) Settled(base string)          { s.f.intents.settled(s.key, base, s.f.m.o.Logger) }

// awaitLook waits until everything is promised that will be, for as long as that is worth it. f may be nil.
func (f *fill) awaitLook(ctx context.Context, limit time.Duration) {
	if f == nil {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-f.looked:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *fill) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// Fill is how far the first fill is.
type Fill struct {
	Mails  int `json:"mails"`   // that the remote had at its begin
	ToCome int `json:"to_come"` // of these
}

// status is nil when everything is here. f may be nil.
func (f *fill) status() *Fill {
	if f == nil || f.stock.Load() {
		return nil // or a Dovecot's, of which nobody knows how many there are
	}
	if left := f.m.fuse.Promised(); left > 0 {
		return &Fill{Mails: f.count(), ToCome: left}
	}
	return nil
}
