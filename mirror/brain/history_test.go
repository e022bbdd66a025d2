package brain_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/memstore"
)

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
