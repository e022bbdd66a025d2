package mail

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Name is the full name of a mailbox: UTF-8 parts joined by '/', whatever separator the store or the peer uses. A part
// holds no '/', no control character and is not empty. The empty Name is the root of the hierarchy.
type Name string

// Inbox is the name of the one mailbox that always exists and can be neither renamed nor deleted.
const Inbox Name = "INBOX"

// MaxName bounds the length in bytes of a whole name, MaxNamePart that of one part (a file name on disk).
const (
	MaxName     = 4096
	MaxNamePart = 255
)

// ErrBadName is wrapped by the errors that say why a mailbox name is refused.
var ErrBadName = errors.New("invalid mailbox name")

// JoinName makes a Name of its parts. It checks nothing; see [Name.Check].
func JoinName(parts ...string) Name { return Name(strings.Join(parts, "/")) }

// Parts returns the levels of the name, outermost first; none for the root.
func (n Name) Parts() []string {
	if n == "" {
		return nil
	}
	return strings.Split(string(n), "/")
}

// Parent returns the name one level up, the root for a top-level name.
func (n Name) Parent() Name {
	i := strings.LastIndexByte(string(n), '/')
	if i < 0 {
		return ""
	}
	return n[:i]
}

// Base returns the last part.
func (n Name) Base() string { return string(n[strings.LastIndexByte(string(n), '/')+1:]) }

// Child returns the name of a mailbox one level below n.
func (n Name) Child(part string) Name {
	if n == "" {
		return Name(part)
	}
	return n + "/" + Name(part)
}

// IsBelow reports whether n lies in the hierarchy strictly below parent.
func (n Name) IsBelow(parent Name) bool {
	if parent == "" {
		return n != ""
	}
	return len(n) > len(parent) && n[len(parent)] == '/' && n[:len(parent)] == parent
}

// Moved returns what n is called once from has become to; false: n is neither from nor below it, and stays.
func (n Name) Moved(from, to Name) (Name, bool) {
	if n != from && !n.IsBelow(from) {
		return n, false
	}
	return to + n[len(from):], true
}

// Check refuses what no store can hold or what could lead out of one: empty parts, "." and "..", a leading '~', control
// characters, NUL, invalid UTF-8, and lengths beyond [MaxName] and [MaxNamePart]. Errors wrap [ErrBadName].
func (n Name) Check() error {
	switch {
	case n == "":
		return fmt.Errorf("%w: empty", ErrBadName)
	case len(n) > MaxName:
		return fmt.Errorf("%w: %d bytes long", ErrBadName, len(n))
	case !utf8.ValidString(string(n)):
		return fmt.Errorf("%w %q: not UTF-8", ErrBadName, string(n))
	case n[0] == '~':
		return fmt.Errorf("%w %q: starts with ~", ErrBadName, string(n))
	}
	for _, part := range n.Parts() {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%w %q: part %q", ErrBadName, string(n), part)
		}
		if len(part) > MaxNamePart {
			return fmt.Errorf("%w %.40q...: a part of %d bytes", ErrBadName, string(n), len(part))
		}
		if strings.ContainsFunc(part, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
			return fmt.Errorf("%w %q: control character", ErrBadName, string(n))
		}
	}
	return nil
}

// FoldInbox returns n with a first part that is INBOX in any case written as INBOX (RFC 9051 §5.1).
func (n Name) FoldInbox() Name {
	const l = len(Inbox)
	if len(n) >= l && strings.EqualFold(string(n[:l]), string(Inbox)) && (len(n) == l || n[l] == '/') {
		return Inbox + n[l:]
	}
	return n
}

// NameHash identifies a name in deletion records: the first 16 bytes of the SHA-1 of the full name written with the
// separator sep (dovecot 2.3 mailbox_name_get_sha128).
func (n Name) NameHash(sep byte) GUID128 {
	sum := sha1.Sum([]byte(strings.ReplaceAll(string(n), "/", string(sep))))
	return GUID128(sum[:16])
}
