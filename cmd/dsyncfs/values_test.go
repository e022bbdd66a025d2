package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/guard"
	"dsyncfs/remote"
)

func TestDates(t *testing.T) {
	local := func(s string) int64 {
		d, err := time.ParseInLocation(time.DateOnly, s, time.Local)
		if err != nil {
			t.Fatal(err)
		}
		return d.Unix()
	}
	for s, want := range map[string]int64{
		"": 0, "1767261600": 1767261600, "2026-01-31": local("2026-01-31"), "31-Jan-2026": local("2026-01-31"),
		"2026-01-31T12:00:00Z": time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC).Unix(),
	} {
		if got, err := parseDate(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for s, age := range map[string]time.Duration{"7days": 7 * 24 * time.Hour, "2 weeks": 14 * 24 * time.Hour, "1hour": time.Hour, "30mins": 30 * time.Minute, "5secs": 5 * time.Second} {
		got, err := parseDate(s)
		if want := time.Now().Add(-age).Unix(); err != nil || got < want-2 || got > want+2 {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"yesterday", "-7days", "7fortnights", "days", "7days ago please", "0", "-5", "2026-13-01", "99999999999days"} {
		if got, err := parseDate(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]uint64{"": 0, "1": 1, "500K": 500 << 10, "20M": 20 << 20, "20mb": 20 << 20, "3G": 3 << 30} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"0", "-1", "K", "5X", "5MKB", "99999999999999999999", "99999999999999G"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailed},
		{usage(errors.New("x")), exitUsage},
		{errors.Join(&statusError{exitAgain, nil}, nil), exitAgain},
		{fmt.Errorf("x: %w", guard.ErrMassExpunge), exitGuard},
		{&remote.Error{Class: remote.ErrTransient, Err: errors.New("x")}, exitReach},
		{&remote.Error{Class: remote.ErrHostKey, Err: errors.New("x")}, exitFailed},
		{fmt.Errorf("x: %w", context.Canceled), exitInterrupt},
		{output(syscall.EPIPE), exitFailed},
	} {
		if got := exitStatus(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestMessages(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	for _, c := range []struct {
		err  error
		want []string
	}{
		{nil, nil},
		{a, []string{"a"}},
		{errors.Join(a, errors.Join(b, a)), []string{"a", "b"}},
		{&statusError{exitAgain, nil}, nil},
		{&statusError{exitUsage, errors.Join(a, b)}, []string{"a", "b"}},
		{fmt.Errorf("x: %w", errors.Join(a, b)), []string{"x: a", "b"}},
		{fmt.Errorf("%w: %w", a, b), []string{"a: b"}},
		{errors.New("a\x1b[2J\u202e\xff"), []string{`a\x1b[2J\u202e\ufffd`}},
		{errors.Join(output(fmt.Errorf("stdout: %w", syscall.EPIPE)), b), []string{"b"}},
	} {
		if got := messages(c.err); !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestLogLines(t *testing.T) {
	var out strings.Builder
	var stamp atomic.Bool
	log := slog.New(newLineHandler(&out, slog.LevelInfo, &stamp)).With("mirror", "w")
	log.Debug("nothing")
	log.Info("synced", "n", 3)
	log.Warn("bad\nname", "mailbox", "a b\x1b", "empty", "")
	stamp.Store(true)
	log.Error("late", "err", errors.New("x=y"))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q", lines)
	}
	if lines[0] != "dsyncfs: synced mirror=w n=3" || lines[1] != `dsyncfs: warn: bad; name mirror=w mailbox="a b\x1b" empty=""` {
		t.Errorf("%q", lines[:2])
	}
	if at, rest, _ := strings.Cut(lines[2], " dsyncfs: "); rest != `error: late mirror=w err="x=y"` {
		t.Errorf("%q", lines[2])
	} else if _, err := time.Parse(strings.TrimSpace(stampFormat), at); err != nil {
		t.Error(err)
	}
}

func TestRestrictedKeys(t *testing.T) {
	for _, c := range []struct {
		what string
		env  map[string]string
		ok   bool
	}{
		{"not by ssh", nil, true},
		{"a shell", map[string]string{"SSH_CONNECTION": "x"}, false},
		{"another command", map[string]string{"SSH_CONNECTION": "x", "SSH_ORIGINAL_COMMAND": "cat /etc/passwd"}, false},
		{"a word that contains it", map[string]string{"SSH_ORIGINAL_COMMAND": "cat dsync-server.conf"}, false},
		{"nothing", map[string]string{"SSH_ORIGINAL_COMMAND": ""}, false},
		{"ours", map[string]string{"SSH_ORIGINAL_COMMAND": "dsyncfs dsync-server -u ann"}, true},
		{"quoted", map[string]string{"SSH_ORIGINAL_COMMAND": "'dsyncfs' 'dsync-server'"}, true},
		{"Dovecot's", map[string]string{"SSH_ORIGINAL_COMMAND": "doveadm dsync-server -uann -U"}, true},
	} {
		err := checkRestricted(func(name string) (string, bool) { v, ok := c.env[name]; return v, ok })
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// Close ends a Read that waits for a pipe, and nothing of it is left.
func TestStandardInputCanBeClosed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	r.Fd() // puts it into blocking mode, as the pipes of sshd are
	s, err := newStdio(r, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := s.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := s.Read(buf)
		got <- err
	}()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := newStdio(strings.NewReader(""), io.Discard); err == nil {
		t.Error("what is no file is taken for a stream")
	}
}
