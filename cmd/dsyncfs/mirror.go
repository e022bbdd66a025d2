package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/remote"
)

func (a *app) mirrorCommand() *cobra.Command {
	return locations(&cobra.Command{
		Use:   "mirror LOCATION2...",
		Short: "two-way: both locations end with the same mail",
		RunE:  func(c *cobra.Command, args []string) error { return a.syncOnce(c.Context(), args, false) },
	}, 0, "location")
}

func (a *app) backupCommand() *cobra.Command {
	return locations(&cobra.Command{
		Use:   "backup LOCATION2...",
		Short: "one-way: LOCATION2 becomes equal to the local location (-R: the other way round)",
		RunE:  func(c *cobra.Command, args []string) error { return a.syncOnce(c.Context(), args, true) },
	}, 0, "location")
}

func (a *app) verifyCommand() *cobra.Command {
	return locations(&cobra.Command{
		Use:   "verify LOCATION2...",
		Short: "compare and change nothing: 0 equal, 2 different, 1 error",
		RunE:  func(c *cobra.Command, args []string) error { return a.verify(c.Context(), args) },
	}, 0, "location")
}

// request makes of the options what the master asks for.
func (a *app) request(cfg *config.Config, backup bool) (brain.Request, error) {
	f := &a.flags
	req := brain.Request{
		Type: item.SyncState, Debug: f.debug, AltChar: cfg.AltChar, Exclude: f.exclude, BoxGUID: f.guid,
		Box: f.mailbox, NoMailSync: f.noMails, LockTimeout: f.lockSecs, DryRun: f.dryRun,
		AllowExpunge: f.allowExpunge, Restore: f.restore, Flag: f.flag,
	}
	// With an empty state of -s nothing is known of the last run; any other one means what the index holds.
	if f.full || f.stateful && f.state == "" {
		req.Type = item.SyncFull
	}
	switch {
	case backup || f.oneWay:
		req.BackupReceive, req.BackupSend = !f.reverse, f.reverse
		req.NoBackupOverwrite = f.oneWay
	case f.reverse:
		return req, usage(errors.New("-R needs backup or -1: mirror has no direction"))
	}
	if f.mailbox != "" {
		if err := mail.Name(f.mailbox).Check(); err != nil {
			return req, usage(fmt.Errorf("-m %s: %w", f.mailbox, err))
		}
	}
	if f.guid != "" {
		if _, err := mail.ParseMailboxGUID(f.guid); err != nil {
			return req, usage(fmt.Errorf("-g: %w", err))
		}
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
	here, there, err := a.parseEnds(cfg, args)
	if err != nil {
		return nil, usage(err)
	}
	local, err := endpoint.OpenLocal(cfg, here, mayCreate, log)
	if err != nil {
		return nil, err
	}
	opts := a.brainOptions(cfg, log)
	opts.PeerName = there.String()
	opts.Side = "local"
	rem, err := endpoint.NewRemote(cfg, there, endpoint.RemoteOptions{
		MayCreate: otherMayCreate, Slave: opts, Ask: true, Stderr: a.stderr, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	if p := a.progress(); p != nil {
		opts.Progress = p
	}
	return &ends{local, rem, mirror.Pair{Open: local.Store, Dial: rem.Dial, Options: opts, Logger: log}, log}, nil
}

// parseEnds makes locations of the setting and of the words of the command line.
func (a *app) parseEnds(cfg *config.Config, args []string) (here, there remote.Location, err error) {
	args = named(cfg, args)
	if cfg.MailLocation == "" {
		return here, there, errors.New("no local location: say -o mail_location=maildir:PATH")
	}
	if here, err = remote.ParseLocation([]string{cfg.MailLocation}); err != nil {
		return here, there, fmt.Errorf("mail_location: %w", err)
	}
	if there, err = remote.ParseLocation(args); err != nil {
		return here, there, err
	}
	if there.Kind == remote.KindSSH && there.User == "" && there.Login == "" && len(there.Command) == 0 {
		there.User = a.flags.user // whose mail it is there, too
	}
	return here, there, endpoint.Apart(here, there)
}

// named replaces the name of a mirror in the settings by its remote location and takes over its local one.
func named(cfg *config.Config, args []string) []string {
	if len(args) != 1 {
		return args
	}
	m, ok := cfg.Mirrors[args[0]]
	if !ok {
		return args
	}
	if m.Local != "" {
		cfg.MailLocation = m.Local
	}
	return []string{m.Remote}
}

func (a *app) brainOptions(cfg *config.Config, log *slog.Logger) brain.Options {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return brain.Options{
		Hostname: host, Logger: log, Now: func() int64 { return time.Now().Unix() },
		Guard: guard.Policy{MaxMissingPercent: cfg.MaxMissing.Percent, MaxMissingMails: cfg.MaxMissing.Mails},
		Lock: func(ctx context.Context, wait time.Duration) (func() error, error) {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, fmt.Errorf("-l: %w", err)
			}
			return endpoint.SyncLock(ctx, home, wait)
		},
		Spool: endpoint.Spool(cfg.StateDir),
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
	out, err := e.sync(ctx, req)
	return errors.Join(a.report(out), syncResult(out, err), a.printState(err))
}

// sync makes a run and ends its display.
func (e *ends) sync(ctx context.Context, req brain.Request) (brain.Outcome, error) {
	out, err := e.pair.Sync(ctx, req)
	if p, ok := e.pair.Options.Progress.(*progress); ok {
		p.finish()
	}
	return out, err
}

// syncResult is the error of a run that ended with out and err.
func syncResult(out brain.Outcome, err error) error {
	if err == nil && out.Desync {
		text := "something changed meanwhile; run it again"
		if n := len(out.Notes); n > 0 {
			text += ": " + strings.Join(out.Notes[max(0, n-3):], "; ")
		}
		return &statusError{exitAgain, errors.New(text)}
	}
	return err
}

// stateWord is what -s prints: what the last run left is in the state directory, so it only says that there was one.
const stateWord = "dsyncfs:1"

func (a *app) printState(err error) error {
	if !a.flags.stateful || err != nil || a.flags.dryRun {
		return nil
	}
	_, err = fmt.Fprintln(a.stdout, stateWord)
	return output(err)
}

// outcome is what --json prints of a run.
type outcome struct {
	Changed    bool     `json:"changed"`
	Again      bool     `json:"again"` // something changed meanwhile
	Added      int      `json:"added"` // messages saved or copied here
	Sent       int      `json:"sent"`
	Flags      int      `json:"flags"`
	Expunged   int      `json:"expunged"`
	Renumbered int      `json:"renumbered"`
	Matched    int      `json:"matched"`
	NewHere    int      `json:"new_here"`  // with --dry-run
	NewThere   int      `json:"new_there"` // likewise
	Notes      []string `json:"notes,omitempty"`
	Plan       []string `json:"plan,omitempty"` // with --dry-run, and of verify
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return output(enc.Encode(v))
}

// report says what was done, or with --dry-run would be.
func (a *app) report(out brain.Outcome) error {
	if a.flags.json {
		return a.printJSON(outcome{out.Changed, out.Desync, out.Added, out.Sent, out.Flags, out.Expunged, out.Renumbered,
			out.Matched, out.NewHere, out.NewThere, out.Notes, out.Plan})
	}
	err := a.printPlan(out)
	if a.flags.dryRun && err == nil {
		_, err = fmt.Fprintf(a.stdout, "nothing was changed; %d messages matched, %d new here, %d new there\n", out.Matched, out.NewHere, out.NewThere)
	}
	if a.flags.verbose {
		fmt.Fprintf(a.stderr, "dsyncfs: %d messages added, %d sent, %d flag changes, %d expunged, %d renumbered, %d matched\n",
			out.Added, out.Sent, out.Flags, out.Expunged, out.Renumbered, out.Matched)
	}
	return output(err)
}

func (a *app) printPlan(out brain.Outcome) error {
	for _, line := range out.Plan {
		if _, err := fmt.Fprintln(a.stdout, printable(line)); err != nil {
			return err
		}
	}
	return nil
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
	out, err := e.sync(ctx, req)
	if err != nil {
		return err
	}
	if a.flags.json {
		err = a.report(out)
	} else {
		err = output(a.printPlan(out))
	}
	if len(out.Plan) > 0 {
		return errors.Join(err, &statusError{exitAgain, nil})
	}
	if a.flags.verbose {
		fmt.Fprintln(a.stderr, "dsyncfs: both sides are equal")
	}
	return err
}
