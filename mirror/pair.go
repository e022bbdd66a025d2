package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/store"
)

// maxRounds is how often a one-shot sync starts over when something changed meanwhile.
const maxRounds = 3

// Pair is two locations that are to be kept in sync.
type Pair struct {
	// Open opens the local store. It is called once per round and the store is closed after it, so that others can use it in
	// between.
	Open func(context.Context) (store.Store, error)
	// Dial reaches the other side and returns a Peer on which a slave answers.
	Dial func(context.Context) (brain.Peer, error)
	// Options of the local brain. Live is set by the Engine.
	Options brain.Options
	Logger  *slog.Logger
}

// Sync carries out up to three rounds until both sides are in sync. The Outcome adds up what they did; its Desync is that of
// the last one.
func (p Pair) Sync(ctx context.Context, req brain.Request) (brain.Outcome, error) {
	var total brain.Outcome
	for n := range maxRounds {
		out, err := p.round(ctx, req)
		total.Add(out)
		total.Desync, total.Undecided = out.Desync, out.Undecided
		if errors.Is(err, brain.ErrGaveUp) && req.BackupReceive && !req.NoBackupOverwrite && n < maxRounds-1 {
			p.Logger.Info("the destination deleted a mailbox, to make it anew", "round", n+1)
			continue
		}
		if err != nil || !out.Desync {
			return total, err
		}
		req.Restore = nil // they are back
		p.Logger.Info("something changed meanwhile", "round", n+1, "notes", out.Notes)
		if req.Type == item.SyncChanged {
			req.Type = item.SyncFull
		}
	}
	return total, nil
}

func (p Pair) round(ctx context.Context, req brain.Request) (out brain.Outcome, err error) {
	// The other side is reached first: a store that is open is a store that others wait for.
	peer, err := p.Dial(ctx)
	if err != nil {
		return out, err
	}
	m := brain.NewMaster(peer, p.Options)
	defer func() { err = errors.Join(err, m.Close()) }()
	stop := context.AfterFunc(ctx, func() { peer.Close() })
	defer stop()
	return p.roundWith(ctx, m, req)
}

// roundWith makes one round of m.
func (p Pair) roundWith(ctx context.Context, m *brain.Master, req brain.Request) (brain.Outcome, error) {
	return p.with(ctx, func(s store.Store) (brain.Outcome, error) { return m.Round(ctx, s, req) })
}

// with opens the local store for f.
func (p Pair) with(ctx context.Context, f func(store.Store) (brain.Outcome, error)) (out brain.Outcome, err error) {
	s, err := p.Open(ctx)
	if err != nil {
		return out, err
	}
	defer func() {
		if cerr := s.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("closing the local store: %w", cerr))
		}
	}()
	return f(s)
}
