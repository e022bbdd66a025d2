package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// port joins the mount with the journal, the engine and the store. It never touches the mount's own path, and never waits
// long for a round: a round may be waiting for a lock of the kernel that the asking program holds.
type port struct {
	o       Options
	journal *journal.Journal
	engine  *mirror.Engine
	tree    vfs.FS

	dir  string // the state directory of the mount
	fill *fill  // nil: everything is here

	turn     chan struct{} // guards what follows; held while the index is read
	lastPeer string
	known    map[mail.Name]*knownMailbox
}

var _ fusefs.Engine = (*port)(nil)

func newPort(o Options, dir string, j *journal.Journal, e *mirror.Engine, tree vfs.FS) *port {
	return &port{o: o, dir: dir, journal: j, engine: e, tree: tree, turn: make(chan struct{}, 1), known: make(map[mail.Name]*knownMailbox)}
}

// Mailbox implements [fusefs.Engine].
func (p *port) Mailbox(dir string) (mail.Name, bool) { return p.o.Local.Layout.MailboxOf(dir) }

// Record implements [fusefs.Engine]: the change is in the journal before the program gets its answer.
func (p *port) Record(_ context.Context, ev mail.Event) error {
	if _, err := p.journal.Append(ev); err != nil {
		return err
	}
	if p.fill != nil && ev.Op == mail.EventMailboxRename {
		p.fill.filling.renamed(ev.Mailbox, ev.To)
	}
	p.engine.Notify()
	return nil
}

// Lock implements [fusefs.Engine].
func (p *port) Lock(ctx context.Context, dir string) (func(), error) {
	d, err := p.tree.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	release, err := p.o.Local.Locks.Acquire(ctx, d)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock of mailbox directory %q: %w", dir, err), d.Close())
	}
	return func() {
		if err := errors.Join(release(), d.Close()); err != nil {
			p.o.Logger.Warn("releasing a mailbox lock", "dir", dir, "err", err)
		}
	}, nil
}

// Durable implements [fusefs.Engine]. With commit=remote a remote that does not answer in time is an EIO.
func (p *port) Durable(ctx context.Context) error {
	if err := p.journal.Sync(ctx, p.journal.Last()); err != nil {
		return err
	}
	if p.fill != nil {
		if err := p.fill.intents.sync(); err != nil {
			return err
		}
	}
	if p.o.Config.Commit != "remote" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Config.CommitTimeout)
	defer cancel()
	if err := p.engine.Barrier(ctx); err != nil {
		p.o.Logger.Warn("commit=remote: the remote did not confirm in time", "err", err)
		return syscall.EIO
	}
	return nil
}

const (
	// metaTime bounds how long attributes of a mail may wait for an index that another process uses.
	metaTime = 2 * time.Second
	// keywordTime bounds how long a change of keywords may wait for a round.
	keywordTime = 5 * time.Second
	// maxKnown is how many mailboxes are remembered: programs ask for one after the other.
	maxKnown = 4
)

// knownMailbox is what the index knew of a mailbox's messages when it was last asked, by base name.
type knownMailbox struct {
	rounds uint64 // of the engine at that time
	mails  map[string]fusefs.Meta
}

// Meta implements [fusefs.Engine].
func (p *port) Meta(ctx context.Context, mailbox mail.Name, base string) (fusefs.Meta, bool) {
	ctx, cancel := context.WithTimeout(ctx, metaTime)
	defer cancel()
	meta, err := p.meta(ctx, mailbox, base)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		p.o.Logger.Debug("attributes of a mail", "mailbox", mailbox, "err", err)
	}
	return meta, err == nil
}

// meta returns what is known of a mail; store.ErrNotFound if it is not in the index yet.
func (p *port) meta(ctx context.Context, mailbox mail.Name, base string) (fusefs.Meta, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return fusefs.Meta{}, context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	k, err := p.mailbox(ctx, mailbox)
	if err != nil {
		return fusefs.Meta{}, err
	}
	meta, ok := k.mails[base]
	if !ok {
		return meta, store.ErrNotFound
	}
	return meta, nil
}

