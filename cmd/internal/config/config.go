// Package config is the settings of a run as one validated value: defaults, the settings file, the environment and -o, in
// that order; the later word wins.
//
// Start from [Load]. A settings file is TOML (see docs/dsyncfs.toml); a Dovecot configuration is read through doveconf. An
// unknown setting is an error, and [Config.Validate] reports every problem at once.
package config

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config is the settings of one run. Every field can be set in the file and with -o under the name of its tag.
type Config struct {
	MailLocation string `toml:"mail_location"`    // the local location
	AltChar      string `toml:"dsync_alt_char"`   // replaces what a mailbox name cannot hold
	RemoteCmd    string `toml:"dsync_remote_cmd"` // command template for user@host, with %{login} %{host} %{user}; empty: our own ssh
	StateDir     string `toml:"state_dir"`

	SSHCommand  string        `toml:"ssh_command"`    // the system's ssh instead of our own
	SSHConfig   string        `toml:"ssh_config"`     // instead of ~/.ssh/config
	Identity    string        `toml:"identity"`       // key file
	KnownHosts  string        `toml:"known_hosts"`    // instead of ~/.ssh/known_hosts
	ServerCmd   string        `toml:"server_command"` // what to run on the remote host; default "dsyncfs dsync-server"
	Compress    string        `toml:"compress"`       // auto, yes or no: what is sent to another dsyncfs
	Timeout     time.Duration `toml:"timeout"`        // of inactivity of the other side
	KeepAlive   time.Duration `toml:"keepalive_interval"`
	LockTimeout time.Duration `toml:"lock_timeout"` // how long to wait for a mailbox or index that another program uses

	FullSyncInterval time.Duration `toml:"full_sync_interval"`
	PollInterval     time.Duration `toml:"poll_interval"`
	MaxMissing       MaxMissing    `toml:"max_missing"`

	Commit             string        `toml:"commit"`         // local or remote
	CommitTimeout      time.Duration `toml:"commit_timeout"` // how long commit=remote waits
	ReadOnly           bool          `toml:"ro"`
	AllowOther         bool          `toml:"allow_other"`
	DefaultPermissions bool          `toml:"default_permissions"`
	UID                int           `toml:"uid"` // shown as owner of everything; -1: the real one
	GID                int           `toml:"gid"`

	Mirrors map[string]Mirror `toml:"mirror"`
}

// Mirror is one named mirror of the settings file.
type Mirror struct {
	Local      string `toml:"mail_location"`
	Remote     string `toml:"remote"`
	Mountpoint string `toml:"mountpoint"`
}

// MaxMissing is how much of a mailbox may vanish unseen: the greater of both.
type MaxMissing struct {
	Percent int
	Mails   int
}

// UnmarshalText reads "20%", "50" or "20%,50".
func (m *MaxMissing) UnmarshalText(text []byte) error {
	for _, part := range strings.Split(string(text), ",") {
		part = strings.TrimSpace(part)
		target := &m.Mails
		if p, ok := strings.CutSuffix(part, "%"); ok {
			part, target = p, &m.Percent
		}
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is neither a number of mails nor a percentage", part)
		}
		*target = n
	}
	return nil
}

// Default returns the settings that hold where nothing else is said.
func Default() Config {
	return Config{
		AltChar: "_", StateDir: defaultStateDir(), ServerCmd: "dsyncfs dsync-server",
		Compress: "auto", Timeout: 10 * time.Minute, KeepAlive: 15 * time.Second, LockTimeout: 30 * time.Second,
		FullSyncInterval: 5 * time.Minute, PollInterval: 30 * time.Second,
		MaxMissing: MaxMissing{Percent: 20, Mails: 50},
		Commit:     "local", CommitTimeout: 30 * time.Second, UID: -1, GID: -1,
	}
}

func defaultStateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dsyncfs")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "dsyncfs")
}

