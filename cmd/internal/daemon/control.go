package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/remote"
	"dsyncfs/remote/dsync"
)

// The requests.
const (
	OpStatus  = "status"
	OpSync    = "sync"
	OpUnmount = "unmount"
	OpLog     = "log" // answered with a [LogLine] per change
)

// Request is what a command asks a running mount, one JSON value per connection.
type Request struct {
	Op           string   `json:"op"`
	AllowExpunge []string `json:"allow_expunge,omitempty"`
	Restore      []string `json:"restore,omitempty"`
	Force        bool     `json:"force,omitempty"` // unmount: also from under programs that use the mount
}

// Reply is the answer.
type Reply struct {
	Status *Status        `json:"status,omitempty"`
	Sync   *brain.Outcome `json:"sync,omitempty"`
	Error  string         `json:"error,omitempty"`
	Class  Class          `json:"class,omitempty"` // of Error
}

// Status is what a running mount says of itself.
type Status struct {
	Mountpoint string    `json:"mountpoint"`
	Local      string    `json:"local"`
	Remote     string    `json:"remote"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	mirror.Status
	ErrorClass Class   `json:"error_class,omitempty"` // of Error
	Fill       *Fill   `json:"first_fill,omitempty"`  // nil: everything is here, or it is not known what is not
	Process    Process `json:"process"`
}

// Process is what the daemon itself takes.
type Process struct {
	Goroutines int    `json:"goroutines"`
	Heap       uint64 `json:"heap_bytes"` // in use
}

// Class says what can be done about an error.
type Class string

// The classes.
const (
	ClassNone   Class = ""
	ClassFailed Class = "failed" // somebody has to look
	ClassAway   Class = "away"   // the other side cannot be reached; trying later may help
	ClassGuard  Class = "guard"  // the deletion guard waits for a confirmation
)

// Classify returns the class of an error.
func Classify(err error) Class {
	var theirs *brain.GuardError
	switch {
	case err == nil:
		return ClassNone
	case errors.Is(err, guard.ErrMassExpunge), errors.As(err, &theirs):
		return ClassGuard
	case remote.Classify(err) == remote.ErrTransient, errors.Is(err, dsync.ErrTimeout):
		return ClassAway
	}
	return ClassFailed
}

const socketName = "control"

// socketPath is the control socket of a state directory. The directory is reached by a descriptor, because a socket's path
// may have 107 bytes only.
func socketPath(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName) }

// listen opens the control socket. The journal's lock says that an old one is nobody's. Who connects is answered once the
// mount is ready.
func listen(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer d.Close()
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(d), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then the descriptor in its name is closed
	// The directory is private; this holds should somebody open it up.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

// hangUp removes the control socket, while the journal is still locked: a later one is somebody else's.
func hangUp(l *net.UnixListener, dir string) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// acceptPause is how long to wait when descriptors ran out.
const acceptPause = 100 * time.Millisecond

// control answers commands until ctx ends.
func (m *mounted) control(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := l.AcceptUnix()
		switch {
		case err == nil:
			clients.Go(func() {
				defer c.Close()
				m.answer(ctx, c)
			})
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			m.o.Logger.Warn("control socket", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		default:
			return fmt.Errorf("control socket: %w", err)
		}
	}
}

const (
	// requestTime bounds how long a client may take to say what it wants, and to take a reply.
	requestTime = 5 * time.Second
	// maxRequest bounds what it says, in bytes.
	maxRequest = 1 << 20
)

func (m *mounted) answer(ctx context.Context, c *net.UnixConn) {
	if err := checkClient(c); err != nil {
		m.o.Logger.Warn("control socket", "err", err)
		return
	}
	var req Request
	_ = c.SetReadDeadline(time.Now().Add(requestTime))
	if err := json.NewDecoder(&limitedConn{c, maxRequest}).Decode(&req); err != nil {
		return // nobody is there to be told
	}
	if req.Op == OpLog {
		if err := writeLog(ctx, c, m.journal); err != nil {
			m.o.Logger.Debug("control socket", "err", err)
		}
		return
	}
	ctx, gone := m.whileConnected(ctx, c)
	reply := m.do(ctx, req)
	gone()
	_ = c.SetWriteDeadline(time.Now().Add(requestTime))
	if err := json.NewEncoder(c).Encode(reply); err != nil {
		m.o.Logger.Debug("control socket", "err", err)
	}
}

// checkClient lets only the own user and root ask.
func checkClient(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if cerr != nil {
		return cerr
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not command this mount", cred.Uid)
	}
	return nil
}

// limitedConn reads n bytes at most.
type limitedConn struct {
	net.Conn
	n int
}

func (l *limitedConn) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, errors.New("request too long")
	}
	n, err := l.Conn.Read(p[:min(len(p), l.n)])
	l.n -= n
	return n, err
}

// whileConnected returns a context that ends when the client goes away. stop ends the watching and waits for it.
func (m *mounted) whileConnected(ctx context.Context, c net.Conn) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	_ = c.SetReadDeadline(time.Time{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		_, _ = io.Copy(io.Discard, c) // a client says nothing more: until its end, or the deadline that stop sets
	}()
	return ctx, func() {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		<-done
	}
}

func (m *mounted) do(ctx context.Context, req Request) Reply {
	switch req.Op {
	case OpStatus:
		return Reply{Status: m.status()}
	case OpSync:
		return m.sync(ctx, req)
	case OpUnmount:
		return m.leave(ctx, req.Force)
	}
	return Reply{Error: fmt.Sprintf("unknown request %q", req.Op), Class: ClassFailed}
}

func (m *mounted) sync(ctx context.Context, req Request) Reply {
	out, err := m.engine.Sync(ctx, func(r *brain.Request) {
		r.Type = item.SyncFull
		r.AllowExpunge, r.Restore = req.AllowExpunge, req.Restore
	})
	if ctx.Err() != nil {
		err = errEnding
	}
	reply := Reply{Sync: &out, Class: Classify(err)}
	if err != nil {
		reply.Error = err.Error()
	}
	return reply
}

var errEnding = errors.New("the mount is going away")

// leave takes the mount away. Programs that use it are named, unless it shall go all the same.
func (m *mounted) leave(ctx context.Context, force bool) Reply {
	reply := Reply{Status: m.status()}
	if !force {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmountTime)
		defer cancel()
		err := m.fuse.Unmount(ctx, false)
		var busy *fusefs.BusyError
		if errors.As(err, &busy) {
			return Reply{Error: err.Error(), Class: ClassFailed}
		}
		if err != nil {
			m.o.Logger.Warn("unmount", "err", err) // it is taken away then
		}
	}
	m.stop()
	return reply
}

func (m *mounted) status() *Status {
	st := m.engine.Status()
	return &Status{
		Mountpoint: m.o.Mountpoint, Local: m.o.Local.Path, Remote: m.o.Remote, PID: os.Getpid(), Since: m.started,
		Status: st, ErrorClass: Classify(st.Cause), Fill: m.fill.status(), Process: process(),
	}
}

func process() Process {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return Process{Goroutines: runtime.NumGoroutine(), Heap: mem.HeapInuse}
}
