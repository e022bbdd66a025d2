package brain

import (
	"context"
	"fmt"
	"io"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/store"
)

// maxAttribute bounds the value of an attribute that we take from a peer, in bytes.
const maxAttribute = 16 << 20

// receiveAttribute stores what the other side says of an attribute if it wins over what is here (protocol of dovecot 2.3
// dsync-mailbox-import.c: dsync_mailbox_import_attribute).
func (x *exchange) receiveAttribute(ctx context.Context, it *item.Attribute) error {
	a := store.Attribute{Shared: it.Shared, Key: it.Key, Value: it.Value, Deleted: it.Deleted, LastChange: it.LastChange, ModSeq: it.ModSeq}
	if it.Stream != nil {
		b, err := io.ReadAll(io.LimitReader(it.Stream, maxAttribute+1))
		if err != nil {
			return fmt.Errorf("attribute %s: %w", it.Key, err)
		}
		if len(b) > maxAttribute {
			return fmt.Errorf("attribute %s: %w: more than %d bytes", it.Key, ErrProtocol, maxAttribute)
		}
		a.Value = string(b)
	}
	if x.localAttributes == nil {
		if err := x.loadAttributes(ctx); err != nil {
			return err
		}
	}
	own, known := x.localAttributes[attributeKey{a.Shared, a.Key}]
	if x.r.h.DryRun || !x.takes(own, known, a) {
		return nil
	}
	x.r.out.Changed = true
	if err := x.mb.SetAttribute(ctx, a); err != nil {
		x.r.out.Notes = append(x.r.out.Notes, fmt.Sprintf("attribute %s of %s: %v", a.Key, x.mb.Name(), err))
	}
	return nil
}

type attributeKey struct {
	shared bool
	key    string
}

func (x *exchange) loadAttributes(ctx context.Context) error {
	attrs, err := x.mb.Attributes(ctx, 0)
	if err != nil {
		return err
	}
	x.localAttributes = make(map[attributeKey]store.Attribute, len(attrs))
	for _, a := range attrs {
		x.localAttributes[attributeKey{a.Shared, a.Key}] = a
	}
	return nil
}

// takes decides between the own and the other side's attribute.
func (x *exchange) takes(own store.Attribute, known bool, a store.Attribute) bool {
	switch {
	case !known:
		return !a.Deleted
	case own.Deleted == a.Deleted && own.Value == a.Value:
		return false
	case x.hasBase && own.ModSeq <= x.base.Local.HighestModSeq:
		return true // changed there only
	case own.LastChange != a.LastChange:
		return a.LastChange > own.LastChange
	case own.ModSeq != a.ModSeq:
		return a.ModSeq > own.ModSeq
	case own.Deleted != a.Deleted:
		return own.Deleted
	}
	return a.Value > own.Value
}
