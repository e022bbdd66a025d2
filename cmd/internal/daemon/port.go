package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// port joins the mount with the journal, the engine and the store. It never touches the mount's own path.
type port struct {
	o       Options
	journal *journal.Journal
	engine  *mirror.Engine
	tree    vfs.FS
	mount   *fusefs.Mount

	dir string // the state directory of the mount

	mu       sync.Mutex
	lastPeer string
	known    map[mail.Name]*knownMailbox
}

var _ fusefs.Engine = (*port)(nil)

func newPort(o Options, dir string, j *journal.Journal, e *mirror.Engine, tree vfs.FS) *port {
	return &port{o: o, dir: dir, journal: j, engine: e, tree: tree, known: make(map[mail.Name]*knownMailbox)}
}

// Mailbox implements [fusefs.Engine].
func (p *port) Mailbox(dir string) (mail.Name, bool) { return p.o.Local.Layout.MailboxOf(dir) }

// Record implements [fusefs.Engine]: the change is in the journal before the program gets its answer.
func (p *port) Record(_ context.Context, ev mail.Event) error {
	if _, err := p.journal.Append(ev); err != nil {
		return err
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

// knownMailbox is what the index knew of a mailbox's messages when it was last asked, by base name.
type knownMailbox struct {
	rounds uint64 // of the engine at that time
	mails  map[string]fusefs.Meta
}

// Meta implements [fusefs.Engine].
func (p *port) Meta(ctx context.Context, mailbox mail.Name, base string) (fusefs.Meta, bool) {
	k, err := p.mailbox(ctx, mailbox)
	if err != nil {
		p.o.Logger.Debug("attributes of a mail", "mailbox", mailbox, "err", err)
		return fusefs.Meta{}, false
	}
	meta, ok := k.mails[base]
	return meta, ok
}

// mailbox returns what is known of a mailbox, read again after each round that may have changed it.
func (p *port) mailbox(ctx context.Context, name mail.Name) (*knownMailbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rounds := p.engine.Status().Rounds
	if k := p.known[name]; k != nil && k.rounds == rounds {
		return k, nil
	}
	k := &knownMailbox{rounds: rounds, mails: make(map[string]fusefs.Meta)}
	err := p.withMailbox(ctx, name, func(s store.Store, mb store.Mailbox) error {
		bases, err := s.Base(ctx, p.peer())
		if err != nil {
			return err
		}
		common := bases[mb.Status().GUID].LastCommonUID
		named, ok := mb.(interface {
			BaseNames(func(mail.Message, string)) error
		})
		if !ok {
			return errors.New("the store has no files")
		}
		return named.BaseNames(func(m mail.Message, base string) {
			k.mails[base] = fusefs.Meta{GUID: m.GUID, UID: m.UID, Mirrored: m.UID <= common, Keywords: m.Keywords}
		})
	})
	if err != nil {
		return nil, err
	}
	p.known[name] = k
	return k, nil
}

// peer is the name of the other side in the store. It is kept beside the journal, so that it is known before the first round
// of a daemon that starts without its remote.
func (p *port) peer() string {
	file := filepath.Join(p.dir, "peer")
	if name := p.engine.Status().Peer; name != "" {
		if name != p.lastPeer {
			if err := os.WriteFile(file, []byte(name), 0o600); err != nil {
				p.o.Logger.Warn("remembering the other side", "err", err)
			}
			p.lastPeer = name
		}
		return name
	}
	name, err := os.ReadFile(file)
	if err != nil {
		return "" // there was no round yet
	}
	return string(name)
}

// withMailbox opens a mailbox of the backing store, outside of rounds.
func (p *port) withMailbox(ctx context.Context, name mail.Name, do func(store.Store, store.Mailbox) error) (err error) {
	s, err := p.o.Local.StoreBehind(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	boxes, _, err := s.Tree(ctx)
	if err != nil {
		return err
	}
	for _, box := range boxes {
		if box.Name != name || box.Status.GUID.IsZero() {
			continue
		}
		mb, err := s.Open(ctx, box.Status.GUID)
		if err != nil {
			return err
		}
		return errors.Join(do(s, mb), mb.Close())
	}
	return fmt.Errorf("mailbox %s: %w", name, store.ErrNotFound)
}

// SetKeywords implements [fusefs.Engine]. The file is renamed behind the mount: the caller holds the kernel's lock of it, so
// a rename through the mount would wait for ourselves.
func (p *port) SetKeywords(ctx context.Context, mailbox mail.Name, base string, k mail.Keywords) error {
	known, err := p.mailbox(ctx, mailbox)
	if err != nil {
		return err
	}
	meta, ok := known.mails[base]
	if !ok {
		return syscall.EAGAIN // not indexed yet
	}
	err = p.withMailbox(ctx, mailbox, func(_ store.Store, mb store.Mailbox) error {
		delta := mail.DeltaBetween(0, meta.Keywords, 0, k)
		_, err := mb.Apply(ctx, store.Batch{Deltas: []store.FlagChange{{UID: meta.UID, Delta: delta}}})
		return err
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.known, mailbox)
	p.mu.Unlock()
	p.engine.Notify()
	return nil
}
