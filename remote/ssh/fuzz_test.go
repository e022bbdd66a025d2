package ssh

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kevinburke/ssh_config"
)

// FuzzConfig holds that no ssh_config is more than an error: neither to the parser, whose input normalize prepares, nor to who
// asks it about a host. Includes are left out, as they read files.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"Host a b\n\tPort 22\r\nHost !c *\nUser=\"x y\"", "Match host a\nPort 1\n", "ProxyJump u@[::1]:22,ssh://b/,c:0", "HostName %h.%%.%q\nIdentityFile ~/${HOME}/%u%",
		"Host\n", "=\n", "# comment\n  Host * # more\nPort 99999", "Host \"a\n", "ServerAliveInterval 1m\nCanonicalizeHostname yes\n",
	} {
		f.Add([]byte(text), "a")
	}
	f.Fuzz(func(t *testing.T, text []byte, host string) {
		if bytes.Contains(bytes.ToLower(text), []byte("include")) {
			return
		}
		plain := normalize(text, "/dir", "/home/ann")
		if again := normalize(plain, "/dir", "/home/ann"); !bytes.Equal(again, plain) {
			t.Fatalf("%q became %q", plain, again)
		}
		config, err := ssh_config.DecodeBytes(plain)
		if err != nil {
			return
		}
		d := &Dialer{opts: Options{Host: host, Home: "/home/ann", Agent: "none"}}
		for _, jump := range []string{host, string(text)} {
			a, err := parseJump(jump)
			if err == nil && (a.host == "" || a.host[0] == '-' || strings.HasPrefix(a.login, "-") || a.port < 0 || a.port > 65535) {
				t.Fatalf("jump host %q is %+v", jump, a)
			}
		}
		chain, err := d.route(settings{config}, address{host: host}, 0)
		for _, hop := range chain {
			if err == nil && (hop.port < 1 || hop.port > 65535 || len(chain) > maxJumps+1) {
				t.Fatalf("hop %+v of %d", hop, len(chain))
			}
		}
	})
}
