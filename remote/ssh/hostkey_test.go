package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
	"dsyncfs/remote"
	"dsyncfs/remote/ssh"
)

func TestUnknownHostKey(t *testing.T) {
	s := harness.StartSSHD(t)
	known := filepath.Join(t.TempDir(), "dir", "known_hosts")
	opts := options(s)
	opts.ConfigFiles = config(t, s, "UserKnownHostsFile "+known)
	err := fails(t, opts, remote.ErrHostKey, "unknown", known, ">> ", fingerprint(t, s))
	var refusal *ssh.HostKeyError
	if !errors.As(err, &refusal) {
		t.Fatalf("no HostKeyError in %v", err)
	}
	if _, err := os.Stat(known); !os.IsNotExist(err) {
		t.Errorf("a refused key was written: %v", err)
	}
	// The command that the message tells must do.
	if err := os.Mkdir(filepath.Dir(known), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sh", "-c", refusal.Add).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", refusal.Add, err, out)
	}
	works(t, opts)
}

func fingerprint(t *testing.T, s *harness.SSHD) string {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-l", "-f", s.KnownHostsFile).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))[1]
}

func TestUnknownHostKeyIsAskedForAndRemembered(t *testing.T) {
	s := harness.StartSSHD(t)
	for _, row := range []struct {
		name   string
		answer string
		hash   string
		ok     bool
	}{
		{"yes", "yes", "no", true},
		{"the fingerprint", fingerprint(t, s), "yes", true},
		{"no", "no", "no", false},
		{"y", "y", "no", false},
		{"nothing", "", "no", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			known := filepath.Join(t.TempDir(), "known_hosts")
			write(t, known, "# no end of line")
			opts := options(s)
			opts.ConfigFiles = config(t, s, "UserKnownHostsFile "+known, "StrictHostKeyChecking ask", "HashKnownHosts "+row.hash)
			var warned []string
			opts.Warn = func(text string) { warned = append(warned, text) }
			opts.Prompt = func(_ context.Context, question string, echo bool) (string, error) {
				if !strings.Contains(question, fingerprint(t, s)) || !echo {
					t.Errorf("asked %q, echo %v", question, echo)
				}
				return row.answer, nil
			}
			if !row.ok {
				fails(t, opts, remote.ErrHostKey, "unknown")
				if text := read(t, known); text != "# no end of line" {
					t.Errorf("known_hosts has become %q", text)
				}
				return
			}
			works(t, opts)
			if len(warned) != 1 || !strings.Contains(warned[0], known) {
				t.Errorf("told the user %q", warned)
			}
			if hashed := strings.Contains(read(t, known), "|1|"); hashed != (row.hash == "yes") {
				t.Errorf("known_hosts has become %q", read(t, known))
			}
			opts.Prompt = ssh.NoPrompt
			works(t, opts)
		})
	}
}

func TestAcceptNewAndNo(t *testing.T) {
	s := harness.StartSSHD(t)
	other := harness.StartSSHD(t)
	changed := strings.Replace(other.HostKeyLine, strconv.Itoa(other.Port), strconv.Itoa(s.Port), 1) + "\n"
	for _, row := range []struct {
		strict, known string
		ok            bool
		warning       string
	}{
		{"accept-new", "", true, "added the host key"},
		{"accept-new", changed, false, ""},
		{"no", "", true, "added the host key"},
		{"no", changed, true, "IDENTIFICATION HAS CHANGED"},
	} {
		t.Run(row.strict+", "+row.warning, func(t *testing.T) {
			known := filepath.Join(t.TempDir(), "known_hosts")
			write(t, known, row.known)
			opts := options(s)
			opts.ConfigFiles = config(t, s, "UserKnownHostsFile "+known, "StrictHostKeyChecking "+row.strict)
			warned := ""
			opts.Warn = func(text string) { warned += text }
			if row.ok {
				works(t, opts)
			} else {
				fails(t, opts, remote.ErrHostKey)
			}
			if !strings.Contains(warned, row.warning) || row.warning == "" && warned != "" {
				t.Errorf("told the user %q", warned)
			}
		})
	}
}

func TestChangedHostKey(t *testing.T) {
	s := harness.StartSSHD(t)
	other := harness.StartSSHD(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "# first\n"+strings.Replace(other.HostKeyLine, strconv.Itoa(other.Port), strconv.Itoa(s.Port), 1)+"\n")
	opts := options(s)
	opts.KnownHosts = []string{known}
	opts.Prompt = func(context.Context, string, bool) (string, error) {
		t.Error("asked about a changed key")
		return "yes", nil
	}
	fails(t, opts, remote.ErrHostKey, "REMOTE HOST IDENTIFICATION HAS CHANGED", known, "line 2", fingerprint(t, s), "ssh-keygen")
}

func TestRevokedHostKey(t *testing.T) {
	s := harness.StartSSHD(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "@revoked * "+strings.SplitN(s.HostKeyLine, " ", 2)[1]+"\n"+s.HostKeyLine+"\n")
	opts := options(s)
	opts.KnownHosts = []string{known}
	fails(t, opts, remote.ErrHostKey, "revoked", known)
}

func TestHostKnownByAKeyOfAnotherType(t *testing.T) {
	s := harness.StartSSHD(t)
	dir := t.TempDir()
	rsa := harness.GenerateSSHKey(t, filepath.Join(dir, "rsa"), "ecdsa", "")
	known := filepath.Join(dir, "known_hosts")
	write(t, known, fmt.Sprintf("[127.0.0.1]:%d %s\n", s.Port, rsa))
	opts := options(s)
	opts.KnownHosts = []string{known}
	fails(t, opts, remote.ErrHostKey, "ecdsa-sha2-nistp256", "ssh-ed25519")
}

func TestHostKeyAlias(t *testing.T) {
	s := harness.StartSSHD(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	write(t, known, "the-mail-host "+strings.SplitN(s.HostKeyLine, " ", 2)[1]+"\n")
	opts := options(s)
	opts.ConfigFiles = config(t, s, "UserKnownHostsFile "+known, "HostKeyAlias the-mail-host")
	works(t, opts)
}
