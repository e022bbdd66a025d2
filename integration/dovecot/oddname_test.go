package dovecot

import (
	"slices"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// unlike are names of a Dovecot that a Maildir++ cannot hold, and what they become there.
var unlike = map[string]string{
	"v1.2": "v1_2", "Lists/golang.org": "Lists/golang_org", "a.b/c.d": "a_b/c_d", "end.": "end_",
	strings.Repeat("ü", 60): strings.Repeat("ü", 60), "x^y": "x^y", "cur": "cur", "a/new": "a/new",
}

// A name that cannot exist here becomes a similar one here and stays what it is there, with its subscription, its mails and
// what is new below it.
func TestNamesThatCannotExistHere(t *testing.T) {
	for _, role := range []string{"master", "slave"} {
		t.Run("as "+role, func(t *testing.T) {
			t.Parallel()
			s := newServed(t, "sdbox")
			p := s.pair
			sync := func() {
				t.Helper()
				if role == "master" {
					p.clean("mirror")
				} else {
					s.clean("sync", "-f")
				}
			}
			p.ours.maildir().Create(t, "INBOX")
			p.ours.own()
			names := []string{"INBOX"}
			for name := range unlike {
				names = append(names, name)
			}
			slices.Sort(names)
			p.dove.doveadm(append([]string{"mailbox", "create"}, names[1:]...)...)
			p.dove.doveadm(append([]string{"mailbox", "subscribe"}, names[1:]...)...)
			for _, name := range names {
				p.dove.save(name, note("there in "+name))
			}
			if role == "master" {
				p.run("-v", "mirror").Want(0).Says(`mailbox "v1.2" of the other side is called "v1_2" here`)
			}
			sync()
			for name, here := range unlike {
				if n := len(p.ours.mails(here)); n != 1 {
					t.Errorf("%d mails in %s, which is %s there", n, here, name)
				}
				p.ours.save(here, note("here in "+here))
			}
			p.ours.doveadm("mailbox", "create", "v1_2/below", "v1_2b")
			p.ours.save("v1_2/below", note("below"))
			sync()
			sync()
			names = append(names, "v1.2/below", "v1_2b")
			slices.Sort(names)
			if got := p.dove.mailboxes(); !slices.Equal(got, names) {
				t.Errorf("mailboxes there: %q\nwant %q", got, names)
			}
			for name := range unlike {
				if n := len(p.dove.mails(name)); n != 2 {
					t.Errorf("%d mails in %s", n, name)
				}
			}
			subscribed := strings.Fields(p.dove.doveadm("mailbox", "list", "-s"))
			if len(subscribed) != len(unlike) {
				t.Errorf("subscribed there: %q", subscribed)
			}
		})
	}
}

// A name of ours that the Dovecot cannot hold is another one there, and stays what it is here.
func TestNamesThatCannotExistThere(t *testing.T) {
	t.Parallel()
	e := harness.New(t)
	p := pairOf(e, t, newAccount(e, "ours", "maildir-fs"), newAccountWith(e, "dove", "maildir", ".", ""))
	names := map[string]string{"v1.2": "v1_2", "Lists/golang.org": "Lists.golang_org", "x^y": "x^y"}
	p.ours.maildir().Create(t, "INBOX")
	for name := range names {
		p.ours.maildir().Create(t, name)
		p.ours.maildir().Deliver(t, name, "1767261600.one.test", "S", note("here in "+name))
	}
	p.ours.own()
	p.clean("mirror")
	before := p.ours.mailboxes()
	for name, there := range names {
		if n := len(p.dove.mails(there)); n != 1 {
			t.Errorf("%d mails in %s, which is %s here", n, there, name)
		}
		p.dove.save(there, note("there in "+there))
	}
	p.clean("mirror")
	p.clean("mirror")
	for name := range names {
		if n := len(p.ours.mails(name)); n != 2 {
			t.Errorf("%d mails in %s", n, name)
		}
	}
	if after := p.ours.mailboxes(); !slices.Equal(before, after) {
		t.Errorf("mailboxes here: %q\nwere %q", after, before)
	}
}

// The replacement can be chosen.
func TestAlternativeCharacter(t *testing.T) {
	t.Parallel()
	p := newPair(t, "sdbox")
	p.ours.maildir().Create(t, "INBOX")
	p.ours.own()
	p.dove.doveadm("mailbox", "create", "v1.2")
	p.clean("-C", "-", "mirror")
	p.clean("-o", "dsync_alt_char=+", "mirror") // what is there keeps its name
	if ours, theirs := p.ours.mailboxes(), p.dove.mailboxes(); !slices.Equal(ours, []string{"INBOX", "v1+2"}) || !slices.Contains(theirs, "v1.2") {
		t.Errorf("mailboxes here %q, there %q", ours, theirs)
	}
}
