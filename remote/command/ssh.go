package command

import (
	"fmt"
	"strconv"
	"strings"

	"dsyncfs/remote"
)

// SSHOptions say how to run the system's ssh.
type SSHOptions struct {
	// Host is the destination and must be set. Terminal lets ssh ask for passphrases and host keys; without, BatchMode
	// is on, so that a reconnect in the background fails instead of hanging at a question nobody sees.
	Options
	Program []string // ssh and further arguments for it; empty: "ssh"
	Login   string   // -l
	Port    int      // -p
}

// SSH returns a Dialer that runs commands through the system's ssh, for what the built-in one does not know (Match
// exec, ControlMaster, GSSAPI, PKCS#11). Each stream is an ssh process; the user's ControlMaster settings make them one
// connection. Keepalives notice a dead peer within 45 s as the built-in ssh does.
func SSH(opts SSHOptions) (*Dialer, error) {
	if opts.Host == "" || strings.HasPrefix(opts.Host, "-") || strings.HasPrefix(opts.Login, "-") {
		return nil, fmt.Errorf("ssh to %q as %q: %w: name and login must not be an option", opts.Host, opts.Login, remote.ErrLocation)
	}
	d := New(opts.Options)
	argv := opts.argv()
	d.program = func(cmd []string) ([]string, error) {
		if len(cmd) == 0 {
			return nil, fmt.Errorf("run ssh %s: empty command", opts.Host)
		}
		return append(append([]string(nil), argv...), remote.Quote(cmd)), nil
	}
	d.classify = classifySSH
	return d, nil
}

// argv is the command line up to the destination.
func (o SSHOptions) argv() []string {
	argv := append([]string(nil), o.Program...)
	if len(argv) == 0 {
		argv = []string{"ssh"}
	}
	batch := "yes"
	if o.Terminal {
		batch = "no"
	}
	argv = append(argv, "-T", "-x", "-oBatchMode="+batch, "-oClearAllForwardings=yes",
		"-oServerAliveInterval=15", "-oServerAliveCountMax=2")
	if o.Port != 0 {
		argv = append(argv, "-p", strconv.Itoa(o.Port))
	}
	if o.Login != "" {
		argv = append(argv, "-l", o.Login)
	}
	return append(argv, "--", o.Host)
}

// ssh tells its own failures by status 255 and a sentence, the same in all its versions and languages. A remote program
// may end with 255 too; then nothing matches.
var sshSentences = []struct {
	text  string
	class error
}{
	{"Host key verification failed", remote.ErrHostKey},
	{"REMOTE HOST IDENTIFICATION HAS CHANGED", remote.ErrHostKey},
	{"Permission denied (", remote.ErrAuth},
	{"Too many authentication failures", remote.ErrAuth},
	{"Could not resolve hostname", remote.ErrTransient},
	{"Connection refused", remote.ErrTransient},
	{"Connection timed out", remote.ErrTransient},
	{"No route to host", remote.ErrTransient},
	{"Network is unreachable", remote.ErrTransient},
	{"Connection reset", remote.ErrTransient},
	{"Connection closed", remote.ErrTransient},
	{"Connection to ", remote.ErrTransient},
	{"Timeout, server ", remote.ErrTransient},
	{"Broken pipe", remote.ErrTransient},
	{"kex_exchange_identification", remote.ErrTransient},
	{"Bad configuration option", remote.ErrProtocol},
	{"no matching ", remote.ErrProtocol},
}

func classifySSH(exit *remote.ExitError) {
	if exit.Status != 255 {
		return
	}
	for _, sentence := range sshSentences {
		if strings.Contains(exit.Stderr, sentence.text) {
			exit.Class = sentence.class
			return
		}
	}
}
