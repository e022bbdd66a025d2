package dovecot

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// history is a series of changes by users on both sides of a pair, with a sync every few of them after which clients of both
// sides have to see the same. The users work through IMAP sessions that stay open, and through deliveries. It depends on the
// seed alone: DSYNCFS_DOVECOT_SEED and DSYNCFS_DOVECOT_OPS choose another one and how long it is.
type history struct {
	*live
	rand  *rand.Rand
	sides []*side
	saved map[string]string // by subject: the hash of every mail that ever came
	gone  map[string]bool   // by subject: mails of which a user expunged an instance, or deleted a mailbox that had one
	most  map[string]int    // by subject: how many instances there can be
	log   []string

	renamed bool             // a mailbox since the last sync, whose subscription may need another one to follow
	remade  map[string]bool  // mailboxes that came back or gave way to one of the same name since the last sync
	came    map[string]*side // by name: who made a mailbox of that name since the last sync
}

// side is one of the two, with the sessions of its users.
type side struct {
	*viewer
	name  string
	watch *harness.IMAP // has INBOX open all the time, and is in IDLE during a sync
}

func newHistory(t *testing.T, format string, seed uint64) *history {
	p := newLive(t, format)
	h := &history{
		live: p, rand: rand.New(rand.NewPCG(seed, 1)),
		saved: map[string]string{}, gone: map[string]bool{}, most: map[string]int{}, remade: map[string]bool{}, came: map[string]*side{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("doveadm shows of ours:\n%s", strings.Join(p.ours.view(), "\n"))
			t.Logf("doveadm shows of theirs:\n%s", strings.Join(p.dove.view(), "\n"))
			t.Logf("DSYNCFS_DOVECOT_SEED=%d, %s:\n%s", seed, format, strings.Join(h.log, "\n"))
		}
	})
	for _, s := range []*server{p.here, p.there} {
		h.sides = append(h.sides, &side{viewer: newViewer(s), name: s.name})
	}
	return h
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func seed(t *testing.T) uint64 {
	s := uint64(number("DSYNCFS_DOVECOT_SEED", 1))
	t.Logf("DSYNCFS_DOVECOT_SEED=%d", s)
	return s
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// begin opens INBOX on both sides, once they have the same.
func (h *history) begin(sync func()) {
	h.t.Helper()
	h.sides[0].Do("CREATE Work")
	for i := range 4 {
		h.save(h.sides[0], []string{"INBOX", "Work"}[i%2], "")
	}
	h.check(sync, true)
	for _, s := range h.sides {
		s.watch = s.s.login()
		s.watch.Do("SELECT INBOX")
	}
}

// play makes the changes and calls sync every few, which has to make both sides equal.
func (h *history) play(ops int, sync func()) {
	h.t.Helper()
	for i, round := 0, 0; i < ops && !h.t.Failed(); round++ {
		for n := 1 + h.rand.IntN(6); n > 0 && i < ops; n-- {
			h.one()
			i++
		}
		h.check(sync, round%20 == 19 || i == ops)
	}
}

// searches are made in turn.
var searches = []string{"ALL", "UNSEEN", "KEYWORD $Forwarded", "DELETED", "SINCE 10-Jan-2026", "SUBJECT dove", "UNKEYWORD Work FLAGGED", "BODY ours", "LARGER 300"}

// renumbered is what a stock Maildir says when a mail gets another UID.
const renumbered = "Duplicate file entry"

// check syncs and has clients of both sides look at everything.
func (h *history) check(sync func(), again bool) {
	h.t.Helper()
	h.note("sync")
	for _, s := range h.sides {
		if s.watch != nil {
			s.watch.Idle()
		}
	}
	sync()
	for _, s := range h.sides {
		s.remade, s.s.allowed = h.remade, nil
		if len(h.remade) > 0 {
			s.s.allowed = append(s.s.allowed, ": UIDVALIDITY changed (")
		}
		if s.s == h.there {
			s.s.allowed = append(s.s.allowed, renumbered)
		}
	}
	search := searches[h.rand.IntN(len(searches))]
	var looks [][]string
	for _, s := range h.sides {
		if s.watch != nil {
			s.watch.Done()
		}
		looks = append(looks, s.look(search, again))
		s.stayed(looks[len(looks)-1])
	}
	alike(h.t, looks[0], looks[1])
	h.nothingLost(looks[0])
	h.here.content()
	h.there.content()
	h.remade, h.came, h.renamed = map[string]bool{}, map[string]*side{}, false
}

// stayed fails the test unless the client that has INBOX open sees what one sees who opens it now.
func (s *side) stayed(look []string) {
	s.t.Helper()
	if s.watch == nil {
		return
	}
	s.watch.Do("NOOP")
	now, _ := rows(s.watch, "INBOX")
	if len(now) != s.watch.Exists {
		s.t.Errorf("%s: the client with INBOX open was told of %d mails, and fetches %d", s.name, s.watch.Exists, len(now))
	}
	var fresh []string
	for _, line := range look {
		if line, _, _ = strings.Cut(line, " body "); strings.HasPrefix(line, "FETCH INBOX ") {
			fresh = append(fresh, line)
		}
	}
	if !slices.Equal(now, fresh) {
		s.t.Errorf("%s: the client with INBOX open sees\n%s\na new one\n%s", s.name, strings.Join(now, "\n"), strings.Join(fresh, "\n"))
	}
}

// nothingLost fails the test if a mail is missing that no user expunged, or there is one more than users made.
func (h *history) nothingLost(look []string) {
	h.t.Helper()
	text := strings.Join(look, "\n")
	for name, hash := range h.saved {
		n := strings.Count(text, " body "+hash)
		if n == 0 && !h.gone[name] {
			h.t.Errorf("mail %q (%s) is lost", name, hash)
		}
		if n > h.most[name] {
			h.t.Errorf("mail %q (%s) is there %d times, and users made %d", name, hash, n, h.most[name])
		}
	}
}

// one makes one change.
func (h *history) one() {
	s := h.sides[h.rand.IntN(2)]
	boxes := s.boxes()
	box := boxes[h.rand.IntN(len(boxes))]
	switch k := h.rand.IntN(100); {
	case k < 25:
		h.save(s, box, h.flags())
	case k < 33:
		h.deliver(s, box)
	case k < 38: // the same UIDs for different mails
		h.save(h.sides[0], "INBOX", "")
		h.save(h.sides[1], "INBOX", h.flags())
	case k < 75:
		h.withMail(s, box, boxes)
	default:
		h.changeTree(s, box, boxes)
	}
}

// newMail makes up a mail that is like no other.
func (h *history) newMail(s *side) (string, harness.Mail) {
	name := fmt.Sprintf("%s %d", s.name, len(h.saved)+1)
	mail := note(name)
	mail.Text = append(mail.Text, strings.Repeat("more of it\n", h.rand.IntN(40))...)
	mail.Date = mail.Date.Add(time.Duration(h.rand.IntN(20*24*3600)) * time.Second)
	h.saved[name] = hashOf([]byte(strings.ReplaceAll(string(mail.Text), "\n", "\r\n")))
	h.most[name] = 1
	return name, mail
}

func (h *history) save(s *side, box, flags string) {
	h.t.Helper()
	name, mail := h.newMail(s)
	status := s.Append(box, flags, mail)
	h.note("%s: append %q to %s (%s): %s", s.name, name, box, flags, status)
	if !strings.HasPrefix(status, "OK") {
		delete(h.saved, name) // another session deleted the mailbox
	}
}

// deliver puts a mail into a Maildir as a delivery agent does.
func (h *history) deliver(s *side, box string) {
	h.t.Helper()
	if s.s.format != "maildir" {
		h.save(s, box, "")
		return
	}
	name, mail := h.newMail(s)
	h.note("%s: deliver %q to %s", s.name, name, box)
	base := fmt.Sprintf("%d.M%dP1.%s", mail.Date.Unix(), len(h.saved), s.name)
	path := s.s.maildir().Deliver(h.t, box, base, "", mail)
	if os.Getuid() == 0 {
		must(h.t, os.Chown(path, int(nobody(h.t)), -1))
	}
}

// flags are one to three, never more keywords than a Maildir can hold.
func (h *history) flags() string {
	all := []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, `\Deleted`, "$Forwarded", "Work", "nonjunk", "Kw" + strconv.Itoa(h.rand.IntN(8))}
	h.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:1+h.rand.IntN(3)], " ")
}

