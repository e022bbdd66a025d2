package memstore_test

import (
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
	"dsyncfs/mirror/store/storetest"
)

// clock starts at a fixed time and advances a second with every look.
func clock() func() time.Time {
	now := time.Unix(1_600_000_000, 0)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Fixture {
		a := memstore.NewAccount(t.Name(), clock())
		return &storetest.Fixture{
			Store:   a.Open(),
			Reopen:  func(*testing.T) store.Store { return a.Open() },
			Outside: outside{a},
			FillDisk: func(*testing.T) func() {
				a.SetFull(true)
				return func() { a.SetFull(false) }
			},
			Unreadable: func(t *testing.T, name mail.Name) func() {
				must(t, a.SetUnreadable(name, true))
				return func() { must(t, a.SetUnreadable(name, false)) }
			},
			LoseMemory: func(*testing.T) store.Store {
				a.LoseMemory()
				return a.Open()
			},
		}
	})
}

// outside acts on an account behind its store's back.
type outside struct{ a *memstore.Account }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (o outside) Deliver(t *testing.T, name mail.Name, body string, received int64) string {
	base, err := o.a.Deliver(name, []byte(body), time.Unix(received, 0))
	must(t, err)
	return base
}

func (o outside) SetFlags(t *testing.T, name mail.Name, base string, flags mail.Flags) {
	must(t, o.a.SetFlags(name, base, mail.Delta{Add: flags, Remove: mail.AllFlags &^ flags}))
}

func (o outside) Remove(t *testing.T, name mail.Name, base string) { must(t, o.a.Vanish(name, base)) }

func (o outside) Move(t *testing.T, from mail.Name, base string, to mail.Name) {
	must(t, o.a.Move(from, base, to))
}

func (o outside) CreateMailbox(t *testing.T, name mail.Name) { must(t, o.a.CreateMailbox(name)) }
func (o outside) RenameMailbox(t *testing.T, from, to mail.Name) {
	must(t, o.a.RenameMailbox(from, to))
}
func (o outside) DeleteMailbox(t *testing.T, name mail.Name) { must(t, o.a.LoseMailbox(name)) }
