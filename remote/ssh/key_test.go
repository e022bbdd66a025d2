package ssh_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
	"dsyncfs/remote"
	"dsyncfs/remote/ssh"
)

func TestRefusedKey(t *testing.T) {
	s := harness.StartSSHD(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	harness.GenerateSSHKey(t, key, "ed25519", "")
	opts := options(s)
	opts.ConfigFiles = config(t, s, "IdentityFile "+key, "GSSAPIAuthentication yes")
	write(t, s.AuthorizedKeys, "")
	fails(t, opts, remote.ErrAuth, "user "+s.User, key, s.ClientKeyFile, "GSSAPIAuthentication", "ssh_command=ssh")
}

func TestNoKeyAtAll(t *testing.T) {
	s := harness.StartSSHD(t)
	opts := options(s)
	missing := filepath.Join(t.TempDir(), "no-key")
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, strings.Replace(read(t, s.ConfigFile), s.ClientKeyFile, missing, 1))
	opts.ConfigFiles = []string{file}
	fails(t, opts, remote.ErrAuth, "no key to offer", missing)
}

// keyOf lets a new key in and returns options that offer it alone.
func keyOf(t *testing.T, s *harness.SSHD, kind, passphrase string) (ssh.Options, string) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	write(t, s.AuthorizedKeys, harness.GenerateSSHKey(t, key, kind, passphrase)+"\n")
	opts := options(s)
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, strings.Replace(read(t, s.ConfigFile), s.ClientKeyFile, key, 1))
	opts.ConfigFiles = []string{file}
	return opts, key
}

func TestKeyTypes(t *testing.T) {
	s := harness.StartSSHD(t)
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			opts, _ := keyOf(t, s, kind, "")
			works(t, opts)
		})
	}
}

func TestEncryptedKey(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, key := keyOf(t, s, "rsa", "open sesame")
	fails(t, opts, remote.ErrAuth, key, "ssh-add")

	asked, answer := 0, "open sesame"
	opts.Prompt = func(_ context.Context, question string, echo bool) (string, error) {
		asked++
		if !strings.Contains(question, key) || echo {
			t.Errorf("asked %q, echo %v", question, echo)
		}
		if asked == 1 {
			return "wrong", nil
		}
		return answer, nil
	}
	d := dialer(t, opts)
	for range 2 { // a reconnect asks nobody
		session, err := d.Dial(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		session.Close()
	}
	if asked != 2 {
		t.Errorf("asked %d times, want 2: a wrong and a right answer", asked)
	}

	answer = "still wrong"
	fails(t, opts, remote.ErrAuth, key, "wrong passphrase")
}

func TestEncryptedKeyIsNotAskedForInVain(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, _ := keyOf(t, s, "ed25519", "open sesame")
	write(t, s.AuthorizedKeys, "")
	opts.Prompt = func(context.Context, string, bool) (string, error) {
		t.Error("asked for the passphrase of a key that the host does not want")
		return "", ssh.ErrNoTerminal
	}
	fails(t, opts, remote.ErrAuth, "not accepted")
}

func TestCancelWhileThePassphraseIsAskedFor(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, _ := keyOf(t, s, "ed25519", "open sesame")
	changed := errors.New("changed his mind")
	ctx, cancel := context.WithCancelCause(patient(t))
	opts.Prompt = func(ctx context.Context, _ string, _ bool) (string, error) {
		cancel(changed)
		<-ctx.Done()
		return "", context.Cause(ctx)
	}
	if _, err := dialer(t, opts).Dial(ctx); !errors.Is(err, changed) {
		t.Errorf("dial: %v", err)
	}
}

// A user may think for longer than a host may take.
func TestThinkingIsNotTimedOut(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, _ := keyOf(t, s, "ed25519", "open sesame")
	opts.ConnectTimeout = 2 * time.Second
	opts.Prompt = func(ctx context.Context, _ string, _ bool) (string, error) {
		select {
		case <-time.After(opts.ConnectTimeout * 11 / 10):
		case <-ctx.Done():
		}
		return "open sesame", context.Cause(ctx)
	}
	works(t, opts)
}

// agentOf starts an ssh-agent that holds the keys.
func agentOf(t *testing.T, keys ...string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatalf("%v; run: apt-get install openssh-client", err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	if _, err := out.Read(make([]byte, 256)); err != nil { // it says where it listens
		t.Fatal(err)
	}
	for _, key := range keys {
		add := exec.Command("ssh-add", "-q", key)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("ssh-add: %v: %s", err, out)
		}
	}
	return socket
}

func TestAgent(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, key := keyOf(t, s, "rsa", "")
	stray := filepath.Join(t.TempDir(), "stray")
	harness.GenerateSSHKey(t, stray, "ed25519", "")
	socket := agentOf(t, stray, key)
	if err := os.Remove(key); err != nil { // the agent and the public half are left
		t.Fatal(err)
	}
	fails(t, opts, remote.ErrAuth, "no key to offer")

	opts.Agent = socket
	works(t, opts)

	opts.Agent = ""
	t.Setenv("SSH_AUTH_SOCK", socket)
	works(t, opts)

	opts.ConfigFiles = config(t, s, "IdentityAgent "+socket, "IdentitiesOnly no")
	t.Setenv("SSH_AUTH_SOCK", "")
	works(t, opts)
}

func TestIdentitiesOnlyKeepsTheAgentsOtherKeys(t *testing.T) {
	s := harness.StartSSHD(t)
	opts, key := keyOf(t, s, "ed25519", "")
	opts.Agent = agentOf(t, key)
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, strings.Replace(read(t, s.ConfigFile), s.ClientKeyFile, key+"-other", 1))
	opts.ConfigFiles = []string{file}
	fails(t, opts, remote.ErrAuth, "no key to offer")
	write(t, file, strings.Replace(read(t, file), "IdentitiesOnly yes", "", 1))
	works(t, opts)
}

func TestTooManyKeys(t *testing.T) {
	s := harness.StartSSHD(t, "MaxAuthTries 1")
	dir := t.TempDir()
	opts := options(s)
	for _, name := range []string{"a", "b"} {
		opts.Identities = append(opts.Identities, filepath.Join(dir, name))
		harness.GenerateSSHKey(t, filepath.Join(dir, name), "ed25519", "")
	}
	fails(t, opts, remote.ErrAuth, "too many keys", "IdentitiesOnly")
}
