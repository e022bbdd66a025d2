// Package daemon is the life of one mount: the FUSE server, the engine that keeps the backing Maildir mirrored, the control
// socket, and the order in which they come and go.
//
// Start from [Run], and from [Call] on the other side of the control socket. Order of start: journal (it is the lock too),
// claim of the Maildir, control socket, mount, engine. Order of end: the mount goes first, so that nothing new is written, then the engine sends
// what is queued, then the socket goes and the journal closes.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/vfs"
)

const (
	// flushTime bounds how long the end of a mount waits for what is queued to reach the remote; it stays journaled else.
	flushTime = 15 * time.Second
	// unmountTime bounds how long requests under way may take.
	unmountTime = 10 * time.Second
	// lingerTime is how long programs that still have files of a taken away mount open may use them.
	lingerTime = 2 * time.Second
)

// Options are everything that Run needs. The ends and the pair stay the caller's to close.
type Options struct {
	Config     *config.Config
	Local      *endpoint.Local
	Pair       mirror.Pair
	Request    brain.Request
	Mountpoint string // absolute
	Remote     string // the remote location, for status
	RemotePath string // the directory of a remote location on this machine; else empty
	Source     string // shown as the source of the mount; empty: "dsyncfs:" and the remote location
	Logger     *slog.Logger

	// View begins a preview of the remote, on a connection of its own; nil: there is none.
	View func(context.Context) (*brain.Viewer, error)

	Probe    func() // finds out whether the connection to the remote still works; may be nil
	Ready    func() // called once, when programs can use the mount
	Stopping func() // called once, when an end begins; may be nil
}

// Dir is where the state of a mount is kept.
func Dir(cfg *config.Config, mountpoint string) (string, error) {
	abs, err := filepath.Abs(mountpoint)
	if err != nil {
		return "", err
	}
	return endpoint.StatePath(cfg.StateDir, "mounts", config.Canonical(abs)), nil
}

// Run mounts and serves until ctx ends or the mount is unmounted. An error before Ready changed nothing but the state
// directory.
func Run(ctx context.Context, o Options) (err error) {
	if err := Check(o); err != nil {
		return err
	}
	dir, err := Dir(o.Config, o.Mountpoint)
	if err != nil {
		return err
	}
	if err := config.MakePrivate(o.Config.StateDir); err != nil {
		return err
	}
	j, err := openJournal(o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	release, err := o.Local.Claim(o.Mountpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	control, err := listen(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hangUp(control, dir)) }()
	m, err := newMounted(ctx, o, dir, j)
	if err != nil {
		return err
	}
	defer m.backing.Close()
	makeRoom()
	return m.serve(ctx, control)
}

// spareProcs is how many more goroutines may run at once than there are processors. Most of ours wait in a read of /dev/fuse, of
// which go-fuse has one more at a time than the runtime had processors when it mounted. With a processor of the runtime to spare, one
// that returns with a request goes on at once; with none, the runtime takes the processors of those that wait away, and each request
// costs two more changes of threads (measured on two cores: 65 us a round trip, now 45).
const spareProcs = 6

// makeRoom is for the whole process, whose only work is the mount, and comes after it. GOMAXPROCS in the environment has the last
// word.
var makeRoom = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcs)
	}
})

// mounted is a mount with its engine.
type mounted struct {
	o       Options
	journal *journal.Journal
	engine  *mirror.Engine
	fuse    *fusefs.Mount
	port    *port
	backing *os.File
	fill    *fill              // nil: everything is here
	stop    context.CancelFunc // asks serve to end
	started time.Time
}

func newMounted(ctx context.Context, o Options, dir string, j *journal.Journal) (_ *mounted, err error) {
	if err := o.Local.Make(); err != nil {
		return nil, err
	}
	backing, err := os.Open(o.Local.Path)
	if err != nil {
		return nil, fmt.Errorf("maildir:%s: %w", o.Local.Path, err)
	}
	defer func() {
		if err != nil {
			backing.Close()
		}
	}()
	tree, err := vfs.OpenFd(backing.Fd(), o.Local.Path)
	if err != nil {
		return nil, err
	}
	o.Local.Pin(tree)
	// A Maildir that is not there, or whose disk is away, is found out before anything is mounted over it.
	s, err := o.Local.Store(ctx)
	if err != nil {
		return nil, err
	}
	m := &mounted{o: o, journal: j, backing: backing, started: time.Now()}
	m.fill, err = newFill(ctx, m, dir)
	if err := errors.Join(err, s.Close()); err != nil {
		return nil, err
	}
	if m.fill != nil {
		o.Pair.Options.Kept, o.Pair.Options.Progress = m.fill.fetcher.kept, m.fill.filling
		o.Pair.Dial = m.fill.dial(o.Pair.Dial)
	}
	m.engine = mirror.NewEngine(o.Pair, o.Request, mirror.Timing{FullSync: o.Config.FullSyncInterval, Poll: o.Config.PollInterval}, j)
	m.port = newPort(o, dir, j, m.engine, tree)
	m.port.fill = m.fill
	if m.fuse, err = fusefs.New(m.mountOptions()); err != nil {
		return nil, err
	}
	o.Local.Namespace = m.fuse.Through(tree)
	return m, nil
}