// message is one that a user can choose.
type message struct{ uid, name string }

// open selects a mailbox and returns what is in it.
func (s *side) open(box string) (mails []message) {
	s.t.Helper()
	s.Do("SELECT %s", s.Quote(box))
	if s.Exists == 0 {
		return nil
	}
	for _, r := range s.Do("FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		if m := r.List(2); r.Word(1) == "FETCH" {
			subject := strings.TrimPrefix(m.Get("BODY[HEADER.FIELDS (SUBJECT)]"), "Subject: ")
			mails = append(mails, message{m.Get("UID"), strings.TrimSpace(subject)})
		}
	}
	return mails
}

// withMail does something to mails that are there.
func (h *history) withMail(s *side, box string, boxes []string) {
	h.t.Helper()
	mails := s.open(box)
	defer s.Do("UNSELECT")
	if len(mails) == 0 {
		return
	}
	m := mails[h.rand.IntN(len(mails))]
	switch k := h.rand.IntN(100); {
	case k < 40:
		h.store(s, box, m)
	case k < 50: // the other side as well
		h.store(s, box, m)
		other := h.sides[0]
		if s == other {
			other = h.sides[1]
		}
		if !slices.Contains(other.boxes(), box) {
			return
		}
		if i := slices.Index(other.open(box), m); i >= 0 {
			h.store(other, box, m)
		}
		other.Do("UNSELECT")
	case k < 75:
		h.note("%s: expunge %s %s %q", s.name, box, m.uid, m.name)
		h.gone[m.name] = true
		s.Do(`UID STORE %s +FLAGS.SILENT (\Deleted)`, m.uid)
		s.Do("UID EXPUNGE %s", m.uid)
	default:
		to := boxes[h.rand.IntN(len(boxes))]
		command := []string{"COPY", "MOVE"}[h.rand.IntN(2)]
		if to == box {
			command = "COPY"
		}
		_, status := s.Try("UID %s %s %s", command, m.uid, s.Quote(to))
		h.note("%s: %s %s %s %q to %s: %s", s.name, command, box, m.uid, m.name, to, status)
		h.most[m.name]++
		if command == "MOVE" {
			h.gone[m.name] = true // the other side may expunge the one, we the other
		}
	}
}

