package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"dsyncfs/cmd/internal/config"
)

// account is the user whose mail it is. Without -u it is the one who runs us.
type account struct {
	name     string // as -u says; empty: not said
	system   bool   // a user of this machine
	home     string
	uid, gid int
	groups   []int
}

// account looks up the user of -u. Who is no user of this machine may still have mail in a place that the settings name.
func (a *app) account() (*account, error) {
	who := &account{name: a.flags.user}
	if who.name == "" {
		return who, nil
	}
	if strings.ContainsAny(who.name, "/\x00\n") || strings.HasPrefix(who.name, ".") || strings.HasPrefix(who.name, "-") {
		return nil, usage(fmt.Errorf("-u %q: not a user name", who.name))
	}
	u, err := user.Lookup(who.name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return who, nil
	}
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", who.name, err)
	}
	who.system, who.home = true, u.HomeDir
	if who.uid, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("user %s: uid %s: %w", who.name, u.Uid, err)
	}
	if who.gid, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("user %s: gid %s: %w", who.name, u.Gid, err)
	}
	if me := os.Geteuid(); me != 0 && me != who.uid {
		return nil, fmt.Errorf("user %s: only root can act for another user", who.name)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("user %s: groups: %w", who.name, err)
	}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil {
			who.groups = append(who.groups, n)
		}
	}
	return who, nil
}

// adopt takes over the user's environment: defaults are looked for in the user's home.
func (w *account) adopt() error {
	if !w.system || os.Geteuid() != 0 {
		return nil
	}
	for name, value := range map[string]string{"HOME": w.home, "USER": w.name, "LOGNAME": w.name} {
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("user %s: %w", w.name, err)
		}
	}
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "MAIL"} {
		if err := os.Unsetenv(name); err != nil { // root's
			return fmt.Errorf("user %s: %w", w.name, err)
		}
	}
	return nil
}

// become makes this process the user's, for good: what it makes belongs to the user, and it can reach no more than the user.
// It does nothing the second time.
func (w *account) become() error {
	if !w.system || os.Geteuid() != 0 || w.uid == 0 {
		return nil
	}
	if err := syscall.Setgroups(w.groups); err != nil {
		return fmt.Errorf("user %s: setgroups: %w", w.name, err)
	}
	if err := syscall.Setgid(w.gid); err != nil {
		return fmt.Errorf("user %s: setgid: %w", w.name, err)
	}
	if err := syscall.Setuid(w.uid); err != nil {
		return fmt.Errorf("user %s: setuid: %w", w.name, err)
	}
	return nil
}

// locate fills the user into mail_location, as Dovecot's variables say it, and finds the mail of one for whom nothing is set.
func (w *account) locate(cfg *config.Config) error {
	if w.name == "" {
		return nil
	}
	local, domain, _ := strings.Cut(w.name, "@")
	filled := strings.NewReplacer("%%", "%", "%u", w.name, "%n", local, "%d", domain, "%h", w.home,
		"%{user}", w.name, "%{username}", local, "%{domain}", domain, "%{home}", w.home).Replace(cfg.MailLocation)
	if !w.system && (filled == cfg.MailLocation || strings.Contains(cfg.MailLocation, "%h") || strings.Contains(cfg.MailLocation, "%{home}")) {
		return fmt.Errorf("user %s: no such user here; for a virtual one mail_location must say where the mail is, with %%u, %%n or %%d", w.name)
	}
	if filled == "" {
		filled = "maildir:" + mailDirOf(w.home)
	}
	cfg.MailLocation = filled
	return nil
}

// mailDirOf is where the mail of a user is for whom nothing is set: ~/Maildir, or ~/Mail if that alone is there.
func mailDirOf(home string) string {
	dir := filepath.Join(home, "Maildir")
	if other := filepath.Join(home, "Mail"); !isDir(dir) && isDir(other) {
		return other
	}
	return dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
