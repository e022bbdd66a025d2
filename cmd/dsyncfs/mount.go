package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/daemon"
	"dsyncfs/remote"
)

func (a *app) mountCommand() *cobra.Command {
	return locations(&cobra.Command{
		Use:   "mount MOUNTPOINT LOCATION2... | mount NAME",
		Short: "show the local Maildir at MOUNTPOINT and keep it mirrored with LOCATION2",
		RunE: func(c *cobra.Command, args []string) error {
			return a.mount(c.Context(), func(cfg *config.Config) (mountRequest, error) { return mountArguments(cfg, args) })
		},
	}, 0, "mount point")
}

// noCommand is the form in which mount(8) calls the program of a file system type: SOURCE MOUNTPOINT -o OPTIONS. Everything
// else without a command is a mistake.
func (a *app) noCommand(ctx context.Context, name string, args []string) error {
	switch {
	case len(args) == 0:
		return usage(fmt.Errorf("no command; see %s --help", name))
	case len(args) != 2 || !filepath.IsAbs(args[1]):
		return usage(fmt.Errorf("unknown command %q; see %s --help", args[0], name))
	}
	return a.mount(ctx, func(cfg *config.Config) (mountRequest, error) {
		return mountRequest{point: args[1], location: named(cfg, args[:1]), source: args[0]}, nil
	})
}

// mountRequest is what is to be mounted where.
type mountRequest struct {
	point    string
	location []string
	source   string // as fstab has it; empty: not from there
}

// mountArguments takes the mount point and the location out of the arguments, or out of a named mirror of the settings.
func mountArguments(cfg *config.Config, args []string) (mountRequest, error) {
	if len(args) > 1 {
		return mountRequest{point: args[0], location: args[1:]}, nil
	}
	m, ok := cfg.Mirrors[args[0]]
	if !ok {
		return mountRequest{}, fmt.Errorf("mount %s: no location given, and no mirror of that name in the settings", args[0])
	}
	if m.Mountpoint == "" {
		return mountRequest{}, fmt.Errorf("mirror %s: the setting mountpoint is missing", args[0])
	}
	return mountRequest{point: m.Mountpoint, location: named(cfg, args)}, nil
}

// startTime bounds how long the first connection may take before the mount goes on without it. It is ample, as the user may
// have to type a passphrase.
const startTime = 2 * time.Minute

func (a *app) mount(ctx context.Context, what func(*config.Config) (mountRequest, error)) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if a.flags.dryRun {
		return usage(errors.New("mount has no --dry-run; see what a mirror would do with: dsyncfs --dry-run mirror"))
	}
	req, err := what(cfg)
	if err != nil {
		return usage(err)
	}
	if req.point, err = filepath.Abs(req.point); err != nil {
		return err
	}
	if cfg.MailLocation == "" {
		// The Maildir is the mount point's own directory, below the mount.
		cfg.MailLocation = "maildir:" + strings.ReplaceAll(req.point, ":", "::")
	}
	if a.flags.foreground {
		return a.runDaemon(ctx, cfg, req, notifyReady)
	}
	if fd := os.Getenv(daemonEnv); fd != "" {
		return a.daemonProcess(ctx, cfg, req, fd)
	}
	return a.startDaemon(ctx)
}

// runDaemon is the mount itself.
func (a *app) runDaemon(ctx context.Context, cfg *config.Config, mount mountRequest, ready func()) (err error) {
	a.flags.noProgress = true
	req, err := a.request(cfg, false)
	if err != nil {
		return err
	}
	if _, err := daemon.Recover(cfg, mount.point); err != nil {
		return err
	}
	e, err := a.openEnds(cfg, mount.location, true, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	o := daemon.Options{
		Config: cfg, Local: e.local, Pair: e.pair, Request: req, Mountpoint: mount.point,
		Remote: e.remote.Location.String(), RemotePath: e.remote.Location.Path, Source: mount.source, Logger: e.log,
		View: e.remote.View, Probe: e.remote.Probe, Ready: ready, Stopping: notifyStopping,
	}
	if err := daemon.Check(o); err != nil {
		return err
	}
	if err := reach(ctx, e); err != nil {
		return err
	}
	return daemon.Run(ctx, o)
}

// reach tries the remote once. One that is away is no obstacle: the mount works without it and tries again. What no further
// attempt can cure is an error.
func reach(ctx context.Context, e *ends) error {
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := e.remote.Reach(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	case remote.Classify(err) == remote.ErrTransient, errors.Is(err, context.DeadlineExceeded):
		e.log.Warn("the remote is away, changes are queued", "err", err)
		return nil
	}
	return err
}
