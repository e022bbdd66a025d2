package brain_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// kept is a connection that stays open: a is the master's side.
type kept struct {
	t       rapid.TB
	a       side
	master  *brain.Master
	changed chan struct{}
	bodies  *int // how many were sent by the master
	end     func()
}

// counting counts the bodies that go out.
type counting struct {
	brain.Peer
	n *int
}

func (c counting) Send(it item.Item) error {
	if m, ok := it.(*item.Mail); ok && m.Body != nil {
		*c.n++
	}
	return c.Peer.Send(it)
}

// keep connects two sides and makes the first round.
func keep(t rapid.TB, a, b side, l link) *kept {
	t.Helper()
	a.options.Live = true
	m, s, err := l()
	must(t, err)
	k := &kept{t: t, a: a, changed: make(chan struct{}, 1), bodies: new(int)}
	slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return b.account.Open(), nil },
		func(context.Context) (<-chan struct{}, error) { return k.changed, nil })
	served := make(chan error, 1)
	go func() { served <- slave.Serve(context.Background(), s) }()
	k.master = brain.NewMaster(counting{m, k.bodies}, a.options)
	k.end = func() {
		must(t, k.master.Close())
		if err := <-served; err != nil {
			t.Fatalf("slave: %v", err)
		}
	}
	k.round()
	return k
}

func (k *kept) round() {
	for range 4 {
		st := k.a.account.Open()
		out, err := k.master.Round(context.Background(), st, twoWay())
		must(k.t, errors.Join(err, st.Close()))
		if !out.Desync {
			return
		}
	}
	k.t.Fatal("no end of rounds")
}

// push has the master push, and makes a round if that does not do.
func (k *kept) push() brain.Verdict {
	st := k.a.account.Open()
	verdict, _, err := k.master.Push(context.Background(), st)
	must(k.t, errors.Join(err, st.Close()))
	if verdict == brain.NeedRound {
		k.round()
	}
	return verdict
}

// listen takes what the slave has to say, if it says something within a second.
func (k *kept) listen() brain.Verdict {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p, err := k.master.Idle(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return brain.Settled
	}
	must(k.t, err)
	verdict := brain.NeedRound
	if p != nil {
		st := k.a.account.Open()
		verdict, _, err = k.master.Accept(context.Background(), st)
		must(k.t, errors.Join(err, st.Close()))
	}
	if verdict == brain.NeedRound {
		k.round()
	}
	return verdict
}

func (k *kept) poke() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

func inBubble(t *testing.T, l link, f func(t *testing.T, k *kept, a, b side)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, newClock())
		for i := range 3 {
			_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "old %d", i), time.Unix(1, 0))
			must(t, err)
		}
		must(t, a.account.CreateMailbox("Work"))
		k := keep(t, a, b, l)
		f(t, k, a, b)
		synctest.Wait() // the slave has written down what came of the last push, too
		if ca, cb := contents(t, a), contents(t, b); ca != cb {
			t.Errorf("sides differ:\n%s\n%s", ca, cb)
		}
		*k.bodies = 0
		if v := k.push(); v != brain.Settled {
			t.Errorf("both sides are equal, and a push gave %d", v)
		}
		k.end()
	})
}

// TestPushes: what can be told without a round is.
func TestPushes(t *testing.T) {
	for name, change := range map[string]func(*testing.T, side) (sent int){
		"new mail": func(t *testing.T, s side) int {
			_, err := s.account.Deliver("INBOX", []byte("new"), time.Unix(2, 0))
			must(t, err)
			return 1
		},
		"flags": func(t *testing.T, s side) int {
			must(t, s.account.SetFlags("INBOX", s.account.Files("INBOX")[1], mail.Delta{Add: mail.FlagSeen, AddKeywords: mail.NewKeywords("k")}))
			return 0
		},
		"expunge": func(t *testing.T, s side) int {
			must(t, s.account.Expunge("INBOX", s.account.Files("INBOX")[0]))
			return 0
		},
		"move": func(t *testing.T, s side) int {
			must(t, s.account.Move("INBOX", s.account.Files("INBOX")[0], "Work"))
			return 0
		},
		"all of it": func(t *testing.T, s side) int {
			files := s.account.Files("INBOX")
			must(t, s.account.Move("INBOX", files[0], "Work"))
			must(t, s.account.Expunge("INBOX", files[1]))
			must(t, s.account.SetFlags("INBOX", files[2], mail.Delta{Add: mail.FlagAnswered}))
			for _, name := range []mail.Name{"INBOX", "Work"} {
				_, err := s.account.Deliver(name, []byte("for "+name), time.Unix(2, 0))
				must(t, err)
			}
			return 2
		},
	} {
		for where, l := range map[string]link{"in process": inProcess, "over the wire": overWire} {
			t.Run(name+" here "+where, func(t *testing.T) {
				inBubble(t, l, func(t *testing.T, k *kept, a, _ side) {
					*k.bodies = 0
					want := change(t, a)
					if v := k.push(); v != brain.Taken {
						t.Errorf("verdict %d", v)
					}
					if *k.bodies != want {
						t.Errorf("%d bodies were sent, want %d", *k.bodies, want)
					}
				})
			})
			t.Run(name+" there "+where, func(t *testing.T) {
				inBubble(t, l, func(t *testing.T, k *kept, _, b side) {
					change(t, b)
					k.poke()
					if v := k.listen(); v != brain.Taken {
						t.Errorf("verdict %d", v)
					}
				})
			})
		}
	}
}

