package dovecot

import (
	"os"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// served is a pair in which a stock Dovecot is the master and dsyncfs its remote command.
type served struct {
	*pair
}

func newServed(t *testing.T, format string) *served { return &served{pair: newPair(t, format)} }

// remote is the command that doveadm runs.
func (p *served) remote(options ...string) []string {
	words := append([]string{"env", "HOME=" + p.Home}, p.Vars()...)
	if os.Getuid() == 0 { // doveadm runs it as root
		user, group := mailUser()
		words = append(words, "setpriv", "--reuid="+user, "--regid="+group, "--clear-groups")
	}
	words = append(words, harness.Binary(p.t), "-o", "mail_location="+p.ours.maildir().Location())
	return append(append(words, options...), "dsync-server")
}

// sync runs doveadm with the Dovecot's mail on this side and dsyncfs on the other.
func (p *served) sync(args ...string) result {
	p.t.Helper()
	return p.dove.try(nil, append(args, p.remote()...)...)
}

// clean is sync, with success and without a word from either.
func (p *served) clean(args ...string) result {
	p.t.Helper()
	r := p.sync(args...)
	if r.status != 0 || strings.TrimSpace(r.stderr) != "" {
		p.t.Fatalf("doveadm %s: exit status %d: %s", strings.Join(args, " "), r.status, r.stderr)
	}
	return r
}

// settled syncs, compares, and syncs again, which must change nothing.
func (p *served) settled(args ...string) {
	p.t.Helper()
	p.clean(append([]string{"sync"}, args...)...)
	same(p.t, p.ours, p.dove)
	before := strings.Join(p.dove.view(), "\n")
	p.clean("sync", "-f")
	p.clean("sync")
	same(p.t, p.ours, p.dove)
	if after := strings.Join(p.dove.view(), "\n"); before != after {
		p.t.Errorf("a sync of equal sides changed something:\n%s\n\n%s", before, after)
	}
}

// filled is a served pair in sync.
func filled(t *testing.T, format string) *served {
	p := newServed(t, format)
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 12), "INBOX", "Work")
	p.ours.own()
	p.settled("-f")
	return p
}

func TestServeADovecot(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filled(t, format)
		p.ours.doveadm("flags", "add", `\Flagged OurKw`, "mailbox", "INBOX", "uid", "1")
		p.dove.doveadm("flags", "add", `\Draft TheirKw`, "mailbox", "INBOX", "uid", "1:2")
		p.dove.doveadm("flags", "remove", `\Seen`, "mailbox", "INBOX", "uid", "1")
		p.settled("-f")
		p.ours.doveadm("expunge", "mailbox", "INBOX", "uid", "1")
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "1,6")
		p.settled("-f")
		p.ours.save("INBOX", note("five"))
		p.dove.save("INBOX", note("six"))
		p.dove.save("INBOX", note("seven"))
		p.settled("-f")
		nextSecond(t)
		p.ours.doveadm("mailbox", "create", "日本語/メール", "Gone")
		p.ours.doveadm("mailbox", "rename", "Work", "Arbeit")
		p.dove.doveadm("mailbox", "create", "There/Deep")
		p.dove.doveadm("mailbox", "subscribe", "INBOX", "There/Deep")
		p.settled("-f")
		nextSecond(t)
		p.ours.doveadm("mailbox", "delete", "There/Deep")
		p.ours.doveadm("mailbox", "unsubscribe", "There/Deep")
		p.dove.doveadm("mailbox", "delete", "Gone")
		p.settled("-f")
	})
}

