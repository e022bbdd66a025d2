package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/remote"
)

const (
	// lookTime bounds how long the first round waits for a list of what the remote has.
	lookTime = 60 * time.Second
	// readyTime is how long the mount command waits for that list. Who lists a directory waits for what is in it, see filling.
	readyTime = 500 * time.Millisecond
	// lookPatience leaves to rounds what vanished from the backing directory.
	lookPatience = 24 * time.Hour
)

// fill is the first fill of a Maildir from a dsyncfs. It makes the mailboxes that the remote has and lets the mount promise their
// mails, before the first round brings them; see fusefs/promise.go. Nothing of it is there any more once a round has succeeded.
type fill struct {
	m       *mounted
	fetcher *fetcher
	intents *intents
	filling *filling
	names   nameTable
	again   bool                      // an earlier mount began it
	own     map[mail.Name]bool        // mailboxes that had mail before the fill began
	whole   map[mail.MailboxGUID]bool // mailboxes that got all their mails in earlier mounts
	tried   chan struct{}             // closed when the remote was asked, or found to be away, for the first time
	life    context.Context           // of the mount; set before the engine runs
	stock   atomic.Bool               // the remote is a Dovecot

	mu       sync.Mutex
	attempts int  // to connect
	asked    bool // the remote said what it has, or it is too late to ask
	total    int  // mails promised, ever
}

// newFill returns nil if there is nothing to be filled: mail is here, or the mirror takes only a part of what the remote has.
func newFill(ctx context.Context, m *mounted, dir string) (*fill, error) {
	if m.o.View == nil || !takesAll(m.o.Request) {
		return nil, nil
	}
	mark, again, err := openMarker(dir, m.o.Local.Canonical()+"\n"+m.o.Remote+"\n")
	if err != nil {
		return nil, err
	}
	if !again {
		if empty, err := m.isEmpty(ctx); err != nil || !empty {
			return nil, err
		}
		err := os.Remove(filepath.Join(dir, intentsName)) // about another pair
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("state directory: %w", err)
		}
		own, err := withMail(m.backing, m.o.Local.Layout)
		if err != nil {
			return nil, err
		}
		if err := mark.begin(own); err != nil {
			return nil, err
		}
	}
	intents, err := openIntents(dir)
	if err != nil {
		return nil, err
	}
	f := &fill{
		m: m, again: again, own: mark.own, whole: mark.whole, tried: make(chan struct{}), fetcher: newFetcher(m.o, dir, m.isOffline), intents: intents,
		filling: newFilling(m.o.Local.Layout, mark.own, func(box mail.MailboxGUID) {
			if err := mark.add(box); err != nil {
				m.o.Logger.Warn("state directory", "err", err) // a mount that comes after this one withholds it for longer
			}
		}),
	}
	return f, m.eachMailbox(ctx, func(rec store.MailboxRecord) {
		if mark.whole[rec.Status.GUID] {
			f.filling.whole[rec.Name] = true
		}
	})
}

// takesAll reports whether a mirror has no direction and leaves nothing out.
func takesAll(r brain.Request) bool {
	return r.Box == "" && r.BoxGUID == "" && r.Boxes == nil && len(r.Exclude) == 0 && r.Since == 0 && r.Until == 0 && r.MaxSize == 0 &&
		r.Flag == "" && !r.BackupSend && !r.BackupReceive && !r.NoMailSync
}

// isEmpty reports whether no mail of the Maildir is known.
func (m *mounted) isEmpty(ctx context.Context) (bool, error) {
	empty := true
	err := m.eachMailbox(ctx, func(rec store.MailboxRecord) { empty = empty && rec.Status.Messages == 0 })
	return empty, err
}

// eachMailbox calls do for each mailbox that is known.
func (m *mounted) eachMailbox(ctx context.Context, do func(store.MailboxRecord)) error {
	return m.o.Local.View(ctx, func(tx store.CatalogTx) error {
		for rec, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			do(rec)
		}
		return nil
	})
}

