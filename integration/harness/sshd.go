package harness

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SSHD is a real OpenSSH server on a loopback port, with a host key and a client key of its own.
type SSHD struct {
	Addr           string // "127.0.0.1:PORT"
	Port           int
	User           string // who may log in: the one who runs the tests
	HostKeyLine    string // its line in known_hosts
	KnownHostsFile string // holds HostKeyLine alone
	ClientKeyFile  string // a private key the server accepts; the public one is beside it, ".pub"
	AuthorizedKeys string // the file of accepted keys; read by the server at each login
	ConfigFile     string // for ssh -F and the like: host "sshd" is this server, with the files above
	PID            int    // of the listening process
}

// sshdPatience bounds the start of a server.
const sshdPatience = 20 * time.Second

// StartSSHD starts a server that lives until the end of the test. More lines for its sshd_config may be given; the
// first value of a keyword counts, and these come first.
func StartSSHD(tb testing.TB, config ...string) *SSHD {
	tb.Helper()
	for _, program := range []string{"/usr/sbin/sshd", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Fatalf("%v; run: apt-get install openssh-server openssh-client", err)
		}
	}
	dir := tb.TempDir()
	s := &SSHD{
		User:           sshdUser(tb),
		KnownHostsFile: filepath.Join(dir, "known_hosts"),
		ClientKeyFile:  filepath.Join(dir, "client_key"),
		AuthorizedKeys: filepath.Join(dir, "authorized_keys"),
		ConfigFile:     filepath.Join(dir, "ssh_config"),
	}
	hostKey := filepath.Join(dir, "host_key")
	hostPublic := GenerateSSHKey(tb, hostKey, "ed25519", "")
	sshdFile(tb, s.AuthorizedKeys, GenerateSSHKey(tb, s.ClientKeyFile, "ed25519", "")+"\n")
	if os.Getuid() == 0 {
		// sshd refuses to start without its directory for privilege separation.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	s.run(tb, dir, append(config,
		"HostKey "+hostKey,
		"AuthorizedKeysFile "+s.AuthorizedKeys,
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"MaxStartups 100",
		"PrintMotd no",
	))
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	s.HostKeyLine = fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, hostPublic)
	sshdFile(tb, s.KnownHostsFile, s.HostKeyLine+"\n")
	sshdFile(tb, s.ConfigFile, s.clientConfig())
	return s
}

func (s *SSHD) clientConfig() string {
	return fmt.Sprintf(`Host sshd
    HostName 127.0.0.1
    Port %d
    User %s
    IdentityFile %s
    IdentitiesOnly yes
    UserKnownHostsFile %s
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
`, s.Port, s.User, s.ClientKeyFile, s.KnownHostsFile)
}

// run starts sshd on a free port. Another process may take the port between our looking and sshd's bind; then another
// one is tried.
func (s *SSHD) run(tb testing.TB, dir string, config []string) {
	tb.Helper()
	var log string
	for range 5 {
		s.Port = sshdPort(tb)
		lines := append([]string{"ListenAddress 127.0.0.1", fmt.Sprintf("Port %d", s.Port)}, config...)
		file := filepath.Join(dir, "sshd_config")
		sshdFile(tb, file, strings.Join(lines, "\n")+"\n")
		var ok bool
		if log, ok = s.try(tb, file); ok {
			return
		}
		if !strings.Contains(log, "Address already in use") {
			break
		}
	}
	tb.Fatalf("sshd does not start:\n%s", log)
}

// try starts sshd once and returns what it logged, and whether it listens.
func (s *SSHD) try(tb testing.TB, config string) (log string, listening bool) {
	tb.Helper()
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config)
	stderr, w, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		tb.Fatalf("start sshd: %v", err)
	}
	stderr.SetReadDeadline(time.Now().Add(sshdPatience))
	reader := bufio.NewReader(stderr)
	for !listening && err == nil {
		var line string
		line, err = reader.ReadString('\n')
		log += line
		listening = strings.Contains(line, "Server listening on ")
	}
	if !listening {
		cmd.Process.Kill()
		cmd.Wait()
		stderr.Close()
		return log, false
	}
	s.PID = cmd.Process.Pid
	stderr.SetReadDeadline(time.Time{})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		io.Copy(io.Discard, reader)
	}()
	tb.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		// A session's process may outlive the listener and keep the pipe.
		stderr.SetReadDeadline(time.Now())
		<-drained
		stderr.Close()
	})
	return log, true
}

// GenerateSSHKey makes a key pair of a type ("ed25519", "rsa", "ecdsa") in file and file.pub and returns the public line.
func GenerateSSHKey(tb testing.TB, file, kind, passphrase string) string {
	tb.Helper()
	args := []string{"-q", "-t", kind, "-N", passphrase, "-C", "dsyncfs test", "-f", file}
	if passphrase != "" {
		args = append(args, "-a", "1") // rounds of the key derivation, slow by default
	}
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		tb.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(public))
}

func sshdPort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func sshdUser(tb testing.TB) string {
	tb.Helper()
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func sshdFile(tb testing.TB, name, content string) {
	tb.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
}
