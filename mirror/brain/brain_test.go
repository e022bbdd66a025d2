package brain_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
	"dsyncfs/remote/dsync"
)

// clock is the time of both accounts of a test. It stands while a round runs, so that histories are the same every time.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Unix(1_767_261_600, 0)} }

func (c *clock) time() time.Time { return c.now }

// tick lets a second pass.
func (c *clock) tick() time.Time {
	c.now = c.now.Add(time.Second)
	return c.now
}

func options(side, host string, c *clock) brain.Options {
	return brain.Options{
		Hostname: host, Side: side, PeerName: "peer of " + host, Guard: guard.Policy{MaxMissingPercent: 20, MaxMissingMails: 50},
		Now: func() int64 { return c.now.Unix() }, Logger: slog.New(slog.DiscardHandler),
	}
}

// link connects two brains: in the process, or by the wire format over a pipe of bytes.
type link func() (master, slave brain.Peer, err error)

func inProcess() (brain.Peer, brain.Peer, error) {
	a, b := brain.Pipe()
	return a, b, nil
}

func overWire() (brain.Peer, brain.Peer, error) {
	a, b := bytePipe()
	m, s := dsync.NewPeer(a, dsync.Options{Name: "slave"}), dsync.NewPeer(b, dsync.Options{Name: "master"})
	errs := make(chan error, 1)
	go func() { errs <- s.Handshake(context.Background()) }()
	return m, s, errors.Join(m.Handshake(context.Background()), <-errs)
}

// bytePipe connects two ends as a pipe of the system does: what is written waits until it is read, some of it.
func bytePipe() (io.ReadWriteCloser, io.ReadWriteCloser) {
	a, b := net.Pipe()
	return newBuffered(a), newBuffered(b)
}

// buffered writes behind the back of the writer.
type buffered struct {
	net.Conn
	out   chan []byte
	close func()
}

