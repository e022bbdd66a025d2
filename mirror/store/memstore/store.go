package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Store is the store of an [Account].
type Store struct {
	a    *Account
	held map[string]heldMail // expunged in this round, by name
}

type heldMail struct {
	guid mail.GUID
	file *file
}

var _ store.Store = (*Store)(nil)

// Capabilities implements [store.Store].
func (s *Store) Capabilities() store.Capabilities { return s.a.caps }

// Epoch implements [store.Store].
func (s *Store) Epoch() uint64 {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return s.a.epoch()
}

// Tree implements [store.Store].
func (s *Store) Tree(ctx context.Context) ([]mail.Mailbox, []mail.Deletion, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	m := &s.a.memory
	nodes := map[mail.Name]*mail.Mailbox{}
	node := func(name mail.Name) *mail.Mailbox {
		for up := name; up != ""; up = up.Parent() {
			if nodes[up] == nil {
				nodes[up] = &mail.Mailbox{Name: up}
			}
		}
		return nodes[name]
	}
	for _, b := range m.boxes {
		n := node(b.name)
		n.Existence, n.Status, n.Renamed = mail.Exists, b.status, b.renamed
	}
	for name := range m.dirs {
		node(name).Existence = mail.Exists
	}
	deletions := slices.Clone(m.deletions)
	for name, sub := range m.subs {
		if sub.on || nodes[name] != nil {
			n := node(name)
			n.Subscribed, n.SubscriptionChanged = sub.on, sub.changed
		}
		if !sub.on {
			id := name.NameHash(s.a.caps.Separator)
			deletions = append(deletions, mail.Deletion{Kind: mail.Unsubscribed, ID: id, Time: sub.changed})
		}
	}
	slices.SortFunc(deletions, compareDeletions)
	return sortTree(nodes), deletions, nil
}

// sortTree puts parents before children and siblings in byte order.
func sortTree(nodes map[mail.Name]*mail.Mailbox) []mail.Mailbox {
	names := slices.SortedFunc(maps.Keys(nodes), func(x, y mail.Name) int { return slices.Compare(x.Parts(), y.Parts()) })
	out := make([]mail.Mailbox, len(names))
	for i, name := range names {
		out[i] = *nodes[name]
	}
	return out
}

// update runs f on the account unless ctx is done.
func (s *Store) update(ctx context.Context, f func(a *Account) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return f(s.a)
}

// Create implements [store.Store]. A zero GUID or UIDVALIDITY is drawn.
func (s *Store) Create(ctx context.Context, name mail.Name, guid mail.MailboxGUID, validity mail.UIDValidity) error {
	return s.update(ctx, func(a *Account) error {
		if err := a.checkNew("create", name); err != nil {
			return err
		}
		if _, taken := a.disk.find(guid); taken != nil {
			return fmt.Errorf("create %q with GUID %v: %w", name, guid, store.ErrExists)
		}
		d := a.newDiskBox()
		if !guid.IsZero() {
			d.guid = guid
		}
		if validity != 0 {
			d.validity = validity
		}
		a.makeParents(name)
		a.forgetDir(name)
		a.disk.boxes[name] = d
		a.memory.boxes[d.guid] = newBox(name, d)
		a.memory.forgetBases(d.guid)
		a.memory.dropDeletion(mail.DeletedMailbox, mail.GUID128(d.guid))
		return nil
	})
}

// CreateDirectory implements [store.Store].
func (s *Store) CreateDirectory(ctx context.Context, name mail.Name) error {
	return s.update(ctx, func(a *Account) error {
		if err := a.checkNew("create directory", name); err != nil {
			return err
		}
		if a.disk.exists(name) {
			return fmt.Errorf("create directory %q: %w", name, store.ErrExists)
		}
		a.makeParents(name)
		a.makeDir(name)
		return nil
	})
}

func (a *Account) makeParents(name mail.Name) {
	for up := name.Parent(); up != ""; up = up.Parent() {
		if !a.disk.exists(up) {
			a.makeDir(up)
		}
	}
}

func (a *Account) makeDir(name mail.Name) {
	a.disk.dirs[name] = struct{}{}
	a.memory.dirs[name] = struct{}{}
	a.memory.dropDeletion(mail.DeletedDirectory, name.NameHash(a.caps.Separator))
}

func (a *Account) forgetDir(name mail.Name) {
	delete(a.disk.dirs, name)
	delete(a.memory.dirs, name)
}

// Delete implements [store.Store].
func (s *Store) Delete(ctx context.Context, guid mail.MailboxGUID) error {
	return s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[guid]
		name, d := a.disk.find(guid)
		if b == nil || d == nil {
			return fmt.Errorf("delete mailbox %v: %w", guid, store.ErrNotFound)
		}
		now := a.now().Unix()
		for _, m := range b.messages {
			s.hold(m, d.files[m.base])
		}
		if name != mail.Inbox {
			delete(a.disk.boxes, name)
			delete(a.memory.boxes, guid)
			a.memory.addDeletion(mail.DeletedMailbox, mail.GUID128(guid), now)
			return nil
		}
		for _, m := range b.messages {
			delete(d.files, m.base)
			b.record(store.LogEntry{Kind: store.LogExpunge, UID: m.UID, GUID128: m.GUID.Hash128(), Time: now}, 0)
			b.drop(m.UID)
		}
		return nil
	})
}

