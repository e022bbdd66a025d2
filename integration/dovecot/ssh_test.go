package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// On a host without dsyncfs the Dovecot that is there answers.
func TestHostWithNothingButDovecot(t *testing.T) {
	e := harness.New(t)
	p := &pair{e, t, newAccount(e, "ours", "maildir"), newAccount(e, "dove", "mdbox")}
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 12), "INBOX", "Work")
	bin := e.Path("bin")
	must(t, os.Mkdir(bin, 0o755))
	script := "#!/bin/sh\nexec /usr/bin/env -i " + strings.Join(p.dove.environment(), " ") + " /usr/bin/doveadm -c " + p.dove.conf + ` "$@"` + "\n"
	must(t, os.WriteFile(filepath.Join(bin, "doveadm"), []byte(script), 0o755))
	r := e.NewRemote(fmt.Sprintf("SetEnv PATH=%s HOME=%s", bin, e.Path("home")))
	args := append([]string{"-o", "mail_location=" + p.ours.maildir().Location()}, r.Options()...)
	run := func(args ...string) {
		t.Helper()
		got := p.Env.Run(args...).Want(0)
		p.ours.own()
		if got.Stderr != "" {
			t.Errorf("stderr: %s", got.Stderr)
		}
	}
	run(append(args, "mirror", r.URL)...)
	same(t, p.ours, p.dove)
	p.dove.save("INBOX", note("there"))
	p.ours.save("Work", note("here"))
	run(append(args, "mirror", r.URL)...)
	same(t, p.ours, p.dove)
	run(append(args, "-o", "server_command=doveadm dsync-server", "verify", r.URL)...)

	must(t, os.Remove(filepath.Join(bin, "doveadm")))
	p.Env.Run(append(args, "mirror", r.URL)...).Want(1).Says("neither dsyncfs nor doveadm")
}
