package merge_test

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// show writes a plan in one line: what is realigned, marked, expunged (? without a witness) and added.
func show(p merge.Plan) string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if p.Resync {
		say("resync")
	}
	if p.Restart {
		say("restart V%d N%d", p.UIDValidity, p.UIDNext)
	}
	for _, r := range p.Realign {
		say("%d>%d%s", r.UID, r.NewUID, r.NewGUID)
	}
	for _, d := range p.Deltas {
		say("%d+%d-%d+%v-%v@%d", d.UID, d.Delta.Add, d.Delta.Remove, d.Delta.AddKeywords, d.Delta.RemoveKeywords, d.MinModSeq)
	}
	for _, e := range p.Expunges {
		if e.Witnessed {
			say("x%d", e.UID)
		} else {
			say("x%d?", e.UID)
		}
	}
	for _, a := range p.Adds {
		for _, in := range a.Instances {
			say("%s:%d=r%d/c%d", a.GUID, in.UID, a.RemoteUID, a.Copy)
		}
	}
	return strings.Join(out, " ")
}

// planned runs a planner on mails written as in conversations: those here, then what the peer sends.
func planned(t *testing.T, o merge.Options, local, remote side) merge.Plan {
	t.Helper()
	own, other := local.box(t, "local"), remote.box(t, "remote")
	for _, s := range []struct {
		status *mail.Status
		box    *box
	}{{&o.LocalStatus, own}, {&o.RemoteStatus, other}} {
		validity := s.status.UIDValidity
		*s.status = s.box.status()
		if validity != 0 {
			s.status.UIDValidity = validity
		}
	}
	o.Local, o.Log, o.Past = own.messages, own.logged(0), own.pastOf
	p, err := plan(o, parseChanges(t, remote.changes))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlans(t *testing.T) {
	short := mail.GUID("1767261602.M000003P1.example").Hash128().String()
	for _, c := range []struct {
		name          string
		options       merge.Options
		local, remote side
		want          string
	}{
		{
			name:  "the same new mail under two UIDs takes the one that is free on both sides",
			local: side{next: 3, highest: 5, changes: `s 2 A 1 - - 0`}, remote: side{next: 6, highest: 5, changes: `s 5 A 1 - - 0`},
			want: "2>5",
		},
		{
			name:  "the same new mail whose UID here is free there stays",
			local: side{next: 6, highest: 5, changes: `s 5 A 1 - - 0`}, remote: side{next: 3, highest: 5, changes: `s 2 A 1 - - 0`},
			want: "",
		},
		{
			name:  "a second instance is copied from the one that is here",
			local: side{next: 3, highest: 5, changes: `s 2 B 1 - - 0`}, remote: side{next: 5, highest: 5, changes: `s 3 B 1 - - 0|s 4 B 1 - - 2`},
			want: "2>3 B:4=r3/c3",
		},
		{
			name:  "several instances are one add",
			local: side{next: 1}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 A 1 - - 0`},
			want: "A:1=r1/c0 A:3=r1/c0 B:2=r2/c0",
		},
		{
			name:  "absence below the highest common UID is an expunge",
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 3 C 1 - - 0`},
			want: "x2?",
		},
		{
			name: "absence is nothing where it is kept", options: merge.Options{Absence: merge.Keep},
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 3 C 1 - - 0`},
			want: "2>4",
		},
		{
			name:    "a mail that has another UID here by now is not one that the peer expunged under a third",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 14, changes: `s 1 A 1 - - 0|er 5 B|s 13 B 1 - - 0`}, remote: side{next: 7, changes: `e 3 B|sb 5 B 1 - - 0`},
			want: "",
		},
		{
			name:    "a mail that an exchange brought here before it broke off, and that was expunged there, goes",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|sb 7 B 1 - - 0`}, remote: side{next: 5, changes: `e 4 B`},
			want: "x7",
		},
		{
			name:    "and does not come back from there",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|e 4 B`}, remote: side{next: 8, changes: `sb 7 B 1 - - 0`},
			want: "",
		},
		{
			name:    "but one that a user put here stays, whatever was expunged there",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|s 7 B 1 - - 0`}, remote: side{next: 5, changes: `e 4 B`},
			want: "",
		},
		{
			name:    "and is got from there",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|e 4 B`}, remote: side{next: 8, changes: `s 7 B 1 - - 0`},
			want: "B:7=r7/c0",
		},
		{
			name:    "a mail that an exchange brought there, and that was expunged there, goes here, too",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|s 4 B 1 - - 0`}, remote: side{next: 8, changes: `eb 7 B`},
			want: "x4",
		},
		{
			name:    "and is not got again where it was expunged",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|eb 7 B`}, remote: side{next: 8, changes: `s 4 B 1 - - 0`},
			want: "",
		},
		{
			name:    "but not if it was expunged here, too, and is here again",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 6, changes: `s 1 A 1 - - 0|e 4 B|s 5 B 1 - - 0`}, remote: side{next: 8, changes: `eb 7 B`},
			want: "5>8",
		},
		{
			name:    "nor there",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|eb 7 B`}, remote: side{next: 6, changes: `e 4 B|s 5 B 1 - - 0`},
			want: "B:8=r5/c0",
		},
		{
			name:    "a mail that got new UIDs there, in exchanges that broke off, and then was expunged goes here",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|sb 4 B 1 - - 0`}, remote: side{next: 8, changes: `er 3 B|er 6 B|e 7 B`},
			want: "x4",
		},
		{
			name:    "and is not got from there",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|er 3 B|er 6 B|e 7 B`}, remote: side{next: 5, changes: `sb 4 B 1 - - 0`},
			want: "",
		},
		{
			name:    "one whose message only got another UID there was not expunged",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|sb 4 B 1 - - 0`}, remote: side{next: 8, changes: `er 3 B|er 6 B`},
			want: "4>8",
		},
		{
			name:    "nor here",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|er 3 B|er 6 B`}, remote: side{next: 5, changes: `sb 4 B 1 - - 0`},
			want: "B:8=r4/c0",
		},
		{
			name:    "a mail that both had when they met, and that was expunged there, goes",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|sm 4 B 1 - - 0`}, remote: side{next: 9, changes: `e 8 B`},
			want: "x4",
		},
		{
			name:    "and does not come back",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 9, changes: `s 1 A 1 - - 0|e 8 B`}, remote: side{next: 5, changes: `sm 4 B 1 - - 0`},
			want: "",
		},
		{
			name:    "of two that were brought, one of which was expunged there, one stays",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 6, changes: `s 1 A 1 - - 0|sb 4 B 1 - - 0|sb 5 B 1 - - 0`}, remote: side{next: 8, changes: `e 3 B|s 7 B 1 - - 0`},
			want: "5>7 x4",
		},
		{
			name:    "as here",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|e 3 B|s 7 B 1 - - 0`}, remote: side{next: 6, changes: `sb 4 B 1 - - 0|sb 5 B 1 - - 0`},
			want: "",
		},
		{
			name:    "one that was expunged on both sides and is here again is new",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|eb 4 B|s 7 B 1 - - 0`}, remote: side{next: 5, changes: `e 4 B`},
			want: "",
		},
		{
			name:    "also if it was brought before",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|e 4 B`}, remote: side{next: 8, changes: `eb 4 B|s 7 B 1 - - 0`},
			want: "B:7=r7/c0",
		},
		{
			name:    "a mail that is here again after its expunge was told stays",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|s 4 B 1 - - 0`}, remote: side{next: 5, changes: `et 4 B`},
			want: "4>5",
		},
		{
			name:    "and comes back to where that was told",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 5, changes: `s 1 A 1 - - 0|et 4 B`}, remote: side{next: 5, changes: `s 4 B 1 - - 0`},
			want: "B:5=r4/c0",
		},
		{
			name:    "one that a user put back stays where the other side was told of its first end",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|et 4 B|s 7 B 1 - - 0`}, remote: side{next: 5, changes: `eb 4 B`},
			want: "",
		},
		{
			name:    "one that was expunged and came back there is the one that is here",
			options: merge.Options{HaveBase: true, Base: 1, Absence: merge.Keep},
			local:   side{next: 8, changes: `s 1 A 1 - - 0|s 7 B 1 - - 0`}, remote: side{next: 10, changes: `e 4 B|s 9 B 1 - - 0`},
			want: "7>9",
		},
		{
			name: "absence above what was ever common is doubted", options: merge.Options{Absence: merge.Doubt, Common: 1},
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 3 C 1 - - 0`},
			want: "2>4",
		},
		{
			name: "absence of what once was common is an expunge also in doubt", options: merge.Options{Absence: merge.Doubt, Common: 2},
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 3 C 1 - - 0`},
			want: "x2?",
		},
		{
			name: "a mail that the peer takes for expunged here is fetched in time", options: merge.Options{Absence: merge.Doubt, Common: 1},
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`},
			want: "B:4=r2/c0",
		},
		{
			name: "a mail in doubt on both sides is one", options: merge.Options{Absence: merge.Doubt},
			local: side{next: 5, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 4 C 1 - - 0`}, remote: side{next: 5, changes: `s 1 A 1 - - 0|s 3 B 1 - - 0|s 4 C 1 - - 0`},
			want: "2>5",
		},
		{
			name: "absence of a mail that the filter hides is nothing", options: merge.Options{Filter: merge.Filter{Flag: mail.FlagFlagged}},
			local: side{next: 4, changes: `s 1 A 1 - - 2|s 2 B 1 - - 0|s 3 C 1 - - 2`}, remote: side{next: 4, changes: `s 1 A 1 - - 2|s 3 C 1 - - 2`},
			want: "",
		},
		{
			name: "an unwanted new mail is not saved", options: merge.Options{Filter: merge.Filter{Flag: mail.FlagFlagged, Not: true}},
			local: side{next: 1}, remote: side{next: 3, changes: `s 1 A 1 - - 2|s 2 B 1 - - 0`},
			want: "B:2=r2/c0",
		},
		{
			name:  "an expunge record without GUID does not end the common part",
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|e 2 ?`},
			want: "2>4 3>5",
		},
		{
			name:  "an expunge record without GUID is a witness within the common part",
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`}, remote: side{next: 4, changes: `s 1 A 1 - - 0|e 2 ?|s 3 C 1 - - 0`},
			want: "x2",
		},
		{
			name: "short GUIDs name the same mail", options: merge.Options{ShortGUIDs: true},
			local:  side{next: 2, changes: `s 1 1767261602.M000003P1.example 1 - - 0`},
			remote: side{next: 3, changes: `s 1 ` + short + ` 1 - - 0|s 2 ` + short + ` 1 - - 0`},
			want:   short + ":2=r2/c0",
		},
		{
			name:  "a flag changed here raises the modseq to where the peer's will be",
			local: side{next: 2, highest: 9, changes: `s 1 A 9 2 - 2`}, remote: side{next: 2, highest: 20, changes: `s 1 A 4 - - 0`},
			want: "1+0-0+[]-[]@21",
		},
		{
			name: "an unexplained difference of equal modseq is decided by role", options: merge.Options{Tie: merge.PreferRemote},
			local: side{next: 2, highest: 9, changes: `s 1 A 4 - - 2 =x`}, remote: side{next: 2, highest: 9, changes: `s 1 A 4 - - 1 =y`},
			want: "1+1-2+[y]-[x]@4",
		},
		{
			name: "a union keeps both", options: merge.Options{Tie: merge.Union},
			local: side{next: 2, highest: 9, changes: `s 1 A 4 - - 2 =x`}, remote: side{next: 2, highest: 9, changes: `s 1 A 8 - - 1 =y`},
			want: "1+1-0+[y]-[]@10",
		},
		{
			name: "a union believes the later of opposite changes", options: merge.Options{Tie: merge.Union},
			local:  side{next: 2, highest: 9, changes: `s 1 A 4 2 - 2 &x`},
			remote: side{next: 2, highest: 9, changes: `s 1 A 8 - 2 0 -x`},
			want:   "1+0-2+[]-[x]@8",
		},
		{
			name: "a union keeps what was removed longer ago than added", options: merge.Options{Tie: merge.Union},
			local:  side{next: 2, highest: 9, changes: `s 1 A 8 2 - 2 &x`},
			remote: side{next: 2, highest: 9, changes: `s 1 A 4 - 2 0 -x`},
			want:   "1+0-0+[]-[]@10",
		},
		{
			name: "an expunge beats flags", options: merge.Options{HaveBase: true, Base: 2},
			local: side{next: 3, changes: `f 1 A 9 2 - 2|f 2 B 1 - - 0`}, remote: side{next: 3, changes: `e 1 A|f 2 B 1 - - 0`},
			want: "x1",
		},
		{
			name: "a common UID names the mail of an expunge well enough", options: merge.Options{HaveBase: true, Base: 2},
			local: side{next: 3, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0`}, remote: side{next: 3, changes: `e 1 ?`},
			want: "x1",
		},
		{
			name: "a request names a short GUID as the peer does", options: merge.Options{HaveBase: true, ShortGUIDs: true},
			local:  side{next: 3, changes: `s 2 1767261602.M000003P1.example 1 - - 0`},
			remote: side{next: 5, changes: `s 3 ` + short + ` 1 - - 0|s 4 ` + short + ` 1 - - 0`},
			want:   "2>3 " + short + ":4=r3/c3",
		},
		{
			name: "another mail under a common UID asks for a full round", options: merge.Options{HaveBase: true, Base: 2},
			local: side{next: 3, changes: `s 1 A 9 2 - 2|s 2 B 1 - - 0`}, remote: side{next: 4, changes: `f 2 C 9 2 - 2|s 3 D 1 - - 0`},
			want: "resync",
		},
		{
			name: "one way the peer's modseq is not anticipated", options: merge.Options{Mode: merge.OneWay},
			local: side{next: 2, highest: 9, changes: `s 1 A 9 2 - 2`}, remote: side{next: 2, highest: 20, changes: `s 1 A 4 - - 0`},
			want: "",
		},
		{
			name: "a backup undoes what was done here", options: merge.Options{Mode: merge.Backup},
			local:  side{next: 4, changes: `s 1 A 9 2 - 2 =x|s 3 C 1 - - 0`},
			remote: side{next: 5, changes: `s 1 A 1 - - 8|e 3 C|s 4 D 1 - - 0`},
			want:   "1+8-2+[]-[x]@1 x3 D:4=r4/c0",
		},
		{
			name: "a backup puts missing and foreign mails right under restarted UIDs", options: merge.Options{Mode: merge.Backup},
			local:  side{next: 5, changes: `s 1 A 1 - - 0|s 2 X 1 - - 0|s 4 B 1 - - 0`},
			remote: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 0`},
			want:   "restart V7 N4 2>5 4>2 x5? C:3=r3/c0",
		},
		{
			name: "a backup changes places", options: merge.Options{Mode: merge.Backup},
			local: side{next: 3, changes: `s 1 A 1 - - 0|s 2 B 1 - - 2`}, remote: side{next: 3, changes: `s 1 B 1 - - 2|s 2 A 1 - - 0`},
			want: "restart V7 N3 1>2 2>1",
		},
		{
			name: "a backup takes the source's UIDVALIDITY", options: merge.Options{Mode: merge.Backup, RemoteStatus: mail.Status{UIDValidity: 9}},
			local: side{next: 2, changes: `s 1 A 1 - - 0`}, remote: side{next: 2, changes: `s 1 A 1 - - 0`},
			want: "restart V9 N2",
		},
		{
			name: "a backup keeps what its filter hides", options: merge.Options{Mode: merge.Backup, Filter: merge.Filter{Flag: mail.FlagFlagged}},
			local: side{next: 4, changes: `s 1 A 1 - - 0|s 2 B 1 - - 0|s 3 C 1 - - 2`}, remote: side{next: 4, changes: `s 2 D 1 - - 2`},
			want: "restart V7 N4 2>4 x3? x4? D:2=r2/c0",
		},
		{
			name: "a changed backup cannot be continued from its base", options: merge.Options{Mode: merge.Backup, HaveBase: true, Base: 2},
			local: side{next: 3, changes: `s 1 A 1 - - 0|e 2 B`}, remote: side{next: 3, changes: ``},
			want: "resync",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			equal(t, "plan", show(planned(t, c.options, c.local, c.remote)), c.want)
		})
	}
}

