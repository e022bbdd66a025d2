package daemon

import (
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
		f := newFilling(maildir.MaildirPlusPlus)
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

		g := newFilling(maildir.MaildirPlusPlus)
		late := g.waits("cur")
		time.Sleep(awaitTime - time.Second)
		if late() {
			t.Error("it has not waited long enough")
		}
		time.Sleep(time.Second)
		if !late() || !g.waits("")() {
			t.Error("it waits for ever")
		}
	})
}

// Mailboxes are whole once a round is done with them, and those that the remote does not have are from the beginning, when that is
// known.
func TestWhichMailboxesAreWhole(t *testing.T) {
	f := newFilling(maildir.MaildirPlusPlus)
	expect := func(when string, inbox, work, own bool) {
		t.Helper()
		if a, b, c := f.Whole(""), f.Whole(".Work"), f.Whole(".Own"); a != inbox || b != work || c != own {
			t.Errorf("%s: INBOX %v, Work %v, Own %v", when, a, b, c)
		}
	}
	expect("at first", false, false, false)
	f.expect(map[mail.MailboxGUID]place{{1}: {name: mail.Inbox}, {2}: {name: "Work", dir: ".Work"}})
	expect("with the tree", false, false, true)
	f.Mailbox(mail.Inbox, 1, 2)
	expect("after the INBOX", true, false, true)
	f.over.Store(true)
	expect("at the end", true, true, true)
}