func (m *mounted) mountOptions() fusefs.Options {
	c := m.o.Config
	opts := fusefs.Options{
		Backing: m.backing, Mountpoint: m.o.Mountpoint, Engine: m.port, Logger: m.o.Logger,
		FSName: m.o.Source, ReadOnly: c.ReadOnly, AllowOther: c.AllowOther, DefaultPermissions: c.DefaultPermissions, CommitDeliveries: c.Commit == "remote",
		Protect: !samePath(m.o.Mountpoint, m.o.Local.Path),
	}
	if m.fill != nil {
		opts.Filling = m.fill.filling
	}
	if opts.FSName == "" {
		opts.FSName = "dsyncfs:" + m.o.Remote
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

// serve runs everything until the end of the mount.
func (m *mounted) serve(ctx context.Context, control *net.UnixListener) error {
	served := make(chan struct{})
	go func() {
		defer close(served)
		m.fuse.Serve()
	}()
	if err := m.fuse.WaitReady(ctx); err != nil {
		err = errors.Join(fmt.Errorf("mount %s: %w", m.o.Mountpoint, err), m.unmount(ctx))
		m.linger(served)
		return err
	}
	ctx, m.stop = context.WithCancel(ctx)
	defer m.stop()
	g, gctx := errgroup.WithContext(ctx)
	engineCtx, endEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer endEngine()
	if m.fill != nil {
		m.fill.life = gctx
		g.Go(func() error { m.fill.run(gctx); return nil })
	}
	g.Go(func() error { return m.engine.Run(engineCtx, flushTime) })
	g.Go(func() error { return m.watchBacking(gctx) })
	g.Go(func() error { return m.watchNetwork(gctx) })
	g.Go(func() error { return m.control(gctx, control) })
	g.Go(func() error { giveBack(gctx); return nil })
	g.Go(func() error {
		defer endEngine()
		return m.end(gctx)
	})
	m.fill.awaitLook(gctx, readyTime)
	m.o.Ready()
	err := g.Wait()
	m.linger(served)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// end waits for the end of the mount, or brings it about when ctx ends, and lets the engine send what is queued.
func (m *mounted) end(ctx context.Context) (err error) {
	stopping := m.o.Stopping
	if stopping == nil {
		stopping = func() {}
	}
	select {
	case <-ctx.Done():
		stopping()
		err = m.unmount(ctx)
	case <-m.fuse.Done():
		stopping()
		m.o.Logger.Info("unmounted", "mountpoint", m.o.Mountpoint)
		m.stop()
	}
	m.flush(ctx)
	return err
}

func (m *mounted) isOffline() bool { return m.engine.Status().State == mirror.StateOffline }

// flush waits until the remote has what is queued, if it can be reached.
func (m *mounted) flush(ctx context.Context) {
	st := m.engine.Status()
	if st.Queued == 0 || st.State == mirror.StateOffline {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	if err := m.engine.Barrier(ctx); err != nil {
		m.o.Logger.Warn("what is queued did not reach the remote in time; it stays journaled", "n", m.engine.Status().Queued)
	}
}

// linger waits until the last request is answered. Programs that have files open keep a taken away mount alive; they get
// errors when this process ends.
func (m *mounted) linger(served <-chan struct{}) {
	select {
	case <-served:
	case <-time.After(lingerTime):
		m.o.Logger.Warn("programs still have files of the mount open", "mountpoint", m.o.Mountpoint)
	}
}

// unmount takes the mount away, also from under programs that still use it.
func (m *mounted) unmount(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmountTime)
	defer cancel()
	return m.fuse.Unmount(ctx, true)
}
