package brain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

func TestFirstMirrorIntoEmptyAccount(t *testing.T) {
	for name, l := range map[string]link{"in process": inProcess, "over the wire": overWire} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			a, b := pair(t, c)
			must(t, a.account.CreateMailbox("Work/2026"))
			for i := range 20 {
				_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d\n.\n..x", i), c.tick())
				must(t, err)
			}
			_, err := a.account.Deliver("Work/2026", []byte("report"), c.tick())
			must(t, err)
			a.account.Subscribe("Work/2026", true)
			before := contents(t, a)
			out, err, serr := syncOnce(a, b, l, twoWay())
			must(t, errors.Join(err, serr))
			if out.Sent != 21 || out.Desync {
				t.Errorf("outcome %+v", out)
			}
			if got := contents(t, b); got != before {
				t.Errorf("b is\n%s\nwant\n%s", got, before)
			}
			quiet(t, a, b, l)
		})
	}
}

func TestTwoCopiesWithOtherNamesAndUIDValidityAreAdopted(t *testing.T) {
	c := newClock()
	a, b := pair(t, c)
	for i := range 30 {
		_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d", i), c.tick())
		must(t, err)
	}
	for _, i := range []int{5, 3, 9, 11, 2, 7} {
		_, err := b.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d", i), c.tick())
		must(t, err)
	}
	_, err := b.account.Deliver("INBOX", []byte("only b"), c.tick())
	must(t, err)
	out, err, serr := syncOnce(b, a, inProcess, twoWay())
	must(t, errors.Join(err, serr))
	if out.Matched != 6 || out.Added != 24 || out.Sent != 1 {
		t.Errorf("outcome %+v, want 6 matched, 24 added, 1 sent", out)
	}
	quiet(t, a, b, inProcess)
	if n := len(bodies(t, a)); n != 31 {
		t.Errorf("%d different mails, want 31", n)
	}
	for text, n := range bodies(t, a) {
		if n != 1 {
			t.Errorf("%s is there %d times", text, n)
		}
	}
}

func TestMoveIsNotSentAgain(t *testing.T) {
	c := newClock()
	a, b := pair(t, c)
	must(t, a.account.CreateMailbox("Archive"))
	base, err := a.account.Deliver("INBOX", []byte("to be moved"), c.tick())
	must(t, err)
	quiet(t, a, b, overWire)
	must(t, a.account.Move("INBOX", base, "Archive"))
	out, err, serr := syncOnce(a, b, overWire, twoWay())
	must(t, errors.Join(err, serr))
	if out.Sent != 0 {
		t.Errorf("%d bodies were sent for a move", out.Sent)
	}
	quiet(t, a, b, overWire)
}

func TestEmptiedSourceDoesNotEmptyDestination(t *testing.T) {
	for name, req := range map[string]brain.Request{
		"mirror": twoWay(), "backup": {Type: item.SyncState, BackupReceive: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			a, b := pair(t, c)
			for i := range 60 {
				_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d", i), c.tick())
				must(t, err)
			}
			_, err, serr := syncOnce(a, b, overWire, req)
			must(t, errors.Join(err, serr))
			for _, base := range a.account.Files("INBOX") {
				must(t, a.account.Vanish("INBOX", base))
			}
			_, err, _ = syncOnce(a, b, overWire, req)
			if !errors.Is(err, guard.ErrMassExpunge) {
				t.Fatalf("error %v, want the guard's", err)
			}
			if n := len(bodies(t, b)); n != 60 {
				t.Fatalf("destination has %d mails", n)
			}
		})
	}
}

func TestMailboxThatASourceNeverKnewIsNotDeleted(t *testing.T) {
	c := newClock()
	a, b := pair(t, c)
	must(t, b.account.CreateMailbox("Work"))
	for i := range 60 {
		_, err := b.account.Deliver("Work", fmt.Appendf(nil, "mail %d", i), c.tick())
		must(t, err)
	}
	_, err := a.account.Deliver("INBOX", []byte("one"), c.tick())
	must(t, err)
	_, err, _ = syncOnce(a, b, overWire, brain.Request{Type: item.SyncState, BackupReceive: true})
	var theirs *brain.GuardError
	if !errors.As(err, &theirs) {
		t.Fatalf("error %v, want the other side's guard", err)
	}
	if n := len(bodies(t, b)); n != 60 {
		t.Fatalf("destination has %d mails", n)
	}
	allowed := brain.Request{Type: item.SyncState, BackupReceive: true, AllowExpunge: []string{"Work"}}
	_, err, serr := syncOnce(a, b, overWire, allowed)
	must(t, errors.Join(err, serr))
	if n := len(bodies(t, b)); n != 1 {
		t.Fatalf("destination has %d mails after the user's word", n)
	}
}

