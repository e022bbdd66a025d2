package ssh_test

import (
	"context"
	"errors"
	"io"
	"net"
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
	"dsyncfs/remote/ssh"
)

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

// A login of which the peer says nothing is given up by a probe, at once if it has said nothing for long, and one that was answered
// is not.
func TestProbeOfALogin(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, limit := range map[string]time.Duration{"at once": time.Millisecond, "after a while": 200 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			port, accepted := listen(t, "")
			d := dialer(t, ssh.Options{Host: "127.0.0.1", Port: port, ConfigFiles: []string{}, Prompt: ssh.NoPrompt})
			failed := make(chan error, 1)
			go func() {
				_, err := d.Dial(patient(t))
				failed <- err
			}()
			<-accepted
			d.Probe(time.Hour) // it speaks in time
			d.Probe(limit)
			if err := <-failed; remote.Classify(err) != remote.ErrTransient || !strings.Contains(err.Error(), "no answer for") {
				t.Errorf("%v", err)
			}
		})
	}
}
