package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// gated is a command for the Dovecot's dsync server of which only the first one runs at once. The others wait until the file
// "open" is there. Each leaves the number of items that it was sent.
func (p *pair) gated() []string {
	script := fmt.Sprintf(`#!/bin/sh
cd %q
echo >> started
if [ $(wc -l < started) -gt 1 ]; then while [ ! -e open ]; do sleep 0.05; done; fi
exec env "%s=up:0 items.$$" %q "$@"
`, p.Path("gate"), linkVariable, linkProgram(p.t))
	must(p.t, os.MkdirAll(p.Path("gate"), 0o777))
	must(p.t, os.Chmod(p.Path("gate"), 0o777))
	must(p.t, os.WriteFile(p.Path("gated"), []byte(script), 0o755))
	return append([]string{p.Path("gated")}, p.dove.server()...)
}

// fileOf is a mail as it is in the Dovecot's Maildir.
func (p *pair) fileOf(mail mailView) string {
	files, err := filepath.Glob(filepath.Join(p.dove.maildir().Path, "*", mail.GUID+"*"))
	if err != nil || len(files) != 1 {
		p.t.Fatal(mail.GUID, files, err)
	}
	text, err := os.ReadFile(files[0])
	must(p.t, err)
	return string(text)
}

// shownIn returns the mails of a mounted mailbox by base name, and which are there twice.
func shownIn(t *testing.T, box string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(box, sub))
		must(t, err)
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(box, sub, e.Name()))
			must(t, err)
			base, _, _ := strings.Cut(e.Name(), ":")
			if _, twice := out[base]; twice {
				t.Errorf("%s is there twice", base)
			}
			out[base] = string(text)
		}
	}
	return out
}

// The newest mails of a Dovecot's INBOX are in the mount before the first round brings any, also when the daemon was killed
// meanwhile. The round brings the others.
func TestTheNewestMailsOfADovecotComeFirst(t *testing.T) {
	t.Parallel()
	p := newPair(t, "maildir")
	const all, shown = 230, 200
	harness.Build(t, p.dove.maildir(), "dove", harness.Mails(t, all), "INBOX")
	p.own()
	mails := p.dove.mails("INBOX")
	command := p.gated()
	m := p.Mount("mnt", []string{"-o", "mail_location=" + p.ours.maildir().Location()}, command...)
	newest := func() {
		t.Helper()
		p.Eventually("the newest mails are shown", 30*time.Second, func() error {
			if n := len(shownIn(t, m.Path)); n != shown {
				return fmt.Errorf("%d mails", n)
			}
			return nil
		})
		got := shownIn(t, m.Path)
		for _, mail := range mails[all-shown:] {
			if there := p.fileOf(mail); got[mail.GUID] != there {
				t.Errorf("UID %s has %d bytes and is shown with %d", mail.UID, len(there), len(got[mail.GUID]))
			}
		}
	}
	newest()
	m.Kill()
	must(t, os.Remove(filepath.Join(p.Path("gate"), "started")))
	m.Again()
	newest()
	last := mails[all-1].GUID
	old, err := filepath.Glob(filepath.Join(m.Path, "*", last+"*"))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	must(t, os.Rename(old[0], filepath.Join(m.Path, "cur", last+":2,FS")))
	must(t, os.WriteFile(filepath.Join(p.Path("gate"), "open"), nil, 0o644))
	p.Eventually("everything is here, and the flag there", time.Minute, func() error {
		flags := p.dove.mails("INBOX")[all-1].Flags
		if n := len(shownIn(t, m.Path)); n != all || !strings.Contains(flags, `\Flagged`) {
			return fmt.Errorf("%d mails, flags %s", n, flags)
		}
		return nil
	})
	p.Env.Run("umount", m.Path).Want(0)
	for _, n := range p.itemsSent() {
		if n >= shown {
			t.Errorf("%d items were sent in a round that had to ask for %d mails", n, all-shown)
		}
	}
	p.own()
	p.settled()
	for i, mail := range p.ours.mails("INBOX") {
		if mail.UID != mails[i].UID || mail.GUID != mails[i].GUID {
			t.Errorf("mail %d is UID %s here and was %s there", i, mail.UID, mails[i].UID)
		}
	}
}

// itemsSent are the numbers of items of all conversations that have ended, but for those in which the newest mails were read.
func (p *pair) itemsSent() (out []int) {
	files, err := filepath.Glob(filepath.Join(p.Path("gate"), "items.*.up"))
	must(p.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(p.t, err)
		n, err := strconv.Atoi(string(text))
		must(p.t, err)
		out = append(out, n)
	}
	slices.Sort(out)
	if len(out) < 3 {
		p.t.Fatalf("%d conversations", len(out))
	}
	return out[:len(out)-2]
}

// A Dovecot that serves the mount is told that a mailbox is not to be had until it is whole, so that it gives no mail a UID of its
// own. Then it has those of the other Dovecot.
func TestADovecotWaitsForAMailboxToBeWhole(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("allow_other needs root, or user_allow_other in fuse.conf")
	}
	p := newPair(t, "maildir")
	harness.Build(t, p.dove.maildir(), "dove", harness.Mails(t, 24), "INBOX", "Work")
	p.own()
	user, group := nobody(t), p.Must("id", "-g", "nobody")
	p.Mount("ours/Maildir", []string{
		"-o", "mail_location=maildir:" + p.Path("backing"), "-o", fmt.Sprintf("allow_other,uid=%d,gid=%s", user, strings.TrimSpace(group)),
	}, p.gated()...)
	p.Eventually("the newest mails are shown", 30*time.Second, func() error {
		if n := len(shownIn(t, p.ours.maildir().Path)); n != 12 {
			return fmt.Errorf("%d mails", n)
		}
		return nil
	})
	r := p.ours.try(nil, "fetch", "uid", "mailbox", "INBOX", "all")
	if r.status == 0 || !strings.Contains(r.stderr, "dovecot-uidlist") || !strings.Contains(r.stderr, "temporarily unavailable") || strings.Contains(r.stdout, "uid") {
		t.Errorf("exit status %d: %s%s", r.status, r.stdout, r.stderr)
	}
	must(t, os.WriteFile(filepath.Join(p.Path("gate"), "open"), nil, 0o644))
	p.Eventually("it serves both mailboxes", time.Minute, func() error {
		if r := p.ours.try(nil, "fetch", "uid", "mailbox", "*", "all"); r.status != 0 || strings.Count(r.stdout, "uid:") != 24 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	same(t, p.ours, p.dove)
}
