package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/remote"
)

func (a *app) mirrorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mirror LOCATION2...",
		Short: "two-way: both locations end with the same mail",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.syncOnce(c.Context(), args, false) },
	}
}

func (a *app) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup LOCATION2...",
		Short: "one-way: LOCATION2 becomes equal to the local location (-R: the other way round)",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.syncOnce(c.Context(), args, true) },
	}
}

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify LOCATION2...",
		Short: "compare and change nothing: 0 equal, 2 different, 1 error",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.verify(c.Context(), args) },
	}
}

// request makes of the options what the master asks for.
func (a *app) request(cfg *config.Config, backup bool) (brain.Request, error) {
	f := &a.flags
	req := brain.Request{
		Type: item.SyncState, Debug: f.debug, AltChar: cfg.AltChar, Exclude: f.exclude, BoxGUID: f.guid,
		Box: f.mailbox, LockTimeout: f.lockSecs, DryRun: f.dryRun,
		AllowExpunge: f.allowExpunge, Restore: f.restore, Flag: f.flag,
	}
	if f.full {
		req.Type = item.SyncFull
	}
	switch {
	case backup || f.oneWay:
		req.BackupReceive, req.BackupSend = !f.reverse, f.reverse
		req.NoBackupOverwrite = f.oneWay
	case f.reverse:
		return req, usage(errors.New("-R needs backup or -1: mirror has no direction"))
	}
	var err error
	if req.Since, err = parseDate(f.since); err != nil {
		return req, usage(fmt.Errorf("-t: %w", err))
	}
	if req.Until, err = parseDate(f.until); err != nil {
		return req, usage(fmt.Errorf("-e: %w", err))
	}
	if req.MaxSize, err = parseSize(f.maxSize); err != nil {
		return req, usage(fmt.Errorf("-I: %w", err))
	}
	return req, nil
}

// parseDate reads what doveadm's dates look like: seconds since the epoch, YYYY-MM-DD, or "N days|weeks|hours".
func parseDate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339, "02-Jan-2006"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t.Unix(), nil
		}
	}
	var n int64
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err == nil {
		for prefix, secs := range map[string]int64{"sec": 1, "min": 60, "hour": 3600, "day": 86400, "week": 7 * 86400} {
			if strings.HasPrefix(unit, prefix) {
				return time.Now().Unix() - n*secs, nil
			}
		}
	}
	return 0, fmt.Errorf("%q is no date such as 2026-01-31, 1767261600 or 7days", s)
}

// parseSize reads bytes with an optional K, M or G.
func parseSize(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "KMGB")
	shift := map[string]uint{"": 0, "K": 10, "KB": 10, "M": 20, "MB": 20, "G": 30, "GB": 30}
	n, err := strconv.ParseUint(digits, 10, 64)
	by, ok := shift[strings.ToUpper(s)[len(digits):]]
	if err != nil || !ok || n == 0 || n > 1<<62>>by {
		return 0, fmt.Errorf("%q is no size such as 500K or 20M", s)
	}
	return n << by, nil
}

// ends are the two ends of a run.
type ends struct {
	local  *endpoint.Local
	remote *endpoint.Remote
	pair   mirror.Pair
	log    *slog.Logger
}

func (e *ends) close() error {
	return errors.Join(e.remote.Close(), e.local.Close())
}

// rehearse keeps a dry run from making a location that is not there yet.
func (e *ends) rehearse() (func(), error) {
	here, err := e.local.Rehearse()
	if err != nil {
		return nil, err
	}
	there, err := e.remote.Rehearse()
	return func() {
		if err := errors.Join(here(), there()); err != nil {
			e.log.Warn("cleaning up after the dry run", "err", err)
		}
	}, err
}

