package brain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// spool is one in memory.
type spool struct{ bytes.Buffer }

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.Bytes()).ReadAt(p, off)
}
func (s *spool) Close() error { return nil }

func newSpool() (brain.Spool, error) { return new(spool), nil }

// watched notes what of bodies goes out.
type watched struct {
	brain.Peer
	parcels, bytes int // so far
	offset         uint64
}

func (w *watched) Send(it item.Item) error {
	switch it := it.(type) {
	case *item.Parcel:
		w.parcels++
		w.bytes += len(it.Data)
	case *item.Mail:
		w.offset = it.Offset
	}
	return w.Peer.Send(it)
}

// aheadLink is overWire with parcels of 100 bytes, and shows what the slave sends.
func aheadLink(w *watched) link {
	return func() (brain.Peer, brain.Peer, error) {
		m, s, err := overWire()
		w.Peer = s
		return m, w, err
	}
}

// ahead runs f with a connection on which bodies of more than 400 bytes go ahead.
func ahead(t *testing.T, f func(t *testing.T, k *kept, w *watched, a, b side)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, newClock())
		for _, o := range []*brain.Options{&a.options, &b.options} {
			o.Spool, o.Slice = newSpool, 100
		}
		for i := range 3 {
			_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "old %d", i), time.Unix(1, 0))
			must(t, err)
		}
		must(t, a.account.CreateMailbox("Work"))
		var w watched
		k := keep(t, a, b, aheadLink(&w))
		f(t, k, &w, a, b)
		synctest.Wait() // the slave has written down what came of the last push, too
		if ca, cb := contents(t, a), contents(t, b); ca != cb {
			t.Errorf("sides differ:\n%s\n%s", ca, cb)
		}
		if v := k.push(); v != brain.Settled {
			t.Errorf("both sides are equal, and a push gave %d", v)
		}
		k.end()
	})
}

// largeMail is a mail of 5,000 bytes.
var largeMail = []byte(strings.Repeat("0123456789abcde\n", 5000/16))

func deliver(t *testing.T, s side, box mail.Name, body []byte) {
	t.Helper()
	_, err := s.account.Deliver(box, body, time.Unix(2, 0))
	must(t, err)
}

func see(t *testing.T, s side, i int) {
	t.Helper()
	must(t, s.account.SetFlags("INBOX", s.account.Files("INBOX")[i], mail.Delta{Add: mail.FlagSeen}))
}

// wait lets the master listen until a body that it sends has arrived, and pushes.
func (k *kept) wait() brain.Verdict {
	p, err := k.master.Idle(context.Background())
	must(k.t, err)
	if p != nil || k.master.Woken() {
		k.t.Fatalf("the slave spoke: %v, woken %v", p, k.master.Woken())
	}
	return k.push()
}

func (k *kept) wants(what string, v, want brain.Verdict) {
	k.t.Helper()
	if v != want {
		k.t.Errorf("%s: verdict %d, want %d", what, v, want)
	}
}

// TestNothingWaitsForALargeBody: neither flags of older mails in its mailbox, on either side, nor a mail in another.
func TestNothingWaitsForALargeBody(t *testing.T) {
	ahead(t, func(t *testing.T, k *kept, _ *watched, a, b side) {
		deliver(t, a, "INBOX", largeMail)
		k.wants("a large mail", k.push(), brain.Partly)
		see(t, a, 0)
		deliver(t, a, "Work", []byte("small"))
		*k.bodies = 0
		k.wants("small changes", k.push(), brain.Partly)
		if *k.bodies != 1 || len(b.account.Files("INBOX")) != 3 || len(b.account.Files("Work")) != 1 || strings.Count(contents(t, b), `\Seen`) != 1 {
			t.Errorf("%d bodies were sent; the other side has\n%s", *k.bodies, contents(t, b))
		}
		see(t, b, 1)
		k.poke()
		k.wants("flags there", k.listen(), brain.Taken)
		if strings.Count(contents(t, a), `\Seen`) != 2 {
			t.Errorf("here is\n%s", contents(t, a))
		}
		deliver(t, a, "INBOX", []byte("small and late"))
		k.wants("a mail behind it", k.push(), brain.Partly)
		k.wants("the body has arrived", k.wait(), brain.Taken)
	})
}

// TestLargeBodyFromTheSlave: likewise, and its body is sent once.
func TestLargeBodyFromTheSlave(t *testing.T) {
	ahead(t, func(t *testing.T, k *kept, w *watched, a, b side) {
		deliver(t, b, "INBOX", largeMail)
		k.poke()
		synctest.Wait()
		see(t, a, 0)
		k.wants("flags here", k.push(), brain.Taken)
		see(t, b, 1)
		k.poke()
		k.wants("flags there", k.listen(), brain.Taken)
		k.wants("the mail", k.listen(), brain.Taken)
		if w.bytes != len(largeMail) || w.offset != uint64(len(largeMail)) {
			t.Errorf("%d bytes went ahead, and the mail came from %d on", w.bytes, w.offset)
		}
	})
}

