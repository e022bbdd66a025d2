package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// Parser parses locations on behalf of a user. The zero value works for the user who runs the process.
type Parser struct {
	Home string // what "~" means; empty: $HOME
	Dir  string // what a relative path is relative to; empty: the working directory
}

// ParseLocation parses LOCATION2, the remaining words of a command line (design section 7; dovecot 2.3.19
// doveadm-dsync.c: mirror_get_remote_cmd, parse_ssh_location):
//
//	maildir:PATH[:LAYOUT=fs][:INBOX=PATH]   a mail store here; "::" in a path is a colon; likewise mbox:, sdbox:, mdbox:
//	host, user@host                         by ssh; user is whose mail, not the ssh login
//	remote:[login@]host                     by ssh, with a login
//	ssh://[login@]host[:port][/command]     by ssh
//	several words, or one with "/" or " "   a command here
//
// One word with spaces is split at the spaces as Dovecot does, with no shell and no quoting (Dovecot keeps empty words
// between two spaces, we drop them); whoever needs quoting gives several words. "dsync-server" is appended to a
// command that does not end with it. The command of an ssh URL is what follows the slash, percent-decoded; a program
// that has another slash in it is an absolute path, so that ssh://host/usr/bin/dsyncfs means what it seems to
// ("~/bin/dsyncfs" after the slash starts at the remote home).
//
// Errors wrap ErrLocation, or ErrNotYet for tcp:, tcps: and remoteprefix:.
func ParseLocation(args []string) (Location, error) { return Parser{}.Parse(args) }

// Parse is ParseLocation for the user of the Parser.
func (p Parser) Parse(args []string) (Location, error) {
	for _, arg := range args {
		if strings.ContainsFunc(arg, unicode.IsControl) {
			return Location{}, bad("%q contains a control character", arg)
		}
	}
	switch {
	case len(args) == 0 || len(args) == 1 && strings.TrimSpace(args[0]) == "":
		return Location{}, bad("none given; want maildir:PATH, [user@]host, ssh://[login@]host[:port], or a command")
	case len(args) > 1:
		return commandLocation(args)
	}
	return p.parseWord(args[0])
}

func (p Parser) parseWord(word string) (Location, error) {
	scheme, rest, hasScheme := cutScheme(word)
	switch {
	case hasScheme && storeKinds[scheme] != KindNone:
		return p.parseStore(storeKinds[scheme], rest)
	case hasScheme && scheme == "ssh" && strings.HasPrefix(rest, "//"):
		return parseURL(rest[2:])
	case hasScheme && scheme == "remote":
		return parseRemote(rest)
	case hasScheme && (scheme == "tcp" || scheme == "tcps" || scheme == "remoteprefix"):
		return Location{}, fmt.Errorf("location %q: %s: is %w; use ssh://host", word, scheme, ErrNotYet)
	case hasScheme && addr(word) == (netip.Addr{}):
		return Location{}, bad("%q: unknown kind %q; want maildir:PATH, or ssh://host:port for a host with a port", word, scheme+":")
	case strings.ContainsAny(word, "/ "):
		return commandLocation(strings.FieldsFunc(word, func(r rune) bool { return r == ' ' }))
	}
	return parseHost(word)
}

// cutScheme splits "maildir:..." as Dovecot does: letters and digits up to a colon.
func cutScheme(word string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(word, ":")
	if !ok || scheme == "" {
		return "", "", false
	}
	for _, r := range scheme {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return "", "", false
		}
	}
	return scheme, rest, true
}

func commandLocation(words []string) (Location, error) {
	if scheme, _, _ := cutScheme(words[0]); storeKinds[scheme] != KindNone {
		return Location{}, bad("%q: words after a mail location; quote a path with spaces in it", strings.Join(words, " "))
	}
	if words[0] == "" || strings.HasPrefix(words[0], "-") {
		return Location{}, bad("%q cannot be a command; options go before the mirror or backup command", words[0])
	}
	return Location{Kind: KindCommand, Command: serverCommand(words)}, nil
}

// serverCommand appends dsync-server unless it is there, also as the end of a last word that is a command line itself
// (ssh host "doveadm dsync-server").
func serverCommand(words []string) []string {
	words = append([]string(nil), words...)
	last := words[len(words)-1]
	if last == server || strings.HasSuffix(last, " "+server) {
		return words
	}
	return append(words, server)
}

