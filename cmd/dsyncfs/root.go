package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
)

// app is one run of the command line.
type app struct {
	args           []string // as started
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          flags
	stamp          atomic.Bool // log lines begin with the time
}

// flags are the options of dsync(1) and doveadm-sync(1), and ours.
type flags struct {
	config    string
	settings  []string
	altChar   string
	debug     bool
	verbose   bool
	full      bool
	mailbox   string
	noMails   bool // -m or -g with an empty value
	reverse   bool
	user      string
	oneWay    bool
	exclude   []string
	guid      string
	namespace []string
	allSpaces bool
	lockSecs  uint32
	state     string
	stateful  bool
	timeout   uint32
	since     string
	until     string
	flag      string
	maxSize   string
	allUsers  bool
	userFile  string

	dryRun       bool
	foreground   bool
	allowExpunge []string
	restore      []string
	json         bool
	noProgress   bool
}

const about = `dsyncfs mounts a mailbox as a Maildir and keeps it mirrored: two ways (mirror), one way (backup), or continuously
with a FUSE mount on top (mount). A LOCATION is maildir:PATH, a host or user@host reached by ssh, ssh://[login@]host[:port],
a command that runs a dsync server, or the NAME of a mirror in the settings file. The local location is the setting
mail_location (-o mail_location=maildir:PATH).

Exit status: 0 in sync; 2 done, but something changed meanwhile and running again helps (verify: different);
1 failed; 3 stopped by the deletion guard; 64 wrong usage; 75 the other side could not be reached.`

func (a *app) rootCommand(name string) *cobra.Command {
	name = filepath.Base(name)
	root := &cobra.Command{
		Use:           name + " [options] COMMAND",
		Short:         "mirror, back up and mount mailboxes",
		Long:          about,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args:          cobra.ArbitraryArgs,
		RunE:          func(c *cobra.Command, args []string) error { return a.noCommand(c.Context(), name, args) },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	a.addFlags(root)
	root.AddCommand(
		a.mirrorCommand(), a.backupCommand(), a.verifyCommand(), a.serverCommand(),
		a.mountCommand(), a.umountCommand(), a.statusCommand(), a.syncCommand(), a.logCommand(), notYetCommand("changes"),
	)
	for _, c := range root.Commands() {
		check := c.Args
		c.Args = func(c *cobra.Command, args []string) error {
			if check == nil {
				return nil
			}
			return usage(check(c, args))
		}
	}
	return root
}

// notYetCommand answers a command that a later version will have.
func notYetCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error { return usage(fmt.Errorf("%s is not supported yet", name)) },
	}
}

// locations wants the words of a location behind n other arguments. What follows it may be a command line with options of its
// own, so options end there.
func locations(c *cobra.Command, n int, what string) *cobra.Command {
	c.Flags().SetInterspersed(false)
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < n+1 {
			return fmt.Errorf("%s: no %s given; see %s --help", c.Name(), what, c.CommandPath())
		}
		return nil
	}
	return c
}

// mountpoints wants between low and one mount points.
func mountpoints(c *cobra.Command, low int) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return fmt.Errorf("%s: no mount point given; see %s --help", c.Name(), c.CommandPath())
		case len(args) > 1:
			return fmt.Errorf("%s: one mount point at a time, and %q is one too many", c.Name(), args[1])
		}
		return nil
	}
	return c
}