// A Dovecot says of a keyword that a user set and that a sync took away again that it was added and is not set. It gives
// such a mail to a third side with the keyword, and so would have two sides that differ.
func TestSavedMailsGetWhatIsSetNow(t *testing.T) {
	record := &item.Change{Type: item.ChangeSave, UID: 1, GUID: "a", Add: mail.FlagFlagged, Final: mail.FlagSeen, Keywords: []item.KeywordChange{
		{Op: item.KeywordAdded, Name: "gone"}, {Op: item.KeywordSet, Name: "old"}, {Op: item.KeywordAddedSet, Name: "new"},
	}}
	for mode, name := range []string{"two-way", "one-way", "backup"} {
		o := merge.Options{
			Mode: merge.Mode(mode), Local: nothing, Log: func(func(merge.Logged, error) bool) {},
			LocalStatus: mail.Status{UIDNext: 1}, RemoteStatus: mail.Status{UIDNext: 2, Messages: 1},
		}
		p := merge.NewPlanner(o)
		defer p.Close()
		if err := p.Add(record); err != nil {
			t.Fatal(err)
		}
		plan, err := p.Finish()
		if err != nil || len(plan.Adds) != 1 {
			t.Fatalf("%s: %v %v", name, plan, err)
		}
		got := plan.Adds[0].Instances[0]
		if got.Flags != mail.FlagSeen || !got.Keywords.Equal(mail.NewKeywords("old", "new")) {
			t.Errorf("%s: saved with %v %v", name, got.Flags, got.Keywords)
		}
	}
}