// parseHost takes host and user@host. A user may contain "@" itself.
func parseHost(word string) (Location, error) {
	user, host, err := cutLogin(word)
	if err != nil {
		return Location{}, bad("%q: %v", word, err)
	}
	if strings.Contains(host, ":") && addr(host) == (netip.Addr{}) {
		return Location{}, bad("%q: a host with a port is written ssh://%s", word, word)
	}
	l := Location{Kind: KindSSH, Host: host, User: user}
	return l, checkHost(word, l)
}

func parseRemote(rest string) (Location, error) {
	login, host, err := cutLogin(rest)
	if err != nil {
		return Location{}, bad("remote:%s: %v", rest, err)
	}
	if strings.ContainsAny(host, ": ") && addr(host) == (netip.Addr{}) {
		return Location{}, bad("remote:%s: a host with a port is written ssh://host:port", rest)
	}
	l := Location{Kind: KindSSH, Host: host, Login: login}
	return l, checkHost("remote:"+rest, l)
}

func parseURL(rest string) (Location, error) {
	word := "ssh://" + rest
	authority, command, hasCommand := strings.Cut(rest, "/")
	login, hostport, err := cutLogin(authority)
	if err != nil {
		return Location{}, bad("%q: %v", word, err)
	}
	l := Location{Kind: KindSSH, Login: login}
	if l.Host, l.Port, err = cutPort(hostport); err != nil {
		return Location{}, bad("%q: %v", word, err)
	}
	if l.Login, err = unescape(l.Login); err != nil {
		return Location{}, bad("%q: %v", word, err)
	}
	if hasCommand && command != "" {
		if l.Command, err = urlCommand(command); err != nil {
			return Location{}, bad("%q: %v", word, err)
		}
	}
	return l, checkHost(word, l)
}

func urlCommand(escaped string) ([]string, error) {
	var words []string
	for field := range strings.SplitSeq(escaped, " ") {
		decoded, err := unescape(field)
		if err != nil {
			return nil, err
		}
		words = append(words, strings.FieldsFunc(decoded, func(r rune) bool { return r == ' ' })...)
	}
	if len(words) == 0 {
		return nil, errors.New("the command is empty")
	}
	if program := words[0]; strings.Contains(program, "/") && program[0] != '/' && program[0] != '~' {
		words[0] = "/" + program
	}
	if strings.HasPrefix(words[0], "-") {
		return nil, fmt.Errorf("%q cannot be a command", words[0])
	}
	return serverCommand(words), nil
}

func unescape(s string) (string, error) {
	decoded, err := url.PathUnescape(s)
	if err == nil && strings.ContainsFunc(decoded, unicode.IsControl) {
		err = errors.New("contains a control character")
	}
	return decoded, err
}

func cutLogin(word string) (login, host string, err error) {
	at := strings.LastIndexByte(word, '@')
	switch {
	case at < 0:
		return "", word, nil
	case at == 0:
		return "", "", errors.New("the user before \"@\" is missing")
	}
	return word[:at], word[at+1:], nil
}

func cutPort(hostport string) (host string, port int, err error) {
	host, digits := hostport, ""
	if inner, ok := strings.CutPrefix(hostport, "["); ok {
		host, digits, ok = strings.Cut(inner, "]")
		if !ok || digits != "" && digits[0] != ':' {
			return "", 0, errors.New("want [address]:port")
		}
		digits = strings.TrimPrefix(digits, ":")
		if addr(host) == (netip.Addr{}) {
			return "", 0, fmt.Errorf("%q is no IPv6 address", host)
		}
	} else {
		host, digits, _ = strings.Cut(hostport, ":")
	}
	if digits == "" {
		return host, 0, nil
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", digits)
	}
	return host, int(n), nil
}

// addr returns the address that s is, the zero one if it is none. A zone is the name of an interface; netip takes anything for
// one, also what ends the brackets around an address.
func addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil || !isHostName(a.Zone()) {
		return netip.Addr{}
	}
	return a
}

