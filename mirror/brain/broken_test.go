package brain_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// breaking is an end of a conversation that breaks when so many items went through it, either way.
type breaking struct {
	brain.Peer
	left *atomic.Int64
}

func (b breaking) step() error {
	if b.left.Add(-1) < 0 {
		return errors.Join(io.ErrClosedPipe, b.Close())
	}
	return nil
}

func (b breaking) Send(it item.Item) error {
	if err := b.step(); err != nil {
		return err
	}
	return b.Peer.Send(it)
}

func (b breaking) Recv() (item.Item, error) {
	if err := b.step(); err != nil {
		return nil, err
	}
	return b.Peer.Recv()
}

// breaksAt connects two brains within the process until so many items went through, either way.
func breaksAt(n int64) link {
	return func() (brain.Peer, brain.Peer, error) {
		var left atomic.Int64
		left.Store(n)
		m, s := brain.Pipe()
		return breaking{m, &left}, s, nil
	}
}

// A mail that came to one side in a round that broke off, and was moved on or expunged at the other one since then, must not come
// back from there. The round breaks at each of its items, a first one and a later one, with either side as the master; what
// completes it is a round from the last common state or one that compares everything.
func TestWhatARoundBroughtBeforeItBrokeOffDoesNotComeBack(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, completes := range []item.SyncType{item.SyncState, item.SyncFull} {
			for _, master := range []string{"a", "b"} {
				t.Run(fmt.Sprintf("first=%v completed by %c master %s", first, completes, master), func(t *testing.T) {
					for n := int64(1); breakRound(t, first, completes, master == "a", n); n++ {
					}
				})
			}
		}
	}
}

// breakRound reports whether the round broke.
func breakRound(t *testing.T, first bool, completes item.SyncType, aStarts bool, n int64) bool {
	t.Helper()
	c := newClock()
	a, b := pair(t, c)
	deliver := func(s side, text string) string {
		base, err := s.account.Deliver("INBOX", []byte(text), c.tick())
		must(t, err)
		return base
	}
	must(t, a.account.CreateMailbox("Work"))
	deliver(a, "old one here")
	if !first {
		quiet(t, a, b, inProcess)
	}
	moved, expunged := deliver(a, "to be moved"), deliver(a, "to be expunged")
	deliver(a, "new here")
	deliver(b, "new there") // so that UIDs conflict
	deliver(b, "newer there")

	master, slave := a, b
	if !aStarts {
		master, slave = b, a
	}
	_, err, serr := syncOnce(master, slave, breaksAt(n), twoWay())
	c.tick()
	must(t, a.account.Move("INBOX", moved, "Work"))
	must(t, a.account.Expunge("INBOX", expunged))
	c.tick()
	_, err2, serr2 := syncOnce(master, slave, inProcess, brain.Request{Type: completes})
	must(t, errors.Join(err2, serr2))
	quiet(t, a, b, inProcess)
	got := bodies(t, a)
	for _, text := range []string{"old one here", "to be moved", "new here", "new there", "newer there"} {
		key := strconv.Quote(text)
		if got[key] != 1 {
			t.Errorf("broken at item %d: %s is there %d times", n, key, got[key])
		}
		delete(got, key)
	}
	for key := range got {
		t.Errorf("broken at item %d: %s is back", n, key)
	}
	return (err != nil || serr != nil) && !t.Failed()
}

// The mailboxes may be compared in different rounds, as when one breaks off: the first sees the mail where it was moved to, the
// second that it is gone where its flags were changed.
func TestFlagsFollowAMailOfWhichARoundSawHalfTheMove(t *testing.T) {
	a, b := movedAndFlagged(t, mail.FlagFlagged|mail.FlagDeleted)
	_, err, serr := syncOnce(a, b, inProcess, brain.Request{Type: item.SyncState, Boxes: []string{"Archive"}})
	must(t, errors.Join(err, serr))
	quiet(t, a, b, inProcess)
	isFlaggedOnce(t, a)
}

// What a side logged before two mailboxes met counts, however often their first round breaks off: here one side's index was lost.
func TestAnExpungeFromBeforeABrokenFirstRoundIsNotForgotten(t *testing.T) {
	for n, broke := int64(1), true; broke; n++ {
		c := newClock()
		a, b := pair(t, c)
		expunged, err := a.account.Deliver("INBOX", []byte("expunged"), c.tick())
		must(t, err)
		_, err = a.account.Deliver("INBOX", []byte("kept"), c.tick())
		must(t, err)
		quiet(t, a, b, inProcess)
		must(t, a.account.Expunge("INBOX", expunged))
		b.account.LoseMemory()
		_, err, serr := syncOnce(a, b, breaksAt(n), twoWay())
		broke = err != nil || serr != nil
		quiet(t, a, b, inProcess)
		if got := bodies(t, a); len(got) != 1 || got[`"kept"`] != 1 {
			t.Errorf("broken at item %d: %v", n, got)
		}
	}
}

// A mail that another side gave a new UID, and of which there is a copy in another mailbox to take the bytes from, comes together
// with the expunge of the old one, wherever the round breaks.
func TestAMailWithANewUIDIsNeverThereTwice(t *testing.T) {
	for n, broke := int64(1), true; broke && !t.Failed(); n++ {
		c := newClock()
		a, b := pair(t, c)
		must(t, a.account.CreateMailbox("Aside"))
		must(t, a.account.CreateMailbox("Copies"))
		base, err := a.account.Deliver("INBOX", []byte("copied"), c.tick())
		must(t, err)
		refreshed(t, a, func(s store.Store) { alsoIn(t, s, "INBOX", "Copies") })
		quiet(t, a, b, inProcess)
		must(t, a.account.Move("INBOX", base, "Aside"))
		refreshed(t, a, func(store.Store) {})
		must(t, a.account.Move("Aside", base, "INBOX"))
		_, err = a.account.Deliver("INBOX", []byte("new"), c.tick())
		must(t, err)
		_, err, serr := syncOnce(a, b, breaksAt(n), twoWay())
		broke = err != nil || serr != nil
		if got := bodies(t, b); got[`"copied"`] != 2 {
			t.Errorf("broken at item %d: %v", n, got)
		}
		quiet(t, a, b, inProcess)
	}
}

// refreshed does something to the store of a side after it took notice of what users did.
func refreshed(t *testing.T, s side, do func(store.Store)) {
	t.Helper()
	st := s.account.Open()
	_, err := st.Refresh(t.Context(), store.RefreshOptions{})
	must(t, err)
	do(st)
	must(t, st.Close())
}

// alsoIn puts the only mail of a mailbox into another one, too, with its GUID.
func alsoIn(t *testing.T, s store.Store, from, to mail.Name) {
	t.Helper()
	boxes, _, err := s.Tree(t.Context())
	must(t, err)
	open := func(name mail.Name) store.Mailbox {
		i := slices.IndexFunc(boxes, func(b mail.Mailbox) bool { return b.Name == name })
		mb, err := s.Open(t.Context(), boxes[i].Status.GUID)
		must(t, err)
		return mb
	}
	source, target := open(from), open(to)
	for m, err := range source.Messages(0) {
		must(t, err)
		_, err = target.Apply(t.Context(), store.Batch{Adds: []store.Add{{
			Message: mail.Message{UID: 1, GUID: m.GUID, Received: m.Received}, From: store.Location{Mailbox: source.Status().GUID, UID: m.UID},
		}}})
		must(t, err)
	}
	must(t, errors.Join(source.Close(), target.Close()))
}
