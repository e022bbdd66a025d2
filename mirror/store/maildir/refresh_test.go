package maildir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

const work = mail.Name("work")

// withWork is an account with three mails in a mailbox, all known, the second with a GUID that is not its file name.
func withWork(t *testing.T) (*account, *maildir.Store) {
	t.Helper()
	a := newAccount(t, maildir.MaildirPlusPlus)
	s := a.open(t)
	t.Cleanup(func() { must(t, s.Close()) })
	refresh(t, s, store.RefreshOptions{})
	must(t, s.Create(t.Context(), work, mail.MailboxGUID{1}, 1000))
	box := openBox(t, s, work)
	var b store.Batch
	for i, guid := range []mail.GUID{"one", "t:wo", "three"} {
		m := mail.Message{UID: mail.UID(10 + i), GUID: guid, Flags: mail.FlagSeen, Keywords: mail.NewKeywords("k"), Received: 1_600_000_000}
		b.Adds = append(b.Adds, stageAdd(t, box, m, "Subject: "+string(guid)+"\n\nx\n"))
	}
	apply(t, box, b)
	must(t, box.Close())
	refresh(t, s, store.RefreshOptions{})
	return a, s
}

// say lists what is in a mailbox: UID, GUID, flags, keywords.
func say(t *testing.T, s *maildir.Store, name mail.Name) (out []string) {
	t.Helper()
	box := openBox(t, s, name)
	defer box.Close()
	for m, err := range box.Messages(0) {
		must(t, err)
		out = append(out, fmt.Sprint(m.UID, " ", m.GUID, " ", m.Flags, " ", m.Keywords))
	}
	return out
}

func wantSay(t *testing.T, s *maildir.Store, name mail.Name, want ...string) {
	t.Helper()
	if got := say(t, s, name); !slices.Equal(got, want) {
		t.Errorf("%q is\n%s\nwant\n%s", string(name), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (a *account) list(t *testing.T, name mail.Name) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(a.dir(t, name), "dovecot-uidlist"))
	must(t, err)
	return string(data)
}

func (a *account) setList(t *testing.T, name mail.Name, text string) {
	t.Helper()
	file := filepath.Join(a.dir(t, name), "dovecot-uidlist")
	must(t, os.WriteFile(file+".x", []byte(text), 0o600))
	must(t, os.Rename(file+".x", file))
}

// noLoss is a guard that accepts nothing.
func noLoss(t *testing.T) store.RefreshOptions {
	return store.RefreshOptions{Guard: func(l []store.Loss) error {
		t.Errorf("losses %+v", l)
		return nil
	}}
}

var workMails = []string{`10 one \Seen [k]`, `11 t:wo \Seen [k]`, `12 three \Seen [k]`}

func TestLostUIDListIsMadeAgain(t *testing.T) {
	a, s := withWork(t)
	before := a.list(t, work)
	must(t, os.Remove(filepath.Join(a.dir(t, work), "dovecot-uidlist")))
	a.deliver(t, work, "new", 1_600_000_001)
	refresh(t, s, noLoss(t))
	wantSay(t, s, work, append(slices.Clone(workMails), "13 1600000001.M1P1.mda  []")...)
	after := a.list(t, work)
	for _, part := range []string{"V1000 ", "G01000000000000000000000000000000", "10 :one", "11 Gt:wo ", "13 :1600000001.M1P1.mda"} {
		if !strings.Contains(after, part) {
			t.Errorf("the new list lacks %q:\n%s\nit was\n%s", part, after, before)
		}
	}
}

func TestNewMailboxThatLosesItsUIDListIsKnownAgain(t *testing.T) {
	a, s := withWork(t)
	must(t, s.Create(t.Context(), "new", mail.MailboxGUID{2}, 2000))
	must(t, os.Remove(filepath.Join(a.dir(t, "new"), "dovecot-uidlist")))
	refresh(t, s, noLoss(t))
	box := openBox(t, s, "new")
	defer box.Close()
	if st := box.Status(); st.GUID != (mail.MailboxGUID{2}) || st.UIDValidity != 2000 {
		t.Errorf("%+v", st)
	}
}

func TestCorruptUIDListChangesNothing(t *testing.T) {
	a, s := withWork(t)
	good := a.list(t, work)
	for _, bad := range []string{"", "garbage\n", good + good, strings.Replace(good, "10 ", "99 ", 1)} {
		a.setList(t, work, bad)
		if _, err := s.Refresh(t.Context(), store.RefreshOptions{}); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%.20q: %v, want ErrCorrupt", bad, err)
		}
		if got := a.list(t, work); got != bad {
			t.Errorf("the list was changed from %q to %q", bad, got)
		}
	}
	a.setList(t, work, good)
	refresh(t, s, noLoss(t))
	wantSay(t, s, work, workMails...)
}

