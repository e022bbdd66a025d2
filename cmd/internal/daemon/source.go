package daemon

import (
	"context"
	"errors"
	"os"
	"sync"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/mail"
)

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

func (f *fill) source(key boxKey) fusefs.Source { return &source{f, key} }

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