// withMail returns the mailboxes of a Maildir in which there is mail, whether or not it is known. Of a directory with mail it reads
// the beginning only.
func withMail(root *os.File, l maildir.Layout) (names []mail.Name, err error) {
	tree := os.DirFS(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	var walk func(dir string) error
	walk = func(dir string) error {
		subs, some, err := glance(tree, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", root.Name(), err)
		}
		if some {
			box := filepath.Dir(dir)
			if box == "." {
				box = ""
			}
			if name, ok := l.MailboxOf(box); ok {
				names = append(names, name)
			}
		}
		for _, sub := range subs {
			if err := walk(filepath.Join(dir, sub)); err != nil {
				return err
			}
		}
		return nil
	}
	err = walk(".")
	return names, err
}

// glance returns the directories in a directory of a Maildir, without tmp. If it is a cur or new with a file, some is true and the
// directories may not be all. One that went away meanwhile is empty.
func glance(tree fs.FS, dir string) (subs []string, some bool, err error) {
	f, err := tree.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	for {
		entries, err := f.(fs.ReadDirFile).ReadDir(64)
		for _, e := range entries {
			switch {
			case !e.IsDir():
				if sub := filepath.Base(dir); sub == "cur" || sub == "new" {
					return subs, true, nil // one is enough
				}
			case e.Name() != "tmp":
				subs = append(subs, e.Name())
			}
		}
		if err == io.EOF {
			return subs, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// run ends when everything is here or ctx ends.
func (f *fill) run(ctx context.Context) {
	defer f.fetcher.close()
	end := f.intents.close // the next mount goes on
	if f.m.engine.Barrier(ctx) == nil {
		f.filling.over.Store(true)
		if f.m.fuse.EndPromises() == 0 {
			end = f.intents.remove
		}
	}
	if err := end(); err != nil {
		f.m.o.Logger.Warn("end of the first fill", "err", err)
	}
}

// dial has the remote asked what it has before the first round, which begins with the connection that to makes. The first time it
// is asked ahead of that, over the connection that was made to see whether the remote is there. If it was away, or turns out to be
// a Dovecot, it is asked once there is a connection.
func (f *fill) dial(to func(context.Context) (brain.Peer, error)) func(context.Context) (brain.Peer, error) {
	return func(ctx context.Context) (brain.Peer, error) {
		if f.isFirst() {
			f.start(ctx)
			f.look(ctx)
			close(f.tried)
			if f.count() > 0 {
				f.filling.lull.wait(ctx)
			}
		}
		peer, err := to(ctx)
		if err == nil && !f.isAsked() {
			f.look(ctx)
			f.isOver()
		}
		return peer, err
	}
}

// isFirst reports whether this is the first attempt to connect.
func (f *fill) isFirst() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempts++
	return f.attempts == 1
}

// start goes on with what an earlier mount has begun.
func (f *fill) start(ctx context.Context) {
	if !f.again {
		return
	}
	if err := f.renew(ctx); err != nil {
		f.m.o.Logger.Warn("changes of mails that had not come yet wait for the next mount", "err", err)
	}
}

// look asks the remote what it has. That it cannot be told is no error: then mails appear when they come.
func (f *fill) look(ctx context.Context) {
	defer f.filling.noMore()
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	defer context.AfterFunc(f.life, cancel)()
	start := time.Now()
	var shown map[mail.MailboxGUID]place
	var list []fusefs.Promised
	err := f.fetcher.look(ctx,
		func(peer string, nodes []*item.Node) (err error) {
			if shown, err = f.prepare(ctx, peer, nodes); err == nil {
				f.filling.expect(shown)
			}
			return err
		},
		func(box mail.Status, mails []mail.Message) error {
			at, ok := shown[box.GUID]
			if !ok {
				return nil
			}
			if len(mails) > 0 { // a part of a mailbox is not shown: who lists it would take it for all
				if len(list)+len(mails) > cap(list) {
					list = slices.Grow(list, max(len(list), len(mails))) // twice as much, as it is copied each time
				}
				list = appendPromised(list, at, mails)
				return nil
			}
			defer f.filling.listed(at.dir)
			all := list
			list = list[:0]
			return f.promise(at, all)
		},
		func(v *brain.Viewer) error {
			f.isOver()
			return f.newest(ctx, v)
		})
	switch {
	case errors.Is(err, errAway), errors.Is(err, remote.ErrNotFound):
		f.m.o.Logger.Debug("what the remote has is not known yet", "err", err)
		return
	case errors.Is(err, errNoPreview):
		f.m.o.Logger.Debug("mails appear when they come", "reason", err)
	case err != nil && ctx.Err() == nil:
		f.m.o.Logger.Warn("not everything that the remote has can be shown before it is here", "err", err)
	}
	f.isOver()
	f.m.o.Logger.Info("first fill", "mails", f.count(), "dur", time.Since(start).Round(time.Millisecond))
}

// isOver notes that the remote need not be asked again.
func (f *fill) isOver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = true
}

func (f *fill) isAsked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// appendPromised adds those mails of a mailbox that the mount can show.
func appendPromised(list []fusefs.Promised, at place, mails []mail.Message) []fusefs.Promised {
	for _, m := range mails {
		sub, name, ok := maildir.FileOf(m)
		if _, here := at.here[m.GUID]; here || !ok {
			continue
		}
		if _, gone := at.gone[m.GUID.Hash128()]; gone && at.gone != nil {
			continue
		}
		list = append(list, fusefs.Promised{Cur: sub == "cur", Name: name, Size: m.Size, Mtime: m.Received})
	}
	return list
}

// promise lets the mount show the mails of a mailbox.
func (f *fill) promise(at place, list []fusefs.Promised) error {
	n, err := f.m.fuse.Promise(at.dir, f.source(at.key), list, f.intents.of(at.key))
	f.mu.Lock()
	f.total += n
	f.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a program has removed the mailbox
	}
	return err
}

// awaitLook waits until the remote was asked what it has, or found to be away, for as long as that is worth it. A later mount of a
// fill that is not complete shows what is here, and only who lists waits for the rest. f may be nil.
func (f *fill) awaitLook(ctx context.Context, limit time.Duration) {
	if f == nil || f.again {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-f.tried:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *fill) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// Fill is how far the first fill is.
type Fill struct {
	Waiting bool `json:"waiting"` // the remote has not said yet what it has
	Mails   int  `json:"mails"`   // that the remote had at its begin
	ToCome  int  `json:"to_come"` // of these
}

// status is nil when everything is here. f may be nil.
func (f *fill) status() *Fill {
	switch {
	case f == nil:
		return nil
	case !f.isAsked():
		return &Fill{Waiting: true}
	case f.stock.Load():
		return nil // nobody knows how many mails a Dovecot has
	}
	if left := f.m.fuse.Promised(); left > 0 {
		return &Fill{Mails: f.count(), ToCome: left}
	}
	return nil
}
