package endpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// shelf implements [brain.Shelf] for a Maildir. It holds neither the store nor the index between two calls: a round that fills
// the other side may have them for hours.
type shelf struct {
	l     *Local
	epoch uint64
	boxes []mail.Mailbox

	mu     sync.Mutex      // guards what follows
	root   vfs.FS          // nil: not opened yet, or it is the pinned one
	reader *maildir.Reader // of the mailbox that was asked about last
	of     mail.Name
}

// errVanished keeps the look of a preview from believing that anything was deleted: rounds decide that.
var errVanished = errors.New("mail is missing; a round has to find out what became of it")

// shelfPatience leaves what vanished undecided.
const shelfPatience = 24 * time.Hour

// Shelf opens the store for a preview. With look it takes notice first of what others did to it.
func (l *Local) Shelf(ctx context.Context, look bool) (brain.Shelf, error) {
	s := &shelf{l: l}
	if look {
		if err := s.look(ctx); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *shelf) look(ctx context.Context) (err error) {
	st, err := s.l.Store(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	refuse := func([]store.Loss) error { return errVanished }
	if _, err := st.Refresh(ctx, store.RefreshOptions{Guard: refuse, Patience: shelfPatience}); err != nil {
		return err
	}
	s.epoch = st.Epoch()
	s.boxes, _, err = st.Tree(ctx)
	return err
}

func (s *shelf) Epoch() uint64             { return s.epoch }
func (s *shelf) Mailboxes() []mail.Mailbox { return s.boxes }

// Mails implements [brain.Shelf]. What is yielded was read before: who listens slowly keeps nobody from the index. Left out are
// messages whose file has another base name than their GUID; without the index they could not be found.
func (s *shelf) Mails(ctx context.Context, box mail.Mailbox, yield func(mail.Message) error) error {
	known := make([]mail.Message, 0, min(box.Status.Messages, 1<<20))
	err := s.l.View(ctx, func(tx store.CatalogTx) error {
		_, _, err := maildir.Known(tx, box.Name, "", func(m mail.Message, base string) {
			if string(m.GUID) == base && m.Size >= 0 {
				known = append(known, m)
			}
		})
		return err
	})
	for i := 0; err == nil && i < len(known); i++ {
		err = yield(known[i])
	}
	return err
}

// Body implements [brain.Shelf].
func (s *shelf) Body(ctx context.Context, box mail.Name, guid mail.GUID) (store.Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil || s.of != box {
		if err := s.turnTo(box); err != nil {
			return nil, err
		}
	}
	return s.reader.Body(ctx, string(guid))
}

// turnTo opens another mailbox. The caller holds mu.
func (s *shelf) turnTo(box mail.Name) error {
	if err := box.Check(); err != nil {
		return fmt.Errorf("mailbox %q: %w: %w", string(box), store.ErrNotFound, err)
	}
	root := s.l.pinned
	if root == nil && s.root == nil {
		var err error
		if s.root, err = vfs.Open(s.l.Path); err != nil {
			return fmt.Errorf("maildir:%s: %w", s.l.Path, err)
		}
	}
	if root == nil {
		root = s.root
	}
	if err := s.putBack(); err != nil {
		return err
	}
	r, err := maildir.NewReader(root, s.l.Layout, box)
	if err == nil {
		s.reader, s.of = r, box
	}
	return err
}

func (s *shelf) putBack() error {
	if s.reader == nil {
		return nil
	}
	err := s.reader.Close()
	s.reader = nil
	return err
}

func (s *shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.putBack()
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
		s.root = nil
	}
	return err
}
