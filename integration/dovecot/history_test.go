package dovecot

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// history is a series of changes by users on both sides of a pair, with a sync every few of them. It depends on the seed
// alone: DSYNCFS_DOVECOT_SEED and DSYNCFS_DOVECOT_OPS choose another one and how long it is.
type history struct {
	*harness.Env
	t        *testing.T
	rand     *rand.Rand
	sides    []*account
	mails    int
	expunged map[string]bool // hashes of what a user expunged or deleted with its mailbox
	saved    map[string]bool // hashes of all that was ever saved
	log      []string
}

func newHistory(t *testing.T, e *harness.Env, seed uint64, sides ...*account) *history {
	return &history{
		Env: e, t: t, rand: rand.New(rand.NewPCG(seed, 1)), sides: sides,
		expunged: map[string]bool{}, saved: map[string]bool{},
	}
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// one makes one change on one side.
func (h *history) one() {
	a := h.sides[h.rand.IntN(len(h.sides))]
	boxes := a.mailboxes()
	box := boxes[h.rand.IntN(len(boxes))]
	mails := a.mails(box)
	switch k := h.rand.IntN(100); {
	case k < 35 || len(mails) == 0 && k < 75:
		h.mails++
		mail := harness.Note(fmt.Sprintf("%s %d", a.name, h.mails))
		h.note("%s: save %d into %s", a.name, h.mails, box)
		a.save(box, mail)
		for _, m := range a.mails(box) {
			h.saved[m.hash()] = true
		}
	case k < 60:
		m := mails[h.rand.IntN(len(mails))]
		op := []string{"add", "remove", "replace"}[h.rand.IntN(3)]
		flags := h.flags()
		h.note("%s: flags %s %v of %s %s", a.name, op, flags, box, m.UID)
		a.doveadm("flags", op, strings.Join(flags, " "), "mailbox", box, "uid", m.UID)
	case k < 75:
		m := mails[h.rand.IntN(len(mails))]
		h.note("%s: expunge %s %s", a.name, box, m.UID)
		h.expunged[m.hash()] = true
		a.doveadm("expunge", "mailbox", box, "uid", m.UID)
	case k < 82 && len(mails) > 0:
		m, to := mails[h.rand.IntN(len(mails))], boxes[h.rand.IntN(len(boxes))]
		if to == box {
			return
		}
		op := []string{"copy", "move"}[h.rand.IntN(2)]
		h.note("%s: %s %s %s to %s", a.name, op, box, m.UID, to)
		a.doveadm(op, to, "mailbox", box, "uid", m.UID)
	default:
		h.changeTree(a, box, boxes)
	}
}

func (h *history) flags() []string {
	all := []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, `\Deleted`, "$Forwarded", "Work", "nonjunk"}
	h.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+h.rand.IntN(3)]
}

// changeTree changes mailboxes or subscriptions.
func (h *history) changeTree(a *account, box string, boxes []string) {
	names := []string{"A", "A/B", "A/B/C", "D", "Entwürfe", "D/日本語"}
	name := names[h.rand.IntN(len(names))]
	switch k := h.rand.IntN(10); {
	case k < 4 && !slices.Contains(boxes, name):
		h.note("%s: create %s", a.name, name)
		a.doveadm("mailbox", "create", name)
	case k < 6 && box != "INBOX" && !slices.Contains(boxes, name) && !strings.HasPrefix(name, box+"/"):
		h.note("%s: rename %s to %s", a.name, box, name)
		if r := a.try(nil, "mailbox", "rename", box, name); r.status != 0 {
			h.note("... did not work: %s", strings.TrimSpace(r.stderr))
		}
	case k < 7 && box != "INBOX":
		h.note("%s: delete %s", a.name, box)
		for _, m := range a.mails(box) {
			h.expunged[m.hash()] = true
		}
		a.doveadm("mailbox", "delete", box)
	case k < 9:
		h.note("%s: subscribe %s", a.name, box)
		a.doveadm("mailbox", "subscribe", box)
	default:
		h.note("%s: unsubscribe %s", a.name, box)
		a.doveadm("mailbox", "unsubscribe", box)
	}
}

// mailboxes are the account's, sorted, INBOX among them.
func (a *account) mailboxes() []string {
	a.t.Helper()
	var boxes []string
	for _, row := range a.status("messages") {
		boxes = append(boxes, row[0])
	}
	if !slices.Contains(boxes, "INBOX") {
		boxes = append(boxes, "INBOX")
	}
	slices.Sort(boxes)
	return boxes
}

// mails are those of a mailbox.
func (a *account) mails(box string) []mailView {
	a.t.Helper()
	var mails []mailView
	must(a.t, json.Unmarshal([]byte(a.doveadm("-f", "json", "fetch", fetched, "mailbox", box, "all")), &mails))
	return mails
}

func (m mailView) hash() string {
	hash := harness.HashOf([]byte(m.Text))
	return fmt.Sprintf("%x", hash[:6])
}

// nothingLost fails the test if a mail is missing that no user expunged.
func (h *history) nothingLost() {
	h.t.Helper()
	view := strings.Join(h.sides[0].view(), "\n")
	for hash := range h.saved {
		if !h.expunged[hash] && !strings.Contains(view, "hash "+hash) {
			h.t.Errorf("mail %s is lost", hash)
		}
	}
}

// play makes the changes and calls sync every few, which has to make both sides equal.
func (h *history) play(ops int, sync func()) {
	h.t.Helper()
	for i := 0; i < ops && !h.t.Failed(); {
		for n := 1 + h.rand.IntN(6); n > 0 && i < ops; n-- {
			h.one()
			i++
		}
		h.note("sync")
		// Dovecot's list of mailboxes remembers the seconds of a Maildir's times only: of two changes within one second it may
		// miss the one that is not its own.
		nextSecond(h.t)
		sync()
		same(h.t, h.sides[0], h.sides[1])
		h.nothingLost()
	}
	if h.t.Failed() {
		h.t.Logf("history:\n%s", strings.Join(h.log, "\n"))
	}
}

func seed(t *testing.T) uint64 {
	s := uint64(number("DSYNCFS_DOVECOT_SEED", 1))
	t.Logf("DSYNCFS_DOVECOT_SEED=%d", s)
	return s
}

func TestHistoryAsMaster(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := both(t, format)
		h := newHistory(t, p.Env, seed(t), p.ours, p.dove)
		h.play(number("DSYNCFS_DOVECOT_OPS", 60), func() { p.clean("mirror") })
		p.settled()
	})
}

func TestHistoryAsSlave(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := filled(t, format)
		h := newHistory(t, p.Env, seed(t)+100, p.ours, p.dove)
		h.play(number("DSYNCFS_DOVECOT_OPS", 60), func() {
			for range 3 { // exit status 2 asks for another run
				r := p.sync("sync")
				s := strings.TrimSpace(r.stderr)
				if r.status != 0 && r.status != 2 || s != "" && !strings.Contains(s, "Warning: Mailbox changes caused a desync") {
					t.Fatalf("doveadm sync: exit status %d: %s", r.status, s)
				}
				if r.status == 0 {
					return
				}
				h.note("sync again")
			}
			t.Error("exit status 2 three times")
		})
		p.settled()
	})
}