func (h *history) store(s *side, box string, m message) {
	op, flags := []string{"+FLAGS", "-FLAGS", "FLAGS"}[h.rand.IntN(3)], h.flags()
	h.note("%s: %s (%s) of %s %s %q", s.name, op, flags, box, m.uid, m.name)
	s.Do("UID STORE %s %s (%s)", m.uid, op, flags)
}

// names are what mailboxes get called.
var names = []string{"A", "A/B", "A/B/C", "D", "Entwürfe", "D/日本語", "R&D", "Work"}

// changeTree changes mailboxes or subscriptions.
func (h *history) changeTree(s *side, box string, boxes []string) {
	h.t.Helper()
	name := names[h.rand.IntN(len(names))]
	try := func(s *side, format string, args ...any) bool {
		h.t.Helper()
		_, status := s.Try(format, args...)
		h.note("%s: %s: %s", s.name, fmt.Sprintf(format, args...), status)
		return strings.HasPrefix(status, "OK")
	}
	switch k := h.rand.IntN(100); {
	case k < 35:
		if try(s, "CREATE %s", s.Quote(name)) {
			h.make(s, name)
		}
	case k < 42: // on both sides, with a mail of its own on each
		for _, s := range h.sides {
			try(s, "CREATE %s", s.Quote(name))
			h.save(s, name, "")
			h.remade[name] = true
		}
	case k < 57 && box != "INBOX":
		if try(s, "RENAME %s %s", s.Quote(box), s.Quote(name)) {
			for _, b := range boxes {
				if b == box || strings.HasPrefix(b, box+"/") {
					h.make(s, name+b[len(box):])
				}
			}
		}
		h.renamed = true
	case k < 67 && box != "INBOX":
		h.delete(s, box)
	case k < 75 && box != "INBOX":
		h.delete(s, box)
		try(s, "CREATE %s", s.Quote(box))
		h.save(s, box, h.flags())
		h.remade[box] = true // the name counts, so that the mails of both stay
	case k < 90:
		try(s, "SUBSCRIBE %s", s.Quote(box))
	default:
		try(s, "UNSUBSCRIBE %s", s.Quote(box))
	}
}

