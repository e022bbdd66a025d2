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
			Outside: storetest.Memory{Account: a},
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
