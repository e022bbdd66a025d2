package dovecot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// pair is a Maildir that dsyncfs syncs, seen through an account of Dovecot's, and an account of a stock Dovecot at the other
// end. dsyncfs is the master.
type pair struct {
	*harness.Env
	t          *testing.T
	ours, dove *account
}

func newPair(t *testing.T, format string) *pair {
	return newPairIn(harness.New(t), t, format, "")
}

// newPairIn makes one of several pairs in an environment.
func newPairIn(e *harness.Env, t *testing.T, format, suffix string) *pair {
	return pairOf(e, t, newAccount(e, "ours"+suffix, "maildir"), newAccount(e, "dove"+suffix, format))
}

// pairOf puts two accounts together. dsyncfs works as the user as whom Dovecot does, so that they can share a Maildir.
func pairOf(e *harness.Env, t *testing.T, ours, dove *account) *pair {
	p := &pair{e, t, ours, dove}
	p.own()
	return p
}

// own gives everything to that user, after something else wrote there.
func (p *pair) own() {
	p.t.Helper()
	if os.Getuid() == 0 {
		user, group := mailUser()
		p.Must("chown", "-R", user+":"+group, p.Path("state"), p.Path("home"), p.Path("config"), p.Path("run"), p.ours.home, p.dove.home)
		p.Must("chown", user+":"+group, p.Dir) // for what the race detector writes
		must(p.t, os.Chmod(filepath.Dir(harness.Binary(p.t)), 0o755))
	}
}

// run runs dsyncfs against the Dovecot.
func (p *pair) run(args ...string) harness.Result {
	p.t.Helper()
	words := append([]string{"-o", "mail_location=" + p.ours.maildir().Location()}, args...)
	return p.Run(append(words, p.dove.server()...)...)
}

// Run is [harness.Env.Run] as the user who owns the mail.
func (p *pair) Run(args ...string) harness.Result {
	p.t.Helper()
	if os.Getuid() == 0 {
		return p.RunAs(nobody(p.t), args...)
	}
	return p.Env.Run(args...)
}

// clean is run, with success and without a word from Dovecot.
func (p *pair) clean(args ...string) harness.Result {
	p.t.Helper()
	r := p.run(args...).Want(0)
	if s := strings.TrimSpace(r.Stderr); s != "" {
		p.t.Errorf("dsyncfs %s: %s", strings.Join(args, " "), s)
	}
	return r
}

// settled mirrors, compares, and mirrors again, which must change nothing.
func (p *pair) settled() {
	p.t.Helper()
	p.clean("mirror")
	same(p.t, p.ours, p.dove)
	before := p.dove.view()
	p.clean("mirror")
	p.clean("-f", "mirror")
	same(p.t, p.ours, p.dove)
	if after := p.dove.view(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		p.t.Errorf("a mirror of equal sides changed something:\n%s\n\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// formats are those of the store at the Dovecot's end.
func formats(t *testing.T, test func(t *testing.T, format string)) {
	t.Parallel()
	for _, format := range []string{"maildir", "sdbox", "mdbox"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			test(t, format)
		})
	}
}

func TestMirrorIntoAnEmptyDovecot(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newPair(t, format)
		harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 40))
		p.ours.own()
		p.ours.doveadm("mailbox", "subscribe", "Work/2026", "Entwürfe")
		p.ours.doveadm("flags", "add", `\Answered $Forwarded NonJunk`, "mailbox", "R&D", "all")
		p.settled()
	})
}

func TestMirrorFromADovecot(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newPair(t, format)
		p.ours.maildir().Create(t, "INBOX")
		p.ours.own()
		for i, mail := range harness.Mails(t, 20) {
			box := harness.Mailboxes[i%4]
			if i < 4 && i > 0 {
				p.dove.doveadm("mailbox", "create", box)
			}
			p.dove.save(box, mail)
		}
		p.dove.doveadm("mailbox", "subscribe", "Work/2026", "INBOX")
		p.dove.doveadm("flags", "add", `\Answered $Forwarded NonJunk`, "mailbox", "Work", "all")
		p.clean("mirror")
		p.settled()
	})
}

// both is a pair in sync, with a few mails in two mailboxes.
func both(t *testing.T, format string) *pair {
	p := newPair(t, format)
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 12), "INBOX", "Work")
	p.ours.own()
	p.clean("mirror")
	return p
}

func note(subject string) harness.Mail { return harness.Note(subject) }

func TestChangesOnBothSides(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.doveadm("flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", "1")
		p.ours.doveadm("flags", "remove", `\Seen`, "mailbox", "INBOX", "uid", "2")
		p.ours.doveadm("flags", "add", `\Answered OurKw`, "mailbox", "INBOX", "uid", "3")
		p.dove.doveadm("flags", "remove", `\Seen`, "mailbox", "INBOX", "uid", "1")
		p.dove.doveadm("flags", "add", `\Draft TheirKw`, "mailbox", "INBOX", "uid", "3")
		p.dove.doveadm("flags", "add", `$Forwarded`, "mailbox", "INBOX", "uid", "2")
		p.settled()
		p.ours.doveadm("expunge", "mailbox", "INBOX", "uid", "1,6")
		p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", "2")
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "1")
		p.settled()
		for _, gone := range []string{"mail INBOX 1 ", "mail INBOX 2 ", "mail INBOX 6 ", "mail Work 1 "} {
			if strings.Contains(strings.Join(p.dove.view(), "\n"), gone) {
				t.Errorf("%sis still there", gone)
			}
		}
	})
}