func TestNewMailsWithTheSameUIDsBothStay(t *testing.T) {
	c := newClock()
	a, b := pair(t, c)
	_, err := a.account.Deliver("INBOX", []byte("common"), c.tick())
	must(t, err)
	quiet(t, a, b, inProcess)
	for i := range 2 {
		for _, s := range []side{a, b} {
			_, err := s.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d of %s", i, s.options.Side), c.tick())
			must(t, err)
		}
	}
	out, err, serr := syncOnce(a, b, inProcess, twoWay())
	must(t, errors.Join(err, serr))
	if out.Desync {
		t.Errorf("outcome %+v", out)
	}
	quiet(t, a, b, inProcess)
	if n := len(bodies(t, a)); n != 5 {
		t.Errorf("%d mails, want 5", n)
	}
}

// movedAndFlagged are two sides of which the first has moved a mail to Archive, and the other one has given it flags in INBOX.
func movedAndFlagged(t *testing.T, flags mail.Flags) (a, b side) {
	t.Helper()
	c := newClock()
	a, b = pair(t, c)
	must(t, a.account.CreateMailbox("Archive"))
	base, err := a.account.Deliver("INBOX", []byte("to be moved"), c.tick())
	must(t, err)
	quiet(t, a, b, inProcess)
	must(t, a.account.Move("INBOX", base, "Archive"))
	must(t, b.account.SetFlags("INBOX", b.account.Files("INBOX")[0], mail.Delta{Add: flags}))
	c.tick()
	return a, b
}

// isFlaggedOnce demands that the mail of movedAndFlagged is there once, flagged and nothing else.
func isFlaggedOnce(t *testing.T, s side) {
	t.Helper()
	if got := contents(t, s); !strings.Contains(got, `[\Flagged]`) || strings.Count(got, "to be moved") != 1 {
		t.Errorf("after the sync:\n%s", got)
	}
}

func TestFlagsChangedThereFollowAMailMovedHere(t *testing.T) {
	for name, starts := range map[string]bool{"mover starts": true, "other starts": false} {
		t.Run(name, func(t *testing.T) {
			a, b := movedAndFlagged(t, mail.FlagFlagged)
			first, second := a, b
			if !starts {
				first, second = b, a
			}
			quiet(t, first, second, overWire)
			isFlaggedOnce(t, a)
		})
	}
}

func TestManyCopiesOfOneMailAllArrive(t *testing.T) {
	for name, req := range map[string]brain.Request{
		"mirror": twoWay(), "backup": {Type: item.SyncState, BackupReceive: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			a, b := pair(t, c)
			base, err := a.account.Deliver("INBOX", []byte("the same"), c.tick())
			must(t, err)
			for range 3000 {
				_, err := a.account.Copy("INBOX", base, "INBOX")
				must(t, err)
			}
			_, err, serr := syncOnce(a, b, overWire, req)
			must(t, errors.Join(err, serr))
			if ca, cb := contents(t, a), contents(t, b); ca != cb {
				t.Fatal("sides differ")
			}
			out, err, serr := syncOnce(a, b, overWire, req)
			must(t, errors.Join(err, serr))
			if out.Changed || out.Desync {
				t.Errorf("a second run did something: %+v", out)
			}
		})
	}
}

func TestMoveReachesAPeerThatStartsWithoutAState(t *testing.T) {
	c := newClock()
	a, b := pair(t, c)
	must(t, a.account.CreateMailbox("Work"))
	for i := range 4 {
		_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "mail %d", i), c.tick())
		must(t, err)
	}
	_, err, serr := syncOnce(a, b, inProcess, twoWay())
	must(t, errors.Join(err, serr))
	must(t, a.account.Move("INBOX", a.account.Files("INBOX")[0], "Work"))
	for i := range 3 {
		_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "new mail %d", i), c.tick())
		must(t, err)
	}
	_, err, serr = syncOnce(b, a, inProcess, twoWay())
	must(t, errors.Join(err, serr))
	quiet(t, a, b, inProcess)
	for text, n := range bodies(t, a) {
		if n != 1 {
			t.Errorf("%s is there %d times", text, n)
		}
	}
}
