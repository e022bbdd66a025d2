package ssh_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dsyncfs/integration/harness"
	"dsyncfs/remote"
	"dsyncfs/remote/command"
	"dsyncfs/remote/remotetest"
	"dsyncfs/remote/ssh"
)

// grace of the suite's dialers: long enough for a busy machine, short enough for the programs that use it up.
const grace = 1500 * time.Millisecond

func TestMain(m *testing.M) { remotetest.Main(m) }

// options are those of a user who is set up for the server, has no agent and cannot be asked.
func options(s *harness.SSHD) ssh.Options {
	return ssh.Options{Host: "sshd", ConfigFiles: []string{s.ConfigFile}, Home: "/nonexistent", Agent: "none", Prompt: ssh.NoPrompt}
}

func dialer(tb testing.TB, opts ssh.Options) *ssh.Dialer {
	tb.Helper()
	d, err := ssh.New(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), remotetest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// works dials and runs a command.
func works(t *testing.T, opts ssh.Options) remote.Session {
	t.Helper()
	session, err := dialer(t, opts).Dial(patient(t))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { session.Close() })
	if out := output(t, session, "echo", "here"); out != "here\n" {
		t.Fatalf("the command answered %q", out)
	}
	return session
}

func output(t *testing.T, session remote.Session, cmd ...string) string {
	t.Helper()
	conn, err := session.Start(patient(t), cmd)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	defer conn.Close()
	out, err := io.ReadAll(conn)
	if err = errors.Join(err, conn.Wait()); err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return string(out)
}

// fails dials and expects an error of a class that names the host and has each of the hints.
func fails(t *testing.T, opts ssh.Options, class error, hints ...string) error {
	t.Helper()
	session, err := dialer(t, opts).Dial(patient(t))
	if err == nil {
		session.Close()
		t.Fatal("dial succeeded")
	}
	if remote.Classify(err) != class {
		t.Errorf("class %v, want %v: %v", remote.Classify(err), class, err)
	}
	for _, hint := range append(hints, opts.Host) {
		if !strings.Contains(err.Error(), hint) {
			t.Errorf("error does not say %q: %v", hint, err)
		}
	}
	return err
}

// config writes a configuration that says lines about the host before what the server's says.
func config(t *testing.T, s *harness.SSHD, lines ...string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, "Host sshd *.jump\n  "+strings.Join(lines, "\n  ")+"\nInclude "+s.ConfigFile)
	return []string{file}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConformance(t *testing.T) {
	s := harness.StartSSHD(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	remotetest.Run(t, func(tb testing.TB, stderr func(string)) remote.Dialer {
		opts := options(s)
		opts.Stderr, opts.Grace = stderr, grace
		return dialer(tb, opts)
	})
}

func TestConformanceThroughAJumpHost(t *testing.T) {
	s := harness.StartSSHD(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	jump := config(t, s, "ProxyJump 127.0.0.1:"+strconv.Itoa(s.Port),
		"Host 127.0.0.1", "User "+s.User, "IdentityFile "+s.ClientKeyFile, "UserKnownHostsFile "+s.KnownHostsFile, "Host *")
	remotetest.Run(t, func(tb testing.TB, stderr func(string)) remote.Dialer {
		opts := options(s)
		opts.ConfigFiles, opts.Stderr, opts.Grace = jump, stderr, grace
		return dialer(tb, opts)
	})
}

// The system's ssh has to serve the same suite; it lives in package command, its server here.
func TestConformanceOfTheSystemsSSH(t *testing.T) {
	s := harness.StartSSHD(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	remotetest.Run(t, func(tb testing.TB, stderr func(string)) remote.Dialer {
		d, err := command.SSH(command.SSHOptions{
			Options: command.Options{Host: "sshd", Stderr: stderr, Grace: grace},
			Program: []string{"ssh", "-F", s.ConfigFile},
		})
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}, remotetest.HidesSignals)
}
