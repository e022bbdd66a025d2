package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// subtype is the part of the file system type after "fuse."; a mount with it is ours.
const subtype = "dsyncfs"

// Options say what is mounted where. Backing, Mountpoint and Engine are required.
type Options struct {
	// Backing is the open directory of the Maildir. It must have been opened before the mount, since it may be hidden by it.
	// The caller keeps it and may close it after New.
	Backing    *os.File
	Mountpoint string
	Engine     Engine
	Logger     *slog.Logger // nil: nothing is logged

	FSName     string  // shown as the source of the mount; empty: "dsyncfs"
	ReadOnly   bool    // programs may change nothing (EROFS); changes of the engine still appear
	AllowOther bool    // users other than the one of the daemon may use the mount, as the modes of the files allow
	UID, GID   *uint32 // owner to show instead of the true one; new files then belong to the daemon
	// DefaultPermissions has the kernel check the mode of what is used. It always does with AllowOther, UID or GID. Without,
	// only the user of the daemon gets in, whose rights are those of the daemon: the backing directory decides.
	DefaultPermissions bool
	// CommitDeliveries makes every delivery wait for [Engine.Durable] (commit=remote).
	CommitDeliveries bool
	// Protect makes the covered directory unwritable (0500), so that nothing is delivered underneath while the mount is
	// away. The directory must not be the backing one.
	Protect bool
	// Filling is the first fill; nil: everything is here.
	Filling Filling
	// Options are further mount options as fusermount3 and mount(2) know them, such as noexec.
	Options []string
}

// Mount is a mounted file system.
type Mount struct {
	path   string // absolute, without symbolic links
	fs     *fileSystem
	server *fuse.Server
	log    *slog.Logger
	alive  atomic.Bool
	serve  sync.Once
	done   chan struct{}
}

// New mounts. Nobody is answered before Serve runs. Errors wrap [ErrMountpoint] if the directory is unfit.
func New(opts Options) (*Mount, error) {
	if opts.Logger == nil {
		opts.Logger = discardLogger()
	}
	if opts.FSName == "" {
		opts.FSName = subtype
	}
	path, err := prepareMountpoint(opts)
	if err != nil {
		return nil, err
	}
	root, err := unix.FcntlInt(opts.Backing.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("backing directory %s: %w", opts.Backing.Name(), err)
	}
	f, err := newFileSystem(root, opts)
	if err != nil {
		unix.Close(root)
		return nil, fmt.Errorf("backing directory %s: %w", opts.Backing.Name(), err)
	}
	covered, err := openCovered(path, opts.Protect)
	if err != nil {
		f.close()
		return nil, err
	}
	server, err := fuse.NewServer(f, path, mountOptions(opts))
	if err != nil {
		covered.restore()
		f.close()
		return nil, fmt.Errorf("mount %s: %w", path, err)
	}
	keepConnection()
	covered.protect()
	return &Mount{path: path, fs: f, server: server, log: opts.Logger, done: make(chan struct{})}, nil
}

// kernelChecks reports whether the kernel checks permissions by mode and owner.
func (o Options) kernelChecks() bool {
	return o.DefaultPermissions || o.AllowOther || o.UID != nil || o.GID != nil
}

func mountOptions(opts Options) *fuse.MountOptions {
	options := slices.Clone(opts.Options)
	if opts.kernelChecks() {
		options = append(options, "default_permissions")
	}
	return &fuse.MountOptions{
		AllowOther:    opts.AllowOther,
		Options:       options,
		FsName:        opts.FSName,
		Name:          subtype,
		DirectMount:   unix.Geteuid() == 0,
		MaxWrite:      1 << 20,
		MaxBackground: 64,
		// The kernel leaves it to us to clear set-ID bits on a write, and so does not ask for security.capability first.
		ExtraCapabilities: fuse.CAP_HANDLE_KILLPRIV_V2,
		// What is read is in memory: go-fuse would put the head of each answer into a pipe first, and take it back.
		DisableSplice: true,
		Logger:        log.New(logWriter{opts.Logger}, "", 0),
	}
}

// logWriter passes what go-fuse has to say to the logger.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn("go-fuse", "message", string(p))
	return len(p), nil
}

// Serve answers the kernel until the file system is unmounted. It is called once.
func (m *Mount) Serve() {
	m.serve.Do(func() {
		m.alive.Store(true)
		m.server.Serve()
		m.alive.Store(false)
		m.fs.own.end()
		m.fs.close()
		close(m.done)
	})
}

// WaitReady returns when the mount answers. Serve must be running.
func (m *Mount) WaitReady(ctx context.Context) error {
	ready := make(chan error, 1)
	go func() { ready <- m.server.WaitMount() }() // ends with the mount's first answer or its end
	select {
	case err := <-ready:
		return err
	case <-m.done:
		return errors.New("unmounted before it was ready")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Done is closed when the mount is gone and everything is let go of.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Path is the absolute mount point.
func (m *Mount) Path() string { return m.path }

// absolute returns the path without symbolic links, as the mount table has it.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
