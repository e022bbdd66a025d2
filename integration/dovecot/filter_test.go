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
	{"until a date", []string{"-e", "2026-02-01"}, []string{"january"}, true},
	{"between two dates", []string{"-t", "2026-02-01", "-e", "2026-04-01"}, []string{"march", "big", "flagged"}, true},
	{"small ones", []string{"-I", "1000"}, []string{"january", "march", "may", "flagged", "keyword", "seen", "work", "deep"}, false},
	{"flagged ones", []string{"-O", `\Flagged`}, []string{"flagged"}, false},
	{"unseen ones", []string{"-O", `-\Seen`}, nil, false},
	{"with a keyword", []string{"-O", "Kw"}, []string{"keyword"}, false},
	{"without a keyword", []string{"-O", "-Kw"}, nil, false},
	{"one mailbox", []string{"-m", "Work"}, []string{"work"}, false},
	{"one nested mailbox", []string{"-m", "Work/Deep"}, []string{"deep"}, false},
	{"INBOX", []string{"-m", "INBOX"}, nil, false},
	{"the mailbox of a GUID", []string{"-g", "Work"}, []string{"work"}, false}, // its name stands for it here
	{"the nested mailbox of a GUID", []string{"-g", "Work/Deep"}, []string{"deep"}, false},
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

// filtering is one case of filtered.
type filtering struct {
	e    *harness.Env
	t    *testing.T
	args []string
}

// pair makes a pair whose mails are on one side, and the options for it.
func (f *filtering) pair(suffix string, here bool) (*pair, []string) {
	f.t.Helper()
	p := newPairIn(f.e, f.t, "maildir", suffix)
	full, empty := p.ours, p.dove
	if !here {
		full, empty = p.dove, p.ours
	}
	source(f.t, full)
	if empty == p.ours {
		empty.maildir().Create(f.t, "INBOX")
		empty.own()
	}
	args := slices.Clone(f.args)
	if args[0] == "-g" {
		args[1] = full.guidOf(args[1])
	}
	return p, args
}

// guidOf is the GUID of a mailbox.
func (a *account) guidOf(box string) string {
	a.t.Helper()
	for _, row := range a.status("guid") {
		if row[0] == box {
			return row[1]
		}
	}
	a.t.Fatalf("%s has no mailbox %s", a.name, box)
	return ""
}

func TestOptionsThatLeaveSomethingOut(t *testing.T) {
	for _, c := range filtered {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &filtering{harness.New(t), t, c.args}
			oracle, args := f.pair("-oracle", true)
			r := oracle.ours.try(nil, slices.Concat([]string{"sync", "-f"}, args, oracle.dove.server())...)
			if r.status != 0 {
				t.Logf("stock: exit status %d: %s", r.status, r.stderr)
			}
			want := oracle.dove.arrived()
			check := func(role string, a *account) {
				t.Helper()
				got := a.arrived()
				if slices.Equal(got, want) {
					return
				}
				if !c.own {
					t.Errorf("dsyncfs as %s: %q\nstock Dovecot: %q", role, got, want)
				}
			}

			master, args := f.pair("-master", true)
			master.run(slices.Concat([]string{"-f"}, args, []string{"mirror"})...).Want(0)
			check("master that sends", master.dove)
			f.arrives(master.dove, c.want, c.own)
			slave, args := f.pair("-slave", false) // the mails come from the stock master
			s := &served{slave}
			s.clean(slices.Concat([]string{"sync", "-f"}, args)...)
			check("slave that gets", s.ours)
			if args[0] == "-1" {
				return // nothing comes back
			}

			back, args := f.pair("-back", false)
			back.run(slices.Concat([]string{"-f"}, args, []string{"mirror"})...).Want(0)
			check("master that gets", back.ours)
			f.arrives(back.ours, c.want, c.own)
			fill, args := f.pair("-fill", true)
			s = &served{fill}
			s.clean(slices.Concat([]string{"sync", "-f"}, args)...)
			check("slave that sends", s.dove)
			f.arrives(s.dove, c.want, c.own)
		})
	}
}

// arrives fails the test unless these mails arrived, and with only no others.
func (f *filtering) arrives(a *account, want []string, only bool) {
	f.t.Helper()
	got, mails := a.arrived(), 0
	for _, name := range want {
		if !strings.Contains(strings.Join(got, "\n"), ": "+name) {
			f.t.Errorf("%s: %s did not arrive: %q", a.name, name, got)
		}
	}
	for _, name := range got {
		if strings.Contains(name, ": ") {
			mails++
		}
	}
	if only && mails != len(want) {
		f.t.Errorf("%s: %d mails arrived, want %d: %q", a.name, mails, len(want), got)
	}
}