// TestPushesThatDoNotFit: where both sides changed, or the tree did, a round merges.
func TestPushesThatDoNotFit(t *testing.T) {
	for name, change := range map[string]func(*testing.T, side, side){
		"a mail on each side": func(t *testing.T, a, b side) {
			for _, s := range []side{a, b} {
				_, err := s.account.Deliver("INBOX", []byte("new at "+s.options.Side), time.Unix(2, 0))
				must(t, err)
			}
		},
		"a mailbox":      func(t *testing.T, a, _ side) { must(t, a.account.CreateMailbox("More")) },
		"a subscription": func(_ *testing.T, a, _ side) { a.account.Subscribe("Work", true) },
		"a large mail": func(t *testing.T, a, _ side) {
			_, err := a.account.Deliver("INBOX", []byte(strings.Repeat("0123456789abcde\n", 1<<17)), time.Unix(2, 0))
			must(t, err)
		},
		"many mails": func(t *testing.T, a, _ side) {
			for i := range 1200 {
				_, err := a.account.Deliver("INBOX", fmt.Appendf(nil, "one of many: %d", i), time.Unix(2, 0))
				must(t, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, overWire, func(t *testing.T, k *kept, a, b side) {
				change(t, a, b)
				if v := k.push(); v != brain.NeedRound {
					t.Errorf("verdict %d", v)
				}
			})
		})
	}
}

// TestWhatAPushFindsIsTold: what happened at the receiver is noticed by its look before it takes a push, and nobody else tells of it
// then. It is told all the same.
func TestWhatAPushFindsIsTold(t *testing.T) {
	for name, change := range map[string]func(side) error{
		"a mail": func(s side) error {
			_, err := s.account.Deliver("Work", []byte("there"), time.Unix(3, 0))
			return err
		},
		"a mailbox": func(s side) error { return s.account.CreateMailbox("New") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, overWire, func(t *testing.T, k *kept, a, b side) {
				must(t, change(b)) // and no word of it
				_, err := a.account.Deliver("INBOX", []byte("here"), time.Unix(2, 0))
				must(t, err)
				if v := k.push(); v != brain.Taken {
					t.Errorf("the push gave %d", v)
				}
				if v := k.listen(); v == brain.Settled {
					t.Error("nothing was told")
				}
			})
		})
	}
}

// TestWhatTheMasterFindsIsItsToTell is the same at the master, whose caller pushes.
func TestWhatTheMasterFindsIsItsToTell(t *testing.T) {
	inBubble(t, overWire, func(t *testing.T, k *kept, a, b side) {
		for _, untold := range []bool{false, true} {
			if untold {
				_, err := a.account.Deliver("Work", []byte("here"), time.Unix(3, 0))
				must(t, err)
			}
			_, err := b.account.Deliver("INBOX", fmt.Appendf(nil, "there %v", untold), time.Unix(2, 0))
			must(t, err)
			k.poke()
			_, err = k.master.Idle(context.Background())
			must(t, err)
			st := a.account.Open()
			verdict, out, err := k.master.Accept(context.Background(), st)
			must(t, errors.Join(err, st.Close()))
			if verdict != brain.Taken || out.Untold != untold {
				t.Errorf("verdict %d, untold %v instead of %v", verdict, out.Untold, untold)
			}
		}
		if v := k.push(); v != brain.Taken {
			t.Errorf("the push gave %d", v)
		}
	})
}

func TestPushesThatCrossAreVoid(t *testing.T) {
	for name, l := range map[string]link{"in process": inProcess, "over the wire": overWire} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, l, func(t *testing.T, k *kept, a, b side) {
				for _, s := range []side{a, b} {
					_, err := s.account.Deliver("INBOX", []byte("new at "+s.options.Side), time.Unix(2, 0))
					must(t, err)
				}
				k.poke()
				synctest.Wait() // the slave's push is out, as far as it can be
				if v := k.push(); v != brain.NeedRound {
					t.Errorf("verdict %d", v)
				}
			})
		})
	}
}

func TestPushThatCrossesARoundIsVoid(t *testing.T) {
	for name, l := range map[string]link{"in process": inProcess, "over the wire": overWire} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, l, func(t *testing.T, k *kept, _, b side) {
				_, err := b.account.Deliver("INBOX", []byte("new"), time.Unix(2, 0))
				must(t, err)
				k.poke()
				synctest.Wait()
				k.round()
			})
		})
	}
}