// DeleteDirectory implements [store.Store]. A directory with something below it stays, with [store.ErrExists].
func (s *Store) DeleteDirectory(ctx context.Context, name mail.Name) error {
	return s.update(ctx, func(a *Account) error {
		if _, ok := a.disk.dirs[name]; !ok {
			return fmt.Errorf("delete directory %q: %w", name, store.ErrNotFound)
		}
		for other := range a.disk.boxes {
			if other.IsBelow(name) {
				return fmt.Errorf("delete directory %q: %q: %w", name, other, store.ErrExists)
			}
		}
		for other := range a.disk.dirs {
			if other.IsBelow(name) {
				return fmt.Errorf("delete directory %q: %q: %w", name, other, store.ErrExists)
			}
		}
		a.forgetDir(name)
		a.memory.addDeletion(mail.DeletedDirectory, name.NameHash(a.caps.Separator), a.now().Unix())
		return nil
	})
}

// Rename implements [store.Store].
func (s *Store) Rename(ctx context.Context, from, to mail.Name, at int64) error {
	return s.update(ctx, func(a *Account) error {
		if err := a.renameOnDisk(from, to, cmp.Or(at, a.now().Unix())); err != nil {
			return err
		}
		a.makeParents(to)
		for name, d := range a.disk.boxes {
			if b := a.memory.boxes[d.guid]; b != nil && (name == to || name.IsBelow(to)) {
				b.name, b.renamed = name, d.renamed
			}
		}
		a.memory.dirs = maps.Clone(a.disk.dirs)
		return nil
	})
}

// Subscribe implements [store.Store].
func (s *Store) Subscribe(ctx context.Context, name mail.Name, subscribed bool) error {
	return s.update(ctx, func(a *Account) error {
		if err := name.Check(); err != nil {
			return fmt.Errorf("subscribe: %w: %w", store.ErrName, err)
		}
		a.disk.subscribe(name, subscribed, a.now().Unix())
		if sub, ok := a.disk.subs[name]; ok {
			a.memory.subs[name] = sub
		}
		return nil
	})
}

// SetGUID implements [store.Store].
func (s *Store) SetGUID(ctx context.Context, from, to mail.MailboxGUID) error {
	return s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[from]
		_, d := a.disk.find(from)
		if b == nil || d == nil {
			return fmt.Errorf("set GUID of mailbox %v: %w", from, store.ErrNotFound)
		}
		if from == to {
			return nil
		}
		if _, taken := a.disk.find(to); taken != nil || to.IsZero() {
			return fmt.Errorf("set GUID of mailbox %v to %v: %w", from, to, store.ErrExists)
		}
		d.guid, b.status.GUID = to, to
		delete(a.memory.boxes, from)
		a.memory.boxes[to] = b
		a.memory.dropDeletion(mail.DeletedMailbox, mail.GUID128(to))
		a.memory.forgetBases(to)
		return nil
	})
}

// Reserve implements [store.Store].
func (s *Store) Reserve(ctx context.Context, guid mail.MailboxGUID, next mail.UID) error {
	return s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[guid]
		if b == nil {
			return fmt.Errorf("reserve UIDs of mailbox %v: %w", guid, store.ErrNotFound)
		}
		b.reserved = next
		return nil
	})
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, want map[mail.GUID]struct{}, fits func(store.Location) bool) (map[mail.GUID]store.Location, error) {
	found := map[mail.GUID]store.Location{}
	err := s.update(ctx, func(a *Account) error {
		for _, name := range slices.Sorted(maps.Keys(s.held)) {
			at := store.Location{Held: name}
			if _, wanted := want[s.held[name].guid]; wanted && (fits == nil || fits(at)) {
				found[s.held[name].guid] = at
			}
		}
		for _, b := range a.memory.sorted() { // what is in a mailbox is better than what is held
			_, d := a.disk.find(b.status.GUID)
			for _, m := range b.messages {
				at := store.Location{Mailbox: b.status.GUID, UID: m.UID}
				if _, wanted := want[m.GUID]; wanted && d != nil && d.files[m.base] != nil && (fits == nil || fits(at)) {
					found[m.GUID] = at
				}
			}
		}
		return nil
	})
	return found, err
}

func (s *Store) hold(m *message, f *file) {
	if f != nil {
		s.held[fmt.Sprintf("held-%06d", len(s.held))] = heldMail{m.GUID, f}
	}
}

// EndRound implements [store.Store].
func (s *Store) EndRound(ctx context.Context) error {
	return s.update(ctx, func(*Account) error {
		clear(s.held)
		return nil
	})
}

// Base implements [store.Store].
func (s *Store) Base(ctx context.Context, peer string) (map[mail.MailboxGUID]store.State, error) {
	states := map[mail.MailboxGUID]store.State{}
	err := s.update(ctx, func(a *Account) error {
		maps.Copy(states, a.memory.bases[peer])
		return nil
	})
	return states, err
}

// SetBase implements [store.Store].
func (s *Store) SetBase(ctx context.Context, peer string, states map[mail.MailboxGUID]store.State) error {
	return s.update(ctx, func(a *Account) error {
		known := a.memory.bases[peer]
		if known == nil {
			known = map[mail.MailboxGUID]store.State{}
			a.memory.bases[peer] = known
		}
		for guid, state := range states {
			known[guid] = state
			if state == (store.State{}) {
				delete(known, guid)
			}
		}
		return nil
	})
}

// Open implements [store.Store].
func (s *Store) Open(ctx context.Context, guid mail.MailboxGUID) (store.Mailbox, error) {
	var m *mailbox
	err := s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[guid]
		if b == nil {
			return fmt.Errorf("open mailbox %v: %w", guid, store.ErrNotFound)
		}
		m = &mailbox{
			s: s, guid: guid, name: b.name, status: b.status,
			messages: b.messages, log: slices.Clip(b.log), logStart: b.logStart,
			staged: map[store.Staged][]byte{},
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	clear(s.held)
	return nil
}
