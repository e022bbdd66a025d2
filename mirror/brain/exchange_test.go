package brain_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// slowAttributes is a store whose mailboxes take a second to tell their attributes, and find out whether they were closed in
// the meantime.
type slowAttributes struct {
	store.Store
	closedInBetween *bool
}

func (s slowAttributes) Open(ctx context.Context, guid mail.MailboxGUID) (store.Mailbox, error) {
	mb, err := s.Store.Open(ctx, guid)
	return &slowMailbox{Mailbox: mb, closedInBetween: s.closedInBetween}, err
}

type slowMailbox struct {
	store.Mailbox
	closedInBetween *bool
	closed          bool
}

func (mb *slowMailbox) Attributes(ctx context.Context, since mail.ModSeq) ([]store.Attribute, error) {
	time.Sleep(time.Second) // of the bubble: until all others wait
	if mb.closed {
		*mb.closedInBetween = true
	}
	return mb.Mailbox.Attributes(ctx, since)
}

func (mb *slowMailbox) Close() error {
	mb.closed = true
	return mb.Mailbox.Close()
}

// At first contact one side takes over the identities of the other one, and opens its mailbox anew, while its sender may
// still be busy with the attributes of the one that it had.
func TestTheMailboxStaysOpenWhileItsAttributesAreSent(t *testing.T) {
	for _, slow := range []string{"a", "b"} {
		synctest.Test(t, func(t *testing.T) {
			c := newClock()
			a, b := pair(t, c)
			for _, s := range []side{a, b} {
				_, err := s.account.Deliver("INBOX", []byte("on both sides, under two GUIDs"), c.tick())
				must(t, err)
			}
			var closed bool
			open := func(s side) store.Store {
				if s.options.Side == slow {
					return slowAttributes{s.account.Open(), &closed}
				}
				return s.account.Open()
			}
			m, s := brain.Pipe()
			slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return open(b), nil }, nil)
			served := make(chan error, 1)
			go func() { served <- slave.Serve(t.Context(), s) }()
			master, st := brain.NewMaster(m, a.options), open(a)
			_, err := master.Round(t.Context(), st, twoWay())
			must(t, errors.Join(err, master.Close(), <-served, st.Close()))
			if closed {
				t.Errorf("the mailbox of %s was closed while its attributes were read", slow)
			}
			if got := bodies(t, a); got[`"on both sides, under two GUIDs"`] != 1 {
				t.Errorf("after the round: %v", got)
			}
		})
	}
}
