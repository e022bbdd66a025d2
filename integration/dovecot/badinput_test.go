package dovecot

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// named puts a command into a script of that name, as errors name the program of the other side. What the server is called
// with comes last.
func (p *pair) named(name string, command []string) []string {
	p.t.Helper()
	path := p.Path(name)
	text := "#!/bin/sh\nexec"
	for _, word := range command[:len(command)-1] {
		text += " '" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	must(p.t, os.WriteFile(path, []byte(text+` "$@"`+"\n"), 0o755))
	return []string{path, command[len(command)-1]}
}

// lockHome holds the lock of -l in a home directory, as another sync of that user does.
func lockHome(t *testing.T, home string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(home+"/.dovecot-sync.lock", os.O_RDWR|os.O_CREATE, 0o666)
	must(t, err)
	must(t, os.Chmod(f.Name(), 0o666))
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}))
	return func() {
		must(t, os.Remove(f.Name()))
		must(t, f.Close())
	}
}

// news delivers a mail on either side, which the other has to have in the end, once.
func (p *pair) news(n int) {
	p.t.Helper()
	p.ours.save("INBOX", note(fmt.Sprint("here ", n)))
	p.dove.save("INBOX", note(fmt.Sprint("there ", n)))
	p.dove.save("Work", note(fmt.Sprint("there in Work ", n)))
}

// complete fails the test unless both sides are equal and have the mails of n news and the 12 from before.
func (p *pair) complete(n int) {
	p.t.Helper()
	same(p.t, p.ours, p.dove)
	if got, want := len(p.dove.mails("INBOX"))+len(p.dove.mails("Work")), 12+3*n; got != want {
		p.t.Errorf("%d mails, want %d", got, want)
	}
}

// A Dovecot that goes wrong in the middle is named in a line that says what happened. The next run completes, and nothing is
// lost or double.
func TestADovecotGoesWrong(t *testing.T) {
	t.Parallel()
	p := both(t, "sdbox")
	const early, late = "0.example.org", "~.example.org" // who of two host names locks
	const unreadable = "its mail is not readable"
	link := func(fault string, n int) func() []string {
		return func() []string { return p.through(fault, n, p.dove.server()) }
	}
	stock := func() []string { return p.dove.server() }
	n := 0 // news
	for _, c := range []struct {
		name    string
		options []string
		command func() []string
		prepare func(t *testing.T) (restore func())
		status  int
		says    []string
	}{
		{"killed in its tree", nil, link("kill", 2), nil, 1, []string{"137"}},
		{"killed in a mailbox", nil, link("kill", 14), nil, 1, []string{"137", "INBOX"}},
		{"an error in its last word", nil, link("finish", 0), nil, 1, []string{"Disk is full"}},
		{"nothing for the timeout", []string{"-T", "2"}, link("stall", 9), nil, 75, []string{"2s", "INBOX"}},
		{"the connection breaks", nil, link("down", 9), nil, 1, []string{"INBOX"}},
		{"its user is locked", []string{"-l", "1"}, stock, func(t *testing.T) func() {
			p.dove.domain = early
			return lockHome(t, p.dove.home)
		}, 75, []string{".dovecot-sync.lock", "1 seconds"}},
		{"our user is locked", []string{"-l", "1"}, stock, func(t *testing.T) func() {
			p.dove.domain = late
			return lockHome(t, p.Home)
		}, 75, []string{".dovecot-sync.lock", "1s"}},
		{unreadable, nil, stock, func(t *testing.T) func() {
			p.Must("chown", "-R", "root", p.dove.home+"/sdbox/mailboxes/Work")
			return p.dove.own
		}, 1, []string{"Permission denied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == unreadable && os.Getuid() != 0 {
				t.Skip("needs root, to take the mail away")
			}
			n++
			p.news(n)
			restore := func() {}
			if c.prepare != nil {
				restore = c.prepare(t)
			}
			words := append([]string{"-o", "mail_location=" + p.ours.maildir().Location()}, c.options...)
			r := p.Run(append(append(words, "mirror"), p.named("there", c.command())...)...)
			t.Logf("%d\n%s", r.Status, r.Stderr)
			restore()
			if r.Status != c.status {
				t.Errorf("exit status %d, want %d", r.Status, c.status)
			}
			r.ClearError().Says(c.says...)
			if c.name != "our user is locked" {
				r.Says("there: ")
			}
			p.clean("-l", "5", "mirror")
			p.complete(n)
			for _, home := range []string{p.Home, p.dove.home} {
				if _, err := os.Stat(home + "/.dovecot-sync.lock"); !os.IsNotExist(err) {
					t.Errorf("the lock file is left in %s: %v", home, err)
				}
			}
		})
	}
}

