package maildir_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
)

// names lists the files of a mailbox.
func (a *account) names(t *testing.T, box mail.Name) (out []string) {
	t.Helper()
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(a.dir(t, box), sub))
		must(t, err)
		for _, e := range entries {
			out = append(out, sub+"/"+e.Name())
		}
	}
	return out
}

// withTwoSets is withWork where a program has put a second set of flags behind the first, in two names of cur/ and one of
// new/, and an old Dovecot wrote names with flags into the uidlist.
func withTwoSets(t *testing.T) (*account, *maildir.Store, string) {
	t.Helper()
	a, s := withWork(t)
	dir := a.dir(t, work)
	var two string // base of the second mail
	for _, name := range a.names(t, work) {
		if base, _, _ := strings.Cut(name[4:], ":"); base != "one" && base != "three" {
			two = base
		}
	}
	for from, to := range map[string]string{
		"cur/one:2,Sa": "cur/one:2,a:2,Sa", "cur/" + two + ":2,Sa": "cur/" + two + ":2,Fa:2,", "cur/three:2,Sa": "new/three:2,a:2,S",
	} {
		must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
	list := strings.NewReplacer(":one\n", ":one:2,Sa\n", ":"+two+"\n", ":"+two+":2,S:2,a\n").Replace(a.list(t, work))
	a.setList(t, work, list)
	refresh(t, s, noLoss(t))
	return a, s, two
}

// Of a name with two sets of flags the last one counts, as for Dovecot; whatever is done to the mail then, the name that it
// gets has one set.
func TestANameWithTwoSetsOfFlags(t *testing.T) {
	add := mail.Delta{Add: mail.FlagFlagged}
	for _, c := range []struct {
		what  string
		batch func(box store.Mailbox) store.Batch
		say   []string
		names []string // of new names only; TWO is the base of the second mail
	}{
		{"nothing", func(store.Mailbox) store.Batch { return store.Batch{UIDNext: 30} },
			[]string{`10 one \Seen [k]`, `11 t:wo  []`, `12 three \Seen []`},
			[]string{"cur/one:2,a:2,Sa", "cur/TWO:2,Fa:2,", "new/three:2,a:2,S"}},
		{"flags", func(store.Mailbox) store.Batch {
			return store.Batch{Deltas: []store.FlagChange{{UID: 10, Delta: add}, {UID: 11, Delta: add}, {UID: 12, Delta: add}}}
		},
			[]string{`10 one \Flagged \Seen [k]`, `11 t:wo \Flagged []`, `12 three \Flagged \Seen []`},
			[]string{"cur/one:2,FSa", "cur/TWO:2,F", "cur/three:2,FS"}},
		{"keywords", func(store.Mailbox) store.Batch {
			return store.Batch{Deltas: []store.FlagChange{
				{UID: 10, Delta: mail.Delta{RemoveKeywords: mail.NewKeywords("k")}}, {UID: 11, Delta: mail.Delta{AddKeywords: mail.NewKeywords("l")}},
				{UID: 12, Delta: mail.Delta{AddKeywords: mail.NewKeywords("k")}}}}
		},
			[]string{`10 one \Seen []`, `11 t:wo  [l]`, `12 three \Seen [k]`},
			[]string{"cur/one:2,S", "cur/TWO:2,b", "cur/three:2,Sa"}},
		{"new UIDs", func(store.Mailbox) store.Batch {
			return store.Batch{Realign: []store.Realign{{UID: 10, NewUID: 20}, {UID: 11, NewUID: 21, NewGUID: "x:y"}},
				Deltas: []store.FlagChange{{UID: 20, Delta: add}, {UID: 21, Delta: add}, {UID: 12, Delta: add}}}
		},
			[]string{`12 three \Flagged \Seen []`, `20 one \Flagged \Seen [k]`, `21 x:y \Flagged []`},
			[]string{"cur/one:2,FSa", "cur/TWO:2,F", "cur/three:2,FS"}},
		{"one becomes another", func(box store.Mailbox) store.Batch {
			m := mail.Message{UID: 20, GUID: "one", Flags: mail.FlagSeen, Keywords: mail.NewKeywords("k")}
			return store.Batch{Expunges: []store.Expunge{{UID: 10, GUID: "one"}, {UID: 11, GUID: "t:wo"}},
				Adds: []store.Add{{Message: m, From: store.Location{Mailbox: box.Status().GUID, UID: 10}}}}
		},
			[]string{`12 three \Seen []`, `20 one \Seen [k]`},
			[]string{"cur/one:2,Sa", "new/three:2,a:2,S"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			a, s, two := withTwoSets(t)
			box := openBox(t, s, work)
			defer box.Close()
			if r := apply(t, box, c.batch(box)); len(r.Vanished) > 0 {
				t.Errorf("vanished: %v", r.Vanished)
			}
			wantSay(t, s, work, c.say...)
			want := make([]string, len(c.names))
			for i, name := range c.names {
				want[i] = strings.Replace(name, "TWO", two, 1)
			}
			names := a.names(t, work)
			slices.Sort(names)
			slices.Sort(want)
			if !slices.Equal(names, want) {
				t.Errorf("the files are %q, want %q", names, want)
			}
			must(t, s.EndRound(t.Context()))
			if r := refresh(t, s, noLoss(t)); r.Added+r.Expunged+r.Flags > 0 {
				t.Errorf("a look after it found changes: %+v", r)
			}
			wantSay(t, s, work, c.say...)
			apply(t, box, store.Batch{UIDNext: 40}) // which rewrites the uidlist
			for line := range strings.Lines(a.list(t, work)) {
				if _, base, ok := strings.Cut(line, " :"); ok && strings.Contains(base, ":") {
					t.Errorf("line of the uidlist: %q", line)
				}
			}
		})
	}
}

// A mail with two sets of flags that moves to another mailbox, by a user or by us, and one that has the base name of another.
func TestANameWithTwoSetsOfFlagsMoves(t *testing.T) {
	a, s, two := withTwoSets(t)
	must(t, s.Create(t.Context(), "other", mail.MailboxGUID{2}, 1000))
	from, to := openBox(t, s, work), openBox(t, s, "other")
	m := mail.Message{UID: 1, GUID: "one", Flags: mail.FlagSeen, Keywords: mail.NewKeywords("k"), Received: 1_600_000_000}
	apply(t, to, store.Batch{Adds: []store.Add{{Message: m, From: store.Location{Mailbox: from.Status().GUID, UID: 10}}}})
	apply(t, from, store.Batch{Expunges: []store.Expunge{{UID: 10, GUID: "one"}}})
	must(t, from.Close())
	must(t, to.Close())
	wantSay(t, s, "other", `1 one \Seen [k]`)
	if names := a.names(t, "other"); !slices.Equal(names, []string{"cur/one:2,Sa"}) {
		t.Errorf("the files are %q", names)
	}
	// By a user: the letters mean something else there, so the name changes.
	must(t, os.WriteFile(filepath.Join(a.dir(t, "other"), "dovecot-keywords"), []byte("0 x\n1 k\n"), 0o600))
	name := two + ":2,Fa:2,"
	must(t, os.Rename(filepath.Join(a.dir(t, work), "cur", name), filepath.Join(a.dir(t, work), "cur", name+"Sa")))
	refresh(t, s, store.RefreshOptions{})
	must(t, os.Rename(filepath.Join(a.dir(t, work), "cur", name+"Sa"), filepath.Join(a.dir(t, "other"), "cur", name+"Sa")))
	// Another mail under the same base name.
	must(t, os.WriteFile(filepath.Join(a.dir(t, work), "cur", "three:2,Sa:2,F"), []byte("another\n"), 0o600))
	refresh(t, s, store.RefreshOptions{})
	refresh(t, s, store.RefreshOptions{})
	found := slices.Concat(a.names(t, "other"), a.names(t, work))
	if !slices.Contains(found, "cur/"+two+":2,Sb") || len(found) != 4 {
		t.Errorf("the files are %q", found)
	}
	if said := say(t, s, "other"); len(said) != 2 || !strings.HasSuffix(said[1], `t:wo \Seen [k]`) {
		t.Errorf("there are %q", said)
	}
}
