package ssh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

func TestProxyCommand(t *testing.T) {
	s := harness.StartSSHD(t)
	opts := options(s)
	opts.ConfigFiles = config(t, s, "ProxyCommand ssh -F "+s.ConfigFile+" -W %h:%p sshd")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	works(t, opts).Close()

	var lines []string
	opts.Stderr = func(line string) { lines = append(lines, line) }
	opts.ConfigFiles = config(t, s, "ProxyCommand /nonexistent/proxy %h")
	fails(t, opts, remote.ErrTransient)
	if !strings.Contains(strings.Join(lines, "\n"), "/nonexistent/proxy") {
		t.Errorf("the shell's words were lost: %q", lines)
	}
}

func TestJumpHostThatCannotReachTheTarget(t *testing.T) {
	s := harness.StartSSHD(t)
	file := filepath.Join(t.TempDir(), "config")
	write(t, file, read(t, s.ConfigFile)+"\nHost far\n  HostName 127.0.0.1\n  Port "+strconv.Itoa(closedPort(t))+"\n  ProxyJump sshd\n")
	opts := options(s)
	opts.Host, opts.ConfigFiles = "far", []string{file}
	fails(t, opts, remote.ErrTransient, "jump host")
}

func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestConnectionRefused(t *testing.T) {
	err := fails(t, ssh.Options{Host: "127.0.0.1", Port: closedPort(t), ConfigFiles: []string{}, Prompt: ssh.NoPrompt}, remote.ErrTransient)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("cause lost: %v", err)
	}
}

func TestHostThatDoesNotResolve(t *testing.T) {
	fails(t, ssh.Options{Host: "no-such-host.invalid", ConfigFiles: []string{}, Prompt: ssh.NoPrompt}, remote.ErrTransient)
}

// listen answers each connection with text, and then keeps it open.
func listen(t *testing.T, text string) (port int, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	ready := make(chan struct{}, 10)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, text)
			conns = append(conns, conn)
			ready <- struct{}{}
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
		for _, conn := range conns {
			conn.Close()
		}
	})
	return l.Addr().(*net.TCPAddr).Port, ready
}

func TestPeerIsNoSSHServer(t *testing.T) {
	port, _ := listen(t, strings.Repeat("220 mail.example.org ESMTP\r\n", 2000))
	fails(t, ssh.Options{Host: "127.0.0.1", Port: port, ConfigFiles: []string{}, Prompt: ssh.NoPrompt}, remote.ErrProtocol)
}

func TestPeerThatSaysNothing(t *testing.T) {
	port, _ := listen(t, "")
	fails(t, ssh.Options{Host: "127.0.0.1", Port: port, ConfigFiles: []string{}, Prompt: ssh.NoPrompt, ConnectTimeout: 200 * time.Millisecond},
		remote.ErrTransient, "no answer within 200ms")
}

func TestCancelDuringDial(t *testing.T) {
	port, accepted := listen(t, "SSH-2.0-slow\r\n")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	changed := errors.New("changed his mind")
	ctx, cancel := context.WithCancelCause(patient(t))
	go func() {
		<-accepted
		cancel(changed)
	}()
	d := dialer(t, ssh.Options{Host: "127.0.0.1", Port: port, ConfigFiles: []string{}, Prompt: ssh.NoPrompt})
	if _, err := d.Dial(ctx); !errors.Is(err, changed) || remote.Classify(err) != nil {
		t.Errorf("dial: %v, class %v", err, remote.Classify(err))
	}
	if _, err := d.Dial(ctx); !errors.Is(err, changed) {
		t.Errorf("dial after the end: %v", err)
	}
}

// stopPeer stops the server's process for the session; it then is as good as behind a cut cable, but for TCP.
func stopPeer(t *testing.T, session remote.Session) (resume func()) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(output(t, session, "sh", "-c", "echo $PPID")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume = sync.OnceFunc(func() { syscall.Kill(pid, syscall.SIGCONT) })
	t.Cleanup(resume)
	return resume
}