// As slave it is the master of which something goes wrong, and ours that has to say so.
func TestAMasterGoesWrong(t *testing.T) {
	t.Parallel()
	p := filled(t, "sdbox")
	const early, late = "0.example.org", "~.example.org"
	for i, c := range []struct {
		name    string
		options []string // of doveadm
		fault   string
		at      int
		prepare func(t *testing.T) (restore func())
		status  int      // of doveadm
		says    []string // by ours
	}{
		{"gone in its tree", nil, "up", 3, nil, 75, []string{"master"}},
		{"gone in a mailbox", nil, "up", 9, nil, 75, []string{"master", "INBOX"}},
		{"nothing for the timeout", nil, "mute", 9, nil, 75, []string{"master", "2s"}},
		{"our user is locked", []string{"-l", "1"}, "", 0, func(t *testing.T) func() {
			p.dove.domain = late
			return lockHome(t, p.Home)
		}, 75, []string{".dovecot-sync.lock", "1s"}},
		{"its user is locked", []string{"-l", "1"}, "", 0, func(t *testing.T) func() {
			p.dove.domain = early
			return lockHome(t, p.dove.home)
		}, 75, nil},
		{"our uidlist is garbage", nil, "", 0, func(t *testing.T) func() {
			path := p.ours.maildir().Path + "/dovecot-uidlist"
			text, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, []byte("garbage"), 0o600))
			return func() { must(t, os.WriteFile(path, text, 0o600)) }
		}, 75, []string{"dovecot-uidlist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.news(i + 1)
			restore := func() {}
			if c.prepare != nil {
				restore = c.prepare(t)
			}
			said := p.Path("said")
			command := []string{"sh", "-c", `exec "$@" 2>` + said, "sh"}
			var options []string
			if c.fault == "mute" {
				options = []string{"-T", "2"}
			}
			remote := p.remote(options...)
			command = append(command, remote...)
			if c.fault != "" {
				command = p.through(c.fault, c.at, command)
			}
			r := p.dove.try(nil, append(append([]string{"sync"}, c.options...), command...)...)
			restore()
			ours, err := os.ReadFile(said)
			must(t, err)
			t.Logf("%d\n%s\n%s", r.status, r.stderr, ours)
			if r.status != c.status {
				t.Errorf("doveadm: exit status %d, want %d: %s", r.status, c.status, r.stderr)
			}
			for _, text := range c.says {
				if !strings.Contains(string(ours), text) {
					t.Errorf("dsyncfs does not say %q: %s", text, ours)
				}
			}
			p.sync("sync", "-l", "5", "-f")
			p.clean("sync", "-l", "5", "-f")
			p.complete(i + 1)
		})
	}
}

// usersSettings make doveadm look its users up, in a file.
const usersSettings = `
passdb {
  driver = passwd-file
  args = %[1]s
}
userdb {
  driver = passwd-file
  args = %[1]s
}
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
service auth {
  unix_listener auth-userdb {
    mode = 0666
  }
}
service anvil {
  chroot =
}
`

// A user that the host does not have is one clear error, also when its users cannot be looked up.
func TestUserThatDoesNotExistThere(t *testing.T) {
	t.Parallel()
	e := harness.New(t)
	user, group := mailUser()
	users := e.Path("users")
	p := pairOf(e, t, newAccount(e, "ours", "maildir"), newAccountWith(e, "dove", "sdbox", "/", fmt.Sprintf(usersSettings, users, user, group)))
	uid, gid := strings.TrimSpace(e.Must("id", "-u", user)), strings.TrimSpace(e.Must("id", "-g", user))
	must(t, os.WriteFile(users, []byte(fmt.Sprintf("ann@example.org:{PLAIN}x:%s:%s::%s::\n", uid, gid, p.dove.home)), 0o644))
	p.ours.maildir().Create(t, "INBOX", "Work")
	p.ours.maildir().Deliver(t, "Work", "1767261600.one.test", "S", note("one"))
	p.ours.own()
	mirror := func(user string) harness.Result {
		command := append(p.dove.server(), "-u", user)
		words := append([]string{"-o", "mail_location=" + p.ours.maildir().Location(), "mirror"}, p.named("there", append(command, "dsync-server"))...)
		r := p.Run(words...)
		p.ours.own()
		t.Logf("%d %s", r.Status, r.Stderr)
		return r
	}
	mirror("ann@example.org").Want(1).ClearError().Says("there: ", "auth-userdb")
	e.StartProgram("dovecot", "-F", "-c", p.dove.conf)
	e.Eventually("users are looked up", 20*time.Second, func() error {
		if r := p.dove.try(nil, "user", "ann@example.org"); r.status != 0 {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	mirror("bob@example.org").Want(1).ClearError().Says("there: ", "bob@example.org", "doesn't exist")
	mirror("ann@example.org").Want(0)
	if n := len(p.dove.mails("Work")); n != 1 {
		t.Errorf("%d mails in Work", n)
	}
}
