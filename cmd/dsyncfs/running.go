package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/daemon"
)

// mountpointOf is the mount point that an argument means: a path, or the name of a mirror in the settings.
func mountpointOf(cfg *config.Config, arg string) string {
	if m, ok := cfg.Mirrors[arg]; ok && m.Mountpoint != "" {
		return m.Mountpoint
	}
	return arg
}

func (a *app) umountCommand() *cobra.Command {
	var force bool
	c := mountpoints(&cobra.Command{
		Use:   "umount MOUNTPOINT",
		Short: "send what is queued and unmount",
		RunE:  func(c *cobra.Command, args []string) error { return a.umount(c.Context(), args[0], force) },
	}, 1)
	c.Flags().BoolVar(&force, "force", false, "also from under programs that use the mount")
	return c
}

// umountTime bounds how long umount waits for the daemon to end.
const umountTime = 60 * time.Second

func (a *app) umount(ctx context.Context, arg string, force bool) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	point := mountpointOf(cfg, arg)
	reply, err := daemon.Call(ctx, cfg, point, daemon.Request{Op: daemon.OpUnmount, Force: force})
	switch {
	case errors.Is(err, daemon.ErrNotRunning):
		return a.umountWithoutDaemon(cfg, point, err)
	case err != nil:
		return err
	case reply.Error != "":
		return fmt.Errorf("%s (--force takes it away from under them)", reply.Error)
	}
	return awaitExit(ctx, reply.Status.PID)
}

// umountWithoutDaemon removes the mount of a daemon that died.
func (a *app) umountWithoutDaemon(cfg *config.Config, point string, cause error) error {
	recovered, err := daemon.Recover(cfg, point)
	if err != nil {
		return err
	}
	if recovered {
		fmt.Fprintf(a.stderr, "dsyncfs: %s: its daemon was dead; what it had not sent is journaled and sent when it is mounted again\n", printable(point))
		return nil
	}
	if daemon.Mounted(point) {
		return fmt.Errorf("%w with these settings (state_dir, user), but a dsyncfs is mounted; unmount it with: fusermount3 -u %s", cause, point)
	}
	return cause
}

// awaitExit waits until a process that is not our child has ended.
func awaitExit(ctx context.Context, pid int) error {
	deadline := time.Now().Add(umountTime)
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waiting for process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for time.Now().Before(deadline) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
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
	return mountpoints(&cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "state of running mirrors: queue, last sync, errors",
		Long: `State of running mirrors: queue, last sync, errors. Exit status with a MOUNTPOINT: 0 all is well, or the other side is away and
changes are queued; 3 the deletion guard waits for a confirmation; 1 an error that does not go away by itself, or nothing runs
there. With --json it is 0 whenever the mirror answers: the class of its error is in the answer.`,
		RunE: func(c *cobra.Command, args []string) error { return a.status(c.Context(), args) },
	}, 0)
}

func (a *app) status(ctx context.Context, args []string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		all, err := daemon.Running(ctx, cfg)
		return errors.Join(a.printStatuses(all), err)
	}
	reply, err := daemon.Call(ctx, cfg, mountpointOf(cfg, args[0]), daemon.Request{Op: daemon.OpStatus})
	if err != nil {
		return err
	}
	if reply.Status == nil {
		return fmt.Errorf("%s: %s", args[0], reply.Error)
	}
	if err := a.printStatuses([]daemon.Status{*reply.Status}); err != nil {
		return err
	}
	if class := reply.Status.ErrorClass; class != daemon.ClassAway && !a.flags.json { // offline is normal
		return silently(classStatus(class))
	}
	return nil
}

func (a *app) printStatuses(all []daemon.Status) error {
	if a.flags.json {
		if all == nil {
			all = []daemon.Status{}
		}
		return a.printJSON(all)
	}
	var b strings.Builder
	for _, s := range all {
		writeStatus(&b, s, time.Now())
	}
	if len(all) == 0 {
		b.WriteString("no mirror is running\n")
	}
	_, err := io.WriteString(a.stdout, b.String())
	return output(err)
}

func writeStatus(w io.Writer, s daemon.Status, now time.Time) {
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return now.Sub(t).Round(time.Second).String() + " ago"
	}
	fmt.Fprintf(w, "%s: %s\n", printable(s.Mountpoint), s.State)
	fmt.Fprintf(w, "  local      %s\n  remote     %s\n", printable(s.Local), printable(s.Remote))
	fmt.Fprintf(w, "  queued     %d changes\n", s.Queued)
	fmt.Fprintf(w, "  last round %s (%.3f s), last full sync %s, remote last heard %s\n", ago(s.LastRound), s.LastTook, ago(s.LastFull), ago(s.LastHeard))
	fmt.Fprintf(w, "  so far     %d received, %d sent, %d flag changes, %d expunged, in %d rounds\n", s.Added, s.Sent, s.Flags, s.Expunged, s.Rounds)
	switch {
	case s.Fill == nil:
	case s.Fill.Waiting:
		fmt.Fprintf(w, "  first fill waits for the remote to say what it has; the mount shows only what is here\n")
	default:
		fmt.Fprintf(w, "  first fill %d of %d mails are here\n", s.Fill.Mails-s.Fill.ToCome, s.Fill.Mails)
	}
	if s.Error != "" {
		fmt.Fprintf(w, "  error      %s (since %s)\n", printable(strings.ReplaceAll(s.Error, "\n", "; ")), ago(s.ErrorAt))
	}
	if wait := s.NextTry.Sub(now); wait > 0 {
		fmt.Fprintf(w, "  next try   in %s, or when the network changes or this machine wakes up\n", wait.Round(time.Second))
	}
	fmt.Fprintf(w, "  process    %d, running since %s\n", s.PID, s.Since.Format(time.DateTime))
}

func (a *app) syncCommand() *cobra.Command {
	return mountpoints(&cobra.Command{
		Use:   "sync MOUNTPOINT",
		Short: "full sync of a running mirror now; exit status as mirror",
		RunE:  func(c *cobra.Command, args []string) error { return a.syncNow(c.Context(), args[0]) },
	}, 1)
}

func (a *app) syncNow(ctx context.Context, arg string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if a.flags.dryRun {
		return usage(errors.New("sync has no --dry-run: the daemon syncs all the time"))
	}
	reply, err := daemon.Call(ctx, cfg, mountpointOf(cfg, arg), daemon.Request{
		Op: daemon.OpSync, AllowExpunge: a.flags.allowExpunge, Restore: a.flags.restore,
	})
	if err != nil {
		return err
	}
	if reply.Error != "" {
		return &statusError{classStatus(reply.Class), errors.New(reply.Error)}
	}
	if reply.Sync == nil {
		return fmt.Errorf("%s: the daemon gave no answer; it may be of another version", arg)
	}
	return errors.Join(a.report(*reply.Sync), syncResult(*reply.Sync, nil))
}