func TestHalfLineIsHealed(t *testing.T) {
	a, s := withWork(t)
	good := a.list(t, work)
	a.setList(t, work, good+"13 :hal")
	a.deliver(t, work, "new", 1_600_000_001)
	refresh(t, s, noLoss(t))
	if got := a.list(t, work); strings.Contains(got, "hal") || !strings.HasSuffix(got, "\n13 :1600000001.M1P1.mda\n") {
		t.Errorf("list\n%s", got)
	}
}

func TestCopiedMailboxGetsItsOwnGUID(t *testing.T) {
	a, s := withWork(t)
	must(t, os.CopyFS(a.dir(t, "copy"), os.DirFS(a.dir(t, work))))
	refresh(t, s, noLoss(t))
	wantSay(t, s, work, workMails...)
	wantSay(t, s, "copy", workMails...)
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	guids := make(map[mail.MailboxGUID]mail.Name)
	for _, n := range nodes {
		if other, twice := guids[n.Status.GUID]; twice {
			t.Errorf("%q and %q have one GUID", string(n.Name), string(other))
		}
		guids[n.Status.GUID] = n.Name
	}
	if guids[mail.MailboxGUID{1}] != work {
		t.Errorf("GUIDs %v", guids)
	}
}

func TestSwappedMailboxes(t *testing.T) {
	a, s := withWork(t)
	must(t, s.Create(t.Context(), "play", mail.MailboxGUID{2}, 1001))
	refresh(t, s, noLoss(t))
	a.RenameMailbox(t, work, "x")
	a.RenameMailbox(t, "play", work)
	a.RenameMailbox(t, "x", "play")
	refresh(t, s, noLoss(t))
	wantSay(t, s, "play", workMails...)
	wantSay(t, s, work)
}

func TestRecreatedUIDListWithAnotherGUID(t *testing.T) {
	// What a Dovecot does that finds the list gone: same UIDVALIDITY, new UIDs, another mailbox GUID.
	a, s := withWork(t)
	two := strings.Fields(strings.Split(a.list(t, work), "\n")[2])
	a.setList(t, work, "3 V1000 N16 G02000000000000000000000000000000\n13 :one\n14 "+two[len(two)-1]+"\n15 :three\n")
	refresh(t, s, noLoss(t))
	wantSay(t, s, work, `13 one \Seen [k]`, `14 `+two[len(two)-1][1:]+` \Seen [k]`, `15 three \Seen [k]`)
}

// The directory of a mailbox that was made anew may have the inode of the one that was deleted.
func TestRecreatedMailboxInADirectoryOfTheSameInode(t *testing.T) {
	a, s := withWork(t)
	for _, mail := range []string{"one", "three"} {
		found, err := filepath.Glob(filepath.Join(a.dir(t, work), "cur", mail+"*"))
		must(t, err)
		must(t, os.Remove(found[0]))
	}
	two := strings.Fields(strings.Split(a.list(t, work), "\n")[2])
	found, err := filepath.Glob(filepath.Join(a.dir(t, work), "cur", two[len(two)-1][1:]+"*"))
	must(t, err)
	must(t, os.Rename(found[0], filepath.Join(a.dir(t, work), "cur", "other:2,")))
	a.setList(t, work, "3 V2000 N2 G02000000000000000000000000000000\n1 :other\n")
	var asked []store.Loss
	report := refresh(t, s, store.RefreshOptions{Guard: func(l []store.Loss) error { asked = l; return nil }})
	if len(report.Notes) > 0 || len(asked) != 1 || !asked[0].Gone {
		t.Errorf("notes %q, losses %+v", report.Notes, asked)
	}
	_, deletions, err := s.Tree(t.Context())
	must(t, err)
	if len(deletions) != 1 || deletions[0].ID != (mail.GUID128{1}) {
		t.Errorf("deletions %+v", deletions)
	}
	wantSay(t, s, work, `1 other  []`)
}

