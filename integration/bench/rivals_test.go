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
	env  *harness.Env
	conf string
}

func newDovecot(e *harness.Env, location string) dovecot {
	e.TB.Helper()
	d := dovecot{e, e.Path("dovecot.conf")}
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
`, e.Path("run"), user, e.Path("home"), location))
	own(e, e.Path("home"))
	return d
}

func (d dovecot) run(args ...string) usage {
	d.env.TB.Helper()
	return measure(d.env, append([]string{"env", "USER=bench", "doveadm", "-c", d.conf}, args...)...)
}

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
