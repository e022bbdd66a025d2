package main

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
)

// app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	flags          flags
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
	reverse   bool
	user      string
	oneWay    bool
	exclude   []string
	guid      string
	namespace []string
	allSpaces bool
	lockSecs  uint32
	state     string
	hasState  bool
	timeout   int
	since     string
	until     string
	flag      string
	maxSize   string
	allUsers  bool
	userFile  string
	purge     bool
	rawLog    string

	dryRun       bool
	foreground   bool
	allowExpunge []string
	restore      []string
	json         bool
	noProgress   bool
	restrict     bool
}

const about = `dsyncfs mounts a mailbox as a Maildir and keeps it mirrored: two ways (mirror), one way (backup), or continuously
with a FUSE mount on top (mount). A LOCATION is maildir:PATH, a host or user@host reached by ssh, ssh://[login@]host[:port],
or a command that runs a dsync server. The local location is the setting mail_location (-o mail_location=maildir:PATH).

Exit status: 0 in sync; 2 done, but something changed meanwhile and running again helps (verify: different);
1 failed; 3 stopped by the deletion guard; 64 wrong usage; 75 the other side could not be reached.`

func (a *app) rootCommand(name string) *cobra.Command {
	root := &cobra.Command{
		Use:           filepath.Base(name) + " [options] COMMAND",
		Short:         "mirror, back up and mount mailboxes",
		Long:          about,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		Args:          cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q; see %s --help", args[0], filepath.Base(name)))
			}
			return usage(fmt.Errorf("no command; see %s --help", filepath.Base(name)))
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	a.addFlags(root)
	root.AddCommand(
		a.mirrorCommand(), a.backupCommand(), a.verifyCommand(), a.serverCommand(),
		a.mountCommand(), a.umountCommand(), a.statusCommand(), a.syncCommand(), a.logCommand(),
	)
	for _, c := range root.Commands() {
		// What follows a location may be a command line with options of its own.
		c.Flags().SetInterspersed(false)
		if check := c.Args; check != nil {
			c.Args = func(c *cobra.Command, args []string) error {
				if err := check(c, args); err != nil {
					return usage(fmt.Errorf("%s: %w", c.Name(), err))
				}
				return nil
			}
		}
	}
	return root
}

func (a *app) addFlags(root *cobra.Command) {
	f, p := &a.flags, root.PersistentFlags()
	p.StringVarP(&f.config, "config", "c", "", "settings `FILE`; a Dovecot configuration (*.conf) is read through doveconf")
	p.StringArrayVarP(&f.settings, "option", "o", nil, "override a setting (`SETTING=VALUE`); may repeat; -o a=1,b is understood")
	p.StringVarP(&f.altChar, "alt-char", "C", "", "replaces a `CHAR`acter that a mailbox name cannot hold (default _)")
	p.BoolVarP(&f.debug, "debug", "D", false, "debug messages")
	p.BoolVarP(&f.verbose, "verbose", "v", false, "say what was done")
	p.BoolVarP(&f.full, "full", "f", false, "full sync instead of fast sync")
	p.StringVarP(&f.mailbox, "mailbox", "m", "", "only this `MAILBOX`")
	p.BoolVarP(&f.reverse, "reverse", "R", false, "reverse the direction of backup")
	p.StringVarP(&f.user, "user", "u", "", "for this `USER`: home, uid, gid and mail location")
	p.BoolVarP(&f.oneWay, "one-way", "1", false, "in one direction, but undo nothing at the destination")
	p.StringArrayVarP(&f.exclude, "exclude", "x", nil, "leave out this `MAILBOX`; may repeat, * and ? are wildcards")
	p.StringVarP(&f.guid, "mailbox-guid", "g", "", "only the mailbox of this `GUID`")
	p.Uint32VarP(&f.lockSecs, "lock", "l", 0, "wait at most `SECS` for locks")
	p.IntVarP(&f.timeout, "timeout", "T", 0, "give up after `SECS` of silence")
	p.StringVarP(&f.since, "since", "t", "", "only mails received since this `DATE`")
	p.StringVarP(&f.until, "until", "e", "", "only mails received until this `DATE`")
	p.StringVarP(&f.flag, "flag", "O", "", "only mails with this `FLAG` or keyword; -FLAG: without")
	p.StringVarP(&f.maxSize, "max-size", "I", "", "only mails up to this `SIZE`")
	p.BoolVar(&f.dryRun, "dry-run", false, "say what would change, change nothing")
	p.BoolVar(&f.foreground, "foreground", false, "do not go to the background")
	p.StringArrayVar(&f.allowExpunge, "allow-mass-expunge", nil, "accept for this run that many mails vanished, in this `MAILBOX` or everywhere")
	p.Lookup("allow-mass-expunge").NoOptDefVal = "*"
	p.StringArrayVar(&f.restore, "restore", nil, "bring vanished mails back from the other side, in this `MAILBOX` or everywhere")
	p.Lookup("restore").NoOptDefVal = "*"
	p.BoolVar(&f.json, "json", false, "machine-readable output")
	p.BoolVar(&f.noProgress, "no-progress", false, "no progress display")
}

// normalize makes "-f" of old dsync scripts and "-s ”" work as they are; cobra understands the rest.
func normalize(args []string) []string { return args }

// load reads the settings for this run.
func (a *app) load() (*config.Config, error) {
	cfg, err := config.Load(a.flags.config, a.flags.settings)
	if err != nil {
		return nil, usage(err)
	}
	if a.flags.altChar != "" {
		cfg.AltChar = a.flags.altChar
	}
	if a.flags.timeout > 0 {
		if err := cfg.Set("timeout", fmt.Sprint(a.flags.timeout), true); err != nil {
			return nil, usage(err)
		}
	}
	if a.flags.lockSecs > 0 {
		if err := cfg.Set("lock_timeout", fmt.Sprint(a.flags.lockSecs), true); err != nil {
			return nil, usage(err)
		}
	}
	return &cfg, usage2(cfg.Validate())
}

func usage2(err error) error {
	if err == nil {
		return nil
	}
	return usage(err)
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
	return slog.New(newLineHandler(a.stderr, level))
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
