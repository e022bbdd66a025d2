package dovecot

import (
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// filtered are the options that leave something out. In each case what a stock Dovecot does with them, as the other end of
// itself, is what we have to do, in both roles.
var filtered = []struct {
	name string
	args []string
	want []string // some mails that have to arrive, by name
	own  bool     // a stock master sends something else than it was told, so that only ours does it right
}{
	{"newer than a date", []string{"-t", "2026-02-01"}, []string{"march", "may", "big", "flagged", "keyword", "seen", "work", "deep"}, false},
	{"between two dates", []string{"-t", "2026-02-01", "-e", "2026-04-01"}, []string{"march", "big", "flagged"}, true},
	{"small ones", []string{"-I", "1000"}, []string{"january", "march", "may", "flagged", "keyword", "seen", "work", "deep"}, false},
	{"flagged ones", []string{"-O", `\Flagged`}, []string{"flagged"}, false},
	{"unseen ones", []string{"-O", `-\Seen`}, nil, false},
	{"with a keyword", []string{"-O", "Kw"}, []string{"keyword"}, false},
	{"without a keyword", []string{"-O", "-Kw"}, nil, false},
	{"one mailbox", []string{"-m", "Work"}, []string{"work"}, false},
	{"one nested mailbox", []string{"-m", "Work/Deep"}, []string{"deep"}, false},
	{"INBOX", []string{"-m", "INBOX"}, nil, false},
	{"without one mailbox", []string{"-x", "Work"}, nil, false},
	{"without a pattern", []string{"-x", "Work*"}, []string{"january", "march", "may", "big", "flagged", "keyword", "seen"}, false},
	{"without two", []string{"-x", "Work/Deep", "-x", "INBOX"}, []string{"work"}, false},
	{"without what is marked", []string{"-x", `\Junk`}, nil, false},
	{"the default namespace", []string{"-n", ""}, nil, false},
	{"all namespaces", []string{"-N"}, nil, false},
	{"one-way", []string{"-1"}, nil, false},
	{"no mails", []string{"-m", ""}, nil, false},
}

// source fills an account with mails that differ in everything that the options ask for.
func source(t *testing.T, a *account) {
	t.Helper()
	m := a.maildir()
	m.Create(t, "INBOX", "Work", "Work/Deep", "Junk")
	put := func(box, name, flags string, month time.Month, size int) {
		mail := note(name)
		mail.Date = time.Date(2026, month, 10, 12, 0, 0, 0, time.UTC)
		mail.Text = append(mail.Text, strings.Repeat(strings.Repeat("x", 70)+"\n", size/71)...)
		m.Deliver(t, box, name+".M1.test", flags, mail)
	}
	put("INBOX", "january", "S", time.January, 0)
	put("INBOX", "march", "", time.March, 0)
	put("INBOX", "may", "", time.May, 0)
	put("INBOX", "big", "S", time.March, 5000)
	put("INBOX", "flagged", "FS", time.March, 0)
	put("INBOX", "keyword", "", time.May, 0)
	put("INBOX", "seen", "S", time.May, 0)
	put("Work", "work", "S", time.May, 0)
	put("Work/Deep", "deep", "S", time.May, 0)
	a.own()
	a.doveadm("flags", "add", "Kw", "mailbox", "INBOX", "header", "subject", "keyword")
	a.doveadm("mailbox", "subscribe", "Work")
}

// arrived names the mails and mailboxes of an account.
func (a *account) arrived() []string {
	a.t.Helper()
	var names []string
	for _, box := range a.mailboxes() {
		names = append(names, "mailbox "+box)
	}
	for _, m := range a.mails("*") {
		guid, _, _ := strings.Cut(m.GUID, ".")
		names = append(names, m.Mailbox+": "+guid)
	}
	slices.Sort(names)
	return names
}

func TestOptionsThatLeaveSomethingOut(t *testing.T) {
	for _, f := range filtered {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			e := harness.New(t)
			oracle := newPairIn(e, t, "maildir", "-oracle")
			source(t, oracle.ours)
			r := oracle.ours.try(nil, slices.Concat([]string{"sync", "-f"}, f.args, oracle.dove.server())...)
			if r.status != 0 {
				t.Logf("stock: exit status %d: %s", r.status, r.stderr)
			}
			want := oracle.dove.arrived()

			p := newPairIn(e, t, "maildir", "-master")
			source(t, p.ours)
			p.run(slices.Concat([]string{"-f"}, f.args, []string{"mirror"})...).Want(0)
			got := p.dove.arrived()
			for _, name := range f.want {
				if !strings.Contains(strings.Join(got, "\n"), ": "+name) {
					t.Errorf("%s did not arrive: %q", name, got)
				}
			}
			if !f.own && !slices.Equal(got, want) {
				t.Errorf("dsyncfs as master: %q\nstock Dovecot:     %q", got, want)
			}

			s := &served{pair: newPairIn(e, t, "maildir", "-slave")}
			s.ours, s.dove = s.dove, s.ours // the mails come from the stock master
			source(t, s.dove)
			s.clean(slices.Concat([]string{"sync", "-f"}, f.args)...)
			if got := s.ours.arrived(); !slices.Equal(got, want) {
				t.Errorf("dsyncfs as slave: %q\nstock Dovecot:    %q", got, want)
			}
		})
	}
}