// Load reads the settings file, or the default one if file is empty, and then the overrides of -o.
func Load(file string, overrides []string) (Config, error) {
	c := Default()
	var err error
	switch {
	case file == "":
		err = c.readDefaultFile()
	case isDovecot(file):
		err = c.readDovecot(file)
	default:
		err = c.readFile(file)
	}
	if err != nil {
		return c, err
	}
	for _, o := range overrides {
		if err := c.override(o); err != nil {
			return c, fmt.Errorf("-o %s: %w", o, err)
		}
	}
	if err := c.makeAbsolute("."); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// override takes one -o: SETTING=VALUE, or several separated by commas as FUSE programs do ("ro,allow_other,commit=remote").
// A word without '=' sets a switch.
func (c *Config) override(o string) error {
	for _, part := range splitSettings(o) {
		name, value, has := strings.Cut(part, "=")
		if err := c.Set(strings.TrimSpace(name), value, has); err != nil {
			return err
		}
	}
	return nil
}

// splitSettings splits at commas that a setting follows, so that a value may hold other commas. "\," is a comma that never
// splits, as in the options of FUSE.
func splitSettings(o string) []string {
	var parts []string
	glued := false // the part before ended with a backslash
	for _, p := range strings.Split(o, ",") {
		name, _, _ := strings.Cut(p, "=")
		name = strings.TrimSpace(name)
		if last := len(parts) - 1; glued || last >= 0 && !known(name) && !ignored(name) && !looksLikeSetting(p) {
			parts[last] += "," + p
		} else {
			parts = append(parts, p)
		}
		last := len(parts) - 1
		parts[last], glued = strings.CutSuffix(parts[last], `\`)
	}
	return parts
}

// looksLikeSetting reports whether a part is a setting, known or not.
func looksLikeSetting(part string) bool {
	name, _, hasValue := strings.Cut(part, "=")
	return hasValue && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// ignored reports whether mount(8) passes the option to every file system.
func ignored(name string) bool {
	return slices.Contains([]string{"rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "auto", "noauto", "user", "nouser",
		"users", "owner", "group", "defaults", "_netdev", "nofail", "sync", "async", "dirsync", "atime", "noatime", "relatime",
		"norelatime", "strictatime", "diratime", "nodiratime", "lazytime", "nolazytime", "comment"}, name) ||
		strings.HasPrefix(name, "x-")
}

// Validate reports everything that is wrong with the settings.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Commit != "local" && c.Commit != "remote" {
		bad("setting commit=%s: must be local or remote", c.Commit)
	}
	if !slices.Contains([]string{"auto", "yes", "no"}, c.Compress) {
		bad("setting compress=%s: must be auto, yes or no", c.Compress)
	}
	if len(c.AltChar) > 1 || c.AltChar != "" && (c.AltChar[0] <= ' ' || c.AltChar[0] > '~' || strings.ContainsAny(c.AltChar, `/.\&~*%`)) {
		bad("setting dsync_alt_char=%q: must be one ASCII character that any mailbox name can hold", c.AltChar)
	}
	if c.StateDir == "" {
		bad("setting state_dir: cannot be guessed without HOME; set it")
	}
	for name, id := range map[string]int{"uid": c.UID, "gid": c.GID} {
		if id < -1 || id >= math.MaxUint32 {
			bad("setting %s=%d: no such number of a user or group", name, id)
		}
	}
	if c.MaxMissing.Percent > 100 {
		bad("setting max_missing=%d%%: above 100", c.MaxMissing.Percent)
	}
	for name, d := range map[string]time.Duration{
		"timeout": c.Timeout, "keepalive_interval": c.KeepAlive, "lock_timeout": c.LockTimeout,
		"full_sync_interval": c.FullSyncInterval, "poll_interval": c.PollInterval, "commit_timeout": c.CommitTimeout,
	} {
		if d <= 0 {
			bad("setting %s=%s: must be positive", name, d)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