func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 16)}
	ended := make(chan struct{})
	b.close = sync.OnceFunc(func() { close(ended) })
	go func() {
		defer c.Close()
		for {
			select {
			case chunk := <-b.out:
				_, _ = c.Write(chunk) // the reader finds out
			case <-ended:
				for len(b.out) > 0 {
					_, _ = c.Write(<-b.out)
				}
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.out <- bytes.Clone(p)
	return len(p), nil
}

func (b *buffered) Close() error {
	b.close()
	_ = b.SetDeadline(time.Now().Add(time.Second)) // unless it is closed by now
	return nil
}

// side is an account with the options of its brain.
type side struct {
	account *memstore.Account
	options brain.Options
}

// syncOnce makes one round with a as master and returns both sides' errors.
func syncOnce(a, b side, l link, req brain.Request) (brain.Outcome, error, error) {
	m, s, err := l()
	if err != nil {
		return brain.Outcome{}, err, nil
	}
	slave := brain.NewSlave(b.options, func(context.Context) (store.Store, error) { return b.account.Open(), nil }, nil)
	served := make(chan error, 1)
	go func() { served <- slave.Serve(context.Background(), s) }()
	master := brain.NewMaster(m, a.options)
	st := a.account.Open()
	out, err := master.Round(context.Background(), st, req)
	err = errors.Join(err, master.Close(), st.Close())
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	return out, err, <-served
}

func twoWay() brain.Request { return brain.Request{Type: item.SyncState} }

func pair(t testing.TB, c *clock) (side, side) {
	t.Helper()
	a := side{memstore.NewAccount("a", c.time), options("a", "a.example", c)}
	b := side{memstore.NewAccount("b", c.time), options("b", "b.example", c)}
	return a, b
}

// contents is what an account holds as others see it: one line per mailbox and message.
func contents(t rapid.TB, s side) string {
	t.Helper()
	st := s.account.Open()
	ctx := context.Background()
	if _, err := st.Refresh(ctx, store.RefreshOptions{Witness: func(mail.Name, string) bool { return true }}); err != nil {
		t.Fatalf("refresh %s: %v", s.options.Side, err)
	}
	boxes, _, err := st.Tree(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, box := range boxes {
		if box.Status.GUID.IsZero() && !box.Subscribed {
			continue // whether a level of hierarchy exists by itself depends on the store
		}
		st := box.Status
		fmt.Fprintf(&b, "%s guid=%s validity=%d next=%d n=%d subscribed=%v\n",
			box.Name, st.GUID, st.UIDValidity, st.UIDNext, st.Messages, box.Subscribed)
		if st.GUID.IsZero() {
			continue
		}
		writeMessages(t, &b, s, st.GUID)
	}
	return b.String()
}

func writeMessages(t rapid.TB, b *strings.Builder, s side, guid mail.MailboxGUID) {
	ctx := context.Background()
	mb, err := s.account.Open().Open(ctx, guid)
	if err != nil {
		t.Fatal(err)
	}
	defer mb.Close()
	for m, err := range mb.Messages(0) {
		if err != nil {
			t.Fatal(err)
		}
		body, err := mb.Body(ctx, m.UID)
		if err != nil {
			t.Fatalf("body of %d: %v", m.UID, err)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
		fmt.Fprintf(b, "  %d %s [%s] %v %d %q\n", m.UID, m.GUID, m.Flags, m.Keywords, m.Received, text)
	}
}

// bodies counts each content of an account.
func bodies(t rapid.TB, s side) map[string]int {
	n := map[string]int{}
	for _, line := range strings.Split(contents(t, s), "\n") {
		if i := strings.IndexByte(line, '"'); i >= 0 {
			n[line[i:]]++
		}
	}
	return n
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiet syncs until nothing changes and requires that both sides are equal then.
func quiet(t rapid.TB, a, b side, l link) {
	t.Helper()
	for range 4 {
		out, err, serr := syncOnce(a, b, l, twoWay())
		must(t, errors.Join(err, serr))
		if !out.Changed && !out.Desync {
			break
		}
	}
	ca, cb := contents(t, a), contents(t, b)
	if ca != cb {
		t.Fatalf("sides differ:\n--- a\n%s--- b\n%s", ca, cb)
	}
	out, err, serr := syncOnce(a, b, l, twoWay())
	must(t, errors.Join(err, serr))
	if out.Changed || out.Desync || out.Added+out.Sent+out.Flags+out.Expunged > 0 {
		t.Fatalf("a sync of equal sides did something: %+v", out)
	}
}

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

func TestFlagsChangedThereFollowAMailMovedHere(t *testing.T) {
	for name, starts := range map[string]bool{"mover starts": true, "other starts": false} {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			a, b := pair(t, c)
			must(t, a.account.CreateMailbox("Archive"))
			base, err := a.account.Deliver("INBOX", []byte("to be moved"), c.tick())
			must(t, err)
			quiet(t, a, b, inProcess)
			must(t, a.account.Move("INBOX", base, "Archive"))
			must(t, b.account.SetFlags("INBOX", b.account.Files("INBOX")[0], mail.Delta{Add: mail.FlagFlagged}))
			c.tick()
			first, second := a, b
			if !starts {
				first, second = b, a
			}
			quiet(t, first, second, overWire)
			if got := contents(t, a); !strings.Contains(got, `[\Flagged]`) || strings.Count(got, "to be moved") != 1 {
				t.Errorf("after the sync:\n%s", got)
			}
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

// user is one side's local user with what it did.
type user struct {
	side
	serial *int
	moved  map[string]mail.Name // contents that were moved, and from where
	gone   map[mail.Name]bool   // mailboxes that were deleted
}

func (u user) String() string { return u.options.Side }

var names = []mail.Name{"INBOX", "Work", "Work/2026", "Archive", "Entwürfe"}

// act does something at random and notes which contents were expunged on purpose.
func (u user) act(t *rapid.T, c *clock, expunged map[string]bool) {
	c.tick()
	name := rapid.SampledFrom(names).Draw(t, "mailbox")
	files := u.account.Files(name)
	pick := func() string { return files[rapid.IntRange(0, len(files)-1).Draw(t, "file")] }
	switch op := rapid.SampledFrom([]string{"deliver", "deliver", "deliver", "flags", "flags", "expunge", "move", "create", "rename", "delete", "subscribe"}).Draw(t, "op"); {
	case op == "deliver":
		*u.serial++
		_, err := u.account.Deliver(name, fmt.Appendf(nil, "mail %d of %s", *u.serial, u.options.Side), c.tick())
		ignore(err)
	case op == "create":
		ignore(u.account.CreateMailbox(name))
	case op == "subscribe":
		u.account.Subscribe(name, rapid.Bool().Draw(t, "on"))
	case op == "rename" && name != "INBOX":
		ignore(u.account.RenameMailbox(name, rapid.SampledFrom(names[1:]).Draw(t, "to")))
	case op == "delete" && name != "INBOX":
		u.noteAll(t, name, expunged)
		u.gone[name] = true
		ignore(u.account.DeleteMailbox(name))
	case len(files) == 0:
	case op == "flags":
		d := mail.Delta{Add: mail.FlagSeen, AddKeywords: mail.NewKeywords(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "keyword"))}
		if rapid.Bool().Draw(t, "remove") {
			d = mail.Delta{Remove: mail.FlagSeen, RemoveKeywords: d.AddKeywords}
		}
		ignore(u.account.SetFlags(name, pick(), d))
	case op == "expunge":
		base := pick()
		text, err := u.account.Content(name, base)
		must(t, err)
		expunged[fmt.Sprintf("%q", text)] = true
		must(t, u.account.Expunge(name, base))
	case op == "move":
		base := pick()
		text, err := u.account.Content(name, base)
		must(t, err)
		u.moved[fmt.Sprintf("%q", text)] = name
		ignore(u.account.Move(name, base, rapid.SampledFrom(names).Draw(t, "to")))
	}
}

func (u user) noteAll(t *rapid.T, name mail.Name, expunged map[string]bool) {
	for _, base := range u.account.Files(name) {
		text, err := u.account.Content(name, base)
		must(t, err)
		expunged[fmt.Sprintf("%q", text)] = true
	}
}

// ignore is for operations that a random history may not allow.
func ignore(error) {}

// history is what two users did.
type history struct {
	a, b     user
	seen     map[string]bool // contents that a side had when it was looked at
	expunged map[string]bool // on purpose
	clock    *clock
}

func newHistory() *history {
	c, serial, gone := newClock(), new(int), map[mail.Name]bool{}
	account := func(name string) user {
		return user{side{memstore.NewAccount(name, c.time), options(name, name+".example", c)}, serial, map[string]mail.Name{}, gone}
	}
	return &history{account("a"), account("b"), map[string]bool{}, map[string]bool{}, c}
}

// act has both users do something at random.
func (h *history) act(t *rapid.T, atMost int) {
	for range rapid.IntRange(0, atMost).Draw(t, "steps") {
		map[bool]user{true: h.a, false: h.b}[rapid.Bool().Draw(t, "a acts")].act(t, h.clock, h.expunged)
	}
	for _, u := range []user{h.a, h.b} {
		for text := range bodies(t, u.side) {
			h.seen[text] = true
		}
	}
}

// check brings both sides in sync and looks whether everything is there once.
func (h *history) check(t *rapid.T) {
	quiet(t, h.a.side, h.b.side, inProcess)
	quiet(t, h.b.side, h.a.side, inProcess)
	have := bodies(t, h.a.side)
	for _, text := range slices.Sorted(maps.Keys(h.seen)) {
		if have[text] == 0 && !h.expunged[text] {
			t.Fatalf("%s was lost", text)
		}
	}
	for text, n := range have {
		// What both sides moved, to different mailboxes, is in both. A mailbox that was deleted on one side and got new mail
		// on the other comes back with all its mail, also with what was moved out of it before.
		fromA, byA := h.a.moved[text]
		fromB, byB := h.b.moved[text]
		if n > 1 && !(byA && byB) && !h.a.gone[fromA] && !h.a.gone[fromB] {
			t.Fatalf("%s is there %d times", text, n)
		}
	}
}

func TestRandomHistoriesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory()
		for range rapid.IntRange(1, 6).Draw(t, "rounds") {
			h.act(t, 8)
			first, second := h.a, h.b
			if rapid.Bool().Draw(t, "b starts") {
				first, second = h.b, h.a
			}
			l := rapid.SampledFrom([]link{inProcess, overWire}).Draw(t, "link")
			_, err, serr := syncOnce(first.side, second.side, l, twoWay())
			must(t, errors.Join(err, serr))
		}
		h.check(t)
	})
}

func TestBackupMakesTheDestinationEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		var serial int
		gone := map[mail.Name]bool{}
		a := user{side{memstore.NewAccount("a", c.time), options("a", "a.example", c)}, &serial, map[string]mail.Name{}, gone}
		b := user{side{memstore.NewAccount("b", c.time), options("b", "b.example", c)}, &serial, map[string]mail.Name{}, gone}
		expunged := map[string]bool{}
		// -R and the plain form mean the same conversation with the roles of master and slave exchanged.
		reverse := rapid.Bool().Draw(t, "reverse")
		backup := func() (brain.Outcome, error) {
			req := brain.Request{Type: item.SyncState, AllowExpunge: []string{"*"}, BackupReceive: !reverse, BackupSend: reverse}
			first, second := a.side, b.side
			if reverse {
				first, second = b.side, a.side
			}
			out, err, serr := syncOnce(first, second, rapid.SampledFrom([]link{inProcess, overWire}).Draw(t, "link"), req)
			return out, errors.Join(err, serr)
		}
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			for range rapid.IntRange(0, 8).Draw(t, "steps") {
				map[bool]user{true: a, false: b}[rapid.Bool().Draw(t, "a acts")].act(t, c, expunged)
			}
			before := contents(t, a.side)
			for range 3 {
				out, err := backup()
				must(t, err)
				if !out.Desync {
					break
				}
			}
			if after := contents(t, a.side); after != before {
				t.Fatalf("the source changed:\n--- before\n%s--- after\n%s", before, after)
			}
			if got := contents(t, b.side); got != before {
				t.Fatalf("sides differ:\n--- source\n%s--- destination\n%s", before, got)
			}
		}
	})
}