// mailbox returns what is known of a mailbox, read again after each round that may have changed it. The caller has the turn.
func (p *port) mailbox(ctx context.Context, name mail.Name) (*knownMailbox, error) {
	rounds := p.engine.Status().Rounds
	if k := p.known[name]; k != nil && k.rounds == rounds {
		return k, nil
	}
	k := &knownMailbox{rounds: rounds, mails: make(map[string]fusefs.Meta)}
	err := p.o.Local.View(ctx, func(tx store.CatalogTx) error {
		common, ok, err := maildir.Known(tx, name, p.peer(), func(m mail.Message, base string) {
			k.mails[base] = fusefs.Meta{GUID: m.GUID, UID: m.UID, Keywords: m.Keywords}
		})
		if err == nil && !ok {
			err = fmt.Errorf("mailbox %s: %w", name, store.ErrNotFound)
		}
		for base, meta := range k.mails {
			meta.Mirrored = meta.UID <= common.LastCommonUID
			k.mails[base] = meta
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for other := range p.known {
		if len(p.known) < maxKnown {
			break
		}
		delete(p.known, other)
	}
	p.known[name] = k
	return k, nil
}

// forget makes the next question read the index. The caller has the turn.
func (p *port) forget(ctx context.Context, name mail.Name) {
	select {
	case p.turn <- struct{}{}:
		delete(p.known, name)
		<-p.turn
	case <-ctx.Done(): // the next round makes it read again
	}
}

// peer is the name of the other side in the store. It is kept beside the journal, so that it is known before the first round
// of a daemon that starts without its remote. The caller has the turn.
func (p *port) peer() string {
	file := filepath.Join(p.dir, "peer")
	name := p.engine.Status().Peer
	switch {
	case name != "" && name != p.lastPeer:
		if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
			p.o.Logger.Warn("remembering the other side", "err", err)
		}
		p.lastPeer = name
	case p.lastPeer == "":
		kept, err := os.ReadFile(file)
		if err != nil {
			return "" // there was no round yet
		}
		p.lastPeer = string(kept)
	}
	return p.lastPeer
}

// SetKeywords implements [fusefs.Engine]. The file is renamed behind the mount: the caller holds the kernel's lock of it, so
// a rename through the mount would wait for ourselves. A round that holds the store may wait for that same lock, which is why
// there is an end to the waiting: the program is told to try again (EAGAIN).
func (p *port) SetKeywords(ctx context.Context, mailbox mail.Name, base string, k mail.Keywords) error {
	ctx, cancel := context.WithTimeout(ctx, keywordTime)
	defer cancel()
	err := p.withMailbox(ctx, mailbox, base, func(mb store.Mailbox, m mail.Message) error {
		delta := mail.DeltaBetween(0, m.Keywords, 0, k)
		_, err := mb.Apply(ctx, store.Batch{Deltas: []store.FlagChange{{UID: m.UID, Delta: delta}}})
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errLoss):
		p.o.Logger.Debug("keywords", "mailbox", mailbox, "err", err)
		return syscall.EAGAIN
	case err != nil:
		return err
	}
	p.forget(ctx, mailbox)
	p.engine.Notify()
	return nil
}

// errLoss keeps a look at the store from believing that mail was expunged: rounds decide that.
var errLoss = errors.New("mail is missing")

// withMailbox opens a mailbox of the backing store, outside of rounds, with the message of that base name. A message that no
// round has seen yet is looked for.
func (p *port) withMailbox(ctx context.Context, name mail.Name, base string, do func(store.Mailbox, mail.Message) error) (err error) {
	s, err := p.o.Local.StoreBehind(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	box, m, err := p.find(ctx, name, base)
	if errors.Is(err, store.ErrNotFound) {
		refresh := store.RefreshOptions{Mailboxes: []mail.Name{name}, Guard: func([]store.Loss) error { return errLoss }}
		if _, err = s.Refresh(ctx, refresh); err != nil {
			return err
		}
		box, m, err = p.find(ctx, name, base)
	}
	if err != nil {
		return err
	}
	mb, err := s.Open(ctx, box)
	if err != nil {
		return err
	}
	return errors.Join(do(mb, m), mb.Close())
}

// find looks in the index for the message of a base name.
func (p *port) find(ctx context.Context, name mail.Name, base string) (box mail.MailboxGUID, found mail.Message, err error) {
	err = p.o.Local.View(ctx, func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			if rec.Name == name {
				box = rec.Status.GUID
			}
		}
		_, _, err := maildir.Known(tx, name, "", func(m mail.Message, b string) {
			if b == base {
				found = m
			}
		})
		if err == nil && found.UID == 0 {
			err = fmt.Errorf("mail %s in %s: %w", base, name, store.ErrNotFound)
		}
		return err
	})
	return box, found, err
}