func TestChangedUIDValidity(t *testing.T) {
	a, s := withWork(t)
	list := strings.Replace(a.list(t, work), "V1000 ", "V2000 ", 1)
	a.setList(t, work, list)
	refresh(t, s, noLoss(t))
	wantSay(t, s, work, workMails...)
	box := openBox(t, s, work)
	defer box.Close()
	if st := box.Status(); st.UIDValidity != 2000 || st.Messages != 3 {
		t.Errorf("status %+v", st)
	}
	if _, ok := box.Changes(2, ""); ok {
		t.Error("the log reaches back beyond the change")
	}
}

func TestChangedUIDValidityWithLossesWaits(t *testing.T) {
	a, s := withWork(t)
	a.setList(t, work, strings.Replace(a.list(t, work), "V1000 ", "V2000 ", 1))
	must(t, os.Remove(a.find(t, work, "one")))
	refused := errors.New("refused")
	var losses []store.Loss
	_, err := s.Refresh(t.Context(), store.RefreshOptions{Guard: func(l []store.Loss) error { losses = l; return refused }})
	if !errors.Is(err, refused) || !slices.Equal(losses, []store.Loss{{Mailbox: work, Known: 3, Missing: 1}}) {
		t.Errorf("%v, losses %+v", err, losses)
	}
	wantSay(t, s, work, workMails...)
	refresh(t, s, store.RefreshOptions{})
	wantSay(t, s, work, workMails[1:]...)
}

func TestReplacedMailboxWaitsForTheGuard(t *testing.T) {
	a, s := withWork(t)
	a.DeleteMailbox(t, work)
	a.CreateMailbox(t, work)
	a.deliver(t, work, "other", 1_600_000_001)
	refused := errors.New("refused")
	_, err := s.Refresh(t.Context(), store.RefreshOptions{Guard: func(l []store.Loss) error { return refused }})
	if !errors.Is(err, refused) {
		t.Errorf("%v", err)
	}
	wantSay(t, s, work, workMails...)
	refresh(t, s, store.RefreshOptions{})
	wantSay(t, s, work, "1 1600000001.M1P1.mda  []")
}

func TestFileEditedInPlaceIsAnotherMail(t *testing.T) {
	a, s := withWork(t)
	file := a.find(t, work, "one")
	must(t, os.WriteFile(file, []byte("edited\n"), 0o600))
	refresh(t, s, noLoss(t))
	o := noLoss(t)
	o.Full = true
	refresh(t, s, o)
	got := say(t, s, work)
	if len(got) != 3 || got[0] != workMails[1] || !strings.HasPrefix(got[2], "13 ") || strings.Contains(got[2], "one") {
		t.Errorf("messages %q", got)
	}
	refresh(t, s, o)
	if again := say(t, s, work); !slices.Equal(again, got) {
		t.Errorf("messages %q, were %q", again, got)
	}
}

func TestMoreThan26Keywords(t *testing.T) {
	a, s := withWork(t)
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("kw%02d", i))
	}
	box := openBox(t, s, work)
	apply(t, box, store.Batch{Deltas: []store.FlagChange{{UID: 10, Delta: mail.Delta{AddKeywords: mail.NewKeywords(names...)}}}})
	must(t, box.Close())
	want := slices.Clone(workMails)
	want[0] = `10 one \Seen [k ` + strings.Join(names, " ") + "]"
	wantSay(t, s, work, want...)
	file := a.find(t, work, "one")
	must(t, os.Rename(file, strings.Replace(file, ":2,S", ":2,FS", 1)))
	refresh(t, s, noLoss(t))
	want[0] = `10 one \Flagged \Seen [k ` + strings.Join(names, " ") + "]"
	wantSay(t, s, work, want...)
}

func TestOddThingsAreLeftAlone(t *testing.T) {
	a, s := withWork(t)
	for _, dir := range []string{".bad&name/cur", "..x/cur", ".a..b/cur", ".notmuch/xapian", ".work/cur/sub"} {
		must(t, os.MkdirAll(filepath.Join(a.root, dir), 0o700))
	}
	must(t, os.WriteFile(filepath.Join(a.root, ".plain"), nil, 0o600))
	r := refresh(t, s, noLoss(t))
	wantSay(t, s, work, workMails...)
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	if len(nodes) != 2 {
		t.Errorf("tree %+v", nodes)
	}
	notes := strings.Join(r.Notes, "\n")
	if part := "bad&name"; !strings.Contains(notes, part) {
		t.Errorf("no note on %q in\n%s", part, notes)
	}
	if _, err := os.Lstat(filepath.Join(a.root, ".bad&name/cur")); err != nil {
		t.Error(err)
	}
}