// make notes that there is a mailbox of a name now. If the other side made one too, one of them gives way.
func (h *history) make(s *side, name string) {
	if other, too := h.came[name]; too && other != s {
		h.remade[name] = true
	}
	h.came[name] = s
}

func (h *history) delete(s *side, box string) {
	h.t.Helper()
	for _, m := range s.open(box) {
		h.gone[m.name] = true
	}
	s.Do("UNSELECT")
	_, status := s.Try("DELETE %s", s.Quote(box))
	h.remade[box] = true // it comes back if it got mail on the other side
	h.note("%s: delete %s: %s", s.name, box, status)
}

// asMaster has dsyncfs start a sync.
func (h *history) asMaster() {
	h.t.Helper()
	// The last common state that we told may be older than a mailbox that was made anew in a sync of the other role.
	h.dove.allowed = []string{renumbered, "no longer in transaction log"}
	if r := h.pair.run("mirror").Want(0); h.dove.complains(r.Stderr) {
		h.t.Errorf("mirror: %s", r.Stderr)
	}
}

// asSlave has the Dovecot start one. Exit status 2 asks for another run.
func (h *history) asSlave() {
	h.t.Helper()
	h.dove.allowed = []string{renumbered, "Warning: Mailbox changes caused a desync"}
	for range 4 {
		r := h.sync("sync")
		if r.status != 0 && r.status != 2 || h.dove.complains(r.stderr) {
			h.t.Fatalf("doveadm sync: exit status %d: %s", r.status, r.stderr)
		}
		if r.status == 0 && !h.renamed {
			return
		}
		h.note("sync again")
		h.renamed = false
	}
	h.t.Error("exit status 2 again and again")
}

// anyRole has either start one.
func (h *history) anyRole() {
	h.t.Helper()
	if h.rand.IntN(2) == 0 {
		h.note("the Dovecot starts it")
		h.asSlave()
		return
	}
	h.asMaster()
}

// run plays a history in a store of some format, which the seed chooses unless the environment does.
func runHistory(t *testing.T, format string, sync func(*history)) {
	t.Parallel()
	if f := os.Getenv("DSYNCFS_DOVECOT_FORMAT"); f != "" {
		format = f
	}
	h := newHistory(t, format, seed(t))
	h.begin(func() { sync(h) })
	h.play(number("DSYNCFS_DOVECOT_OPS", 300), func() { sync(h) })
}

func TestHistoryAsMaster(t *testing.T)    { runHistory(t, "mdbox", (*history).asMaster) }
func TestHistoryAsSlave(t *testing.T)     { runHistory(t, "sdbox", (*history).asSlave) }
func TestHistoryInBothRoles(t *testing.T) { runHistory(t, "maildir", (*history).anyRole) }
