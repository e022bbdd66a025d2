package maildir

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir/dovecotlog"
)

// Subscribe implements [store.Store].
func (s *Store) Subscribe(ctx context.Context, name mail.Name, subscribed bool) error {
	name = name.FoldInbox()
	if err := name.Check(); err != nil {
		return fmt.Errorf("subscribe %q: %w: %w", string(name), store.ErrName, err)
	}
	changed := false
	err := editSubscriptions(ctx, s.root, s.o.Layout, s.fileMode(s.root), func(subs *subscriptions) bool {
		changed = subs.set(name, subscribed)
		return changed
	})
	if err = s.wrote(s.root, subscriptionsName, err); err != nil {
		return fmt.Errorf("subscribe %q: %w", string(name), err)
	}
	now := s.now()
	if changed {
		kind := dovecotlog.Unsubscribe
		if subscribed {
			kind = dovecotlog.Subscribe
		}
		s.logName(kind, name, now)
	}
	return s.cat.Update(func(tx store.CatalogTx) error {
		old, err := tx.Value(bucketSubscriptions, string(name))
		if err != nil {
			return err
		}
		if was, _ := decodeSubscription(old); old != nil && was == subscribed {
			return nil
		}
		return s.recordSubscription(tx, name, subscribed, now)
	})
}

// recordSubscription remembers a change of a subscription and when it was.
func (s *Store) recordSubscription(tx store.CatalogTx, name mail.Name, subscribed bool, when int64) error {
	if err := tx.SetValue(bucketSubscriptions, string(name), encodeSubscription(subscribed, when)); err != nil {
		return err
	}
	d := mail.Deletion{Kind: mail.Unsubscribed, ID: s.nameHash(name), Time: when}
	if subscribed {
		return tx.SetValue(bucketDeleted, deletionKey(d), nil)
	}
	return putDeletion(tx, d)
}

// refreshSubscriptions takes notice of what others subscribed. When they did is in Dovecot's log, or else the time of the
// file.
func (s *Store) refreshSubscriptions(w *writer) error {
	sig, mtime, err := s.subscriptionsSignature()
	if err != nil {
		return err
	}
	before := make(map[mail.Name]bool)
	same := false
	err = s.cat.View(func(tx store.CatalogTx) error {
		old, err := tx.Value(bucketMeta, keySubscriptions)
		if same = err == nil && bytes.Equal(old, sig); same || err != nil {
			return err
		}
		for name, value := range tx.Values(bucketSubscriptions) {
			before[mail.Name(name)], _ = decodeSubscription(value)
		}
		return nil
	})
	if err != nil || same {
		return err
	}
	subs, err := loadSubscriptions(s.root, s.o.Layout)
	if err != nil {
		return err
	}
	after := subs.names()
	var changed []mail.Name
	for name := range after {
		if !before[name] {
			changed = append(changed, name)
		}
	}
	for name, was := range before {
		if _, is := after[name]; was && !is {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	times, err := s.subscriptionTimes(changed, mtime)
	if err != nil {
		return err
	}
	return w.add(func(tx store.CatalogTx) error {
		for _, name := range changed {
			_, is := after[name]
			if err := s.recordSubscription(tx, name, is, times[name]); err != nil {
				return err
			}
		}
		return tx.SetValue(bucketMeta, keySubscriptions, sig)
	})
}

// subscriptionsSignature tells whether the file is another one, and its time in seconds. Programs replace the file, so that
// the inode number changes even where the time does not.
func (s *Store) subscriptionsSignature() (sig []byte, mtime int64, err error) {
	info, err := s.root.Stat(subscriptionsName)
	if err != nil && !notExist(err) {
		return nil, 0, err
	}
	if err != nil {
		return []byte{0}, s.now(), nil
	}
	return signatureOf(info).appendTo(nil), info.Mtime.Unix(), nil
}

// subscriptionTimes returns when the subscriptions of the names last changed.
func (s *Store) subscriptionTimes(names []mail.Name, otherwise int64) (map[mail.Name]int64, error) {
	out := make(map[mail.Name]int64, len(names))
	if len(names) == 0 {
		return out, nil
	}
	events, err := s.mailboxEvents()
	if err != nil {
		return nil, err
	}
	byHash := make(map[mail.GUID128]int64)
	for _, e := range events {
		if e.Kind == dovecotlog.Subscribe || e.Kind == dovecotlog.Unsubscribe {
			byHash[e.ID] = e.Time.Unix()
		}
	}
	for _, name := range names {
		out[name] = otherwise
		if t := max(byHash[name.NameHash('/')], byHash[name.NameHash('.')]); t != 0 {
			out[name] = t
		}
	}
	return out, nil
}

// refreshLevels takes notice of directories that are no mailbox. With Maildir++ there are none on disk, so that those in the
// catalog, which we made ourselves, stay. One that holds a mailbox came with that and was not renamed: were it as new as it
// looks, everything in it would pass for renamed just now.
func (s *Store) refreshLevels(levels []mail.Name, boxes []place, partial bool, w *writer) error {
	if s.o.Layout != FS || partial {
		return nil
	}
	known := make(map[mail.Name]bool)
	err := s.cat.View(func(tx store.CatalogTx) error {
		for name := range tx.Values(bucketDirectories) {
			known[mail.Name(name)] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	holding := make(map[mail.Name]bool)
	for _, p := range boxes {
		for n := p.name.Parent(); n != ""; n = n.Parent() {
			holding[n] = true
		}
	}
	for _, l := range levels {
		if known[l] {
			delete(known, l)
			continue
		}
		made := s.now()
		if holding[l] {
			made = 0
		}
		err := w.add(func(tx store.CatalogTx) error { return tx.SetValue(bucketDirectories, string(l), encodeTime(made)) })
		if err != nil {
			return err
		}
	}
	for _, l := range slices.Sorted(maps.Keys(known)) {
		err := w.add(func(tx store.CatalogTx) error { return tx.SetValue(bucketDirectories, string(l), nil) })
		if err != nil {
			return err
		}
	}
	return nil
}
