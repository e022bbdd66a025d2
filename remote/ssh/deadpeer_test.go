package ssh_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dsyncfs/integration/harness"
	"dsyncfs/remote"
	"dsyncfs/remote/remotetest"
)

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
