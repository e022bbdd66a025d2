package daemon

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir"
)

// waits runs Await and returns a function that reports whether it has come back.
func (f *filling) waits(dir string) (back func() bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Await(dir)
	}()
	return func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// A directory can be listed when the list of what is in it has come; none waits for ever.
func TestListingsWaitForTheirList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFilling(maildir.MaildirPlusPlus, nil, nil)
		expect := func(when string, want map[string]bool, got map[string]func() bool) {
			t.Helper()
			for dir, back := range got {
				if back() != want[dir] {
					t.Errorf("%s: %q can be listed: %v", when, dir, !want[dir])
				}
			}
		}
		all := map[string]func() bool{}
		for _, dir := range []string{"", "cur", ".Work/new", ".Empty/cur", ".Own/cur"} {
			all[dir] = f.waits(dir)
		}
		expect("at first", nil, all)
		f.expect(map[mail.MailboxGUID]place{
			{1}: {name: mail.Inbox, some: true}, {2}: {name: "Work", dir: ".Work", some: true}, {3}: {name: "Empty", dir: ".Empty"},
		})
		want := map[string]bool{"": true, ".Empty/cur": true, ".Own/cur": true}
		expect("with the tree", want, all)
		f.listed("")
		want["cur"] = true
		expect("with a list", want, all)
		f.noMore()
		want[".Work/new"] = true
		expect("at the end", want, all)

		g := newFilling(maildir.MaildirPlusPlus, nil, nil)
		late := g.waits("cur")
		time.Sleep(awaitTime - time.Second)
		if late() {
			t.Error("it has not waited long enough")
		}
		time.Sleep(time.Second)
		if !late() || !g.waits("")() {
			t.Error("it waits for ever")
		}

		h := newFilling(maildir.MaildirPlusPlus, nil, nil)
		h.noMore()
		if time.Sleep(time.Hour); !h.waits("cur")() {
			t.Error("it waits for a remote that is away")
		}
		h.expect(map[mail.MailboxGUID]place{{1}: {name: mail.Inbox, some: true}})
		back := h.waits("cur")
		if back() {
			t.Error("it does not wait for a remote that has come back")
		}
		if h.listed(""); !back() {
			t.Error("it waits for a list that has come")
		}
	})
}

// Mailboxes are whole once a round is done with them, whatever a program calls them by then, and those that the remote does not
// have are from the beginning, when that is known.
func TestWhichMailboxesAreWhole(t *testing.T) {
	var kept []mail.MailboxGUID
	f := newFilling(maildir.MaildirPlusPlus, nil, func(box mail.MailboxGUID) { kept = append(kept, box) })
	expect := func(when string, want map[string]bool) {
		t.Helper()
		for dir, whole := range want {
			if f.Whole(dir) != whole {
				t.Errorf("%s: %q is whole: %v", when, dir, !whole)
			}
		}
	}
	expect("at first", map[string]bool{"": false, ".Work": false, ".Own": false})
	f.expect(map[mail.MailboxGUID]place{{1}: {name: mail.Inbox}, {2}: {name: "Work", dir: ".Work"}, {3}: {name: "Work/2026", dir: ".Work.2026"}})
	expect("with the tree", map[string]bool{"": false, ".Work": false, ".Work.2026": false, ".Own": true})
	f.Mailbox(mail.Inbox, mail.MailboxGUID{1}, 1, 3)
	f.Mailbox(mail.Inbox, mail.MailboxGUID{1}, 1, 3)
	expect("after the INBOX", map[string]bool{"": true, ".Work": false, ".Work.2026": false, ".Own": true})
	f.Mailbox("Work/2026", mail.MailboxGUID{3}, 2, 3)
	f.renamed("Own", "Owned")
	f.renamed("Work", "Own")
	expect("after a rename", map[string]bool{"": true, ".Own": false, ".Own.2026": true, ".Owned": true})
	f.over.Store(true)
	expect("at the end", map[string]bool{"": true, ".Own": true, ".Own.2026": true, ".Owned": true})
	if want := []mail.MailboxGUID{{1}, {3}}; !slices.Equal(kept, want) {
		t.Errorf("kept for the next mount: %v, want %v", kept, want)
	}
}

// While the remote is away, a mailbox that had mail before the fill shows that alone, and its uidlist is as good as ever.
func TestMailboxesWithMailOfTheirOwnAreWholeWithoutTheRemote(t *testing.T) {
	f := newFilling(maildir.MaildirPlusPlus, map[mail.Name]bool{"Own": true}, nil)
	if f.Whole(".Own") {
		t.Error("it counts as whole before it is known whether the remote is away")
	}
	f.noMore()
	if !f.Whole(".Own") || f.Whole("") {
		t.Errorf("without the remote: the one with mail %v, the one without %v", f.Whole(".Own"), f.Whole(""))
	}
	f.renamed("Own", "Renamed")
	if !f.Whole(".Renamed") {
		t.Error("not under its new name")
	}
	f.expect(map[mail.MailboxGUID]place{{1}: {name: "Own", dir: ".Own", some: true}})
	if f.Whole(".Own") {
		t.Error("it counts as whole though mails of the remote come")
	}
}