// openEnds prepares both ends. mayCreate is about the local one: the other may be created wherever it is a destination.
func (a *app) openEnds(cfg *config.Config, args []string, mayCreate, otherMayCreate bool) (*ends, error) {
	log := a.logger()
	if cfg.MailLocation == "" {
		return nil, usage(errors.New("no local location: say -o mail_location=maildir:PATH"))
	}
	here, err := remote.ParseLocation([]string{cfg.MailLocation})
	if err != nil {
		return nil, usage(fmt.Errorf("mail_location: %w", err))
	}
	there, err := remote.ParseLocation(args)
	if err != nil {
		return nil, usage(err)
	}
	if here.String() == there.String() {
		return nil, usage(fmt.Errorf("both locations are %s", here))
	}
	local, err := endpoint.OpenLocal(cfg, here, mayCreate, log)
	if err != nil {
		return nil, err
	}
	opts := a.brainOptions(cfg, log)
	opts.PeerName = there.String()
	opts.Side = "local"
	rem, err := endpoint.NewRemote(cfg, there, endpoint.RemoteOptions{
		MayCreate: otherMayCreate, Slave: opts, Ask: true, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	if p := a.progress(); p != nil {
		opts.Progress = p
	}
	return &ends{local, rem, mirror.Pair{Open: local.Store, Dial: rem.Dial, Options: opts, Logger: log}, log}, nil
}

func (a *app) brainOptions(cfg *config.Config, log *slog.Logger) brain.Options {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return brain.Options{
		Hostname: host, Logger: log, Now: func() int64 { return time.Now().Unix() },
		Guard: guard.Policy{MaxMissingPercent: cfg.MaxMissing.Percent, MaxMissingMails: cfg.MaxMissing.Mails},
	}
}

// syncOnce is mirror and backup.
func (a *app) syncOnce(ctx context.Context, args []string, backup bool) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	req, err := a.request(cfg, backup)
	if err != nil {
		return err
	}
	toLocal := req.BackupSend // the local location is the destination
	e, err := a.openEnds(cfg, args, toLocal, !toLocal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if a.flags.dryRun {
		cleanUp, err := e.rehearse()
		if err != nil {
			return err
		}
		defer cleanUp()
	}
	out, err := e.pair.Sync(ctx, req)
	if p, ok := e.pair.Options.Progress.(*progress); ok {
		p.finish()
	}
	a.report(out)
	if err != nil {
		return err
	}
	if out.Desync {
		return &statusError{exitAgain, fmt.Errorf("something changed meanwhile; run it again: %s", strings.Join(lastNotes(out.Notes), "; "))}
	}
	return nil
}

func lastNotes(notes []string) []string { return notes[max(0, len(notes)-3):] }

// report says what was done, or with --dry-run would be.
func (a *app) report(out brain.Outcome) {
	for _, line := range out.Plan {
		fmt.Fprintln(a.stdout, line)
	}
	if a.flags.dryRun {
		fmt.Fprintf(a.stdout, "nothing was changed; %d messages matched, %d new here, %d new there\n", out.Matched, out.NewHere, out.NewThere)
	}
	if a.flags.verbose {
		fmt.Fprintf(a.stderr, "dsyncfs: %d messages added, %d sent, %d flag changes, %d expunged, %d renumbered, %d matched\n",
			out.Added, out.Sent, out.Flags, out.Expunged, out.Renumbered, out.Matched)
	}
}

// verify compares and changes nothing.
func (a *app) verify(ctx context.Context, args []string) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	a.flags.dryRun = true
	req, err := a.request(cfg, false)
	if err != nil {
		return err
	}
	req.Type, req.Verify, req.BackupSend = item.SyncFull, true, true
	e, err := a.openEnds(cfg, args, false, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	out, err := e.pair.Sync(ctx, req)
	if err != nil {
		return err
	}
	for _, line := range out.Plan {
		fmt.Fprintln(a.stdout, line)
	}
	if len(out.Plan) > 0 {
		return &statusError{exitAgain, nil}
	}
	if a.flags.verbose {
		fmt.Fprintln(a.stderr, "dsyncfs: both sides are equal")
	}
	return nil
}
