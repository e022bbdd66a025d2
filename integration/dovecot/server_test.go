package dovecot

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// server is an account that a running Dovecot serves by IMAP and POP3 on loopback.
type server struct {
	*account
	imap, pop3 string // addresses
	log        string // of everything above info
	read       int    // how much of it was looked at
}

const serverSettings = `
protocols = imap pop3
log_path = %[1]s
info_log_path = %[1]s.info
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
disable_plaintext_auth = no
mail_max_userip_connections = 100
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=%[2]s gid=%[3]s home=%[4]s
}
protocol imap {
  imap_metadata = yes
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
service pop3-login {
  chroot =
  inet_listener pop3 {
    address = 127.0.0.1
    port = %[6]d
  }
  inet_listener pop3s {
    port = 0
  }
}
service anvil {
  chroot =
}
`

// serve starts a Dovecot for the account, which ends with the test. Then it must have had nothing to complain about.
func (a *account) serve() *server {
	a.t.Helper()
	imap, pop3 := freePort(a.t), freePort(a.t)
	s := &server{account: a, log: a.home + ".log"}
	s.imap, s.pop3 = net.JoinHostPort("127.0.0.1", strconv.Itoa(imap)), net.JoinHostPort("127.0.0.1", strconv.Itoa(pop3))
	user, group := mailUser()
	common, err := os.ReadFile(a.conf)
	must(a.t, err)
	conf := a.home + ".live.conf"
	text := string(common) + fmt.Sprintf(serverSettings, s.log, user, group, a.home, imap, pop3)
	must(a.t, os.WriteFile(conf, []byte(text), 0o644))
	a.e.StartProgram("dovecot", "-F", "-c", conf)
	for _, address := range []string{s.imap, s.pop3} {
		a.e.Eventually("Dovecot listens", 20*time.Second, func() error {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return err
		})
	}
	a.t.Cleanup(s.content)
	return s
}

// content fails the test if the running Dovecot had anything new to say above info.
func (s *server) content() {
	s.t.Helper()
	text, err := os.ReadFile(s.log)
	if err != nil && !os.IsNotExist(err) {
		s.t.Error(err)
	}
	fresh := string(text[s.read:])
	s.read = len(text)
	if s.complains(fresh) {
		s.t.Errorf("%s: Dovecot's log: %s", s.name, fresh)
	}
}

// handedOut are the ports that servers of this process got.
var handedOut sync.Map

// freePort returns a port on loopback that nobody listens on, and that no connection gets as its own meanwhile: one below those
// that systems give out by themselves (32768 on Linux).
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if _, taken := handedOut.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			must(t, l.Close())
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func (s *server) login() *harness.IMAP {
	s.t.Helper()
	return harness.DialIMAP(s.t, s.imap, s.name)
}

// uidl is what a POP3 client sees of INBOX: for each mail its number, its unique ID and its size.
func (s *server) uidl() []string {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.pop3)
	must(s.t, err)
	defer conn.Close()
	must(s.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	in := bufio.NewReader(conn)
	ok := func(command string) {
		s.t.Helper()
		if command != "" {
			_, err := fmt.Fprintf(conn, "%s\r\n", command)
			must(s.t, err)
		}
		if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			s.t.Fatalf("%s: POP3: %s: %s %v", s.name, command, line, err)
		}
	}
	list := func(command string) (lines []string) {
		s.t.Helper()
		ok(command)
		for {
			line, err := in.ReadString('\n')
			must(s.t, err)
			if line = strings.TrimRight(line, "\r\n"); line == "." {
				return lines
			}
			lines = append(lines, line)
		}
	}
	ok("")
	ok("USER " + s.name)
	ok("PASS secret")
	out := list("UIDL")
	for i, line := range list("LIST") {
		_, size, _ := strings.Cut(line, " ")
		out[i] = "POP3 " + out[i] + " size " + size
	}
	ok("QUIT")
	return out
}

// live is a pair both of whose sides are served by a running Dovecot, ours from the very Maildir that dsyncfs syncs.
type live struct {
	*served
	here, there *server
}

func newLive(t *testing.T, format string) *live {
	p := &live{served: newServed(t, format)}
	p.here, p.there = p.ours.serve(), p.dove.serve()
	return p
}
