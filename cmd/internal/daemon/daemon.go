// Package daemon is the life of one mount: the FUSE server, the engine that keeps the backing Maildir mirrored, the control
// socket, and the order in which they come and go.
//
// Start from [Run]. Order of start: journal (it is the lock too), mount, control socket, engine. Order of end: the mount
// goes first, so that nothing new is written, then the engine sends what is queued, then the journal closes.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/cmd/internal/watch"
	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/vfs"
)

// flushTime bounds how long the end of a mount waits for what is queued to reach the remote; it stays journaled else.
const flushTime = 15 * time.Second

// Options are everything that Run needs. The ends and the pair stay the caller's to close.
type Options struct {
	Config     *config.Config
	Local      *endpoint.Local
	Pair       mirror.Pair
	Request    brain.Request
	Mountpoint string
	Remote     string // the remote location, for status
	Logger     *slog.Logger
}

// Dir is where the state of a mount is kept.
func Dir(cfg *config.Config, mountpoint string) (string, error) {
	abs, err := filepath.Abs(mountpoint)
	if err != nil {
		return "", err
	}
	return endpoint.StatePath(cfg.StateDir, "mounts", abs), nil
}

// Run mounts and serves until ctx ends or the mount is unmounted. ready is called once, when programs can use the mount;
// an error before that is returned only.
func Run(ctx context.Context, o Options, ready func()) (err error) {
	dir, err := Dir(o.Config, o.Mountpoint)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "journal"), 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{Logger: o.Logger})
	if err != nil {
		return fmt.Errorf("mount %s: %w", o.Mountpoint, err)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if j.Recovery().Damaged() {
		o.Logger.Warn("the journal was damaged and repaired; everything is compared now", "set_aside", j.Recovery().SetAside)
	}
	m, err := newMounted(ctx, o, dir, j)
	if err != nil {
		return err
	}
	control, err := listen(dir)
	if err != nil {
		return errors.Join(err, m.unmount(ctx))
	}
	return m.serve(ctx, control, ready)
}

// mounted is a mount with its engine.
type mounted struct {
	o       Options
	journal *journal.Journal
	engine  *mirror.Engine
	fuse    *fusefs.Mount
	port    *port
	backing *os.File
	stop    context.CancelFunc // asks serve to end
	started time.Time
}

func newMounted(ctx context.Context, o Options, dir string, j *journal.Journal) (*mounted, error) {
	backing, err := os.Open(o.Local.Path)
	if err != nil {
		return nil, fmt.Errorf("maildir:%s: %w", o.Local.Path, err)
	}
	tree, err := vfs.OpenFd(backing.Fd(), o.Local.Path)
	if err != nil {
		return nil, errors.Join(err, backing.Close())
	}
	o.Local.UseFS(tree)
	// A Maildir that is not there, or whose disk is away, is found out before anything is mounted over it.
	s, err := o.Local.Store(ctx)
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return nil, errors.Join(err, backing.Close())
	}
	m := &mounted{o: o, journal: j, backing: backing, started: time.Now()}
	m.engine = mirror.NewEngine(o.Pair, o.Request, mirror.Timing{FullSync: o.Config.FullSyncInterval, Poll: o.Config.PollInterval}, j)
	m.port = newPort(o, dir, j, m.engine, tree)
	m.fuse, err = fusefs.New(m.mountOptions())
	if err != nil {
		return nil, errors.Join(err, backing.Close())
	}
	o.Local.Namespace = m.fuse.Through(tree)
	m.port.mount = m.fuse
	return m, nil
}

func (m *mounted) mountOptions() fusefs.Options {
	c := m.o.Config
	opts := fusefs.Options{
		Backing: m.backing, Mountpoint: m.o.Mountpoint, Engine: m.port, Logger: m.o.Logger,
		FSName: "dsyncfs:" + m.o.Remote, ReadOnly: c.ReadOnly, AllowOther: c.AllowOther, CommitDeliveries: c.Commit == "remote",
		Protect: !samePath(m.o.Mountpoint, m.o.Local.Path),
	}
	if c.UID >= 0 {
		id := uint32(c.UID)
		opts.UID = &id
	}
	if c.GID >= 0 {
		id := uint32(c.GID)
		opts.GID = &id
	}
	return opts
}

func samePath(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// serve runs everything until the end of the mount.
func (m *mounted) serve(ctx context.Context, control *net.UnixListener, ready func()) error {
	defer m.backing.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		m.fuse.Serve()
	}()
	if err := m.fuse.WaitReady(ctx); err != nil {
		control.Close()
		err = errors.Join(fmt.Errorf("mount %s: %w", m.o.Mountpoint, err), m.unmount(context.WithoutCancel(ctx)))
		<-served
		return err
	}
	ctx, m.stop = context.WithCancel(ctx)
	defer m.stop()
	g, gctx := errgroup.WithContext(ctx)
	engineCtx, endEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer endEngine()
	g.Go(func() error { return m.engine.Run(engineCtx, flushTime) })
	g.Go(func() error { return m.watchBacking(gctx) })
	g.Go(func() error { return m.control(gctx, control) })
	g.Go(func() error {
		defer endEngine()
		select {
		case <-gctx.Done():
			return m.unmount(context.WithoutCancel(gctx))
		case <-m.fuse.Done():
			m.o.Logger.Info("unmounted", "mountpoint", m.o.Mountpoint)
			m.stop()
			return nil
		}
	})
	ready()
	err := g.Wait()
	<-served
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// unmount takes the mount away, also from under programs that still use it.
func (m *mounted) unmount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return m.fuse.Unmount(ctx, true)
}

// watchBacking notices what others do to the backing directory behind the mount. Where it cannot be watched, the periodic
// full sync finds it.
func (m *mounted) watchBacking(ctx context.Context) error {
	// The path may be covered by the mount; the descriptor leads below it.
	root := fmt.Sprintf("/proc/self/fd/%d/.", m.backing.Fd())
	changes, err := watch.Maildir(ctx, root, m.o.Logger, func(dir, name string) {
		if name == "" {
			return // an overflow; the next full sync will tell
		}
		m.fuse.Invalidate(dir, name)
	})
	if err != nil {
		m.o.Logger.Warn("the backing directory is only looked at periodically", "err", err)
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
			m.engine.Notify()
		}
	}
}
