package ssh

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// useSystemSSH ends the message about what this package does not do.
const useSystemSSH = "use the system's ssh with -o ssh_command=ssh"

// maxJumps bounds a chain of jump hosts, also one that leads in a circle.
const maxJumps = 8

// target is one host to log in to, with what the configuration says about it.
type target struct {
	name string // as the user named it
	host string
	port int
	user string

	identities     []string // key files, absolute
	explicit       int      // how many of identities were named by somebody; the rest are the usual ones
	identitiesOnly bool
	agent          string // socket; empty: none

	knownHosts []string // files to look in, whether they exist or not; the first is the one to add to
	keyAlias   string   // name in known_hosts; empty: host and port
	strict     strictness
	hashHosts  bool

	network        string // "tcp", "tcp4" or "tcp6"
	connectTimeout time.Duration
	aliveInterval  time.Duration
	jump           string // ProxyJump; empty: none
	command        string // ProxyCommand, expanded; empty: none
	leftOut        []string
}

func (t *target) addr() string {
	host := t.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(t.port)
}

// strictness is StrictHostKeyChecking.
type strictness uint8

const (
	strictAsk strictness = iota
	strictYes
	strictNew // accept-new
	strictNo
)

// chain returns the hosts to go through, the destination last.
func (d *Dialer) chain() ([]*target, error) {
	config, err := d.readConfig()
	if err != nil {
		return nil, err
	}
	return d.route(config, address{d.opts.Login, d.opts.Host, d.opts.Port}, 0)
}

// route resolves one host and what is before it. Of several jump hosts the first is reached as its own configuration
// says, each other one through the one before (ssh.c does the same by calling itself).
func (d *Dialer) route(config settings, a address, depth int) ([]*target, error) {
	if depth > maxJumps {
		return nil, fmt.Errorf("ProxyJump: more than %d jump hosts; do they form a circle?", maxJumps)
	}
	t, err := d.target(config, a)
	if err != nil || t.jump == "" {
		return []*target{t}, err
	}
	var chain []*target
	for i, word := range strings.Split(t.jump, ",") {
		hop, err := parseJump(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		var more []*target
		if i == 0 {
			more, err = d.route(config, hop, depth+1)
		} else {
			var one *target
			one, err = d.target(config, hop)
			more = []*target{one}
		}
		if err != nil {
			return nil, fmt.Errorf("jump host %s: %w", hop.host, err)
		}
		chain = append(chain, more...)
	}
	if len(chain) > maxJumps {
		return nil, fmt.Errorf("ProxyJump: more than %d jump hosts", maxJumps)
	}
	return append(chain, t), nil
}

// address is where to, before the configuration was asked. Zero values leave it to the configuration.
type address struct {
	login string
	host  string
	port  int
}

// parseJump takes [user@]host[:port], also as ssh://.
func parseJump(word string) (address, error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(word, "ssh://"), "/")
	var a address
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		a.login, rest = rest[:at], rest[at+1:]
	}
	a.host = rest
	port := ""
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		a.host, port, _ = strings.Cut(inner, "]")
		port = strings.TrimPrefix(port, ":")
	} else if strings.Count(rest, ":") == 1 {
		a.host, port, _ = strings.Cut(rest, ":")
	}
	var err error
	if port != "" {
		a.port, err = parsePort(port)
	}
	if err != nil || a.host == "" || strings.HasPrefix(a.host, "-") || strings.HasPrefix(a.login, "-") {
		return address{}, fmt.Errorf("ProxyJump %q: want [user@]host[:port]", word)
	}
	return a, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return int(n), nil
}

// target asks the configuration about one host. Identities and known hosts of the options are for the destination and
// for the jump hosts as well.
func (d *Dialer) target(config settings, a address) (*target, error) {
	r := reader{config: config, name: a.host, home: d.opts.Home}
	t := &target{name: a.host, host: a.host, port: a.port, user: a.login, network: "tcp"}
	if host := r.value("HostName"); host != "" {
		t.host = expand(host, map[byte]string{'h': a.host})
	}
	if port := r.value("Port"); t.port == 0 && port != "" {
		t.port = r.port(port)
	}
	if t.port == 0 {
		t.port = 22
	}
	if t.user == "" {
		t.user = r.value("User")
	}
	r.resolve(t, d.opts)
	return t, r.err
}

// reader asks the configuration about one host and keeps the first error.
type reader struct {
	config settings
	name   string
	home   string
	tokens map[byte]string
	err    error
}

func (r *reader) value(key string) string {
	value, err := r.config.get(r.name, key)
	r.fail(err)
	return value
}

func (r *reader) fail(err error) {
	if err != nil && r.err == nil {
		r.err = err
	}
}

func (r *reader) port(s string) int {
	n, err := parsePort(s)
	r.fail(err)
	return n
}

func (r *reader) yes(key string) bool {
	switch value := strings.ToLower(r.value(key)); value {
	case "", "no", "false":
		return false
	case "yes", "true":
		return true
	default:
		r.fail(fmt.Errorf("%s %s: want yes or no", key, value))
		return false
	}
}

