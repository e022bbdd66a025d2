package ssh

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// configured returns a Dialer for host "mail" whose ~/.ssh/config is text.
func configured(t *testing.T, text string) *Dialer {
	t.Helper()
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, ".ssh/config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Host: "mail", Home: home, ConfigFiles: []string{file}, Prompt: NoPrompt})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func resolve(t *testing.T, d *Dialer) *target {
	t.Helper()
	chain, err := d.chain()
	if err != nil {
		t.Fatal(err)
	}
	return chain[len(chain)-1]
}

func TestConfigurationOfAHost(t *testing.T) {
	t.Setenv("KEYS", "/keys")
	d := configured(t, `
# the first value counts
HOST	other	mail
	hostname=%h.example.org
	Port 2222
	User bob
	IdentityFile ~/.ssh/work_%r
	IdentityFile "${KEYS}/a b"
	IdentitiesOnly yes
	IdentityAgent none
	UserKnownHostsFile ~/.ssh/kh1 /kh2
	GlobalKnownHostsFile none
	StrictHostKeyChecking accept-new
	HostKeyAlias alias
	ConnectTimeout 7
	ServerAliveInterval 5
	AddressFamily inet
Host ma?l !mail
	User nobody
Host *
	Port 1
	ProxyCommand nc %h %p %% %u-%n`)
	got := resolve(t, d)
	home := d.opts.Home
	local := got.command[strings.LastIndex(got.command, " ")+1:]
	want := &target{
		name: "mail", host: "mail.example.org", port: 2222, user: "bob",
		identities: []string{home + "/.ssh/work_bob", "/keys/a b"}, explicit: 2, identitiesOnly: true,
		knownHosts: []string{home + "/.ssh/kh1", "/kh2"}, keyAlias: "alias", strict: strictNew,
		network: "tcp4", connectTimeout: 7 * time.Second, aliveInterval: 5 * time.Second,
		command: "nc mail.example.org 2222 % " + local,
	}
	if !reflect.DeepEqual(got, want) || !strings.HasSuffix(local, "-mail") {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestConfigurationOfNothing(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	got := resolve(t, configured(t, ""))
	if got.host != "mail" || got.port != 22 || got.user == "" || got.strict != strictAsk || got.agent != "/agent" || got.explicit != 0 ||
		len(got.identities) != 3 || got.connectTimeout != DefaultConnectTimeout || len(got.knownHosts) != 4 {
		t.Errorf("defaults are %+v", got)
	}
}

func TestOptionsOverrideTheConfiguration(t *testing.T) {
	d := configured(t, "User bob\nPort 2222\nIdentityFile /b\nUserKnownHostsFile /x\nConnectTimeout 7\n")
	d.opts.Login, d.opts.Port, d.opts.Identities, d.opts.KnownHosts, d.opts.ConnectTimeout = "alice", 3, []string{"/a"}, []string{"/y"}, time.Second
	got := resolve(t, d)
	if got.user != "alice" || got.port != 3 || !reflect.DeepEqual(got.identities, []string{"/a", "/b"}) ||
		!reflect.DeepEqual(got.knownHosts, []string{"/y"}) || got.connectTimeout != time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestIncludeIsRelativeToItsFile(t *testing.T) {
	d := configured(t, "Include conf.d/*\n")
	dir := filepath.Join(d.opts.Home, ".ssh/conf.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("Host mail\n  Port 77\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := resolve(t, d); got.port != 77 {
		t.Errorf("port %d, want 77", got.port)
	}
}

func TestProxyJumpChains(t *testing.T) {
	for _, row := range []struct {
		name, config, want string
	}{
		{"none", "ProxyJump none\n", "mail:22"},
		{"one", "Host mail\nProxyJump a\nHost a\nHostName a.org\n", "a.org:22 mail:22"},
		{"with all parts", "Host mail\nProxyJump bob@a:7, ssh://[::1]:8\n", "bob@a:7 [::1]:8 mail:22"},
		{"the first hop has a hop", "Host mail\nProxyJump a,b\nHost a\nProxyJump c\nHost b\nProxyJump d\n", "c:22 a:22 b:22 mail:22"},
	} {
		t.Run(row.name, func(t *testing.T) {
			chain, err := configured(t, row.config).chain()
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, hop := range chain {
				word := hop.addr()
				if hop.user == "bob" {
					word = "bob@" + word
				}
				words = append(words, word)
			}
			if got := strings.Join(words, " "); got != row.want {
				t.Errorf("route %q, want %q", got, row.want)
			}
		})
	}
}

func TestConfigurationRefuses(t *testing.T) {
	for _, row := range []struct{ name, config, hint string }{
		{"Match exec", "Match exec \"true\"\n  Port 1\n", "ssh_command=ssh"},
		{"a circle of jump hosts", "Host *\nProxyJump mail\n", "circle"},
		{"a jump host that is an option", "ProxyJump -oProxyCommand=x\n", "ProxyJump"},
		{"a port that is none", "Port 70000\n", "70000"},
		{"an unknown strictness", "StrictHostKeyChecking maybe\n", "maybe"},
		{"an unknown family", "AddressFamily ipx\n", "ipx"},
		{"a time that is none", "ConnectTimeout soon\n", "soon"},
		{"neither yes nor no", "IdentitiesOnly perhaps\n", "perhaps"},
		{"a user the shell would obey", "User a;b\nProxyCommand nc %h %p\n", "shell"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := configured(t, row.config).chain()
			if err == nil || !strings.Contains(err.Error(), row.hint) {
				t.Errorf("error %v, want %q in it", err, row.hint)
			}
		})
	}
	d := configured(t, "")
	d.opts.ConfigFiles = []string{"/nonexistent/config"}
	if _, err := d.chain(); !os.IsNotExist(err) {
		t.Errorf("a configuration that was named and does not exist: %v", err)
	}
	for _, host := range []string{"", "-oProxyCommand=x"} {
		if _, err := New(Options{Host: host}); err == nil {
			t.Errorf("host %q was accepted", host)
		}
	}
}
