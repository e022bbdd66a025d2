package dovecot

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// live is an account that a running Dovecot serves by IMAP on loopback.
type live struct {
	*account
	port int
	log  string
}

const liveSettings = `
protocols = imap
log_path = %[1]s
info_log_path = %[1]s.info
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
disable_plaintext_auth = no
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]s gid=%[3]s home=%[4]s
}
service imap-login {
  chroot =
  inet_listener imap {
    address = 127.0.0.1
    port = %[5]d
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
}
`

// serve starts a Dovecot for the account, which ends with the test.
func (a *account) serve() *live {
	a.t.Helper()
	l := &live{account: a, port: freePort(a.t), log: a.home + ".log"}
	user, group := mailUser()
	common, err := os.ReadFile(a.conf)
	must(a.t, err)
	conf := a.home + ".live.conf"
	text := string(common) + fmt.Sprintf(liveSettings, l.log, user, group, a.home, l.port)
	must(a.t, os.WriteFile(conf, []byte(text), 0o644))
	a.e.StartProgram("dovecot", "-F", "-c", conf)
	a.e.Eventually("Dovecot listens", 20*time.Second, func() error {
		conn, err := net.Dial("tcp", l.address())
		if err == nil {
			conn.Close()
		}
		return err
	})
	return l
}

func (l *live) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port)) }

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// client is a connected IMAP client.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	tag  int
}

func (l *live) login() *client {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.address())
	must(l.t, err)
	l.t.Cleanup(func() { conn.Close() })
	c := &client{t: l.t, conn: conn, in: bufio.NewReader(conn)}
	c.line()
	c.do("LOGIN " + l.name + " secret")
	return c
}

func (c *client) line() string {
	c.t.Helper()
	must(c.t, c.conn.SetDeadline(time.Now().Add(30*time.Second)))
	line, err := c.in.ReadString('\n')
	must(c.t, err)
	return strings.TrimRight(line, "\r\n")
}

// do sends a command and returns the lines of its answer; anything but OK fails the test.
func (c *client) do(command string) []string {
	c.t.Helper()
	c.tag++
	tag := fmt.Sprintf("t%d", c.tag)
	_, err := fmt.Fprintf(c.conn, "%s %s\r\n", tag, command)
	must(c.t, err)
	var lines []string
	for {
		line := c.line()
		switch {
		case strings.HasPrefix(line, "+"):
			return lines // the rest is the caller's
		case strings.HasPrefix(line, tag+" OK"):
			return append(lines, line)
		case strings.HasPrefix(line, tag+" "):
			c.t.Fatalf("%s: %s", command, line)
		}
		lines = append(lines, line)
	}
}

// append saves a mail.
func (c *client) append(box string, mail harness.Mail) {
	c.t.Helper()
	text := strings.ReplaceAll(string(mail.Text), "\n", "\r\n")
	c.do(fmt.Sprintf("APPEND %s {%d}", box, len(text)))
	_, err := fmt.Fprintf(c.conn, "%s\r\n", text)
	must(c.t, err)
	for !strings.HasPrefix(c.line(), fmt.Sprintf("t%d OK", c.tag)) {
	}
}

// identities returns the subject of each UID in the selected mailbox.
func (c *client) identities() map[string]string {
	c.t.Helper()
	lines := c.do("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
	seen := map[string]string{}
	for i, line := range lines {
		if f := strings.Fields(line); strings.HasPrefix(line, "* ") && len(f) > 4 && f[2] == "FETCH" && i+1 < len(lines) {
			seen[f[4]] = lines[i+1]
		}
	}
	return seen
}

// A Dovecot serves the very Maildir that dsyncfs syncs, and its clients stay connected.
func TestSharingTheMaildirWithALiveDovecot(t *testing.T) {
	p := newPair(t, "sdbox")
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 20), "INBOX", "Work")
	p.ours.own()
	l := p.ours.serve()
	user, group := mailUser()
	if os.Getuid() == 0 { // dsyncfs has to be who Dovecot is
		p.Must("chown", "-R", user+":"+group, p.Path("state"), p.Path("home"), p.Path("config"), p.Path("run"))
		p.Must("chmod", "755", filepath.Dir(harness.Binary(t)))
	}
	mirror := func() {
		t.Helper()
		words := []string{harness.Binary(t), "-o", "mail_location=" + p.ours.maildir().Location(), "mirror"}
		if os.Getuid() == 0 {
			words = append([]string{"setpriv", "--reuid=" + user, "--regid=" + group, "--clear-groups"}, words...)
		}
		words = append(words, p.dove.server()...)
		p.Must(words[0], words[1:]...)
	}
	mirror()
	c := l.login()
	selected := strings.Join(c.do("SELECT INBOX"), "\n")
	before := c.identities()
	for i := range 6 {
		want := ""
		if i%2 == 0 {
			p.dove.save("INBOX", note(fmt.Sprintf("from there %d", i)))
			p.dove.doveadm("flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", fmt.Sprint(i+1))
			c.do(fmt.Sprintf(`UID STORE %d +FLAGS (\Answered Kw%d)`, i+1, i))
			want = "EXISTS"
		} else {
			c.append("INBOX", note(fmt.Sprintf("by IMAP %d", i)))
			c.append("Work", note(fmt.Sprintf("into Work by IMAP %d", i)))
			p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", fmt.Sprint(i+1))
			want = "EXPUNGE"
		}
		mirror()
		p.Eventually("the client sees it: "+want, 10*time.Second, func() error {
			if got := strings.Join(c.do("NOOP"), "\n"); !strings.Contains(got, want) {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	mirror()
	for uid, subject := range c.identities() {
		if was, known := before[uid]; known && was != subject {
			t.Errorf("UID %s was %q and is %q", uid, was, subject)
		}
	}
	again := strings.Join(c.do("SELECT INBOX"), "\n")
	if a, b := validityOf(selected), validityOf(again); a != b || a == "" {
		t.Errorf("UIDVALIDITY %q, then %q", a, b)
	}
	c.do("LOGOUT")
	same(t, p.ours, p.dove)
	log, err := os.ReadFile(l.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, bad := range []string{"Corrupted", "UIDs broken", "UIDVALIDITY changed", "Error", "Panic", "duplicate"} {
		if strings.Contains(string(log), bad) {
			t.Errorf("Dovecot's log: %s", log)
			break
		}
	}
}

func validityOf(answer string) string {
	_, rest, _ := strings.Cut(answer, "UIDVALIDITY ")
	v, _, _ := strings.Cut(rest, "]")
	return v
}
