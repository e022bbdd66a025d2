package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/daemon"
	"dsyncfs/remote"
)

func (a *app) mountCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mount MOUNTPOINT LOCATION2... | mount NAME",
		Short: "show the local Maildir at MOUNTPOINT and keep it mirrored with LOCATION2",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.mount(c.Context(), args) },
	}
}

// startTime bounds how long the first connection may take before the mount goes on without it.
const startTime = 20 * time.Second

// daemonEnv tells the second process what it is: the number of the descriptor on which the first one waits.
const daemonEnv = "DSYNCFS_READY_FD"

func (a *app) mount(ctx context.Context, args []string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	mountpoint, location, err := mountArguments(cfg, args)
	if err != nil {
		return err
	}
	if a.flags.foreground {
		return a.runDaemon(ctx, cfg, mountpoint, location, func() {})
	}
	if fd := os.Getenv(daemonEnv); fd != "" {
		return a.daemonProcess(ctx, cfg, mountpoint, location, fd)
	}
	return a.startDaemon(ctx)
}

// mountArguments takes the mount point and the location out of the arguments, or out of a named mirror of the settings.
func mountArguments(cfg *config.Config, args []string) (mountpoint string, location []string, err error) {
	if len(args) > 1 {
		return args[0], args[1:], nil
	}
	m, ok := cfg.Mirrors[args[0]]
	if !ok {
		return "", nil, usage(fmt.Errorf("mount %s: no location given, and no mirror of that name in the settings", args[0]))
	}
	if m.Local != "" {
		cfg.MailLocation = m.Local
	}
	if m.Mountpoint == "" || m.Remote == "" {
		return "", nil, usage(fmt.Errorf("mirror %s: mountpoint and remote must be set", args[0]))
	}
	return m.Mountpoint, strings.Fields(m.Remote), nil
}

// startDaemon runs this program again in the background and waits until it says that the mount is ready, or why not.
func (a *app) startDaemon(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), daemonEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("going to the background: %w", err), w.Close())
	}
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	if word, _ := io.ReadAll(io.LimitReader(r, 16)); string(word) == "ready" {
		return cmd.Process.Release()
	}
	// It told the user why on standard error.
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &statusError{exit.ExitCode(), nil}
	}
	return fmt.Errorf("the background process ended without a word: %w", err)
}

// daemonProcess is the process in the background. It stays at the terminal until the mount is ready, so that a passphrase can
// be asked for, and lets go of it then.
func (a *app) daemonProcess(ctx context.Context, cfg *config.Config, mountpoint string, location []string, fd string) error {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return fmt.Errorf("%s: %w", daemonEnv, err)
	}
	os.Unsetenv(daemonEnv)
	unix.CloseOnExec(n)
	pipe := os.NewFile(uintptr(n), "ready")
	dir, err := daemon.Dir(cfg, mountpoint)
	if err != nil {
		return err
	}
	return a.runDaemon(ctx, cfg, mountpoint, location, func() {
		if err := a.detach(dir); err != nil {
			a.logger().Warn("leaving the terminal", "err", err)
		}
		_, _ = pipe.WriteString("ready")
		pipe.Close()
	})
}

// maxLog is the size in bytes above which an old log file is started anew.
const maxLog = 4 << 20

// detach leaves the terminal: a session of its own, and the log file instead of standard output and error.
func (a *app) detach(dir string) error {
	if _, err := unix.Setsid(); err != nil {
		return err
	}
	path := filepath.Join(dir, "log")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return errors.Join(unix.Dup3(int(null.Fd()), 0, 0), unix.Dup3(int(log.Fd()), 1, 0), unix.Dup3(int(log.Fd()), 2, 0), os.Chdir("/"))
}

// runDaemon is the mount itself.
func (a *app) runDaemon(ctx context.Context, cfg *config.Config, mountpoint string, location []string, ready func()) (err error) {
	a.flags.noProgress = true
	req, err := a.request(cfg, false)
	if err != nil {
		return err
	}
	if mountpoint, err = filepath.Abs(mountpoint); err != nil {
		return err
	}
	e, err := a.openEnds(cfg, location, true, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := reach(ctx, e); err != nil {
		return err
	}
	return daemon.Run(ctx, daemon.Options{
		Config: cfg, Local: e.local, Pair: e.pair, Request: req, Mountpoint: mountpoint,
		Remote: e.remote.Location.String(), Logger: e.log,
	}, ready)
}

// reach tries the remote once. One that is away is no obstacle: the mount works without it and tries again. What no further
// attempt can cure is an error.
func reach(ctx context.Context, e *ends) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := e.remote.Reach(ctx)
	if err == nil {
		return nil
	}
	if class := remote.Classify(err); class == remote.ErrTransient || errors.Is(err, context.DeadlineExceeded) {
		e.log.Warn("the remote is away, changes are queued", "err", err)
		return nil
	}
	return err
}

func (a *app) umountCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "send what is queued and unmount",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.umount(c.Context(), args[0]) },
	}
}

// umountTime bounds how long umount waits for the daemon to end.
const umountTime = 60 * time.Second

func (a *app) umount(ctx context.Context, mountpoint string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	reply, err := daemon.Call(ctx, cfg, mountpoint, daemon.Request{Op: "unmount"})
	if errors.Is(err, daemon.ErrNotRunning) {
		return fmt.Errorf("%w (a dead mount is removed with: fusermount3 -uz %s)", err, mountpoint)
	}
	if err != nil {
		return err
	}
	return awaitExit(ctx, reply.Status.PID)
}

// awaitExit waits until a process that is not our child has ended.
func awaitExit(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, umountTime)
	defer cancel()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waiting for process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for process %d: %w", pid, err)
		}
	}
	return fmt.Errorf("process %d has not ended after %s; it may still be sending", pid, umountTime)
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "state of running mirrors: queue, last sync, errors",
		Args:  cobra.MaximumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.status(c.Context(), args) },
	}
}

func (a *app) status(ctx context.Context, args []string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	var all []daemon.Status
	if len(args) == 1 {
		reply, err := daemon.Call(ctx, cfg, args[0], daemon.Request{Op: "status"})
		if err != nil {
			return err
		}
		all = append(all, *reply.Status)
	} else if all, err = daemon.Running(ctx, cfg); err != nil {
		return err
	}
	if a.flags.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		if all == nil {
			all = []daemon.Status{}
		}
		return enc.Encode(all)
	}
	for _, s := range all {
		printStatus(a.stdout, s)
	}
	if len(all) == 0 {
		fmt.Fprintln(a.stdout, "no mirror is running")
	}
	return nil
}

func printStatus(w io.Writer, s daemon.Status) {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return time.Since(t).Round(time.Second).String() + " ago"
	}
	fmt.Fprintf(w, "%s: %s\n", s.Mountpoint, s.State)
	fmt.Fprintf(w, "  local      %s\n  remote     %s\n", s.Local, s.Remote)
	fmt.Fprintf(w, "  queued     %d changes\n", s.Queued)
	fmt.Fprintf(w, "  last round %s (%.3f s), last full sync %s, remote last heard %s\n", ago(s.LastRound), s.LastTook, ago(s.LastFull), ago(s.LastHeard))
	fmt.Fprintf(w, "  so far     %d received, %d sent, %d flag changes, %d expunged, in %d rounds\n", s.Added, s.Sent, s.Flags, s.Expunged, s.Rounds)
	if s.Error != "" {
		fmt.Fprintf(w, "  error      %s (since %s)\n", s.Error, ago(s.ErrorAt))
	}
	fmt.Fprintf(w, "  process    %d, running since %s\n", s.PID, s.Since.Format(time.DateTime))
}

func (a *app) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync MOUNTPOINT",
		Short: "full sync of a running mirror now; exit status as mirror",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.syncNow(c.Context(), args[0]) },
	}
}

func (a *app) syncNow(ctx context.Context, mountpoint string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	reply, err := daemon.Call(ctx, cfg, mountpoint, daemon.Request{
		Op: "sync", Full: a.flags.full, AllowExpunge: a.flags.allowExpunge, Restore: a.flags.restore,
	})
	if err != nil {
		return err
	}
	if reply.Sync != nil {
		a.report(*reply.Sync)
	}
	switch {
	case reply.Guard:
		return &statusError{exitGuard, errors.New(reply.Error)}
	case reply.Error != "":
		return errors.New(reply.Error)
	case reply.Sync.Desync:
		return &statusError{exitAgain, errors.New("something changed meanwhile; run it again")}
	}
	return nil
}
