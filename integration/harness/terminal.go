package harness

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Session is a program that a test talks to through its input, and whose output it reads.
type Session struct {
	env  *Env
	name string
	in   io.WriteCloser
	out  string // path
	done chan struct{}
}

// Terminal starts a shell command line in a terminal of its own, as a person has it. It is ended with the test.
func (e *Env) Terminal(command string) *Session {
	e.TB.Helper()
	e.Setenv("TERM", "vt100")
	return e.session("script", "-qefc", command, "/dev/null")
}

// IMAP starts Dovecot's IMAP server on a Maildir for a client that has logged in. Dovecot refuses to be root, so for root it
// runs where root has another number.
func (e *Env) IMAP(m Maildir) *Session {
	e.TB.Helper()
	conf := e.Path("imap.conf")
	writeFile(e.TB, conf, fmt.Sprintf("log_path = %[1]s/imap.log\nbase_dir = %[1]s\nstate_dir = %[1]s\nssl = no\nprotocols = imap\nfirst_valid_uid = 1\nmail_location = %[2]s\n",
		e.Path("run"), m.Location()))
	args := []string{"env", "USER=ann", "/usr/lib/dovecot/imap", "-c", conf}
	if os.Getuid() == 0 {
		args = append([]string{"unshare", "--user", "--map-user=1000", "--map-group=1000"}, args...)
	}
	return e.session(args[0], args[1:]...)
}

func (e *Env) session(program string, args ...string) *Session {
	e.TB.Helper()
	out, err := os.CreateTemp(e.Dir, "session-")
	if err != nil {
		e.TB.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := e.Command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		e.TB.Fatalf("start %s: %v", program, err)
	}
	s := &Session{env: e, name: filepath.Base(program) + " " + strings.Join(args, " "), in: in, out: out.Name(), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = cmd.Wait() // how it ends does not matter: the test looks at what it did
	}()
	e.TB.Cleanup(func() {
		cancel()
		<-s.done
	})
	return s
}

// Type sends text to the program.
func (s *Session) Type(text string) {
	s.env.TB.Helper()
	if _, err := io.WriteString(s.in, text); err != nil {
		s.env.TB.Fatalf("%s: %v\n%s", s.name, err, head(s.Output(), 3000))
	}
}

// Output is everything that the program wrote so far, with what moves the cursor of a terminal.
func (s *Session) Output() string {
	text, _ := os.ReadFile(s.out)
	return string(text)
}

// Says returns nil once the output has a text.
func (s *Session) Says(text string) error {
	if out := s.Output(); !strings.Contains(out, text) {
		return fmt.Errorf("%s: no %q in\n%s", s.name, text, tail(out, 2000))
	}
	return nil
}

// End waits until the program has ended by itself.
func (s *Session) End() {
	s.env.TB.Helper()
	s.env.Eventually(s.name+" ends", patience, func() error {
		select {
		case <-s.done:
			return nil
		default:
			return fmt.Errorf("still there\n%s", tail(s.Output(), 2000))
		}
	})
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }
