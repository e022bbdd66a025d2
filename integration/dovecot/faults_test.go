package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// The faults of a stock Dovecot that have to be coped with, and what happens to it behind our back.

func TestOtherSeparators(t *testing.T) {
	for _, sep := range []string{".", "/", "^"} {
		for _, layout := range []string{"maildir", "maildir-fs"} {
			t.Run("theirs "+sep+" ours "+layout, func(t *testing.T) {
				e := harness.New(t)
				p := pairOf(e, t, newAccount(e, "ours", layout), newAccountWith(e, "dove", "sdbox", sep, ""))
				p.ours.doveadm("mailbox", "create", "A/B", "A/Gone", "A/Unsubscribed")
				p.ours.doveadm("mailbox", "subscribe", "A/Unsubscribed")
				p.ours.save("A/B", note("nested"))
				p.clean("mirror")
				nextSecond(t)
				p.ours.doveadm("mailbox", "delete", "A/Gone")
				p.ours.doveadm("mailbox", "unsubscribe", "A/Unsubscribed")
				p.dove.doveadm("mailbox", "create", "New"+sep+"There")
				p.clean("mirror")
				p.clean("mirror")
				slash := strings.NewReplacer("A"+sep, "A/", "New"+sep, "New/")
				view := slash.Replace(strings.Join(p.dove.view(), "\n"))
				if ours := strings.Join(p.ours.view(), "\n"); view != ours {
					t.Errorf("theirs:\n%s\nours:\n%s", view, ours)
				}
				if strings.Contains(view, "Gone") || strings.Contains(view, "subscribed A/Unsubscribed") || !strings.Contains(view, "New/There") {
					t.Error(view)
				}
			})
		}
	}
}

// A GUID with a slash cannot be a file name: a stock Maildir dies of it.
func TestGUIDWithSlash(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		path := filepath.Join(p.ours.maildir().Path, "dovecot-uidlist")
		list, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, []byte(strings.Replace(string(list), "\n1 ", "\n1 Gsome/where/else ", 1)), 0o600))
		p.ours.save("INBOX", note("new"))
		list, err = os.ReadFile(path)
		must(t, err)
		next := strings.LastIndex(strings.TrimRight(string(list), "\n"), "\n") + 1
		uid, rest, _ := strings.Cut(string(list)[next:], " ")
		must(t, os.WriteFile(path, []byte(string(list)[:next]+uid+" Gnew/guid "+rest), 0o600))
		must(t, os.RemoveAll(p.StateDir()))
		for _, cache := range []string{"dovecot.index", "dovecot.index.log", "dovecot.index.cache"} {
			must(t, os.RemoveAll(filepath.Join(p.ours.maildir().Path, cache)))
		}
		p.ours.own()
		p.settled()
		if n := strings.Count(strings.Join(p.dove.view(), "\n"), "mail INBOX "); n != 7+1 && n != 7 {
			t.Errorf("%d mails in INBOX", n)
		}
	})
}

func TestMailboxDeletedOnOneSideWithNewMailOnTheOther(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		for _, deleter := range []string{"ours", "dove"} {
			t.Run("deleted by "+deleter, func(t *testing.T) {
				p := both(t, format)
				from, to := p.ours, p.dove
				if deleter == "dove" {
					from, to = p.dove, p.ours
				}
				from.doveadm("mailbox", "delete", "Work")
				to.save("Work", note("unseen"))
				p.settled()
				view := strings.Join(p.dove.view(), "\n")
				if !strings.Contains(view, "mailbox Work 7") {
					t.Errorf("the mailbox with the new mail is gone:\n%s", view)
				}
				p.settled()
			})
		}
	})
}

func TestDovecotLosesItsIndex(t *testing.T) {
	p := both(t, "maildir")
	p.settled()
	p.Must("sh", "-c", "rm -f "+p.dove.maildir().Path+"/dovecot.index* "+p.dove.maildir().Path+"/.Work/dovecot.index*")
	p.dove.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "1")
	p.ours.doveadm("flags", "add", `\Answered`, "mailbox", "INBOX", "uid", "1")
	p.dove.save("INBOX", note("after the loss"))
	p.run("mirror").Want(0) // Dovecot may warn
	p.settled()
}

func TestWeLoseOurState(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		must(t, os.RemoveAll(p.StateDir()))
		p.dove.doveadm("flags", "add", `\Flagged Kw`, "mailbox", "INBOX", "uid", "1")
		p.dove.save("INBOX", note("after the loss"))
		p.ours.save("INBOX", note("after the loss, here"))
		p.settled()
		if n := strings.Count(strings.Join(p.dove.view(), "\n"), "mail INBOX "); n != 8 {
			t.Errorf("%d mails in INBOX, want 8", n)
		}
	})
}

// The mailbox is made anew with another UIDVALIDITY and GUID behind the back of the last common state. As between two
// Dovecots the name counts, so that the mails of both stay.
func TestMailboxIsRecreated(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		for _, who := range []string{"ours", "dove"} {
			t.Run("by "+who, func(t *testing.T) {
				p := both(t, format)
				a := p.ours
				if who == "dove" {
					a = p.dove
				}
				a.doveadm("mailbox", "delete", "Work")
				a.doveadm("mailbox", "create", "Work")
				for i := range 8 {
					a.save("Work", note(fmt.Sprint("recreated ", i)))
				}
				p.settled()
				p.settled()
				view := strings.Join(p.dove.view(), "\n")
				if n := strings.Count(view, "mail Work "); n != 6+8 {
					t.Errorf("%d mails in Work, want 14:\n%s", n, view)
				}
			})
		}
	})
}

// A Dovecot that lost most of its mail must not take ours with it, and the other way round.
func TestTheDeletionGuardStandsBetween(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newPair(t, format)
		harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 120), "INBOX")
		p.ours.own()
		p.settled()
		before := strings.Join(p.ours.view(), "\n")
		if format == "maildir" { // the last one stays: what is below a mail that both have counts as expunged
			p.Must("sh", "-c", "cd "+p.dove.maildir().Path+" && last=$(tail -n 1 dovecot-uidlist | sed 's/.*://') && ls cur/* | grep -vF $last | xargs rm && rm dovecot.index*")
			if r := p.run("mirror"); r.Status != 3 {
				t.Errorf("exit status %d after the other side lost its mails: %s", r.Status, r.Stderr)
			}
			if after := strings.Join(p.ours.view(), "\n"); after != before {
				t.Fatalf("mail was lost:\n%s", after)
			}
			return
		}
		theirs := strings.Join(p.dove.view(), "\n")
		p.Must("sh", "-c", "rm -rf "+p.ours.maildir().Path+"/cur/*")
		if r := p.run("mirror"); r.Status != 3 {
			t.Errorf("exit status %d after we lost our mails: %s", r.Status, r.Stderr)
		}
		if after := strings.Join(p.dove.view(), "\n"); after != theirs {
			t.Fatalf("mail was lost:\n%s", after)
		}
		p.run("--restore=*", "mirror").Want(0)
		p.settled()
		if n := strings.Count(strings.Join(p.ours.view(), "\n"), "mail INBOX "); n != 120 {
			t.Errorf("%d mails were restored, want 120", n)
		}
	})
}

func TestServerThatCannotStart(t *testing.T) {
	p := both(t, "maildir")
	p.dove.conf = p.Path("none.conf")
	r := p.run("mirror")
	if r.Status != 75 && r.Status != 1 {
		t.Errorf("exit status %d", r.Status)
	}
	r.Says("none.conf")
}

func TestDryRunAndVerifyChangeNothingThere(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.clean("verify")
		p.dove.save("INBOX", note("there"))
		p.ours.save("Work", note("here"))
		p.ours.doveadm("flags", "add", `\Draft`, "mailbox", "Work", "uid", "1")
		p.dove.doveadm("mailbox", "create", "Only/There")
		here, there := strings.Join(p.ours.view(), "\n"), strings.Join(p.dove.view(), "\n")
		r := p.run("verify").Want(2)
		for _, want := range []string{"INBOX", "Work", "Only/There"} {
			if !strings.Contains(r.Stdout, want) {
				t.Errorf("verify does not speak of %s: %s", want, r.Stdout)
			}
		}
		r = p.run("--dry-run", "mirror").Want(0)
		if !strings.Contains(r.Stdout, "1 new here, 1 new there") {
			t.Errorf("dry run: %s", r.Stdout)
		}
		if a, b := strings.Join(p.ours.view(), "\n"), strings.Join(p.dove.view(), "\n"); a != here || b != there {
			t.Error("something was changed")
		}
		p.settled()
		p.clean("verify")
	})
}

// For one missing mail a stock destination deletes the whole mailbox and fails; the mailbox is made anew in the same run.
func TestBackupWhoseDestinationLostAMail(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.clean("backup")
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "2")
		p.run("backup").Want(0)
		same(t, p.ours, p.dove)
		p.clean("backup")
		same(t, p.ours, p.dove)

		// INBOX cannot be deleted: a stock destination would empty it and fail for ever.
		p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", "2")
		for _, reason := range []string{"mails missing there: 1", "UIDNEXT is 8 there and 7 here"} {
			before := strings.Join(p.dove.view(), "\n")
			r := p.run("backup").Want(1)
			if !strings.Contains(r.Stderr, reason) || !strings.Contains(r.Stderr, "use mirror") {
				t.Errorf("not %q: %s", reason, r.Stderr)
			}
			if after := strings.Join(p.dove.view(), "\n"); after != before {
				t.Errorf("a refused backup changed\n%s\nto\n%s", before, after)
			}
			p.dove.save("INBOX", note("ahead"))
		}
		p.run("mirror").Want(0)
		same(t, p.ours, p.dove)
		p.clean("backup")
		same(t, p.ours, p.dove)
	})
}

// A mailbox was made anew here, and both sides then had the mails of both. What a user of the other side expunges of them
// later has to go here as well.
func TestExpungeInAMailboxThatWasRecreated(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.allowed = []string{"UIDVALIDITY changed"} // one of two has to give way
		p.ours.doveadm("mailbox", "delete", "Work")
		p.ours.doveadm("mailbox", "create", "Work")
		p.ours.save("Work", note("new"))
		p.clean("mirror")
		same(t, p.ours, p.dove)
		p.dove.doveadm("expunge", "mailbox", "Work", "uid", "2")
		p.settled()
		p.dove.doveadm("move", "INBOX", "mailbox", "Work", "uid", "4")
		p.settled()
		if n := strings.Count(strings.Join(p.dove.view(), "\n"), "mail Work "); n != 6+1-2 {
			t.Errorf("%d mails in Work", n)
		}
	})
}

// A Dovecot gives a name that is in the way of a renamed mailbox a temporary one, and subscribes to it for good if the name
// was subscribed.
func TestSubscriptionInTheWayOfARename(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.doveadm("mailbox", "create", "New", "Other")
		p.dove.doveadm("mailbox", "subscribe", "Target", "Work", "Bin")
		p.settled()
		p.dove.doveadm("mailbox", "rename", "Work", "Target")
		p.ours.doveadm("mailbox", "rename", "Other", "Bin")
		p.settled()
		if view := strings.Join(p.dove.view(), "\n"); strings.Contains(view, "-temp-") || !strings.Contains(view, "subscribed Target") {
			t.Error(view)
		}
	})
}

// A mailbox is deleted, and another one gets its name before the next sync. A Dovecot keeps the deleted one under a temporary
// name, and not the one that it settles for.
func TestAMailboxInTheWayOfARename(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		p.ours.doveadm("mailbox", "create", "Target")
		p.settled()
		p.ours.doveadm("mailbox", "delete", "Target")
		p.ours.doveadm("mailbox", "rename", "Work", "Target")
		p.run("mirror").Want(0)
		same(t, p.ours, p.dove)
		p.settled()
	})
}

// A round that the Dovecot started leaves our own last common state behind: mails are new by it that both sides have. A
// Dovecot does not merge the flags of these.
func TestFlagsAfterASyncThatTheOtherSideStarted(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := &served{pair: both(t, format)}
		p.dove.save("INBOX", note("new"))
		p.clean("sync")
		p.ours.doveadm("flags", "add", "$Forwarded \\Flagged", "mailbox", "INBOX", "subject", "new")
		p.pair.clean("mirror")
		same(t, p.ours, p.dove)
		if view := strings.Join(p.dove.view(), "\n"); !strings.Contains(view, "$Forwarded") {
			t.Error(view)
		}
	})
}