func TestDeadPeerIsNoticed(t *testing.T) {
	s := harness.StartSSHD(t)
	for _, row := range []struct {
		name   string
		config []string
	}{
		{"direct", []string{s.ConfigFile}},
		{"behind a jump host", config(t, s, "ProxyJump 127.0.0.1:"+strconv.Itoa(s.Port),
			"Host 127.0.0.1", "User "+s.User, "IdentityFile "+s.ClientKeyFile, "UserKnownHostsFile "+s.KnownHostsFile, "Host *")},
	} {
		t.Run(row.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			opts := options(s)
			opts.ConfigFiles = row.config
			opts.KeepaliveInterval, opts.KeepaliveTimeout = 200*time.Millisecond, 2*time.Second
			session := works(t, opts)
			conn, err := session.Start(patient(t), remotetest.Helper("echo"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			resume := stopPeer(t, session)
			start := time.Now()
			_, err = conn.Read(make([]byte, 1))
			if remote.Classify(err) != remote.ErrTransient || !strings.Contains(err.Error(), "no answer for") || !strings.Contains(err.Error(), "sshd: ") {
				t.Errorf("read: %v", err)
			}
			if err := conn.Wait(); remote.Classify(err) != remote.ErrTransient {
				t.Errorf("wait: %v", err)
			}
			if _, err := conn.Write([]byte("x")); remote.Classify(err) != remote.ErrTransient {
				t.Errorf("write: %v", err)
			}
			if err := session.Wait(); remote.Classify(err) != remote.ErrTransient {
				t.Errorf("session: %v", err)
			}
			if _, err := session.Start(patient(t), []string{"true"}); remote.Classify(err) != remote.ErrTransient {
				t.Errorf("start on a lost session: %v", err)
			}
			if took := time.Since(start); took < opts.KeepaliveTimeout/2 {
				t.Errorf("gave up after %v", took)
			}
			session.Close()
			resume()
		})
	}
}

// TestProbe: with keepalives far away, a probe tells a dead peer from one that is only quiet.
func TestProbe(t *testing.T) {
	s := harness.StartSSHD(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	session := works(t, options(s))
	session.(remote.Prober).Probe(10 * time.Second)
	if out := output(t, session, "echo", "here"); out != "here\n" {
		t.Errorf("answer %q", out)
	}
	resume := stopPeer(t, session)
	session.(remote.Prober).Probe(300 * time.Millisecond)
	if err := session.Wait(); remote.Classify(err) != remote.ErrTransient || !strings.Contains(err.Error(), "no answer for") {
		t.Errorf("session: %v", err)
	}
	session.Close()
	resume()
}

func TestQuietPeerIsNotDead(t *testing.T) {
	s := harness.StartSSHD(t)
	opts := options(s)
	opts.KeepaliveInterval, opts.KeepaliveTimeout = 50*time.Millisecond, 10*time.Second
	session := works(t, opts)
	// The program says nothing for twenty intervals; the answers to keepalives are all there is.
	if out := output(t, session, "sh", "-c", "sleep 1; echo still here"); out != "still here\n" {
		t.Errorf("answer %q", out)
	}
}

func TestCancelWithADeadPeerIsPrompt(t *testing.T) {
	s := harness.StartSSHD(t)
	opts := options(s)
	opts.Grace = 200 * time.Millisecond
	session := works(t, opts)
	changed := errors.New("changed his mind")
	ctx, cancel := context.WithCancelCause(patient(t))
	conn, err := session.Start(ctx, remotetest.Helper("echo"))
	if err != nil {
		t.Fatal(err)
	}
	stopPeer(t, session)
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	cancel(changed)
	if err := <-read; !errors.Is(err, changed) {
		t.Errorf("read: %v", err)
	}
	if err := conn.Wait(); !errors.Is(err, changed) {
		t.Errorf("wait: %v", err)
	}
	if err := session.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestServerKilled(t *testing.T) {
	s := harness.StartSSHD(t)
	session := works(t, options(s))
	conn, err := session.Start(patient(t), remotetest.Helper("echo"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	pid, err := strconv.Atoi(strings.TrimSpace(output(t, session, "sh", "-c", "echo $PPID")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// A lost connection must not look like the end of the output.
	if _, err := io.ReadAll(conn); remote.Classify(err) != remote.ErrTransient || !strings.Contains(err.Error(), "sshd") {
		t.Errorf("read: %v", err)
	}
	if err := session.Wait(); remote.Classify(err) != remote.ErrTransient {
		t.Errorf("session: %v", err)
	}
}

func TestServerThatRunsNoCommands(t *testing.T) {
	s := harness.StartSSHD(t, "MaxSessions 0")
	session, err := dialer(t, options(s)).Dial(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.Start(patient(t), []string{"true"}); remote.Classify(err) != remote.ErrRefused || !strings.Contains(err.Error(), "sshd") {
		t.Errorf("start: %v", err)
	}
}

func TestStartOnADeadPeerEndsWithItsContext(t *testing.T) {
	s := harness.StartSSHD(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	session := works(t, options(s))
	resume := stopPeer(t, session)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := session.Start(ctx, []string{"true"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start: %v", err)
	}
	session.Close()
	resume()
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