// With a saved state only what changed is looked at, and only mailboxes that changed at the master.
func TestServeWithState(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filled(t, format)
		state := ""
		step := func(what string) {
			t.Helper()
			r := p.clean("sync", "-s", state)
			if state = strings.TrimSpace(r.stdout); state == "" {
				t.Errorf("%s: no state: a full sync was demanded", what)
			}
			same(t, p.ours, p.dove)
		}
		step("first")
		step("unchanged")
		p.dove.save("INBOX", note("new there"))
		p.ours.doveadm("flags", "add", `\Flagged OurKw`, "mailbox", "INBOX", "uid", "1")
		step("new mail there, flags here")
		p.dove.doveadm("flags", "remove", `\Seen`, "mailbox", "INBOX", "uid", "2")
		p.ours.save("INBOX", note("new here"))
		step("flags there, new mail here")
		p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", "3")
		p.ours.doveadm("expunge", "mailbox", "INBOX", "uid", "1,5")
		step("expunges on both sides")
		p.dove.save("INBOX", note("both there"))
		p.ours.save("INBOX", note("both here"))
		step("new mail on both sides")
		p.dove.doveadm("mailbox", "create", "Other")
		p.dove.save("Other", note("other"))
		step("a new mailbox")
		step("unchanged again")
		p.settled()
	})
}

// An index that was lost cannot say what changed: the master has to look at everything, and does.
func TestServeWithStateAfterALoss(t *testing.T) {
	p := filled(t, "sdbox")
	state := strings.TrimSpace(p.clean("sync", "-f", "-s", "").stdout)
	p.Must("rm", "-rf", p.StateDir())
	p.dove.save("INBOX", note("new there"))
	r := p.sync("sync", "-s", state)
	if r.status == 75 || strings.Contains(r.stderr, "Error") || strings.Contains(r.stderr, "Panic") {
		t.Fatalf("exit status %d: %s", r.status, r.stderr)
	}
	p.settled("-f")
}

func TestServeBackups(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filled(t, format)
		p.ours.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "1")
		p.dove.doveadm("flags", "add", `\Draft`, "mailbox", "INBOX", "uid", "1:3")
		p.ours.doveadm("mailbox", "create", "Only/Here")
		p.ours.save("Work", note("got ahead"))
		p.ours.save("INBOX", note("got ahead too"))
		p.ours.doveadm("expunge", "mailbox", "Work", "uid", "2")
		before := strings.Join(p.dove.view(), "\n")
		p.clean("backup")
		same(t, p.ours, p.dove)
		if after := strings.Join(p.dove.view(), "\n"); before != after {
			t.Error("the source changed")
		}
		p.ours.save("INBOX", note("got ahead once more"))
		p.ours.save("Work", note("more here"))
		p.dove.save("Work", note("more there"))
		p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", "2")
		p.clean("backup", "-f")
		same(t, p.ours, p.dove)

		p.dove.doveadm("flags", "add", `\Draft`, "mailbox", "INBOX", "uid", "1:3")
		p.ours.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "3")
		p.ours.save("Work", note("source"))
		before = strings.Join(p.ours.view(), "\n")
		p.clean("backup", "-R")
		same(t, p.ours, p.dove)
		if after := strings.Join(p.ours.view(), "\n"); before != after {
			t.Error("the source changed")
		}
	})
}

func TestServeOneWay(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filled(t, format)
		p.ours.save("Work", note("here"))
		p.dove.save("INBOX", note("there"))
		p.dove.doveadm("flags", "add", `\Draft`, "mailbox", "INBOX", "uid", "1")
		there := strings.Join(p.dove.view(), "\n")
		p.clean("sync", "-1", "-f")
		if strings.Join(p.dove.view(), "\n") != there {
			t.Error("the source changed")
		}
		here := strings.Join(p.ours.view(), "\n")
		if !strings.Contains(here, "mail INBOX 7 ") || !strings.Contains(here, "mail Work 7 ") {
			t.Errorf("after sync -1:\n%s", here)
		}
		p.clean("sync", "-1", "-R", "-f")
		if strings.Join(p.ours.view(), "\n") != here {
			t.Error("the source changed")
		}
		same(t, p.ours, p.dove)
	})
}

func TestServeTwoAccountsUsedIndependently(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		for _, first := range []string{"ours", "dove"} {
			t.Run(first+" made first", func(t *testing.T) {
				p := newServed(t, format)
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
				// The stock master announces the GUID that it took over from us, if it took it: one run settles all.
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
