package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// procmail delivers into the mount; aerc and mutt read what is there and change flags. All of it arrives at the remote.
// procmail is a set-ID program, which the kernel lets into a mount only with allow_other.
func TestProcmailMuttAndAercOnTheMount(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("allow_other needs root, or user_allow_other in fuse.conf")
	}
	m := newMount(t, 60, "-o", "allow_other")
	m.synced()
	rc := m.Path("procmailrc")
	must(t, os.WriteFile(rc, fmt.Appendf(nil, "MAILDIR=%[1]s\nDEFAULT=%[1]s/\nLOGFILE=%[2]s\n:0\n* ^Subject: for work\n.Work/\n", m.mount.Path, m.Path("procmail.log")), 0o600))
	for _, c := range []struct{ subject, mailbox string }{{"for work", "Work"}, {"for anybody", "INBOX"}} {
		note := harness.Note(c.subject)
		must(t, os.WriteFile(m.Path("letter"), note.Text, 0o600))
		m.Must("sh", "-c", `procmail -m "$0" < "$1"`, rc, m.Path("letter"))
		m.soon("what procmail delivered is at the remote: "+c.subject, func() error {
			there, err := m.b.Look()
			if err != nil {
				return err
			}
			if there.Copies()[c.mailbox][harness.HashOf(note.Text)] != 1 {
				log, _ := os.ReadFile(m.Path("procmail.log"))
				return fmt.Errorf("not in %s; procmail says: %s", c.mailbox, log)
			}
			return nil
		})
	}
	// Names are enough, and nobody can take one away while it is read.
	flagged := func(in harness.Maildir) int {
		names, err := filepath.Glob(filepath.Join(in.Path, "cur", "*:2,*F*"))
		must(t, err)
		return len(names)
	}
	before, total := flagged(m.mount.Maildir), len(m.a.Read(t).Mailboxes["INBOX"].Messages)

	m.aerc(func(keys *harness.Session) {
		tries := 0
		m.Eventually("aerc flags a mail", time.Minute, func() error {
			if flagged(m.mount.Maildir) > before {
				return nil
			}
			if tries++; tries%200 == 1 { // keys that come while it still loads are lost
				keys.Type(":flag\r:next-message\r")
			}
			return fmt.Errorf("%d flagged:\n%s", before, keys.Output())
		})
		keys.Type(":quit\r")
		keys.End()
	})
	m.soon("aerc's flag is at the remote", func() error {
		if n := flagged(m.b); n <= before {
			return fmt.Errorf("%d flagged", n)
		}
		return nil
	})

	muttrc := m.Path("muttrc")
	must(t, os.WriteFile(muttrc, fmt.Appendf(nil, "set folder=%s\nset mbox_type=Maildir\nset delete=no\nset quit=yes\nset mark_old=no\nset sleep_time=0\nset move=no\nset header_cache=\"\"\n", m.mount.Path), 0o600))
	m.Must("env", "TERM=vt100", "script", "-qec",
		fmt.Sprintf(`mutt -n -F %s -f '%s' -e 'push "<tag-pattern>~A<enter><tag-prefix><set-flag>!<sync-mailbox><quit>"'`, muttrc, m.mount.Path), m.Path("typescript"))
	if n := flagged(m.mount.Maildir); n != total {
		t.Errorf("mutt flagged %d of %d mails", n, total)
	}
	m.soon("mutt's flags are at the remote", func() error {
		if n := flagged(m.b); n != total {
			return fmt.Errorf("%d of %d flagged", n, total)
		}
		return nil
	})
	m.synced()
}

