// Package remote says how dsyncfs reaches the other end of a mirror: the ports Dialer, Session and Conn that every
// transport implements, the parsing of LOCATION2, and the classes of failure a caller decides by.
//
// Start with ParseLocation, Dialer and Classify. A transport moves bytes and knows nothing of mail: no package below
// remote imports the model, except remote/dsync, which speaks Dovecot's wire format over a Conn.
//
// The package refuses to guess: a word that is neither a mail location, a host nor a command is an error, and no shell
// is ever put between dsyncfs and a local command.
package remote

import (
	"context"
	"io"
	"time"
)

// Dialer opens connections to one host. A Dialer is used again after a connection was lost; it keeps what the user
// was asked for (a passphrase), so that a reconnect needs nobody at the terminal. Safe for concurrent use.
type Dialer interface {
	// Dial connects and authenticates. It returns promptly when ctx ends; afterwards ctx has no influence on the
	// Session. Errors are of a class (Classify) and name the host.
	Dial(ctx context.Context) (Session, error)
}

// Session is one kept connection, over which several programs can be run, at the same time or one after another.
// Safe for concurrent use.
type Session interface {
	// Start runs cmd (program and arguments, not yet quoted) at the other end and returns its standard streams.
	// ctx bounds the whole life of the stream, not just its start: when it ends the program is ended as by
	// Conn.Close, and Read, Write and Wait fail with an error that wraps ctx's cause.
	Start(ctx context.Context, cmd []string) (Conn, error)

	// Done is closed when the connection is gone, whether it was lost or closed. Every Conn of it has then failed or
	// is about to.
	Done() <-chan struct{}

	// Wait blocks until Done and says why: nil after Close, else an error of class ErrTransient or ErrProtocol.
	Wait() error

	// Close ends every program still running, closes the connection and returns when nothing of it is left behind: no
	// goroutine, no process. The second and later calls do nothing.
	Close() error
}

// Prober is a Session that can find out at once whether the peer is still there, or a Dialer that can for its Dials under way.
type Prober interface {
	// Probe asks the peer for an answer. A peer that says nothing within limit is given up: Done follows, or the error of Dial, of class
	// ErrTransient. What a Dial waited for an answer before counts, too. It does not wait.
	Probe(limit time.Duration)
}

// Conn is the standard input and output of one program at the other end. Whoever started it closes it. One goroutine may read while another
// writes; Close may be called at any time from any.
type Conn interface {
	// Read reads the program's standard output. io.EOF means that the program closed it while the connection was
	// whole (over ssh: it and standard error, for which sshd waits); a lost connection is always an error of class ErrTransient, never io.EOF.
	//
	// Write writes to its standard input. It may return before the bytes are under way; the error is then that of a
	// later call. Both fail promptly after Close.
	//
	// Close ends the program if it still runs (TERM, then KILL after a grace, as far as the transport reaches) and
	// waits until it is gone. It returns nil also if the program had failed: ask Wait.
	io.ReadWriteCloser

	// CloseWrite closes the program's standard input; reading goes on.
	CloseWrite() error

	// Wait blocks until the program has ended and its standard error was delivered. nil is exit status 0, *ExitError
	// another status or a signal. Read the output to io.EOF first, else a program that still writes never ends.
	// Several calls give the same answer.
	Wait() error
}