func nothing(mail.UID) iter.Seq2[mail.Message, error] {
	return func(func(mail.Message, error) bool) {}
}

func TestRecordsThatACorrectPeerDoesNotSend(t *testing.T) {
	for _, c := range []struct {
		name    string
		options merge.Options
		changes []*item.Change
	}{
		{name: "no UID", changes: []*item.Change{{Type: item.ChangeSave, GUID: "A"}}},
		{name: "UID beyond the limit", changes: []*item.Change{{Type: item.ChangeSave, UID: mail.MaxUID + 1, GUID: "A"}}},
		{name: "UIDs that go back", changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: "A"}, {Type: item.ChangeSave, UID: 1, GUID: "B"}}},
		{name: "a UID twice", changes: []*item.Change{{Type: item.ChangeExpunge, UID: 2}, {Type: item.ChangeSave, UID: 2, GUID: "B"}}},
		{name: "unknown type", changes: []*item.Change{{Type: 'x', UID: 2, GUID: "A"}}},
		{name: "no GUID", changes: []*item.Change{{Type: item.ChangeSave, UID: 2}}},
		{name: "endless GUID", changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: mail.GUID(strings.Repeat("x", mail.MaxGUID+1))}}},
		{name: "flag added and removed", changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: "A", Add: 3, Remove: 2}}},
		{name: "flags of an unknown mail", changes: []*item.Change{{Type: item.ChangeFlags, UID: 2, GUID: "A"}}},
		{
			name: "a common mail saved", options: merge.Options{HaveBase: true, Base: 2},
			changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: "A"}},
		},
		{
			name: "flags of a mail beyond the base", options: merge.Options{HaveBase: true, Base: 2},
			changes: []*item.Change{{Type: item.ChangeFlags, UID: 3, GUID: "A"}},
		},
		{name: "keyword of two lines", changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: "A", Keywords: []item.KeywordChange{{Op: '=', Name: "a\nb"}}}}},
		{name: "keyword operation", changes: []*item.Change{{Type: item.ChangeSave, UID: 2, GUID: "A", Keywords: []item.KeywordChange{{Name: "a"}}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Local = list()
			if p, err := plan(c.options, c.changes); !errors.Is(err, merge.ErrProtocol) {
				t.Errorf("plan %s, error %v", show(p), err)
			}
		})
	}
}