// checkHost refuses what another program could take for an option or for more than one word, and what no host is
// called. Names of ssh's configuration are free otherwise.
func checkHost(word string, l Location) error {
	switch {
	case l.Host == "":
		return bad("%q: the host is missing", word)
	case strings.HasPrefix(l.Host, "-"):
		return bad("%q: a host name cannot start with \"-\"", word)
	case strings.HasPrefix(l.Login, "-"), strings.HasPrefix(l.User, "-"):
		return bad("%q: a user name cannot start with \"-\"", word)
	case addr(l.Host) == (netip.Addr{}) && !isHostName(l.Host):
		return bad("%q: %q is no host name", word, l.Host)
	case strings.ContainsFunc(l.Login+l.User, notGraphic):
		return bad("%q: the user name has a blank in it", word)
	}
	return nil
}

func isHostName(host string) bool {
	return !strings.ContainsAny(host, "/\"'`$\\;&|<>(){}[]*?!#%=,^ ") && !strings.ContainsFunc(host, notGraphic)
}

func notGraphic(r rune) bool {
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar
}

// parseStore takes what follows "maildir:".
func (p Parser) parseStore(kind Kind, rest string) (Location, error) {
	parts := splitColons(rest)
	l := Location{Kind: kind}
	var err error
	if l.Path, err = p.path(parts[0]); err != nil {
		return Location{}, bad("%s:%s: %v", kind, rest, err)
	}
	for _, option := range parts[1:] {
		if err := p.storeOption(&l, option); err != nil {
			return Location{}, bad("%s:%s: %v", kind, rest, err)
		}
	}
	return l, nil
}

// storeOption understands what changes where mail is. INDEX and NO-NOSELECT change only what a Dovecot does and are
// let pass, so that a mail_location can be copied from its settings; what would make us look at the wrong files is refused.
func (p Parser) storeOption(l *Location, option string) (err error) {
	key, value, _ := strings.Cut(option, "=")
	switch {
	case key == "INBOX":
		l.Inbox, err = p.path(value)
		return err
	case key == "LAYOUT" && l.Kind == KindMaildir && strings.EqualFold(value, "fs"):
		l.Layout = "fs"
	case key == "LAYOUT" && l.Kind == KindMaildir && strings.EqualFold(value, "maildir++"):
		l.Layout = ""
	case key == "LAYOUT" && l.Kind != KindMaildir && strings.EqualFold(value, "fs"): // their default
	case key == "LAYOUT":
		return fmt.Errorf("LAYOUT=%s is not supported", value)
	case key == "INDEX", key == "NO-NOSELECT":
	case key == "":
		return errors.New("empty option; a colon in a path is written \"::\"")
	default:
		return fmt.Errorf("option %s is not supported; a colon in a path is written \"::\"", key)
	}
	return nil
}

// splitColons splits at single colons; two of them are one that belongs to the text (dovecot 2.3.19
// mailbox-list.c: split_next_arg).
func splitColons(s string) []string {
	parts := []string{""}
	for i := 0; i < len(s); i++ {
		last := len(parts) - 1
		switch {
		case s[i] != ':':
			parts[last] += s[i : i+1]
		case i+1 < len(s) && s[i+1] == ':':
			parts[last] += ":"
			i++
		default:
			parts = append(parts, "")
		}
	}
	return parts
}

// path expands "~", "~/..." and "~user/..." and makes the result absolute.
func (p Parser) path(s string) (string, error) {
	if s == "" {
		return "", errors.New("the path is missing")
	}
	if s[0] == '~' {
		name, rest, _ := strings.Cut(s[1:], "/")
		home, err := p.home(name)
		if err != nil {
			return "", err
		}
		return filepath.Join(home, rest), nil
	}
	if filepath.IsAbs(s) || p.Dir == "" {
		return filepath.Abs(s)
	}
	return filepath.Join(p.Dir, s), nil
}

func (p Parser) home(name string) (string, error) {
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return "", fmt.Errorf("~%s: %w", name, err)
		}
		return u.HomeDir, nil
	}
	home := p.Home
	if home == "" {
		home = os.Getenv("HOME")
	}
	if !filepath.IsAbs(home) {
		return "", errors.New("~: the home directory is not known ($HOME)")
	}
	return home, nil
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrLocation}, args...)...)
}