func TestNewMailsOfTheSameUID(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.save("INBOX", note("five"))
		p.dove.save("INBOX", note("six"))
		p.dove.save("INBOX", note("seven"))
		p.settled()
		if n := strings.Count(strings.Join(p.dove.view(), "\n"), "mail INBOX"); n != 9 {
			t.Errorf("%d mails, want 9", n)
		}
	})
}

func TestMailboxesChangeOnBothSides(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.doveadm("mailbox", "create", "Old/Deep", "Entwürfe", "Bin", "There")
		p.ours.save("Old/Deep", note("deep"))
		p.ours.save("Bin", note("bin"))
		p.ours.doveadm("mailbox", "subscribe", "Old/Deep")
		p.dove.doveadm("mailbox", "subscribe", "Work")
		p.settled()
		nextSecond(t)
		p.ours.doveadm("mailbox", "rename", "Old/Deep", "Old/Renamed")
		p.ours.doveadm("mailbox", "delete", "Bin")
		p.ours.doveadm("mailbox", "unsubscribe", "Work")
		p.dove.doveadm("mailbox", "create", "日本語/メール")
		p.dove.doveadm("mailbox", "rename", "There", "Elsewhere")
		p.dove.doveadm("mailbox", "delete", "Entwürfe")
		p.dove.doveadm("mailbox", "subscribe", "日本語/メール", "INBOX")
		p.settled()
		view := strings.Join(p.dove.view(), "\n")
		for _, want := range []string{"mail Old/Renamed 1", "mailbox 日本語/メール", "mailbox Elsewhere", "subscribed INBOX"} {
			if !strings.Contains(view, want) {
				t.Errorf("%s is missing", want)
			}
		}
		for _, gone := range []string{"mailbox Bin", "mailbox There", "mailbox Entwürfe", "mailbox Old/Deep", "subscribed Work"} {
			if strings.Contains(view, gone) {
				t.Errorf("%s is still there:\n%s", gone, view)
			}
		}
		p.ours.doveadm("mailbox", "create", "Bin")
		p.ours.save("Bin", note("bin again"))
		p.dove.save("Elsewhere", note("elsewhere"))
		p.settled()
	})
}

// nextSecond waits until the clock shows another second: that is how fine the times of changes of the mailbox tree are.
func nextSecond(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now().Unix(); time.Now().Unix() == start; {
		<-tick.C
	}
}

func TestTwoAccountsUsedIndependently(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		for _, first := range []string{"ours", "dove"} {
			t.Run(first+" made first", func(t *testing.T) {
				p := newPair(t, format)
				p.ours.allowed = []string{"UIDVALIDITY changed"} // one of two has to give way
				accounts := []*account{p.ours, p.dove}
				if first == "dove" {
					accounts = []*account{p.dove, p.ours}
				}
				for i, a := range accounts {
					a.doveadm("mailbox", "create", "Work", "Lists/a")
					for k := range 3 + i {
						a.save("INBOX", note(a.name+" inbox "+string(rune('a'+k))))
						a.save("Lists/a", note(a.name+" list "+string(rune('a'+k))))
					}
					a.save("Work", note("work of "+a.name))
				}
				p.settled()
				view := strings.Join(p.dove.view(), "\n")
				for box, want := range map[string]int{"INBOX": 7, "Lists/a": 7, "Work": 2} {
					if n := strings.Count(view, "mail "+box+" "); n != want {
						t.Errorf("%d mails in %s, want %d", n, box, want)
					}
				}
			})
		}
	})
}

func TestBackupToADovecot(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "1")
		p.dove.doveadm("flags", "add", `\Draft`, "mailbox", "INBOX", "uid", "1:3")
		p.dove.doveadm("mailbox", "create", "Only/There")
		p.dove.save("Only/There", note("only there"))
		p.dove.save("Work", note("got ahead"))
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "2")
		before := p.ours.view()
		p.run("backup").Want(0)
		same(t, p.ours, p.dove)
		if after := p.ours.view(); strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Error("the source changed")
		}
		p.ours.save("Work", note("one more"))
		p.clean("backup")
		same(t, p.ours, p.dove)
	})
}

func TestBackupFromADovecot(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.dove.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "1")
		p.ours.doveadm("flags", "add", `\Draft`, "mailbox", "INBOX", "uid", "1:3")
		p.ours.doveadm("mailbox", "create", "Only/Here")
		p.ours.save("Work", note("got ahead"))
		p.ours.save("INBOX", note("got ahead too"))
		p.ours.doveadm("expunge", "mailbox", "Work", "uid", "2")
		before := p.dove.view()
		p.clean("backup", "-R")
		same(t, p.ours, p.dove)
		if after := p.dove.view(); strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Error("the source changed")
		}
		p.dove.save("Work", note("one more"))
		p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", "2")
		p.clean("backup", "-R")
		same(t, p.ours, p.dove)
	})
}
