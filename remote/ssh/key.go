package ssh

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/ssh"
)

const (
	maxKeyFile     = 64 << 10
	passphraseTurn = 3 // how often a passphrase is asked for (ssh_config: NumberOfPasswordPrompts)
)

// identity is a key file as far as it can be read without asking.
type identity struct {
	file   string
	public ssh.PublicKey       // nil if it takes the passphrase to know it
	signer ssh.AlgorithmSigner // nil if the key is encrypted or only its public half is here
	locked []byte              // the encrypted key
}

// readIdentity reads a private key; where there is none, its public half, which chooses a key of the agent.
func readIdentity(file string) (identity, error) {
	id := identity{file: file}
	text, err := readKeyFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		id.public = readPublic(file + ".pub")
		if id.public == nil {
			return id, err
		}
		return id, nil
	}
	if err != nil {
		return id, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var missing *ssh.PassphraseMissingError
	switch {
	case err == nil:
		id.public = signer.PublicKey()
		id.signer, err = algorithmSigner(signer)
	case errors.As(err, &missing):
		id.public, id.locked, err = missing.PublicKey, text, nil
		if id.public == nil {
			id.public = readPublic(file + ".pub")
		}
	default:
		if id.public = parsePublic(text); id.public == nil {
			// A security key's private half is of no use without its device; the agent has it.
			id.public = readPublic(file + ".pub")
		}
		if id.public != nil {
			err = nil
		}
	}
	return id, err
}

func readKeyFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(text) > maxKeyFile {
		err = fmt.Errorf("%s: larger than a key", file)
	}
	return text, err
}

func readPublic(file string) ssh.PublicKey {
	text, err := readKeyFile(file)
	if err != nil {
		return nil
	}
	return parsePublic(text)
}

func parsePublic(text []byte) ssh.PublicKey {
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return key
}

// algorithmSigner is what every signer of the ssh package is; RSA keys need it to sign with anything but SHA-1.
func algorithmSigner(signer ssh.Signer) (ssh.AlgorithmSigner, error) {
	s, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("%s key: cannot choose how to sign", signer.PublicKey().Type())
	}
	return s, nil
}

// unlock asks for the passphrase of a key, unless that was done before. One question is asked at a time, so that two
// connections at once ask once.
func (d *Dialer) unlock(l *login, id identity) (ssh.AlgorithmSigner, error) {
	sum := sha256.Sum256(id.locked)
	d.ask.Lock()
	defer d.ask.Unlock()
	if signer := d.unlocked(sum); signer != nil {
		return signer, nil
	}
	for range passphraseTurn {
		phrase, err := l.prompt(l.ctx, fmt.Sprintf("Passphrase for the key %s: ", id.file), false)
		if err != nil {
			return nil, fmt.Errorf("key %s is encrypted: %w; unlock it with: ssh-add %s", id.file, err, id.file)
		}
		signer, err := ssh.ParsePrivateKeyWithPassphrase(id.locked, []byte(phrase))
		if err == nil {
			return d.remember(sum, signer)
		}
		l.warn(fmt.Sprintf("key %s: wrong passphrase", id.file))
	}
	return nil, fmt.Errorf("key %s: wrong passphrase", id.file)
}

func (d *Dialer) unlocked(sum [sha256.Size]byte) ssh.AlgorithmSigner {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[sum]
}

func (d *Dialer) remember(sum [sha256.Size]byte, signer ssh.Signer) (ssh.AlgorithmSigner, error) {
	s, err := algorithmSigner(signer)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[sum] = s
	return s, nil
}

func sameKey(a, b ssh.PublicKey) bool {
	return a != nil && b != nil && bytes.Equal(a.Marshal(), b.Marshal())
}
