package dovecot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// A Maildir is mounted whose other end is a stock Dovecot: what is written is there at once, what changes there is noticed by
// asking.
func TestMountWithADovecot(t *testing.T) {
	p := newPair(t, "mdbox")
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 12), "INBOX", "Work")
	options := []string{"-o", "mail_location=" + p.ours.maildir().Location(), "-o", "poll_interval=1s"}
	m := p.Mount("mnt", options, p.dove.server()...)
	eventually := func(what string, cond func() bool) time.Duration {
		t.Helper()
		return p.Eventually(what, 30*time.Second, func() error {
			if !cond() {
				return fmt.Errorf("%s", strings.Join(p.dove.view(), "\n"))
			}
			return nil
		})
	}
	has := func(text string) func() bool {
		return func() bool { return strings.Contains(strings.Join(p.dove.view(), "\n"), text) }
	}
	eventually("the first round", has("mailbox Work 6"))
	path := m.Deliver(t, "INBOX", "1767261600.M1.mount", "", note("through the mount"))
	took := eventually("the new mail is there", func() bool { return len(p.dove.mails("INBOX")) == 7 })
	t.Logf("a mail through the mount was in the Dovecot after %s", took)
	must(t, os.Rename(path, filepath.Join(m.Dir("INBOX"), "cur", filepath.Base(path)+":2,FS")))
	eventually("its flags are there", func() bool {
		mails := p.dove.mails("INBOX")
		return strings.Contains(mails[len(mails)-1].Flags, `\Flagged`)
	})
	// The connection for the next round is there already. If it was lost, another one is made.
	p.Eventually("a dsync server waits", 30*time.Second, func() error {
		return exec.Command("pkill", "-KILL", "-f", "^([^ ]*/)?doveadm .*"+p.dove.conf+" dsync-server").Run()
	})
	m.Deliver(t, "INBOX", "1767261601.M2.mount", "", note("after the connection was lost"))
	eventually("the mail after the loss is there", func() bool { return len(p.dove.mails("INBOX")) == 8 })
	p.dove.save("Work", note("from there"))
	p.dove.doveadm("flags", "add", `\Answered`, "mailbox", "INBOX", "uid", "1")
	seen := func(pattern string, n int) func() error {
		return func() error {
			found, err := filepath.Glob(pattern)
			if err == nil && len(found) != n {
				err = fmt.Errorf("%d files %s", len(found), pattern)
			}
			return err
		}
	}
	p.Eventually("the mail from there is in the mount", 30*time.Second, seen(m.Dir("Work")+"/*/*[.0-9a-zA-Z]*", 7))
	p.Eventually("the flag is in the mount", 30*time.Second, seen(m.Dir("INBOX")+"/cur/*:2,*R*", 1))
	must(t, os.Remove(filepath.Join(m.Dir("INBOX"), "cur", filepath.Base(path)+":2,FS")))
	eventually("the expunge is there", func() bool { return len(p.dove.mails("INBOX")) == 7 })
	p.Env.Run("umount", m.Path).Want(0)
	p.own()
	p.settled()
}
