package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a settings file, in bytes.
const maxFile = 1 << 20

// Paths returns where a settings file is looked for, the first that exists counts.
func Paths() []string {
	var paths []string
	if dir, err := os.UserConfigDir(); err == nil {
		paths = append(paths, filepath.Join(dir, "dsyncfs", "dsyncfs.toml"))
	}
	return append(paths, "/etc/dsyncfs/dsyncfs.toml")
}

func (c *Config) readDefaultFile() error {
	for _, path := range Paths() {
		if _, err := os.Stat(path); err == nil {
			return c.readFile(path)
		}
	}
	return nil
}

func (c *Config) readFile(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Size() > maxFile) {
		err = fmt.Errorf("%s: not a settings file", path)
	}
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	if err := c.parse(string(text)); err != nil {
		return fmt.Errorf("settings file %s: %w", path, err)
	}
	return c.makeAbsolute(filepath.Dir(path))
}

// parse takes over what a settings file sets. Values are what -o takes, or TOML's own switches and numbers; a number is one of
// seconds where a time is meant.
func (c *Config) parse(text string) error {
	var file map[string]any
	if _, err := toml.Decode(text, &file); err != nil {
		var at toml.ParseError
		if errors.As(err, &at) {
			return fmt.Errorf("line %d: %s", at.Position.Line, at.Message)
		}
		return err
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(file)) {
		if name == mirrorTable {
			errs = append(errs, c.readMirrors(file[name]))
			continue
		}
		if !known(name) {
			errs = append(errs, fmt.Errorf("unknown setting %s", name))
			continue
		}
		value, err := scalar(file[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("setting %s: %w", name, err))
			continue
		}
		errs = append(errs, c.Set(name, value, true))
	}
	return errors.Join(errs...)
}

// scalar writes a TOML value as -o would have it.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return "", errors.New("must be a text, a number, true or false")
}

// mirrorTable is the table of named mirrors, and tag of the field that holds them.
const mirrorTable = "mirror"

func (c *Config) readMirrors(v any) error {
	table, ok := v.(map[string]any)
	if !ok {
		return errors.New("mirror must be a table: [mirror.NAME]")
	}
	c.Mirrors = make(map[string]Mirror, len(table))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(table)) {
		m, err := readMirror(table[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("mirror.%s: %w", name, err))
		}
		c.Mirrors[name] = m
	}
	return errors.Join(errs...)
}

func readMirror(v any) (m Mirror, err error) {
	table, ok := v.(map[string]any)
	if !ok {
		return m, errors.New("must be a table with mail_location, remote and mountpoint")
	}
	fields := map[string]*string{"mail_location": &m.Local, "remote": &m.Remote, "mountpoint": &m.Mountpoint}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(table)) {
		field, ok := fields[key]
		if !ok {
			errs = append(errs, fmt.Errorf("unknown setting %s", key))
			continue
		}
		if *field, ok = table[key].(string); !ok {
			errs = append(errs, fmt.Errorf("setting %s: must be a text", key))
		}
	}
	if m.Remote == "" && len(errs) == 0 {
		errs = append(errs, errors.New("setting remote is missing"))
	}
	return m, errors.Join(errs...)
}

// isDovecot tells a Dovecot configuration from a settings file of ours by its name.
func isDovecot(path string) bool { return filepath.Ext(path) == ".conf" }

// readDovecot asks doveconf for what we need of a Dovecot configuration.
func (c *Config) readDovecot(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	bin, err := exec.LookPath("doveconf")
	if err != nil {
		return fmt.Errorf("%s is a Dovecot configuration, and doveconf is not installed to read it: %w", path, err)
	}
	cmd := exec.Command(bin, "-h", "-c", path, "mail_location")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return fmt.Errorf("doveconf -c %s mail_location: %s: %w", path, said, err)
	}
	c.MailLocation = strings.TrimSpace(string(out))
	return nil
}