// TestASlaveThatCannotLookSaysWhy: between two rounds, when its store changed.
func TestASlaveThatCannotLookSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, newClock())
		a.options.Live = true
		m, s, err := overWire()
		must(t, err)
		changed := make(chan struct{}, 1)
		var away error
		slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return b.account.Open(), away },
			func(context.Context) (<-chan struct{}, error) { return changed, nil })
		served := make(chan error, 1)
		go func() { served <- slave.Serve(context.Background(), s) }()
		master := brain.NewMaster(m, a.options)
		st := a.account.Open()
		_, err = master.Round(context.Background(), st, twoWay())
		must(t, errors.Join(err, st.Close()))
		synctest.Wait()
		away = errors.New("the disk is away")
		changed <- struct{}{}
		if _, err := master.Idle(context.Background()); !errors.Is(err, brain.ErrPeer) || !strings.Contains(err.Error(), "the disk is away") {
			t.Errorf("the master heard %v", err)
		}
		must(t, master.Close())
		if err := <-served; !errors.Is(err, away) {
			t.Errorf("the slave ended with %v", err)
		}
	})
}

// TestPushThatIsNotAcceptedIsVoid: its beginning was taken off the connection, and what is said next must not be taken for more.
func TestPushThatIsNotAcceptedIsVoid(t *testing.T) {
	for name, next := range map[string]func(*kept){
		"round": (*kept).round,
		"push": func(k *kept) {
			if v := k.push(); v != brain.NeedRound {
				k.t.Fatalf("verdict %d", v)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, overWire, func(t *testing.T, k *kept, a, b side) {
				for _, s := range []side{a, b} {
					_, err := s.account.Deliver("INBOX", []byte("new at "+s.options.Side), time.Unix(2, 0))
					must(t, err)
				}
				k.poke()
				if p, err := k.master.Idle(context.Background()); p == nil || err != nil {
					t.Fatalf("push %v, error %v", p, err)
				}
				next(k)
			})
		})
	}
}

// TestPushesConverge: random histories in which both sides push, at the same time too.
func TestPushesConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var failure any // rapid's own way out, which has to be taken in its goroutine
		synctest.Test(t, func(*testing.T) {
			defer func() { failure = recover() }()
			pushHistory(rt)
		})
		if failure != nil {
			panic(failure)
		}
	})
}

func pushHistory(t *rapid.T) {
	h := newHistory()
	h.a.options.Spool, h.b.options.Spool = newSpool, newSpool
	h.a.options.Slice = rapid.SampledFrom([]int{0, 2}).Draw(t, "slice")
	h.b.options.Slice = h.a.options.Slice
	k := keep(t, h.a.side, h.b.side, rapid.SampledFrom([]link{inProcess, overWire}).Draw(t, "link"))
	defer k.end()
	for range rapid.IntRange(1, 10).Draw(t, "turns") {
		synctest.Wait()
		h.act(t, 3)
		switch rapid.SampledFrom([]string{"push", "listen", "both", "round"}).Draw(t, "turn") {
		case "push":
			k.push()
		case "listen":
			k.poke()
			k.listen()
		case "both":
			k.poke()
			synctest.Wait()
			k.push()
			k.listen()
		case "round":
			k.poke()
			synctest.Wait()
			k.round()
		}
	}
	synctest.Wait() // the slave has written down what came of the last push, too
	h.check(t)
}

// TestPushAfterAFullSync: the common states that it leaves are as good as any.
func TestPushAfterAFullSync(t *testing.T) {
	inBubble(t, overWire, func(t *testing.T, k *kept, a, b side) {
		req := twoWay()
		req.Type = item.SyncFull
		st := a.account.Open()
		_, err := k.master.Round(context.Background(), st, req)
		must(t, errors.Join(err, st.Close()))
		deliver(t, a, "INBOX", []byte("from here"))
		k.wants("here", k.push(), brain.Taken)
		deliver(t, b, "INBOX", []byte("from there"))
		k.poke()
		k.wants("there", k.listen(), brain.Taken)
	})
}

// removing is a store whose user removes a mailbox when it is about to be opened.
type removing struct {
	store.Store
	remove func()
}

func (r removing) Open(context.Context, mail.MailboxGUID) (store.Mailbox, error) {
	r.remove()
	return nil, store.ErrNotFound
}

// A mailbox that goes away between the look and the push is a matter of the next round, and not the end of the connection.
func TestAMailboxIsRemovedDuringAPush(t *testing.T) {
	inBubble(t, inProcess, func(t *testing.T, k *kept, a, b side) {
		_, err := a.account.Deliver("Work", []byte("short-lived"), time.Unix(1, 0))
		must(t, err)
		st := removing{a.account.Open(), func() { must(t, a.account.DeleteMailbox("Work")) }}
		verdict, _, err := k.master.Push(context.Background(), st)
		must(t, errors.Join(err, st.Close()))
		if verdict != brain.NeedRound {
			t.Errorf("verdict %d", verdict)
		}
		k.round()
		if strings.Contains(contents(t, b), "Work") {
			t.Error("it is still there at the other side")
		}
	})
}
