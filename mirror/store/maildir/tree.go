package maildir

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Tree implements [store.Store].
func (s *Store) Tree(ctx context.Context) ([]mail.Mailbox, []mail.Deletion, error) {
	nodes := make(map[mail.Name]mail.Mailbox)
	var deletions []mail.Deletion
	err := s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			nodes[rec.Name] = mail.Mailbox{Name: rec.Name, Existence: mail.Exists, Status: rec.Status, Renamed: rec.Renamed}
		}
		for name, value := range tx.Values(bucketDirectories) {
			if _, there := nodes[mail.Name(name)]; !there {
				nodes[mail.Name(name)] = mail.Mailbox{Name: mail.Name(name), Existence: mail.Exists, Renamed: decodeTime(value)}
			}
		}
		for name, value := range tx.Values(bucketSubscriptions) {
			n, ok := nodes[mail.Name(name)]
			n.Subscribed, n.SubscriptionChanged = decodeSubscription(value)
			if !ok && !n.Subscribed {
				continue
			}
			n.Name = mail.Name(name)
			nodes[n.Name] = n
		}
		for key, value := range tx.Values(bucketDeleted) {
			d, err := parseDeletion(key, value)
			if err != nil {
				return err
			}
			deletions = append(deletions, d)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for name := range maps.Clone(nodes) {
		for p := name.Parent(); p != ""; p = p.Parent() {
			if _, there := nodes[p]; !there {
				nodes[p] = mail.Mailbox{Name: p}
			}
		}
	}
	return sortedTree(nodes), deletions, nil
}

// sortedTree lists parents before children and siblings in byte order.
func sortedTree(nodes map[mail.Name]mail.Mailbox) []mail.Mailbox {
	out := slices.Collect(maps.Values(nodes))
	slices.SortFunc(out, func(a, b mail.Mailbox) int {
		return slices.Compare(a.Name.Parts(), b.Name.Parts())
	})
	return out
}

// record returns what the catalog knows of a mailbox; the error is store.ErrNotFound if it is nothing.
func (s *Store) record(guid mail.MailboxGUID) (rec store.MailboxRecord, err error) {
	err = s.cat.View(func(tx store.CatalogTx) error {
		var found bool
		rec, found, err = tx.Mailbox(guid)
		if err == nil && !found {
			err = fmt.Errorf("mailbox %s: %w", guid, store.ErrNotFound)
		}
		return err
	})
	return rec, err
}

// records returns all mailboxes by name.
func (s *Store) records() (map[mail.Name]store.MailboxRecord, error) {
	out := make(map[mail.Name]store.MailboxRecord)
	err := s.cat.View(func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			out[rec.Name] = rec
		}
		return nil
	})
	return out, err
}

func decodeSubscription(value []byte) (subscribed bool, changed int64) {
	if len(value) != 9 {
		return false, 0
	}
	return value[0] == '1', int64(binary.BigEndian.Uint64(value[1:]))
}

func encodeSubscription(subscribed bool, changed int64) []byte {
	flag := byte('0')
	if subscribed {
		flag = '1'
	}
	return binary.BigEndian.AppendUint64([]byte{flag}, uint64(changed))
}
