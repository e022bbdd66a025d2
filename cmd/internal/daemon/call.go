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
	"syscall"
	"time"

	"dsyncfs/cmd/internal/config"
)

// ErrNotRunning is wrapped when no daemon answers for a mount point.
var ErrNotRunning = errors.New("no dsyncfs is running there")

// answerTime bounds how long a daemon may take to answer what it knows at once.
const answerTime = 10 * time.Second

// Call asks the daemon of a mount point. Errors wrap [ErrNotRunning] if there is none.
func Call(ctx context.Context, cfg *config.Config, mountpoint string, req Request) (Reply, error) {
	dir, err := Dir(cfg, mountpoint)
	if err != nil {
		return Reply{}, err
	}
	return callDir(ctx, dir, mountpoint, req)
}

func callDir(ctx context.Context, dir, mountpoint string, req Request) (reply Reply, err error) {
	if req.Op == OpStatus {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerTime)
		defer cancel()
	}
	c, err := ask(ctx, dir, req)
	if err != nil {
		return reply, fmt.Errorf("%s: %w", mountpoint, err)
	}
	defer c.Close()
	if err := json.NewDecoder(c).Decode(&reply); err != nil {
		return reply, lost(ctx, mountpoint, err)
	}
	return reply, nil
}

// lost says why a daemon that was there did not answer.
func lost(ctx context.Context, mountpoint string, err error) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s", answerTime)
	} else if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if hungUp(err) {
		err = fmt.Errorf("it ended without an answer: %w", ErrNotRunning)
	}
	return fmt.Errorf("asking the daemon of %s: %w", mountpoint, err)
}

// hungUp reports whether an error means that the daemon died while it was asked: the kernel accepts for a process that is
// being killed, and resets then.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// conn is a connection to a daemon that ends with its context.
type conn struct {
	net.Conn
	stop func() bool
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// ask sends a request to the daemon of a state directory.
func ask(ctx context.Context, dir string, req Request) (net.Conn, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if dying(owner(dir)) {
		return nil, ErrNotRunning // the socket is there, but nobody will answer
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(d))
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, ErrNotRunning
	}
	k := &conn{c, context.AfterFunc(ctx, func() { c.Close() })}
	if err := json.NewEncoder(k).Encode(req); err != nil {
		if hungUp(err) {
			err = ErrNotRunning
		}
		return nil, errors.Join(fmt.Errorf("asking the daemon: %w", err), k.Close())
	}
	return k, nil
}

// Running returns the status of every mount whose daemon answers, and an error for each whose does not.
func Running(ctx context.Context, cfg *config.Config) ([]Status, error) {
	root := filepath.Join(cfg.StateDir, "mounts")
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []Status
	var errs []error
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		reply, err := callDir(ctx, dir, dir, Request{Op: OpStatus})
		switch {
		case errors.Is(err, ErrNotRunning):
		case err != nil:
			errs = append(errs, err)
		case reply.Status != nil:
			all = append(all, *reply.Status)
		}
	}
	return all, errors.Join(errs...)
}