// seconds takes a number or a time of sshd_config(5), TIME FORMATS, in its simple forms.
func (r *reader) seconds(key string) time.Duration {
	value := strings.ToLower(r.value(key))
	if value == "" || value == "none" {
		return 0
	}
	if n, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	span, err := time.ParseDuration(value)
	if err != nil || span < 0 {
		r.fail(fmt.Errorf("%s %s: not a time in seconds", key, value))
	}
	return span
}

func (r *reader) resolve(t *target, opts Options) {
	local, err := user.Current()
	r.fail(err)
	if err == nil && t.user == "" {
		t.user = local.Username
	}
	r.tokens = map[byte]string{'d': r.home, 'h': t.host, 'n': t.name, 'p': strconv.Itoa(t.port), 'r': t.user, 'k': t.name}
	if local != nil {
		r.tokens['u'], r.tokens['i'] = local.Username, local.Uid
	}
	if name, err := os.Hostname(); err == nil {
		r.tokens['l'] = name
		r.tokens['L'], _, _ = strings.Cut(name, ".")
	}
	r.identities(t, opts)
	r.hostKeys(t, opts)
	r.route(t)
	t.connectTimeout = opts.ConnectTimeout
	if t.connectTimeout <= 0 {
		t.connectTimeout = r.seconds("ConnectTimeout")
	}
	setDefault(&t.connectTimeout, DefaultConnectTimeout)
	t.aliveInterval = r.seconds("ServerAliveInterval")
}

func (r *reader) route(t *target) {
	switch family := strings.ToLower(r.value("AddressFamily")); family {
	case "", "any":
	case "inet":
		t.network = "tcp4"
	case "inet6":
		t.network = "tcp6"
	default:
		r.fail(fmt.Errorf("AddressFamily %s: want any, inet or inet6", family))
	}
	if jump := r.value("ProxyJump"); !strings.EqualFold(jump, "none") {
		t.jump = jump
	}
	if command := r.value("ProxyCommand"); t.jump == "" && !strings.EqualFold(command, "none") {
		if word := t.host + t.user + t.name; strings.ContainsAny(word, "\"'`$\\;&|<>(){}*?!#\n ") && strings.Contains(command, "%") {
			r.fail(fmt.Errorf("ProxyCommand: %q or %q would mean something to the shell", t.user, t.host))
		}
		t.command = expand(command, r.tokens)
	}
}

func (r *reader) identities(t *target, opts Options) {
	named, err := r.config.all(r.name, "IdentityFile")
	r.fail(err)
	for _, file := range append(append([]string(nil), opts.Identities...), named...) {
		if !strings.EqualFold(file, "none") {
			t.identities = append(t.identities, r.file(file))
		}
	}
	t.explicit = len(t.identities)
	if len(named) == 0 {
		for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
			t.identities = append(t.identities, filepath.Join(r.home, ".ssh/id_"+kind))
		}
	}
	t.identitiesOnly = r.yes("IdentitiesOnly")
	t.agent = r.agent(opts)
	for _, key := range []string{"GSSAPIAuthentication", "PKCS11Provider", "CertificateFile", "SecurityKeyProvider"} {
		if value := r.value(key); value != "" && !strings.EqualFold(value, "no") && !strings.EqualFold(value, "none") {
			t.leftOut = append(t.leftOut, key)
		}
	}
}

func (r *reader) agent(opts Options) string {
	agent := opts.Agent
	if agent == "" {
		agent = r.value("IdentityAgent")
	}
	switch {
	case agent == "", agent == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK")
	case strings.EqualFold(agent, "none"):
		return ""
	case agent[0] == '$' && !strings.HasPrefix(agent, "${"):
		return os.Getenv(agent[1:])
	}
	return r.file(agent)
}

func (r *reader) hostKeys(t *target, opts Options) {
	files := opts.KnownHosts
	if files == nil {
		files = r.files("UserKnownHostsFile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
		files = append(files, r.files("GlobalKnownHostsFile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2")...)
	}
	t.knownHosts = files
	t.keyAlias = r.value("HostKeyAlias")
	t.hashHosts = r.yes("HashKnownHosts")
	switch value := strings.ToLower(r.value("StrictHostKeyChecking")); value {
	case "", "ask":
		t.strict = strictAsk
	case "yes", "true":
		t.strict = strictYes
	case "accept-new":
		t.strict = strictNew
	case "no", "off", "false":
		t.strict = strictNo
	default:
		r.fail(fmt.Errorf("StrictHostKeyChecking %s: want yes, ask, accept-new or no", value))
	}
}

func (r *reader) files(key, usual string) (files []string) {
	value := r.value(key)
	if value == "" {
		value = usual
	}
	for _, word := range strings.Fields(value) {
		if !strings.EqualFold(word, "none") {
			files = append(files, r.file(strings.Trim(word, `"`)))
		}
	}
	return files
}