func (a *app) addFlags(root *cobra.Command) {
	f, p := &a.flags, root.PersistentFlags()
	p.StringVarP(&f.config, "config", "c", "", "settings `FILE`; a Dovecot configuration (*.conf) is read through doveconf")
	p.StringArrayVarP(&f.settings, "option", "o", nil, "override a setting (`SETTING=VALUE`); may repeat; -o a=1,b is understood")
	p.StringVarP(&f.altChar, "alt-char", "C", "", "replaces a `CHAR`acter that a mailbox name cannot hold (default _)")
	p.BoolVarP(&f.debug, "debug", "D", false, "debug messages")
	p.BoolVarP(&f.verbose, "verbose", "v", false, "say what was done")
	p.BoolVarP(&f.full, "full", "f", false, "full sync instead of fast sync")
	p.VarP(&optional{&f.mailbox, &f.noMails}, "mailbox", "m", "only this `MAILBOX`; empty: mailboxes and no mails")
	p.BoolVarP(&f.reverse, "reverse", "R", false, "reverse the direction of backup")
	p.StringVarP(&f.user, "user", "u", "", "for this `USER`: home, uid, gid and mail location")
	p.BoolVarP(&f.oneWay, "one-way", "1", false, "in one direction, but undo nothing at the destination")
	p.StringArrayVarP(&f.exclude, "exclude", "x", nil, "leave out this `MAILBOX`; may repeat, * and ? are wildcards")
	p.VarP(&optional{&f.guid, &f.noMails}, "mailbox-guid", "g", "only the mailbox of this `GUID`; empty: as -m")
	p.StringArrayVarP(&f.namespace, "namespace", "n", nil, "only this `NAMESPACE`; a location has but one, named inbox or \"\"")
	p.BoolVarP(&f.allSpaces, "all-namespaces", "N", false, "all namespaces, as always")
	p.StringVarP(&f.state, "state", "s", "", "the `STATE` that the last run printed; the new one is printed")
	p.Uint32VarP(&f.lockSecs, "lock", "l", 0, "wait at most `SECS` for locks")
	p.Uint32VarP(&f.timeout, "timeout", "T", 0, "give up after `SECS` of silence")
	p.StringVarP(&f.since, "since", "t", "", "only mails received since this `DATE`")
	p.StringVarP(&f.until, "until", "e", "", "only mails received until this `DATE`")
	p.StringVarP(&f.flag, "flag", "O", "", "only mails with this `FLAG` or keyword; -FLAG: without")
	p.StringVarP(&f.maxSize, "max-size", "I", "", "only mails up to this `SIZE`")
	p.BoolVarP(&f.allUsers, "all-users", "A", false, "all users (not supported yet)")
	p.StringVarP(&f.userFile, "user-file", "F", "", "the users that `FILE` lists (not supported yet)")
	p.BoolVar(&f.dryRun, "dry-run", false, "say what would change, change nothing")
	p.BoolVar(&f.foreground, "foreground", false, "do not go to the background")
	p.StringArrayVar(&f.allowExpunge, "allow-mass-expunge", nil, "accept for this run that many mails vanished, in this `MAILBOX` or everywhere")
	p.Lookup("allow-mass-expunge").NoOptDefVal = "*"
	p.StringArrayVar(&f.restore, "restore", nil, "bring vanished mails back from the other side, in this `MAILBOX` or everywhere")
	p.Lookup("restore").NoOptDefVal = "*"
	p.BoolVar(&f.json, "json", false, "machine-readable output")
	p.BoolVar(&f.noProgress, "no-progress", false, "no progress display")
	root.PersistentPreRun = func(c *cobra.Command, _ []string) { f.stateful = c.Flags().Changed("state") }
}

// load reads the settings for this run, and becomes the user that -u names.
func (a *app) load() (*config.Config, error) {
	if err := a.checkOptions(); err != nil {
		return nil, usage(err)
	}
	who, err := a.account()
	if err != nil {
		return nil, err
	}
	if err := who.adopt(); err != nil {
		return nil, err
	}
	// A file that root names may be readable for root only; the user's own is read as the user.
	if a.flags.config == "" {
		if err := who.become(); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(a.flags.config, a.flags.settings)
	if err != nil {
		return nil, usage(err)
	}
	if err := who.become(); err != nil {
		return nil, err
	}
	if err := a.applyOptions(&cfg, who); err != nil {
		return nil, usage(err)
	}
	return &cfg, nil
}

// checkOptions refuses what is understood but not there yet.
func (a *app) checkOptions() error {
	f := &a.flags
	switch {
	case f.allUsers:
		return errors.New("-A (all users) is not supported yet; run it for each user with -u")
	case f.userFile != "":
		return fmt.Errorf("-F %s (the users of a file) is not supported yet; run it for each user with -u", f.userFile)
	}
	for _, n := range f.namespace {
		if n != "" && !strings.EqualFold(n, "inbox") {
			return fmt.Errorf("-n %s: a location has only one namespace, named inbox or \"\"", n)
		}
	}
	return nil
}

// applyOptions lets options count more than settings.
func (a *app) applyOptions(cfg *config.Config, who *account) error {
	f := &a.flags
	if f.altChar != "" {
		cfg.AltChar = f.altChar
	}
	for name, secs := range map[string]uint32{"timeout": f.timeout, "lock_timeout": f.lockSecs} {
		if secs > 0 {
			if err := cfg.Set(name, fmt.Sprint(secs), true); err != nil {
				return err
			}
		}
	}
	if err := who.locate(cfg); err != nil {
		return err
	}
	return cfg.Validate()
}

// logger writes to the user's terminal, one line each.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.flags.debug:
		level = slog.LevelDebug
	case a.flags.verbose:
		level = slog.LevelInfo
	}
	return slog.New(newLineHandler(a.stderr, level, &a.stamp))
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && !strings.Contains(v, s.Value[:12]) {
			v += " (" + s.Value[:12] + ")"
		}
	}
	return v
}

// optional is the value of an option for which empty means something else than none.
type optional struct {
	value *string
	empty *bool
}

func (o *optional) String() string {
	if o.value == nil {
		return ""
	}
	return *o.value
}

// Set implements pflag.Value.
func (o *optional) Set(s string) error {
	*o.value, *o.empty = s, s == ""
	return nil
}

// Type implements pflag.Value.
func (o *optional) Type() string { return "string" }
