package memstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// mailbox is a mailbox as it was when it was opened.
type mailbox struct {
	s        *Store
	guid     mail.MailboxGUID
	name     mail.Name
	status   mail.Status
	messages []*message
	log      []store.LogEntry
	logStart mail.ModSeq
	staged   map[store.Staged][]byte
	drawn    int // how many names of staged mails
}

var _ store.Mailbox = (*mailbox)(nil)

// Name implements [store.Mailbox].
func (m *mailbox) Name() mail.Name { return m.name }

// Status implements [store.Mailbox].
func (m *mailbox) Status() mail.Status { return m.status }

// Messages implements [store.Mailbox].
func (m *mailbox) Messages(after mail.UID) iter.Seq2[mail.Message, error] {
	return func(yield func(mail.Message, error) bool) {
		for _, msg := range m.messages {
			if msg.UID > after && !yield(msg.Message, nil) {
				return
			}
		}
	}
}

// Changes implements [store.Mailbox].
func (m *mailbox) Changes(since mail.ModSeq, skip store.Origin) (iter.Seq2[store.Change, error], bool) {
	return func(yield func(store.Change, error) bool) {
		for _, c := range m.gather(since, skip) {
			if !yield(c, nil) {
				return
			}
		}
	}, since >= m.logStart
}

// gather puts the log's entries together, message by message.
func (m *mailbox) gather(since mail.ModSeq, skip store.Origin) []store.Change {
	changes := map[mail.UID]store.Change{}
	for _, e := range m.log {
		if e.ModSeq <= since || e.Kind == store.LogAppend || skip != "" && e.Origin == skip {
			continue
		}
		c := changes[e.UID]
		c.UID = e.UID
		c.Delta = c.Delta.Then(e.Delta)
		if e.Kind == store.LogExpunge {
			c = store.Change{UID: e.UID, Expunged: true, GUID128: e.GUID128, ModSeq: e.ModSeq, Origin: e.Origin}
		}
		changes[e.UID] = c
	}
	there := map[mail.UID]*message{}
	for _, msg := range m.messages {
		there[msg.UID] = msg
	}
	for uid, c := range changes {
		switch msg := there[uid]; {
		case msg != nil:
			c.Message, c.Expunged, c.GUID128, c.Origin = msg.Message, false, mail.GUID128{}, ""
			changes[uid] = c
		case !c.Expunged: // expunged by skip
			delete(changes, uid)
		}
	}
	return slices.SortedFunc(maps.Values(changes), func(x, y store.Change) int { return cmp.Compare(x.UID, y.UID) })
}

// Body implements [store.Mailbox].
func (m *mailbox) Body(ctx context.Context, uid mail.UID) (store.Body, error) {
	var b store.Body
	err := m.s.update(ctx, func(a *Account) error {
		_, f := a.file(m.guid, uid)
		if f == nil {
			return fmt.Errorf("read message %d of %q: %w", uid, m.name, store.ErrNotFound)
		}
		b = body{bytes.NewReader(f.body), int64(len(f.body))}
		return nil
	})
	return b, err
}

// file returns the bytes of a message, nil if it is gone.
func (a *Account) file(guid mail.MailboxGUID, uid mail.UID) (*message, *file) {
	_, d := a.disk.find(guid)
	b := a.memory.boxes[guid]
	if b == nil || d == nil {
		return nil, nil
	}
	msg := b.message(uid)
	if msg == nil {
		return nil, nil
	}
	return msg, d.files[msg.base]
}

type body struct {
	*bytes.Reader
	size int64
}

func (b body) Size() int64  { return b.size }
func (b body) Close() error { return nil }

// Stage implements [store.Mailbox].
func (m *mailbox) Stage(ctx context.Context, _ mail.Message, r io.Reader) (store.Staged, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return "", fmt.Errorf("stage a mail for %q: %w", m.name, err)
	}
	var staged store.Staged
	err = m.s.update(ctx, func(a *Account) error {
		if a.full {
			return fmt.Errorf("stage a mail for %q: %w", m.name, store.ErrNoSpace)
		}
		m.drawn++
		staged = store.Staged(fmt.Sprintf("staged-%06d", m.drawn))
		m.staged[staged] = content
		return nil
	})
	return staged, err
}

// Attributes implements [store.Mailbox]: private ones first, each kind by ascending key.
func (m *mailbox) Attributes(ctx context.Context, since mail.ModSeq) ([]store.Attribute, error) {
	var out []store.Attribute
	err := m.s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[m.guid]
		if b == nil {
			return fmt.Errorf("read attributes of %q: %w", m.name, store.ErrNotFound)
		}
		for _, attr := range b.attrs {
			if attr.ModSeq > since {
				out = append(out, attr)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(x, y store.Attribute) int {
		if x.Shared != y.Shared {
			return map[bool]int{false: -1, true: 1}[x.Shared]
		}
		return cmp.Compare(x.Key, y.Key)
	})
	return out, err
}

// SetAttribute implements [store.Mailbox].
func (m *mailbox) SetAttribute(ctx context.Context, attr store.Attribute) error {
	return m.s.update(ctx, func(a *Account) error {
		b := a.memory.boxes[m.guid]
		if b == nil {
			return fmt.Errorf("set attribute %q of %q: %w", attr.Key, m.name, store.ErrNotFound)
		}
		if attr.Deleted {
			attr.Value = ""
		}
		attr.ModSeq = b.tick(attr.ModSeq)
		b.attrs[attrKey{attr.Shared, attr.Key}] = attr
		return nil
	})
}

// Close implements [store.Mailbox].
func (m *mailbox) Close() error {
	m.s.a.mu.Lock()
	defer m.s.a.mu.Unlock()
	clear(m.staged)
	return nil
}
