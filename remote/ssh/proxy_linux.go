package ssh

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"dsyncfs/remote"
)

// proxyConn is the connection that a ProxyCommand makes. Its Close ends the command.
type proxyConn struct {
	net.Conn
	cmd   *exec.Cmd
	lines *remote.Lines
	once  sync.Once
}

// proxyCommand runs a command line of the user's configuration, with the user's shell as OpenSSH does, on one end of a
// socket pair.
func proxyCommand(command string, stderr func(string)) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "proxy"), os.NewFile(uintptr(pair[1]), "proxy")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	shell := os.Getenv("SHELL")
	if shell == "" {
		shell = "/bin/sh"
	}
	p := &proxyConn{Conn: conn, lines: remote.NewLines(stderr)}
	p.cmd = exec.Command(shell, "-c", "exec "+command)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = theirs, theirs, p.lines
	p.cmd.WaitDelay = DefaultGrace
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ProxyCommand %s: %w", command, err)
	}
	return p, nil
}

// Close ends the command and what it started, and reaps it.
func (p *proxyConn) Close() error {
	p.once.Do(func() {
		p.Conn.Close()
		unix.Kill(-p.cmd.Process.Pid, unix.SIGKILL) // not reaped yet, so the number is its own
		p.cmd.Wait()
		p.lines.Flush()
	})
	return nil
}

// RemoteAddr is something a host key check can parse; the real one is not known.
func (p *proxyConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }
