package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"dsyncfs/remote"
)

var errTimeout = errors.New("timed out")

// login is one handshake with one host: key exchange, host key, authentication. Everything in it that can block ends
// with ctx, which ends when the caller's does or when the peer takes too long.
type login struct {
	dialer   *Dialer
	t        *target
	ctx      context.Context
	cancel   context.CancelCauseFunc
	patience *time.Timer

	hostKeys   *hostKeys
	hostKeyErr error    // what the check of the host key said
	known      bool     // the host key was accepted: from here on it is about us
	keyErr     error    // why a key that the host wanted could not be used
	offered    []string // keys shown to the host, for the message
	unreadable []string // why named keys were not

	agent net.Conn // nil if there is none; closed after the handshake

	mu      sync.Mutex
	closers []io.Closer // closed when ctx ends
	began   time.Time   // when the peer's turn began, for as long as it has no wire
	wire    *wire       // nil: not connected yet
	asking  bool        // it is the user's turn
}

// dial connects to one host, over the last of hops if there are any, and logs in.
func (d *Dialer) dial(ctx context.Context, t *target, hops []*link) (*link, error) {
	l := &login{dialer: d, t: t, began: time.Now()}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	defer l.cancel(nil)
	stop := context.AfterFunc(l.ctx, l.abort)
	defer stop()
	l.patience = time.AfterFunc(t.connectTimeout, func() { l.cancel(errTimeout) })
	defer l.patience.Stop()
	defer d.under(l)()

	defer l.closeAgent()
	if len(hops) > 0 {
		l.closeAtEnd(hops[0].wire)
	}
	raw, err := d.connect(l.ctx, t, hops)
	if err != nil {
		return nil, l.failure("connect to", err)
	}
	l.closeAtEnd(raw)
	if l.hostKeys, err = loadHostKeys(t, l.prompt, d.opts.Warn); err != nil {
		raw.Close()
		return nil, &remote.Error{Host: t.name, Op: "connect to", Class: remote.ErrHostKey, Err: err}
	}
	l.patience.Reset(t.connectTimeout)
	w := newWire(raw)
	l.connected(w)
	conn, channels, requests, err := ssh.NewClientConn(w, t.addr(), &ssh.ClientConfig{
		User:              t.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeysCallback(l.signers)},
		HostKeyCallback:   l.checkHostKey,
		HostKeyAlgorithms: l.hostKeys.algorithms(),
		ClientVersion:     "SSH-2.0-dsyncfs",
	})
	if err != nil {
		raw.Close()
		return nil, l.failure("connect to", err)
	}
	if !stop() { // too late: abort has closed or is closing it
		conn.Close()
		return nil, l.failure("connect to", context.Cause(l.ctx))
	}
	return &link{client: ssh.NewClient(conn, channels, requests), wire: w}, nil
}

// connect makes the byte stream that ssh runs over.
func (d *Dialer) connect(ctx context.Context, t *target, hops []*link) (net.Conn, error) {
	switch {
	case len(hops) > 0:
		return hops[len(hops)-1].client.DialContext(ctx, "tcp", t.addr())
	case t.command != "":
		return proxyCommand(t.command, d.opts.Stderr)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, t.network, t.addr())
}

// closeAtEnd has c closed as soon as ctx ends, also if it has ended already.
func (l *login) closeAtEnd(c io.Closer) {
	l.mu.Lock()
	l.closers = append(l.closers, c)
	l.mu.Unlock()
	if l.ctx.Err() != nil {
		l.abort()
	}
}

func (l *login) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.closers {
		c.Close()
	}
	l.closers = nil
}

func (l *login) closeAgent() {
	if l.agent != nil {
		l.agent.Close()
	}
}

// thinking runs do, which waits for the user, without the clock running.
func (l *login) thinking(do func()) {
	l.patience.Stop()
	l.turn(true)
	defer func() { l.turn(false); l.patience.Reset(l.t.connectTimeout) }()
	do()
}

func (l *login) prompt(ctx context.Context, question string, echo bool) (answer string, err error) {
	l.thinking(func() { answer, err = l.dialer.opts.Prompt(ctx, question, echo) })
	return answer, err
}

func (l *login) warn(text string) { l.dialer.opts.Warn(text) }

func (l *login) checkHostKey(_ string, _ net.Addr, key ssh.PublicKey) error {
	l.hostKeyErr = l.hostKeys.check(l.ctx, key)
	l.known = l.hostKeyErr == nil
	return l.hostKeyErr
}

// signers returns the keys to offer, in OpenSSH's order: those named by somebody that the agent has, the agent's other
// ones, those in files. An encrypted key is decrypted only after the host has said that it would accept it.
func (l *login) signers() ([]ssh.Signer, error) {
	identities := l.identities()
	held, others := l.agentKeys(identities)
	signers := held
	if !l.t.identitiesOnly {
		signers = append(signers, others...)
	}
	for _, id := range identities {
		if isHeld := slices.ContainsFunc(held, func(s ssh.Signer) bool { return sameKey(s.PublicKey(), id.public) }); isHeld {
			continue
		}
		signer, err := l.fileKey(id)
		if err != nil {
			l.unreadable = append(l.unreadable, err.Error())
			continue
		}
		if signer != nil {
			signers = append(signers, signer)
		}
	}
	return signers, nil
}

func (l *login) identities() (found []identity) {
	for i, file := range l.t.identities {
		id, err := readIdentity(file)
		if err == nil {
			found = append(found, id)
		} else if i < l.t.explicit {
			l.unreadable = append(l.unreadable, err.Error())
		}
	}
	return found
}

