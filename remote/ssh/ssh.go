// Package ssh is the transport over an ssh connection of our own, made by golang.org/x/crypto/ssh. Start with Options and
// New.
//
// It follows the user's ssh configuration as far as ssh_config(5) says who, where and with which keys: Host, HostName,
// Port, User, IdentityFile, IdentitiesOnly, IdentityAgent, ProxyJump, ProxyCommand, UserKnownHostsFile,
// GlobalKnownHostsFile, StrictHostKeyChecking, HostKeyAlias, HashKnownHosts, ConnectTimeout, ServerAliveInterval and
// AddressFamily. It refuses what it cannot follow (Match exec) and names what it left out when a login fails (GSSAPI,
// PKCS#11); the system's ssh can be run instead, see package command.
//
// Host keys are checked against known_hosts, always. Nothing but a public key is ever used to log in.
//
// Lock order: session.mu before stream.mu; Dialer.mu before login.mu. None of them is held while the network or the user is waited for.
package ssh

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"dsyncfs/remote"
)

// Defaults of Options.
const (
	DefaultConnectTimeout    = 30 * time.Second
	DefaultKeepaliveInterval = 15 * time.Second
	DefaultKeepaliveTimeout  = 45 * time.Second
	DefaultGrace             = 5 * time.Second
)

// Options of a Dialer. Host must be set; the rest may be zero.
type Options struct {
	Host  string // as the user named it: a Host of the configuration, a name or an address
	Login string // overrides User
	Port  int    // overrides Port

	Home        string   // whose ~/.ssh; empty: $HOME
	ConfigFiles []string // instead of ~/.ssh/config and /etc/ssh/ssh_config; these must exist
	KnownHosts  []string // instead of UserKnownHostsFile and GlobalKnownHostsFile
	Identities  []string // key files tried before those of the configuration
	Agent       string   // socket of the agent, or "none"; empty: IdentityAgent, else $SSH_AUTH_SOCK

	Prompt Prompt            // asks the user; nil: at the terminal
	Warn   func(text string) // what the user should know though it is no error; may be nil
	Stderr func(line string) // each line of a program's standard error, bounded and printable; may be nil

	ConnectTimeout    time.Duration // for the connection and for the login, the user's thinking not counted; overrides ConnectTimeout
	KeepaliveInterval time.Duration // silence after which the peer is asked for an answer
	KeepaliveTimeout  time.Duration // silence after which the peer is dead
	Grace             time.Duration // that a program gets between TERM and KILL, and a peer to confirm its end
}

// Prompt asks the user and returns the answer without its line end. echo tells whether the answer may be seen. It
// returns an error that wraps ErrNoTerminal if there is nobody to ask, and promptly when ctx ends.
type Prompt func(ctx context.Context, question string, echo bool) (string, error)

// ErrNoTerminal: a question came up, and there is no terminal to ask at.
var ErrNoTerminal = errors.New("no terminal to ask at")

// NoPrompt is a Prompt for where nobody can be asked.
func NoPrompt(context.Context, string, bool) (string, error) { return "", ErrNoTerminal }

// Dialer connects to one host. It reads the configuration at each Dial and remembers decrypted keys.
type Dialer struct {
	opts Options

	mu     sync.Mutex
	keys   map[[sha256.Size]byte]ssh.AlgorithmSigner // by the content of their file
	logins map[*login]struct{}                       // under way
	ask    sync.Mutex                                // one question at a time; taken before mu
}

// New returns a Dialer. Nothing is read or connected before Dial.
func New(opts Options) (*Dialer, error) {
	if opts.Host == "" || strings.HasPrefix(opts.Host, "-") {
		return nil, fmt.Errorf("ssh to %q: %w: no host name", opts.Host, remote.ErrLocation)
	}
	if opts.Home == "" {
		opts.Home = os.Getenv("HOME")
	}
	if opts.Prompt == nil {
		opts.Prompt = TerminalPrompt
	}
	if opts.Warn == nil {
		opts.Warn = func(string) {}
	}
	setDefault(&opts.KeepaliveInterval, DefaultKeepaliveInterval)
	setDefault(&opts.KeepaliveTimeout, DefaultKeepaliveTimeout)
	setDefault(&opts.Grace, DefaultGrace)
	return &Dialer{opts: opts, keys: make(map[[sha256.Size]byte]ssh.AlgorithmSigner), logins: make(map[*login]struct{})}, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// Dial connects to the host, through its jump hosts if it has any, and logs in.
func (d *Dialer) Dial(ctx context.Context) (remote.Session, error) {
	chain, err := d.chain()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", d.opts.Host, err)
	}
	var hops []*link
	for _, t := range chain {
		l, err := d.dial(ctx, t, hops)
		if err != nil {
			closeWires(hops)
			closeLinks(hops)
			return nil, err
		}
		hops = append(hops, l)
	}
	return newSession(d, chain[len(chain)-1], hops), nil
}

// link is one logged-in connection; the next hop, if any, runs inside.
type link struct {
	client *ssh.Client
	wire   *wire
}

// closeWires breaks the connections below all hops, the outermost first.
func closeWires(hops []*link) {
	for _, l := range hops {
		l.wire.Close()
	}
}

// closeLinks closes from the innermost to the outermost and waits for each.
func closeLinks(hops []*link) {
	for i := len(hops) - 1; i >= 0; i-- {
		hops[i].client.Close()
		hops[i].client.Wait()
	}
}