// TestRoundGoesOnWithALargeBody: what came ahead is not sent again.
func TestRoundGoesOnWithALargeBody(t *testing.T) {
	ahead(t, func(t *testing.T, k *kept, w *watched, _, b side) {
		deliver(t, b, "INBOX", largeMail)
		k.poke()
		synctest.Wait()
		k.round()
		if w.parcels != 4 || w.offset != uint64(w.bytes) {
			t.Errorf("%d parcels with %d bytes went ahead, and the mail came from %d on", w.parcels, w.bytes, w.offset)
		}
	})
}

// TestMovedMailIsNeverNowhere: a mail that was moved behind one whose body is on its way is not expunged at the receiver before
// it is there in its new place.
func TestMovedMailIsNeverNowhere(t *testing.T) {
	ahead(t, func(t *testing.T, k *kept, _ *watched, a, b side) {
		deliver(t, a, "Work", largeMail)
		k.wants("a large mail", k.push(), brain.Partly)
		must(t, a.account.Move("INBOX", a.account.Files("INBOX")[0], "Work"))
		*k.bodies = 0
		k.wants("a move", k.push(), brain.Partly)
		if n := len(b.account.Files("INBOX")); n != 3 {
			t.Errorf("%d mails are left", n)
		}
		k.wants("the body has arrived", k.wait(), brain.Taken)
		if *k.bodies != 1 || len(b.account.Files("Work")) != 2 {
			t.Errorf("%d bodies were sent", *k.bodies)
		}
	})
}

// TestLargeMailThatGoesAway while its body is on its way, and one that comes then.
func TestLargeMailThatGoesAway(t *testing.T) {
	ahead(t, func(t *testing.T, k *kept, _ *watched, a, _ side) {
		deliver(t, a, "INBOX", largeMail)
		k.wants("a large mail", k.push(), brain.Partly)
		must(t, a.account.Expunge("INBOX", a.account.Files("INBOX")[3]))
		deliver(t, a, "Work", append([]byte("another\n"), largeMail...))
		k.wants("its end", k.push(), brain.Partly)
		k.wants("the other one", k.wait(), brain.Taken)
	})
}

// TestOlderPeerGetsRounds: a dsyncfs that does not know of parcels.
func TestOlderPeerGetsRounds(t *testing.T) {
	ahead := func(o *brain.Options) { o.Spool, o.Slice = newSpool, 100 }
	for name, set := range map[string]func(a, b *brain.Options){
		"here": func(a, _ *brain.Options) { ahead(a) }, "there": func(_, b *brain.Options) { ahead(b) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t, newClock())
				set(&a.options, &b.options)
				deliver(t, a, "INBOX", []byte("old"))
				k := keep(t, a, b, overWire)
				deliver(t, a, "INBOX", bytes.Repeat(largeMail, 500))
				k.wants("a large mail", k.push(), brain.NeedRound)
				k.end()
			})
		})
	}
}

// TestParcelsThatDoNotFollowAreRefused with an error that the other side hears.
func TestParcelsThatDoNotFollowAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spool   func() (brain.Spool, error)
		parcels []*item.Parcel
	}{
		"not due":            {nil, []*item.Parcel{{GUID: "g", Size: 9, Data: "abc"}}},
		"a gap":              {newSpool, []*item.Parcel{{GUID: "g", Size: 9, Data: "abc"}, {GUID: "g", Offset: 4, Size: 9, Data: "e"}}},
		"no beginning":       {newSpool, []*item.Parcel{{GUID: "g", Offset: 4, Size: 9, Data: "e"}}},
		"another mail":       {newSpool, []*item.Parcel{{GUID: "g", Size: 9, Data: "abc"}, {GUID: "h", Offset: 3, Size: 9, Data: "d"}}},
		"another size":       {newSpool, []*item.Parcel{{GUID: "g", Size: 9, Data: "abc"}, {GUID: "g", Offset: 3, Size: 10, Data: "d"}}},
		"more than its size": {newSpool, []*item.Parcel{{GUID: "g", Size: 3, Data: "abc"}, {GUID: "g", Offset: 3, Size: 3, Data: "d"}}},
		"more than it says":  {newSpool, []*item.Parcel{{GUID: "g", Size: 3, Data: "abcd"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t, newClock())
				a.options.Spool, b.options.Spool = newSpool, c.spool
				m, s, err := overWire()
				must(t, err)
				slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return b.account.Open(), nil },
					func(context.Context) (<-chan struct{}, error) { return make(chan struct{}), nil })
				served := make(chan error, 1)
				go func() { served <- slave.Serve(context.Background(), s) }()
				a.options.Live = true
				master := brain.NewMaster(m, a.options)
				st := a.account.Open()
				_, err = master.Round(context.Background(), st, twoWay())
				must(t, errors.Join(err, st.Close()))
				for _, p := range c.parcels {
					_ = m.Send(p)
				}
				_ = m.Flush()
				go func() { _, _ = master.Idle(context.Background()) }()
				if err := <-served; !errors.Is(err, brain.ErrProtocol) {
					t.Errorf("the slave ended with %v", err)
				}
				synctest.Wait()
				_ = master.Close()
			})
		})
	}
}
