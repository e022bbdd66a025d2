package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// dovecot is doveadm with the settings that let it work on Maildirs of ours. Run by root it insists on another user, to whom
// the Maildirs then belong.
type dovecot struct {
	env        *harness.Env
	name, conf string
	home       string
}

// newDovecot makes an account with a home of that name. more are settings.
func newDovecot(e *harness.Env, name, location, more string) dovecot {
	e.TB.Helper()
	d := dovecot{e, name, e.Path(name + ".conf"), e.Path(name)}
	if err := os.MkdirAll(d.home, 0o777); err != nil {
		e.TB.Fatal(err)
	}
	user := "mail_uid = " + fmt.Sprint(os.Getuid()) + "\nmail_gid = " + fmt.Sprint(os.Getgid())
	if os.Getuid() == 0 {
		user = "mail_uid = nobody\nmail_gid = nogroup"
		reachable(e.TB, e.Dir)
	}
	write(e.TB, d.conf, fmt.Sprintf(`log_path = /dev/stderr
base_dir = %[1]s
state_dir = %[1]s
ssl = no
protocols =
first_valid_uid = 1
%[2]s
mail_home = %[3]s
mail_location = %[4]s
namespace inbox {
  inbox = yes
  separator = /
}
%[5]s`, e.Path(name+".run"), user, d.home, location, more))
	own(e, d.home)
	return d
}

func (d dovecot) run(args ...string) usage {
	d.env.TB.Helper()
	return measure(d.env, d.line(args...)...)
}

// line is the command line of doveadm on the account. One that is the child of another doveadm would take the settings of
// that from its environment, so nothing else comes in.
func (d dovecot) line(args ...string) []string {
	return append([]string{
		"env", "-i", "PATH=" + os.Getenv("PATH"), "TZ=UTC", "HOME=" + d.home, "USER=" + d.name,
		"DOVECOT_HOSTNAME=" + d.name, "DOVECOT_HOSTDOMAIN=" + d.name + ".example.org", "doveadm", "-c", d.conf,
	}, args...)
}

// server is the command line of its dsync server.
func (d dovecot) server() []string { return d.line("dsync-server") }

// own gives a directory to the user as whom Dovecot works.
func own(e *harness.Env, dir string) {
	e.TB.Helper()
	if os.Getuid() == 0 {
		e.Must("chown", "-R", "nobody:nogroup", dir)
	}
}

// reachable lets other users pass through the directories above, which are ours alone.
func reachable(tb testing.TB, dir string) {
	tb.Helper()
	for ; dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			tb.Fatal(err)
		}
	}
}

// mbsync returns the command line that mirrors two Maildirs with isync.
func mbsync(e *harness.Env, a, b string) []string {
	e.TB.Helper()
	rc := e.Path("mbsyncrc")
	var text strings.Builder
	for name, path := range map[string]string{"a": a, "b": b} {
		fmt.Fprintf(&text, "MaildirStore %s\nInbox %s\nSubFolders Maildir++\n\n", name, path)
	}
	state := e.Path("mbsync-state") + "/"
	if err := os.MkdirAll(state, 0o700); err != nil {
		e.TB.Fatal(err)
	}
	fmt.Fprintf(&text, "Channel c\nFar :a:\nNear :b:\nPatterns *\nCreate Both\nSync All\nSyncState %s\n", state)
	write(e.TB, rc, text.String())
	return []string{"mbsync", "-q", "-c", rc, "c"}
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}
