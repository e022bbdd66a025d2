package remote

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

var alice = Parser{Home: "/home/alice", Dir: "/here"}

func store(kind Kind, path string) Location { return Location{Kind: kind, Path: path} }

func TestParseLocation(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		want Location
		text string // canonical form
	}{
		{"a Maildir", []string{"maildir:/var/mail/x"}, store(KindMaildir, "/var/mail/x"), "maildir:/var/mail/x"},
		{"a path is cleaned", []string{"maildir:/var//mail/x/"}, store(KindMaildir, "/var/mail/x"), "maildir:/var/mail/x"},
		{"the home", []string{"maildir:~/Mail"}, store(KindMaildir, "/home/alice/Mail"), "maildir:/home/alice/Mail"},
		{"the home of another user", []string{"maildir:~root/Mail"}, store(KindMaildir, "/root/Mail"), "maildir:/root/Mail"},
		{"a relative path", []string{"maildir:Mail"}, store(KindMaildir, "/here/Mail"), "maildir:/here/Mail"},
		{"a path with spaces and a colon", []string{"maildir:/a b::c"}, store(KindMaildir, "/a b:c"), "maildir:/a b::c"},
		{"LAYOUT=fs and INBOX", []string{"maildir:~/m:LAYOUT=fs:INBOX=~/in"},
			Location{Kind: KindMaildir, Path: "/home/alice/m", Layout: "fs", Inbox: "/home/alice/in"},
			"maildir:/home/alice/m:LAYOUT=fs:INBOX=/home/alice/in"},
		{"the default layout by name", []string{"maildir:/m:LAYOUT=Maildir++"}, store(KindMaildir, "/m"), "maildir:/m"},
		{"an index elsewhere is Dovecot's own affair", []string{"maildir:/m:INDEX=/idx"}, store(KindMaildir, "/m"), "maildir:/m"},
		{"mbox", []string{"mbox:/m:INBOX=/var/mail/a:LAYOUT=fs"}, Location{Kind: KindMbox, Path: "/m", Inbox: "/var/mail/a"}, "mbox:/m:INBOX=/var/mail/a"},
		{"sdbox", []string{"sdbox:/m"}, store(KindSdbox, "/m"), "sdbox:/m"},
		{"mdbox", []string{"mdbox:~/m"}, store(KindMdbox, "/home/alice/m"), "mdbox:/home/alice/m"},

		{"a host", []string{"mail"}, Location{Kind: KindSSH, Host: "mail"}, "ssh://mail"},
		{"a host named as a store", []string{"maildir"}, Location{Kind: KindSSH, Host: "maildir"}, "ssh://maildir"},
		{"an IPv6 address", []string{"::1"}, Location{Kind: KindSSH, Host: "::1"}, "ssh://[::1]"},
		{"user@host names the mail user", []string{"bob@mail.example.org"},
			Location{Kind: KindSSH, Host: "mail.example.org", User: "bob"}, "bob@mail.example.org"},
		{"a user that is an address", []string{"bob@example.org@mail"}, Location{Kind: KindSSH, Host: "mail", User: "bob@example.org"}, "bob@example.org@mail"},
		{"remote: names the login", []string{"remote:bob@mail"}, Location{Kind: KindSSH, Host: "mail", Login: "bob"}, "ssh://bob@mail"},
		{"a URL", []string{"ssh://mail"}, Location{Kind: KindSSH, Host: "mail"}, "ssh://mail"},
		{"a URL with an empty command", []string{"ssh://mail/"}, Location{Kind: KindSSH, Host: "mail"}, "ssh://mail"},
		{"a URL with all", []string{"ssh://bob@mail:2222/dsyncfs -v"},
			Location{Kind: KindSSH, Host: "mail", Login: "bob", Port: 2222, Command: []string{"dsyncfs", "-v", "dsync-server"}},
			"ssh://bob@mail:2222/dsyncfs -v dsync-server"},
		{"a URL with an absolute program", []string{"ssh://mail/usr/bin/dsyncfs%20-v"},
			Location{Kind: KindSSH, Host: "mail", Command: []string{"/usr/bin/dsyncfs", "-v", "dsync-server"}},
			"ssh://mail/usr/bin/dsyncfs -v dsync-server"},
		{"a URL with a program in the root", []string{"ssh://mail//x"},
			Location{Kind: KindSSH, Host: "mail", Command: []string{"/x", "dsync-server"}}, "ssh://mail//x dsync-server"},
		{"a URL with a program in the home", []string{"ssh://mail/~/bin/dsyncfs"},
			Location{Kind: KindSSH, Host: "mail", Command: []string{"~/bin/dsyncfs", "dsync-server"}}, "ssh://mail/~/bin/dsyncfs dsync-server"},
		{"a URL with an IPv6 address", []string{"ssh://[fe80::1]:22"}, Location{Kind: KindSSH, Host: "fe80::1", Port: 22}, "ssh://[fe80::1]:22"},

		{"several words", []string{"ssh", "mail", "doveadm"},
			Location{Kind: KindCommand, Command: []string{"ssh", "mail", "doveadm", "dsync-server"}}, "ssh mail doveadm dsync-server"},
		{"several words with the server named", []string{"sudo", "doveadm", "dsync-server"},
			Location{Kind: KindCommand, Command: []string{"sudo", "doveadm", "dsync-server"}}, "sudo doveadm dsync-server"},
		{"a last word that is a command line", []string{"ssh", "mail", "doveadm dsync-server"},
			Location{Kind: KindCommand, Command: []string{"ssh", "mail", "doveadm dsync-server"}}, "ssh mail 'doveadm dsync-server'"},
		{"one word with spaces is split, not given to a shell", []string{"ssh  mail $(doveadm) 'x y'"},
			Location{Kind: KindCommand, Command: []string{"ssh", "mail", "$(doveadm)", "'x", "y'", "dsync-server"}},
			`ssh mail '$(doveadm)' ''\''x' 'y'\''' dsync-server`},
		{"a script", []string{"./far"}, Location{Kind: KindCommand, Command: []string{"./far", "dsync-server"}}, "./far dsync-server"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := alice.Parse(row.args)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("parsed %+v, want %+v", got, row.want)
			}
			if got.String() != row.text {
				t.Errorf("canonical form %q, want %q", got, row.text)
			}
		})
	}
}

func TestParseLocationRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		kind error
		hint string
	}{
		{"nothing", nil, ErrLocation, "maildir:PATH"},
		{"an empty word", []string{" "}, ErrLocation, "none given"},
		{"a newline", []string{"mail\nhost"}, ErrLocation, "control"},
		{"a NUL in a path", []string{"maildir:/a\x00b"}, ErrLocation, "control"},
		{"an escape in a URL", []string{"ssh://mail/a%0ab"}, ErrLocation, "control"},
		{"a host that is an option", []string{"-oProxyCommand=x"}, ErrLocation, `start with "-"`},
		{"a host that is an option behind a user", []string{"bob@-oProxyCommand=x"}, ErrLocation, `start with "-"`},
		{"a host that is an option in a URL", []string{"ssh://-oProxyCommand=x"}, ErrLocation, `start with "-"`},
		{"a user that is an option", []string{"-x@mail"}, ErrLocation, `start with "-"`},
		{"a login that is an option", []string{"ssh://-x@mail"}, ErrLocation, `start with "-"`},
		{"a user that is missing", []string{"@mail"}, ErrLocation, "missing"},
		{"a host that is missing", []string{"bob@"}, ErrLocation, "missing"},
		{"a URL without a host", []string{"ssh:///x"}, ErrLocation, "missing"},
		{"a host with a port", []string{"mail.example.org:22"}, ErrLocation, "ssh://mail.example.org:22"},
		{"a host with shell characters", []string{"mail;reboot"}, ErrLocation, "no host name"},
		{"a port out of range", []string{"ssh://mail:70000"}, ErrLocation, "65535"},
		{"port 0", []string{"ssh://mail:0"}, ErrLocation, "65535"},
		{"an unclosed bracket", []string{"ssh://[::1"}, ErrLocation, "[address]"},
		{"a bad escape", []string{"ssh://mail/%zz"}, ErrLocation, "%zz"},
		{"a command that is an option", []string{"--foo", "bar"}, ErrLocation, "options go before"},
		{"an unknown kind", []string{"imapc:/x"}, ErrLocation, `"imapc:"`},
		{"a Maildir without a path", []string{"maildir:"}, ErrLocation, "path is missing"},
		{"an unknown layout", []string{"maildir:/m:LAYOUT=index"}, ErrLocation, "LAYOUT=index"},
		{"an option that moves files", []string{"maildir:/m:CONTROL=/c"}, ErrLocation, "CONTROL"},
		{"an INBOX without a path", []string{"maildir:/m:INBOX="}, ErrLocation, "path is missing"},
		{"words after a Maildir", []string{"maildir:/m", "x"}, ErrLocation, "quote"},
		{"the home of nobody we know", []string{"maildir:~no-such-user-here/m"}, ErrLocation, "no-such-user-here"},
		{"tcp", []string{"tcp:mail:12345"}, ErrNotYet, "ssh://"},
		{"tcps", []string{"tcps:mail"}, ErrNotYet, "ssh://"},
		{"remoteprefix", []string{"remoteprefix:mail"}, ErrNotYet, "ssh://"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := alice.Parse(row.args)
			if !errors.Is(err, row.kind) || !strings.Contains(err.Error(), row.hint) {
				t.Errorf("got %+v and error %v; want %v with %q", got, err, row.kind, row.hint)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error has more than one line: %v", err)
			}
		})
	}
}

func TestServerCommand(t *testing.T) {
	for _, row := range []struct{ word, want string }{
		{"mail", "dsyncfs dsync-server"},
		{"bob@mail", "dsyncfs dsync-server -u bob"},
		{"ssh://mail/doveadm", "doveadm dsync-server"},
	} {
		l, err := alice.Parse([]string{row.word})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(l.ServerCommand("dsyncfs"), " "); got != row.want {
			t.Errorf("%s runs %q, want %q", row.word, got, row.want)
		}
	}
}

// A canonical form names state on disk: it has to mean the location it came from and nothing else.
func FuzzLocation(f *testing.F) {
	for _, seed := range []string{"maildir:/a::b:LAYOUT=fs", "maildir:~/x:INBOX=y", "a@b@c", "ssh://l@h:22/usr/bin/x -y", "ssh://[::1]/a?b%20c",
		"ssh://h//x", "ssh://h/~/x", "remote:a@b", "fe80::1%eth0", "./x y", "ssh://a%40b@c", "-x", "mbox:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, word string) {
		l, err := alice.Parse([]string{word})
		if err != nil {
			return
		}
		if strings.HasPrefix(l.Host, "-") || strings.HasPrefix(l.User, "-") || strings.HasPrefix(l.Login, "-") {
			t.Fatalf("%q: an option got through: %+v", word, l)
		}
		if l.Kind == KindCommand {
			return // a canonical command line is for reading, it is quoted
		}
		again, err := alice.Parse([]string{l.String()})
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Fatalf("%q: %+v has the form %q, which is %+v, %v", word, l, l, again, err)
		}
	})
}
