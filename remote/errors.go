package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// Classes of failure, each an error to be asked for with errors.Is, or all at once with Classify. What the caller does
// about a class is written beside it.
var (
	// ErrTransient: the host could not be reached or was lost (unresolvable, nothing listens, timed out, connection
	// reset, no answer to keepalives). Trying again later may help; exit status 75 of a single run.
	ErrTransient = errors.New("cannot be reached")

	// ErrRefused: the host answered, knows us, and declined to run what we asked for (a forced command or restrict
	// option, too many sessions). Only its administrator can help.
	ErrRefused = errors.New("refused by the remote")

	// ErrAuth: the host does not accept any key we have, or no key could be used (wrong passphrase, nobody to ask).
	ErrAuth = errors.New("not authenticated")

	// ErrHostKey: the host's key is unknown, changed or revoked. Never tried again by itself.
	ErrHostKey = errors.New("host key not accepted")

	// ErrProtocol: what answers does not speak what it should (no ssh server there, garbage, no common algorithm).
	ErrProtocol = errors.New("protocol error")

	// ErrNotFound: the program to run does not exist at the other end (exit status 127): no dsyncfs there.
	ErrNotFound = errors.New("program not found")

	// ErrNotYet: a location that is understood but not supported by this version.
	ErrNotYet = errors.New("not supported yet")

	// ErrLocation: an argument that is no location at all. The text says which forms exist.
	ErrLocation = errors.New("not a location")
)

var classes = []error{ErrHostKey, ErrAuth, ErrNotFound, ErrRefused, ErrProtocol, ErrTransient}

// Error is a failure of a class at a host.
type Error struct {
	Host  string // as the user named it
	Op    string // what was being done: "connect", "authenticate"; may be empty
	Class error  // one of the sentinels above
	Err   error  // the cause
}

func (e *Error) Error() string {
	if e.Op == "" {
		return fmt.Sprintf("%s: %v", e.Host, e.Err)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Host, e.Err)
}

// Unwrap gives both the class and the cause, so that errors.Is finds either.
func (e *Error) Unwrap() []error { return []error{e.Class, e.Err} }

// ExitError is the end of a remote program other than with status 0.
type ExitError struct {
	Host    string
	Command string // as it was run, quoted for reading
	Status  int    // exit status; -1 if a signal ended it
	Signal  string // name without SIG, such as "KILL"; empty unless a signal ended it
	Stderr  string // the last lines it wrote to its standard error, for the message
	Class   error  // set by a transport that knows better than the status (ssh's own 255); else nil
}

func (e *ExitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s ", e.Host, shorten(e.Command))
	if e.Signal != "" {
		fmt.Fprintf(&b, "was ended by SIG%s", shorten(e.Signal))
	} else {
		fmt.Fprintf(&b, "ended with exit status %d", e.Status)
	}
	if e.Stderr != "" {
		b.WriteString(": ")
		b.WriteString(strings.ReplaceAll(e.Stderr, "\n", "; "))
	}
	if e.Is(ErrNotFound) {
		b.WriteString(" (is dsyncfs or dovecot installed there, and in the PATH of a command run without login?)")
	}
	return b.String()
}

// shorten keeps a command line readable inside a message of one line.
func shorten(command string) string {
	const limit = 200
	if len(command) > limit {
		command = command[:limit] + "..."
	}
	return printable(command)
}

// Is reports the class of the exit: what the transport set, or ErrNotFound for the shells' status 127 ("command not
// found") and 126 with a missing interpreter.
func (e *ExitError) Is(class error) bool {
	if e.Class != nil {
		return class == e.Class
	}
	missing := e.Status == 127 || e.Status != 0 && strings.Contains(e.Stderr, "command not found")
	return class == ErrNotFound && missing
}

// Classify returns the class of err, one of the sentinels ErrTransient to ErrNotFound, or nil if it has none. An error
// that no transport classified but that comes from the network is ErrTransient; the end of a context is no class.
func Classify(err error) error {
	for _, class := range classes {
		if errors.Is(err, class) {
			return class
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	// Not net.Error: every errno is one, also those of files.
	var network *net.OpError
	var name *net.DNSError
	if errors.As(err, &network) || errors.As(err, &name) || isLost(err) {
		return ErrTransient
	}
	return nil
}

func isLost(err error) bool {
	for _, errno := range []error{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.ETIMEDOUT, net.ErrClosed} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
