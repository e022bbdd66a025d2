package bench

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// imapSettings are what an account needs to be served by IMAP on loopback without a password; its name is its address's.
func imapSettings(e *harness.Env, name string) string {
	e.TB.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.TB.Fatal(err)
	}
	defer l.Close()
	write(e.TB, e.Path(name+".address"), l.Addr().String())
	user, group := "nobody", "nogroup"
	if os.Getuid() != 0 {
		user, group = fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid())
	}
	return fmt.Sprintf(`protocols = imap
default_internal_user = %[1]s
default_internal_group = %[2]s
default_login_user = %[1]s
disable_plaintext_auth = no
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[1]s gid=%[2]s home=%[3]s
}
service imap-login {
  chroot =
  inet_listener imap {
    address = 127.0.0.1
    port = %[4]d
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
}
`, user, group, e.Path(name), l.Addr().(*net.TCPAddr).Port)
}

// serve starts a Dovecot with the account's settings, which ends with the benchmark, and returns its address.
func (d dovecot) serve() string {
	d.env.TB.Helper()
	address, err := os.ReadFile(d.env.Path(d.name + ".address"))
	if err != nil {
		d.env.TB.Fatal(err)
	}
	d.env.StartProgram("dovecot", "-F", "-c", d.conf)
	d.env.Eventually("Dovecot listens", time.Minute, func() error {
		conn, err := net.Dial("tcp", string(address))
		if err == nil {
			conn.Close()
		}
		return err
	})
	return string(address)
}

// client is a client of an IMAP server that knows how many mails it sees.
type client struct {
	tb   testing.TB
	conn net.Conn
	in   *bufio.Reader
	have int
}

func dial(tb testing.TB, address string) *client {
	tb.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	c := &client{tb: tb, conn: conn, in: bufio.NewReader(conn)}
	c.send("l LOGIN dovecot secret")
	c.until("l OK")
	return c
}

func (c *client) send(line string) {
	if _, err := fmt.Fprintf(c.conn, "%s\r\n", line); err != nil {
		c.tb.Errorf("IMAP: %v", err)
	}
}

// until reads up to a line that begins so.
func (c *client) until(prefix string) {
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			c.tb.Errorf("IMAP: %v", err)
			return
		}
		line, err := c.in.ReadString('\n')
		if err != nil {
			c.tb.Errorf("IMAP: waiting for %q: %v", prefix, err)
			return
		}
		var n int
		if _, err := fmt.Sscanf(line, "* %d EXISTS", &n); err == nil {
			c.have = n
		}
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// exists carries out a command and returns how many mails there are.
func (c *client) exists(command string) int {
	c.send("e " + command)
	c.until("e ")
	return c.have
}

func (c *client) append(mail harness.Mail) {
	text := strings.ReplaceAll(string(mail.Text), "\n", "\r\n")
	c.send(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s", len(text), text))
	c.until("a OK")
}
