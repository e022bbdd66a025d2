package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
	"dsyncfs/remote"
	"dsyncfs/remote/dsync"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// bench is a mounted without a mount and with an engine that does not run: what the control socket needs.
type bench struct {
	m      *mounted
	cfg    *config.Config
	point  string
	dir    string
	log    bytes.Buffer
	cancel context.CancelFunc
}

func newBench(t *testing.T) *bench {
	t.Helper()
	cfg := config.Default()
	cfg.StateDir = filepath.Join(t.TempDir(), strings.Repeat("long/", 30)) // longer than the path of a socket may be
	b := &bench{cfg: &cfg, point: filepath.Join(t.TempDir(), "mnt")}
	var err error
	if b.dir, err = Dir(b.cfg, b.point); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.dir, journalName), 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := journal.OpenFS(vfs.NewMem(time.Now), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	pair := mirror.Pair{Logger: discard(), Options: brain.Options{Logger: discard()}}
	b.m = &mounted{
		o: Options{
			Config: b.cfg, Local: openLocal(t, b.cfg, 0), Mountpoint: b.point, Remote: "host",
			Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
		},
		journal: j, engine: mirror.NewEngine(pair, brain.Request{}, mirror.Timing{}, j), started: time.Now(),
	}
	l, err := listen(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, b.cancel = context.WithCancel(context.Background())
	b.m.stop = b.cancel
	ended := make(chan error, 1)
	go func() { ended <- b.m.control(ctx, l) }()
	t.Cleanup(func() {
		b.cancel()
		if err := errors.Join(<-ended, hangUp(l, b.dir)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(b.dir, socketName)); err == nil {
			t.Error("the socket was left behind")
		}
	})
	return b
}

func openLocal(t *testing.T, cfg *config.Config, mails int) *endpoint.Local {
	t.Helper()
	path := filepath.Join(t.TempDir(), "Maildir")
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range mails {
		if err := os.WriteFile(filepath.Join(path, "cur", fmt.Sprintf("%d.M1.host:2,S", i)), fmt.Appendf(nil, "Subject: %d\n\nx\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := endpoint.OpenLocal(cfg, remote.Location{Kind: remote.KindMaildir, Path: path}, false, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects as a stranger does, with words of its own.
func (b *bench) dial(t *testing.T) net.Conn {
	t.Helper()
	d, err := os.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c, err := net.Dial("unix", socketPath(d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheSocketIsPrivate(t *testing.T) {
	b := newBench(t)
	info, err := os.Stat(filepath.Join(b.dir, socketName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestStatusOverTheSocket(t *testing.T) {
	b := newBench(t)
	reply, err := Call(t.Context(), b.cfg, b.point, Request{Op: OpStatus})
	if err != nil {
		t.Fatal(err)
	}
	if s := reply.Status; s == nil || s.Mountpoint != b.point || s.Remote != "host" || s.PID != os.Getpid() || s.State != mirror.StateConnecting {
		t.Errorf("%+v", reply.Status)
	}
	all, err := Running(t.Context(), b.cfg)
	if err != nil || len(all) != 1 || all[0].Mountpoint != b.point {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := Call(t.Context(), b.cfg, b.point+"2", Request{Op: OpStatus}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("another mount point: %v", err)
	}
}

func TestNothingRuns(t *testing.T) {
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	if all, err := Running(t.Context(), &cfg); err != nil || all != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// A stranger's words end that connection and nothing else.
func TestGarbageOnTheSocket(t *testing.T) {
	b := newBench(t)
	for what, words := range map[string]string{
		"no JSON": "GET / HTTP/1.0\r\n\r\n", "another type": "[1]\n", "nothing": "", "an endless request": `{"op":"` + strings.Repeat("x", 2*maxRequest),
	} {
		c := b.dial(t)
		_, _ = io.WriteString(c, words) // it may be refused before it is all written
		_ = c.(*net.UnixConn).CloseWrite()
		if answer, err := io.ReadAll(c); len(answer) > 0 {
			t.Errorf("%s: answered %q, %v", what, answer, err)
		}
	}
	reply, err := Call(t.Context(), b.cfg, b.point, Request{Op: "frobnicate"})
	if err != nil || !strings.Contains(reply.Error, "frobnicate") {
		t.Errorf("an unknown request: %+v, %v", reply, err)
	}
}

// A round that somebody waits for is given up when they go away, and when the mount ends.
func TestWhoWaitsForASync(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Call(ctx, b.cfg, b.point, Request{Op: OpSync}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c := b.dial(t)
	if err := json.NewEncoder(c).Encode(Request{Op: OpSync}); err != nil {
		t.Fatal(err)
	}
	// Connections are taken in their order: when a later one has its answer, this one is being served.
	if _, err := Call(t.Context(), b.cfg, b.point, Request{Op: OpStatus}); err != nil {
		t.Fatal(err)
	}
	b.cancel()
	var reply Reply
	if err := json.NewDecoder(c).Decode(&reply); err != nil || !strings.Contains(reply.Error, "going away") {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestTheLogIsReadFromADaemonAndWithout(t *testing.T) {
	b := newBench(t)
	for i := range 3 {
		if _, err := b.m.journal.Append(mail.Event{Op: mail.EventAppend, Mailbox: mail.Inbox, File: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.m.journal.SetMark(journal.Sent, 2); err != nil {
		t.Fatal(err)
	}
	var lines []string
	read := func() error {
		lines = nil
		return Log(t.Context(), b.cfg, b.point, func(l LogLine) error {
			lines = append(lines, fmt.Sprintf("%d %v %s %s %s", l.Seq, l.Sent, l.Op, l.Mailbox, l.File))
			return nil
		})
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines, ";"); got != "1 true append INBOX 0;2 true append INBOX 1;3 false append INBOX 2" {
		t.Errorf("%s", got)
	}
	stop := errors.New("enough")
	if err := Log(t.Context(), b.cfg, b.point, func(LogLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	b.cancel()
	for limit := time.Now().Add(patience); ; {
		if err := read(); err == nil && len(lines) == 0 {
			break // its own, empty one on disk
		}
		if time.Now().After(limit) {
			t.Fatal("the daemon still answers")
		}
	}
	if err := Log(t.Context(), b.cfg, b.point+"2", nil); err == nil || !strings.Contains(err.Error(), "never mounted") {
		t.Errorf("%v", err)
	}
}

func TestErrorsHaveAClass(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Class
	}{
		{nil, ClassNone},
		{fmt.Errorf("x: %w", guard.ErrMassExpunge), ClassGuard},
		{fmt.Errorf("x: %w", &brain.GuardError{Text: "y"}), ClassGuard},
		{&remote.Error{Host: "h", Class: remote.ErrTransient, Err: errors.New("x")}, ClassAway},
		{fmt.Errorf("x: %w", dsync.ErrTimeout), ClassAway},
		{&remote.Error{Host: "h", Class: remote.ErrAuth, Err: errors.New("x")}, ClassFailed},
		{errors.New("x"), ClassFailed},
	} {
		if got := Classify(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