// agentKeys returns the agent's keys: those of identities in their order, and the rest. No agent is no error.
func (l *login) agentKeys(identities []identity) (held, others []ssh.Signer) {
	if l.t.agent == "" {
		return nil, nil
	}
	conn, err := (&net.Dialer{}).DialContext(l.ctx, "unix", l.t.agent)
	if err != nil {
		l.unreadable = append(l.unreadable, fmt.Sprintf("agent: %v", err))
		return nil, nil
	}
	l.agent = conn
	l.closeAtEnd(conn)
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		l.unreadable = append(l.unreadable, fmt.Sprintf("agent %s: %v", l.t.agent, err))
		return nil, nil
	}
	for _, id := range identities {
		for _, s := range signers {
			if sameKey(s.PublicKey(), id.public) {
				held = append(held, l.patient(s, "of the agent"))
			}
		}
	}
	for _, s := range signers {
		if !slices.ContainsFunc(identities, func(id identity) bool { return sameKey(s.PublicKey(), id.public) }) {
			others = append(others, l.patient(s, "of the agent"))
		}
	}
	return held, others
}

// fileKey makes a signer of a key file; nil if only its public half is there.
func (l *login) fileKey(id identity) (ssh.Signer, error) {
	switch {
	case id.signer != nil:
		return l.patient(id.signer, id.file), nil
	case id.locked == nil:
		return nil, nil
	case id.public == nil:
		signer, err := l.dialer.unlock(l, id)
		if err != nil {
			return nil, err
		}
		return l.patient(signer, id.file), nil
	}
	return &key{l: l, public: id.public, where: id.file, open: func() (ssh.AlgorithmSigner, error) { return l.dialer.unlock(l, id) }}, nil
}

func (l *login) patient(signer ssh.Signer, where string) ssh.Signer {
	s, err := algorithmSigner(signer)
	return &key{l: l, public: signer.PublicKey(), where: where, open: func() (ssh.AlgorithmSigner, error) { return s, err }}
}

// key is a key that can be offered before it can sign.
type key struct {
	l      *login
	public ssh.PublicKey
	where  string
	open   func() (ssh.AlgorithmSigner, error)
}

// PublicKey is asked for when the key is offered.
func (k *key) PublicKey() ssh.PublicKey {
	offer := fmt.Sprintf("%s %s %s", k.public.Type(), ssh.FingerprintSHA256(k.public), k.where)
	if !slices.Contains(k.l.offered, offer) {
		k.l.offered = append(k.l.offered, offer)
	}
	return k.public
}

func (k *key) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm is called once the host wants the key. The agent may ask the user to confirm.
func (k *key) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := k.open()
	var signature *ssh.Signature
	if err == nil {
		k.l.thinking(func() { signature, err = signer.SignWithAlgorithm(rand, data, algorithm) })
	}
	k.l.keyErr = err
	return signature, err
}

// failure gives an error its class: by how far we came, not by what the library's texts say.
func (l *login) failure(op string, err error) error {
	failed := func(class, err error) error { return &remote.Error{Host: l.t.name, Op: op, Class: class, Err: err} }
	var noCommon *ssh.AlgorithmNegotiationError
	var noChannel *ssh.OpenChannelError
	switch cause := context.Cause(l.ctx); {
	case errors.Is(cause, errSilent):
		return failed(remote.ErrTransient, fmt.Errorf("%s: %w", l.t.addr(), cause))
	case errors.Is(cause, errTimeout):
		return failed(remote.ErrTransient, fmt.Errorf("%s: no answer within %v: %w", l.t.addr(), l.t.connectTimeout, cause))
	case cause != nil:
		return fmt.Errorf("%s %s: %w", op, l.t.name, cause)
	case l.hostKeyErr != nil:
		return failed(remote.ErrHostKey, l.hostKeyErr)
	case l.keyErr != nil && errors.Is(err, l.keyErr):
		return failed(remote.ErrAuth, l.keyErr)
	case errors.As(err, &noCommon) && strings.Contains(noCommon.What, "host key") && len(l.hostKeys.algorithms()) > 0:
		return failed(remote.ErrHostKey, fmt.Errorf("it has no key of the types we know it by (%s), only %s", strings.Join(noCommon.SupportedAlgorithms, ", "), strings.Join(noCommon.RequestedAlgorithms, ", ")))
	case errors.As(err, &noChannel):
		return failed(remote.ErrTransient, fmt.Errorf("the jump host cannot reach %s: %s", l.t.addr(), noChannel.Message))
	case isNetwork(err):
		return failed(remote.ErrTransient, fmt.Errorf("%s: %w", l.t.addr(), err))
	case l.known:
		return failed(remote.ErrAuth, l.denied(err))
	case l.hostKeys == nil:
		return failed(remote.ErrTransient, err)
	}
	return failed(remote.ErrProtocol, fmt.Errorf("%s: %w", l.t.addr(), err))
}

// isNetwork tells a broken connection from a peer that said something.
func isNetwork(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || remote.Classify(err) == remote.ErrTransient
}

func (l *login) denied(err error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "user %s is not accepted", l.t.user)
	if strings.Contains(err.Error(), "Too many authentication failures") {
		b.WriteString(" (too many keys were offered; name one with IdentityFile and IdentitiesOnly)")
	}
	if len(l.offered) == 0 {
		b.WriteString("; there was no key to offer")
	} else {
		b.WriteString("; offered: " + strings.Join(l.offered, ", "))
	}
	if len(l.unreadable) > 0 {
		b.WriteString("; not usable: " + strings.Join(l.unreadable, ", "))
	}
	if len(l.t.leftOut) > 0 {
		b.WriteString("; not supported: " + strings.Join(l.t.leftOut, ", ") + ", for which " + useSystemSSH)
	}
	return fmt.Errorf("%s: %w", b.String(), err)
}