// aerc runs aerc on the mount with its own defaults, of which it needs files.
func (m *mounted) aerc(use func(keys *harness.Session)) {
	m.t.Helper()
	dir := m.Path("config", "aerc")
	must(m.t, os.MkdirAll(dir, 0o700))
	account := fmt.Sprintf("[ann]\nsource = maildirpp://%s\ndefault = INBOX\nfrom = Ann <ann@example.org>\n", m.mount.Path)
	must(m.t, os.WriteFile(filepath.Join(dir, "accounts.conf"), []byte(account), 0o600))
	for _, name := range []string{"aerc.conf", "binds.conf"} {
		text, err := os.ReadFile(filepath.Join("/usr/share/aerc", name))
		must(m.t, err)
		must(m.t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	use(m.Terminal("stty rows 40 cols 120; aerc"))
}

// neomutt and notmuch change the flags of the same mails at the same time, each by the names that it knows. No mail turns
// unread again, none is lost, and neither program misses one.
func TestNeomuttAndNotmuchOnTheSameMails(t *testing.T) {
	t.Parallel()
	const mails = 60
	m := prepareMount(t)
	m.a.Create(t, "INBOX")
	for i, mail := range harness.Mails(t, mails) {
		m.a.Deliver(t, "INBOX", harness.UniqueName("same", i, mail), "", mail)
	}
	m.start()
	m.synced()
	want := m.a.Read(t).Copies()
	if n := m.NotmuchCount(m.mount.Maildir, "tag:unread"); n != mails {
		t.Fatalf("notmuch finds %d unread mails", n)
	}
	rc := m.Path("neomuttrc")
	must(t, os.WriteFile(rc, fmt.Appendf(nil, "set folder=%s\nset header_cache=\"\"\nset mark_old=no\nset quit=yes\nset sleep_time=0\nset delete=no\n", m.mount.Path), 0o600))
	for round, flag := range []struct{ set, letter string }{{"!", "F"}, {"r", "R"}} {
		mutt := m.Terminal(fmt.Sprintf(`neomutt -n -F %s -f '%s' -e 'push "<tag-pattern>~A<enter><tag-prefix><set-flag>%s<sync-mailbox>"'`,
			rc, m.mount.Path, flag.set))
		// neomutt looks at the names when it begins to write (before, it takes the flags in them for its own to overwrite, on
		// any Maildir); notmuch then changes them all by the names of its database, which are older still.
		m.Eventually("neomutt has begun to write", time.Minute, func() error {
			found, err := filepath.Glob(filepath.Join(m.mount.Path, "[cn]*", "*:2,*"+flag.letter+"*"))
			if err == nil && len(found) == 0 {
				err = errors.New("no mail has its flag")
			}
			return err
		})
		if round == 0 {
			m.Must("notmuch", "tag", "-unread", "--", "*")
		} else {
			m.Must("notmuch", "tag", "+flagged", "+draft", "--", "*")
		}
		m.Eventually("neomutt has written the flags of all", time.Minute, func() error {
			now, err := m.mount.Look()
			if err != nil {
				return err
			}
			for _, msg := range now.Mailboxes["INBOX"].Messages {
				if !strings.Contains(msg.Flags, flag.letter) || !strings.Contains(msg.Flags, "S") {
					return fmt.Errorf("%s has flags %q\n%s", msg.Path, msg.Flags, mutt.Output())
				}
			}
			return nil
		})
		mutt.Type("x")
		mutt.End()
		m.mount.Holds(t, want)
	}
	for _, msg := range m.mount.Read(t).Mailboxes["INBOX"].Messages {
		if msg.Flags != "DFRS" {
			t.Errorf("%s: flags %q after both set theirs, want DFRS", msg.Path, msg.Flags)
		}
	}
	// notmuch knows where each mail is: it opens those that it finds.
	if n := m.NotmuchCount(m.mount.Maildir, "not tag:unread"); n != mails {
		t.Errorf("notmuch has %d read mails", n)
	}
	m.Must("sh", "-c", "notmuch search --output=files '*' | xargs -d '\\n' cat > /dev/null")
	m.synced()
	m.hold(want)
}

// neomutt and a client of Dovecot in IDLE, both on the mount, wake up for a mail from the remote: both would look by
// themselves only much later.
func TestReadersOfTheMountWakeUp(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	rc := m.Path("neomuttrc")
	must(t, os.WriteFile(rc, fmt.Appendf(nil, "set folder=%s\nset header_cache=\"\"\nset timeout=600\nset mail_check=600\nset sort=date\nset quit=yes\n", m.mount.Path), 0o600))
	mutt := m.Terminal(fmt.Sprintf(`neomutt -n -F %s -f '%s'`, rc, m.mount.Path))
	m.Eventually("neomutt shows the mailbox", time.Minute, func() error { return mutt.Says("Msgs:2") })
	client := m.IMAP(m.mount.Maildir)
	client.Type("a SELECT INBOX\r\nb IDLE\r\n")
	m.Eventually("Dovecot's client is idle", time.Minute, func() error { return client.Says("+ idling") })
	m.Run("sync", m.mount.Path).Want(0)
	// neomutt, once it is woken, compares the times of the directories by the second, on any Maildir.
	m.Eventually("a change can be told by the time", 20*time.Second, func() error {
		for _, sub := range []string{"new", "cur"} {
			info, err := os.Stat(filepath.Join(m.mount.Path, sub))
			if err != nil {
				return err
			}
			if info.ModTime().Unix() >= time.Now().Unix() {
				return errors.New(sub + " changed in this second")
			}
		}
		return nil
	})

	m.b.Deliver(t, "INBOX", "1767261600.M1.remote", "", harness.Note("wake up, both of you"))
	m.soon("the mail is in the mount", func() error { return exists(m.mount.Maildir, "INBOX", "1767261600.M1.remote", "") })
	m.soon("Dovecot's client is told", func() error { return client.Says("* 3 EXISTS") })
	m.soon("neomutt shows the mail", func() error { return mutt.Says("wake up, both of you") })
	client.Type("DONE\r\nc UID FETCH * (BODY.PEEK[HEADER.FIELDS (SUBJECT)])\r\nd LOGOUT\r\n")
	client.End()
	if err := client.Says("Subject: wake up, both of you"); err != nil {
		t.Error(err)
	}
	mutt.Type("q")
	mutt.End()
	m.synced()
}