// A link that was passed over could pass for a mail or a mailbox that is gone.
func TestSymbolicLinksAreRefused(t *testing.T) {
	for what, link := range map[string]func(a *account, outside string) string{
		"a mail":    func(a *account, outside string) string { return filepath.Join(a.dir(t, work), "cur", "link:2,S") },
		"a mailbox": func(a *account, outside string) string { return filepath.Join(a.root, ".linked") },
	} {
		t.Run(what, func(t *testing.T) {
			a, s := withWork(t)
			outside := filepath.Join(a.state, "secret")
			must(t, os.Mkdir(outside, 0o700))
			must(t, os.Symlink(outside, link(a, outside)))
			if _, err := s.Refresh(t.Context(), noLoss(t)); !errors.Is(err, maildir.ErrLink) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestDuplicateNamesAreBothKept(t *testing.T) {
	a, s := withWork(t)
	cur := filepath.Join(a.dir(t, work), "cur")
	must(t, os.WriteFile(filepath.Join(cur, "one:2,F"), []byte("another mail\n"), 0o600))
	must(t, os.Chtimes(cur, time.Now(), time.Now()))
	refresh(t, s, noLoss(t))
	refresh(t, s, noLoss(t))
	if got := say(t, s, work); len(got) != 4 {
		t.Errorf("messages %q", got)
	}
}

func TestQuotaFile(t *testing.T) {
	a, s := withWork(t)
	file := filepath.Join(a.root, "maildirsize")
	must(t, os.WriteFile(file, []byte("1000S\n57 3\n"), 0o600))
	box := openBox(t, s, work)
	defer box.Close()
	apply(t, box, store.Batch{
		Expunges: []store.Expunge{{UID: 10}},
		Adds:     []store.Add{stageAdd(t, box, mail.Message{UID: 13, GUID: "four", Received: 1}, "12345\n"), stageAdd(t, box, mail.Message{UID: 14, GUID: "five", Received: 1}, "1\n")},
	})
	got, err := os.ReadFile(file)
	must(t, err)
	if want := "1000S\n57 3\n-8 1\n"; string(got) != want {
		t.Errorf("file %q, want %q", got, want)
	}
}

// TestMailboxRenamedWhileTheTreeIsWalked moves a mailbox from a directory that has yet to be listed to one that has been.
func TestMailboxRenamedWhileTheTreeIsWalked(t *testing.T) {
	for _, again := range []bool{false, true} { // is the old name taken at once
		t.Run(fmt.Sprint(again), func(t *testing.T) {
			a := newAccount(t, maildir.FS)
			s := a.open(t)
			t.Cleanup(func() { must(t, s.Close()) })
			refresh(t, s, store.RefreshOptions{})
			guid := mail.MailboxGUID{1}
			must(t, s.Create(t.Context(), "top/work", guid, 1000))
			a.deliver(t, "top/work", "mail", 1_600_000_000)
			refresh(t, s, store.RefreshOptions{})

			moved := false
			a.fault = func(o vfs.Op) error {
				if !moved && o.Name == "opendir" && o.Path == "top" {
					moved = true
					must(t, os.Rename(a.dir(t, "top/work"), a.dir(t, "work")))
					if again {
						a.CreateMailbox(t, "top/work")
					}
				}
				return nil
			}
			refresh(t, s, store.RefreshOptions{Guard: func([]store.Loss) error { return errors.New("refused") }})
			boxes, deletions, err := s.Tree(t.Context())
			must(t, err)
			i := slices.IndexFunc(boxes, func(b mail.Mailbox) bool { return b.Status.GUID == guid })
			if !moved || i < 0 || boxes[i].Name != work || slices.ContainsFunc(deletions, func(d mail.Deletion) bool { return d.ID == mail.GUID128(guid) }) {
				t.Errorf("moved %v, mailboxes %+v, deletions %+v", moved, boxes, deletions)
			}
			wantSay(t, s, work, "1 1600000000.M1P1.mda  []")
		})
	}
}
