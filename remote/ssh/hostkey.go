package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"

	"dsyncfs/remote"
)

// HostKeyError is why a host's key was not accepted. It is the cause inside a remote.Error of class remote.ErrHostKey.
type HostKeyError struct {
	Host        string // as it stands in known_hosts: name, or [name]:port
	Type        string // "ssh-ed25519"
	Fingerprint string // "SHA256:..."
	File        string // where the key is missing or another one stands
	Line        int    // of the other one; 0 for an unknown host
	Revoked     bool
	Add         string // the command that adds the key; for an unknown host
}

func (e *HostKeyError) Error() string {
	switch {
	case e.Revoked:
		return fmt.Sprintf("the host key %s %s of %s is marked as revoked in %s line %d", e.Type, e.Fingerprint, e.Host, e.File, e.Line)
	case e.Line > 0:
		return fmt.Sprintf(`@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack), or the host key has just been changed.
The host %s now has the %s key %s,
which is not the one in %s line %d. Nothing was sent.
Ask its administrator; if the change is real, remove the old key with: ssh-keygen -f %s -R %s`,
			e.Host, e.Type, e.Fingerprint, e.File, e.Line, remote.Quote([]string{e.File}), remote.Quote([]string{e.Host}))
	}
	return fmt.Sprintf("the host key of %s is unknown: %s %s is not in %s; compare the fingerprint with the host's own (ssh-keygen -lf on its /etc/ssh/ssh_host_*_key.pub), then run: %s",
		e.Host, e.Type, e.Fingerprint, e.File, e.Add)
}

// hostKeys decides about the key of one host.
type hostKeys struct {
	t      *target
	db     *knownhosts.HostKeyDB
	prompt Prompt
	warn   func(string)
}

func loadHostKeys(t *target, prompt Prompt, warn func(string)) (*hostKeys, error) {
	var files []string
	for _, name := range t.knownHosts {
		switch info, err := os.Stat(name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.Mode().IsRegular():
			files = append(files, name)
		}
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fmt.Errorf("%w; correct or remove that line, or %s", err, useSystemSSH)
	}
	return &hostKeys{t: t, db: db, prompt: prompt, warn: warn}, nil
}

// name is host:port as known_hosts is asked for it. An alias stands for itself, without a port (OpenSSH sshconnect.c:
// get_hostfile_hostname_ipaddr).
func (h *hostKeys) name() string {
	if h.t.keyAlias != "" {
		return net.JoinHostPort(h.t.keyAlias, "22")
	}
	return h.t.addr()
}

// algorithms are those of the keys we know, so that the host shows us one of them; nil for an unknown host.
func (h *hostKeys) algorithms() []string { return h.db.HostKeyAlgorithms(h.name()) }

// check accepts the key or says why not. ctx bounds a question.
func (h *hostKeys) check(ctx context.Context, key ssh.PublicKey) error {
	err := h.db.HostKeyCallback()(h.name(), &net.TCPAddr{IP: net.IPv4zero}, key)
	if err == nil {
		return nil
	}
	refusal := &HostKeyError{Host: knownhosts.Normalize(h.name()), Type: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	var revoked *xknownhosts.RevokedError
	var other *xknownhosts.KeyError
	switch {
	case errors.As(err, &revoked):
		refusal.Revoked, refusal.File, refusal.Line = true, revoked.Revoked.Filename, revoked.Revoked.Line
		return refusal
	case !errors.As(err, &other):
		return err // of a certificate
	case len(other.Want) > 0:
		return h.changed(refusal, other.Want[0])
	}
	return h.unknown(ctx, refusal, key)
}

func (h *hostKeys) changed(refusal *HostKeyError, known xknownhosts.KnownKey) error {
	refusal.File, refusal.Line = known.Filename, known.Line
	if h.t.strict != strictNo {
		return refusal
	}
	h.warn(refusal.Error() + "\nGoing on all the same, because StrictHostKeyChecking is off.")
	return nil
}

func (h *hostKeys) unknown(ctx context.Context, refusal *HostKeyError, key ssh.PublicKey) error {
	refusal.File = "any known_hosts file"
	line := h.line(key)
	if len(h.t.knownHosts) > 0 {
		refusal.File = h.t.knownHosts[0]
	}
	refusal.Add = fmt.Sprintf("echo '%s' >> %s", knownhosts.Line([]string{h.name()}, key), remote.Quote([]string{refusal.File}))
	switch h.t.strict {
	case strictYes:
		return refusal
	case strictAsk:
		if err := h.ask(ctx, refusal); err != nil {
			return err
		}
	}
	return h.add(refusal, line)
}

// ask is StrictHostKeyChecking=ask. Without a terminal the answer is no.
func (h *hostKeys) ask(ctx context.Context, refusal *HostKeyError) error {
	question := fmt.Sprintf("The host key of %s is unknown: %s %s.\nConnect and remember it (yes, no, or the fingerprint)? ",
		refusal.Host, refusal.Type, refusal.Fingerprint)
	answer, err := h.prompt(ctx, question, true)
	if err != nil {
		return errors.Join(refusal, unlessNoTerminal(err))
	}
	if answer = strings.TrimSpace(answer); strings.EqualFold(answer, "yes") || answer == refusal.Fingerprint {
		return nil
	}
	return refusal
}

func unlessNoTerminal(err error) error {
	if errors.Is(err, ErrNoTerminal) {
		return nil
	}
	return err
}

func (h *hostKeys) line(key ssh.PublicKey) string {
	name := knownhosts.Normalize(h.name())
	if h.t.hashHosts {
		return xknownhosts.HashHostname(name) + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	}
	return knownhosts.Line([]string{h.name()}, key)
}

// add remembers a key that was accepted. That it cannot be remembered is no reason not to connect.
func (h *hostKeys) add(accepted *HostKeyError, line string) error {
	if len(h.t.knownHosts) == 0 {
		h.warn(fmt.Sprintf("accepted the host key %s of %s; there is no known_hosts file to remember it in", accepted.Fingerprint, accepted.Host))
		return nil
	}
	if err := appendLine(accepted.File, line); err != nil {
		h.warn(fmt.Sprintf("accepted the host key %s of %s, but cannot remember it: %v", accepted.Fingerprint, accepted.Host, err))
		return nil
	}
	h.warn(fmt.Sprintf("added the host key %s %s of %s to %s", accepted.Type, accepted.Fingerprint, accepted.Host, accepted.File))
	return nil
}

// appendLine adds a line in one write, after an end of line if the file has none.
func appendLine(name, line string) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	last := []byte{'\n'}
	if end > 0 {
		if _, err := f.ReadAt(last, end-1); err != nil {
			return err
		}
	}
	if last[0] != '\n' {
		line = "\n" + line
	}
	_, err = f.WriteString(line + "\n")
	return err
}
