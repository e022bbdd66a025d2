package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
)

// Request is what a command asks a running mount, one JSON value per connection.
type Request struct {
	Op           string   `json:"op"` // status, sync, unmount, log
	Full         bool     `json:"full,omitempty"`
	AllowExpunge []string `json:"allow_expunge,omitempty"`
	Restore      []string `json:"restore,omitempty"`
}

// Reply is the answer.
type Reply struct {
	Status *Status        `json:"status,omitempty"`
	Sync   *brain.Outcome `json:"sync,omitempty"`
	Error  string         `json:"error,omitempty"`
	Guard  bool           `json:"guard,omitempty"` // Error comes from the deletion guard
}

// Status is what a running mount says of itself.
type Status struct {
	Mountpoint string    `json:"mountpoint"`
	Local      string    `json:"local"`
	Remote     string    `json:"remote"`
	PID        int       `json:"pid"`
	Since      time.Time `json:"since"`
	mirror.Status
}

// ErrNotRunning is wrapped when no daemon answers for a mount point.
var ErrNotRunning = errors.New("no dsyncfs is running there")

// socketPath is the control socket of a state directory. The directory is reached by a descriptor, because a socket's path
// may have 107 bytes only.
func socketPath(dir *os.File) string { return fmt.Sprintf("/proc/self/fd/%d/control", dir.Fd()) }

// listen opens the control socket. The journal's lock says that an old one is nobody's.
func listen(dir string) (*net.UnixListener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, "control")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketPath(d), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then the descriptor in its name is closed
	return l, nil
}

// control answers commands until ctx ends.
func (m *mounted) control(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		clients.Go(func() {
			defer c.Close()
			m.answer(ctx, c)
		})
	}
}

// requestTime bounds how long a client may take to say what it wants.
const requestTime = 5 * time.Second

func (m *mounted) answer(ctx context.Context, c net.Conn) {
	var req Request
	_ = c.SetReadDeadline(time.Now().Add(requestTime))
	if err := json.NewDecoder(c).Decode(&req); err != nil {
		return // nobody is there to be told
	}
	if req.Op == "log" {
		if err := writeLog(json.NewEncoder(c), m.journal); err != nil {
			m.o.Logger.Debug("control socket", "err", err)
		}
		return
	}
	reply := m.do(ctx, req)
	if err := json.NewEncoder(c).Encode(reply); err != nil {
		m.o.Logger.Debug("control socket", "err", err)
	}
}

func (m *mounted) do(ctx context.Context, req Request) Reply {
	switch req.Op {
	case "status":
		return Reply{Status: m.status()}
	case "sync":
		out, err := m.engine.Sync(ctx, func(r *brain.Request) {
			if req.Full {
				r.Type = item.SyncFull
			}
			r.AllowExpunge, r.Restore = req.AllowExpunge, req.Restore
		})
		reply := Reply{Sync: &out}
		if err != nil {
			var theirs *brain.GuardError
			reply.Error, reply.Guard = err.Error(), errors.Is(err, guard.ErrMassExpunge) || errors.As(err, &theirs)
		}
		return reply
	case "unmount":
		m.stop()
		return Reply{Status: m.status()}
	}
	return Reply{Error: fmt.Sprintf("unknown request %q", req.Op)}
}

func (m *mounted) status() *Status {
	return &Status{
		Mountpoint: m.o.Mountpoint, Local: m.o.Local.Path, Remote: m.o.Remote, PID: os.Getpid(), Since: m.started,
		Status: m.engine.Status(),
	}
}

// Call asks the daemon of a mount point. Errors wrap [ErrNotRunning] if there is none.
func Call(ctx context.Context, cfg *config.Config, mountpoint string, req Request) (Reply, error) {
	dir, err := Dir(cfg, mountpoint)
	if err != nil {
		return Reply{}, err
	}
	return callDir(ctx, dir, mountpoint, req)
}

func callDir(ctx context.Context, dir, mountpoint string, req Request) (reply Reply, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return reply, fmt.Errorf("%s: %w", mountpoint, ErrNotRunning)
	}
	defer d.Close()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(d))
	if err != nil {
		return reply, fmt.Errorf("%s: %w", mountpoint, ErrNotRunning)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := json.NewEncoder(c).Encode(req); err != nil {
		return reply, fmt.Errorf("asking the daemon of %s: %w", mountpoint, err)
	}
	if err := json.NewDecoder(c).Decode(&reply); err != nil {
		return reply, fmt.Errorf("asking the daemon of %s: %w", mountpoint, err)
	}
	return reply, nil
}

// Running returns the status of every mount whose daemon answers.
func Running(ctx context.Context, cfg *config.Config) ([]Status, error) {
	dirs, err := filepath.Glob(filepath.Join(cfg.StateDir, "mounts", "*"))
	if err != nil {
		return nil, err
	}
	var all []Status
	for _, dir := range dirs {
		if reply, err := callDir(ctx, dir, dir, Request{Op: "status"}); err == nil && reply.Status != nil {
			all = append(all, *reply.Status)
		}
	}
	return all, nil
}
