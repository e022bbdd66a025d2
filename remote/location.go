package remote

import (
	"net/url"
	"strconv"
	"strings"
)

// Kind says what a Location is.
type Kind uint8

const (
	KindNone    Kind = iota // the zero Location
	KindMaildir             // a mail store on this machine
	KindMbox
	KindSdbox
	KindMdbox
	KindSSH     // a host reached by ssh
	KindCommand // a command on this machine that executes a dsync server
)

var storeKinds = map[string]Kind{"maildir": KindMaildir, "mbox": KindMbox, "sdbox": KindSdbox, "mdbox": KindMdbox}

func (k Kind) String() string {
	switch k {
	case KindMaildir:
		return "maildir"
	case KindMbox:
		return "mbox"
	case KindSdbox:
		return "sdbox"
	case KindMdbox:
		return "mdbox"
	case KindSSH:
		return "ssh"
	case KindCommand:
		return "command"
	}
	return "none"
}

// Location is one side of a mirror. Which fields have a meaning follows from Kind; the others are zero.
type Location struct {
	Kind Kind

	// Mail stores.
	Path   string // absolute and clean
	Layout string // of a Maildir: "" for Maildir++, or "fs"
	Inbox  string // the INBOX elsewhere, absolute and clean; empty: at its usual place

	// KindSSH.
	Login string // of the ssh user; empty: as ssh's configuration says, else the local user's name
	Host  string // as given: a name of ssh's configuration, a host name or an address (IPv6 without brackets)
	Port  int    // 0: as ssh's configuration says, else 22
	User  string // whose mail, handed over as -u; empty: the ssh user's

	// KindCommand: program and arguments to run here, complete. KindSSH: what to run there, complete, or nil for the
	// caller's default.
	Command []string
}

// server is the word that makes a dsync server of doveadm and of dsyncfs.
const server = "dsync-server"

// ServerCommand is what to run for a KindSSH location: its own command, or program as a dsync server for the mail of
// User.
func (l Location) ServerCommand(program ...string) []string {
	if len(l.Command) > 0 {
		return append([]string(nil), l.Command...)
	}
	cmd := append(append([]string(nil), program...), server)
	if l.User != "" {
		cmd = append(cmd, "-u", l.User)
	}
	return cmd
}

// String is the canonical form: equal for two spellings of one location, different for different ones. It names the
// state of a mirror, so it must not change from version to version. Mail stores and ssh locations parse back to the
// same Location, except that a User beside a Login, Port or Command is written as a query no command line has.
func (l Location) String() string {
	switch l.Kind {
	case KindSSH:
		return l.sshString()
	case KindCommand:
		return Quote(l.Command)
	case KindNone:
		return ""
	}
	s := l.Kind.String() + ":" + strings.ReplaceAll(l.Path, ":", "::")
	if l.Layout != "" {
		s += ":LAYOUT=" + l.Layout
	}
	if l.Inbox != "" {
		s += ":INBOX=" + strings.ReplaceAll(l.Inbox, ":", "::")
	}
	return s
}

func (l Location) sshString() string {
	if l.User != "" && l.Login == "" && l.Port == 0 && len(l.Command) == 0 {
		return l.User + "@" + l.Host
	}
	s := "ssh://"
	if l.Login != "" {
		s += url.PathEscape(l.Login) + "@"
	}
	if strings.Contains(l.Host, ":") {
		s += "[" + l.Host + "]"
	} else {
		s += l.Host
	}
	if l.Port != 0 {
		s += ":" + strconv.Itoa(l.Port)
	}
	for i, word := range l.Command {
		switch deep, absolute := strings.CutPrefix(word, "/"); {
		case i > 0:
			s += " " + commandEscape(word)
		case absolute && strings.Contains(deep, "/") && deep[0] != '/' && deep[0] != '~':
			s += commandEscape(word) // the slash after the host is the path's own
		default:
			s += "/" + commandEscape(word)
		}
	}
	if l.User != "" {
		s += "?user=" + url.QueryEscape(l.User)
	}
	return s
}

// commandEscape leaves slashes readable; a "?" is escaped, so that the query is told from the command.
func commandEscape(word string) string {
	return strings.ReplaceAll(url.PathEscape(word), "%2F", "/")
}