func TestAnErrorOfTheMailboxEndsThePlan(t *testing.T) {
	broken := errors.New("disk")
	failing := func(mail.UID) iter.Seq2[mail.Message, error] {
		return func(yield func(mail.Message, error) bool) { yield(mail.Message{}, broken) }
	}
	for _, o := range []merge.Options{{}, {Absence: merge.Keep}, {HaveBase: true}, {Mode: merge.Backup}} {
		o.Local = failing
		if _, err := plan(o, nil); !errors.Is(err, broken) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestUIDsThatRunOut(t *testing.T) {
	o := merge.Options{LocalStatus: mail.Status{UIDNext: mail.MaxUID}, Local: list(mail.Message{UID: mail.MaxUID - 1, GUID: "A"})}
	_, err := plan(o, []*item.Change{{Type: item.ChangeSave, UID: mail.MaxUID - 1, GUID: "B"}})
	if !errors.Is(err, merge.ErrUIDsExhausted) {
		t.Errorf("error %v", err)
	}
}

// A round with few changes looks at few mails, however many there are.
func TestIncrementalPlansReadNoMoreThanTheyNeed(t *testing.T) {
	const n = 100_000
	read := 0
	local := func(after mail.UID) iter.Seq2[mail.Message, error] {
		return func(yield func(mail.Message, error) bool) {
			for uid := after + 1; uid <= n; uid++ {
				read++
				if !yield(mail.Message{UID: uid, GUID: mail.GUID(fmt.Sprint("g", uid))}, nil) {
					return
				}
			}
		}
	}
	status := mail.Status{UIDNext: n + 1}
	p, err := plan(merge.Options{HaveBase: true, Base: n, LocalStatus: status, RemoteStatus: status, Local: local}, []*item.Change{
		{Type: item.ChangeFlags, UID: 50_000, GUID: "g50000", ModSeq: 2, Add: mail.FlagSeen, Final: mail.FlagSeen},
		{Type: item.ChangeFlags, UID: 90_000, GUID: "g90000", ModSeq: 2, Add: mail.FlagSeen, Final: mail.FlagSeen},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "plan", show(p), "50000+8-0+[]-[]@2 90000+8-0+[]-[]@2")
	if read > 500 {
		t.Errorf("%d mails read", read)
	}
}
