package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/memstore"
)

// runModel does random things to the adapter and to a memstore, with refreshes and reopenings between, and compares what
// they then say of themselves. Names of files differ between the two, so mails are told apart by the numbers in their bodies.
func runModel(t *testing.T, factory func(t *testing.T) *Fixture) {
	rapid.Check(t, func(r *rapid.T) {
		m := &model{t: t, live: map[int]*liveMail{}}
		for i, f := range []*Fixture{factory(t), memoryFixture()} {
			m.sides[i] = &side{Fixture: f, store: f.Store, bases: map[int]string{}, since: map[mail.Name]mail.ModSeq{}}
		}
		defer m.close(r)
		m.refresh(r)
		r.Repeat(map[string]func(*rapid.T){
			"deliver":  m.deliver,
			"setFlags": m.setFlags,
			"remove":   m.remove,
			"move":     m.move,
			"create":   m.create,
			"rename":   m.rename,
			"delete":   m.delete,
			"save":     m.save,
			"change":   m.change,
			"expunge":  m.expunge,
			"reopen":   m.reopen,
			"refresh":  m.refresh,
		})
		m.refresh(r)
	})
}

// memoryFixture is an account in memory.
func memoryFixture() *Fixture {
	now := time.Unix(base, 0)
	a := memstore.NewAccount("model", func() time.Time {
		now = now.Add(time.Second)
		return now
	})
	return &Fixture{Store: a.Open(), Reopen: func(*testing.T) store.Store { return a.Open() }, Outside: Memory{a}}
}

// Memory is the [Outside] of a memstore.
type Memory struct{ Account *memstore.Account }

// Deliver implements [Outside].
func (o Memory) Deliver(t *testing.T, mailbox mail.Name, body string, received int64) string {
	file, err := o.Account.Deliver(mailbox, []byte(body), time.Unix(received, 0))
	must(t, err)
	return file
}

// SetFlags implements [Outside].
func (o Memory) SetFlags(t *testing.T, mailbox mail.Name, base string, flags mail.Flags) {
	must(t, o.Account.SetFlags(mailbox, base, mail.Delta{Add: flags, Remove: mail.AllFlags &^ flags}))
}

// Remove implements [Outside].
func (o Memory) Remove(t *testing.T, mailbox mail.Name, base string) {
	must(t, o.Account.Vanish(mailbox, base))
}

// Move implements [Outside].
func (o Memory) Move(t *testing.T, from mail.Name, base string, to mail.Name) {
	must(t, o.Account.Move(from, base, to))
}

// CreateMailbox implements [Outside].
func (o Memory) CreateMailbox(t *testing.T, name mail.Name) { must(t, o.Account.CreateMailbox(name)) }

// RenameMailbox implements [Outside].
func (o Memory) RenameMailbox(t *testing.T, from, to mail.Name) {
	must(t, o.Account.RenameMailbox(from, to))
}

// DeleteMailbox implements [Outside].
func (o Memory) DeleteMailbox(t *testing.T, name mail.Name) { must(t, o.Account.LoseMailbox(name)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// side is one of the two stores that are compared.
type side struct {
	*Fixture
	store store.Store
	bases map[int]string // of delivered mails, by number
	since map[mail.Name]mail.ModSeq
}

// liveMail is a mail that was delivered and is still there.
type liveMail struct{ mailbox mail.Name }

type model struct {
	t      *testing.T // of the hooks
	sides  [2]*side
	live   map[int]*liveMail
	boxes  []mail.Name // but INBOX
	number int         // of the last mail
	guids  byte        // drawn so far
}

func (m *model) close(r *rapid.T) {
	for _, s := range m.sides {
		m.check(r, s.store.Close())
	}
}

func (m *model) check(r *rapid.T, err error) {
	if err != nil {
		r.Fatal(err)
	}
}

func (m *model) anyBox(r *rapid.T) mail.Name {
	return rapid.SampledFrom(append([]mail.Name{mail.Inbox}, m.boxes...)).Draw(r, "mailbox")
}

func anyFlags(r *rapid.T) mail.Flags {
	return mail.Flags(rapid.ByteMax(byte(mail.AllFlags)).Draw(r, "flags"))
}

// anyLive draws a delivered mail.
func (m *model) anyLive(r *rapid.T) int {
	if len(m.live) == 0 {
		r.Skip("no mail")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.live))).Draw(r, "mail")
}

func numbered(n int) string { return fmt.Sprintf("Subject: mail\n\nnumber %d\n", n) }

func (m *model) deliver(r *rapid.T) {
	name := m.anyBox(r)
	m.number++
	m.live[m.number] = &liveMail{mailbox: name}
	for _, s := range m.sides {
		s.bases[m.number] = s.Outside.Deliver(m.t, name, numbered(m.number), base+int64(m.number))
	}
}

func (m *model) setFlags(r *rapid.T) {
	n := m.anyLive(r)
	flags := anyFlags(r)
	for _, s := range m.sides {
		s.Outside.SetFlags(m.t, m.live[n].mailbox, s.bases[n], flags)
	}
}

func (m *model) remove(r *rapid.T) {
	n := m.anyLive(r)
	for _, s := range m.sides {
		s.Outside.Remove(m.t, m.live[n].mailbox, s.bases[n])
	}
	delete(m.live, n)
}

func (m *model) move(r *rapid.T) {
	m.refresh(r) // the order of new UIDs is that of file names, in which the sides differ
	n, to := m.anyLive(r), m.anyBox(r)
	if m.live[n].mailbox == to {
		r.Skip("moved to where it is")
	}
	for _, s := range m.sides {
		s.Outside.Move(m.t, m.live[n].mailbox, s.bases[n], to)
	}
	m.live[n].mailbox = to
	m.refresh(r)
}

func (m *model) create(r *rapid.T) {
	m.refresh(r)
	name := rapid.SampledFrom([]mail.Name{"a", "b", "a/x", "a/x/y", "ä"}).Draw(r, "name")
	m.guids++
	guid := mail.MailboxGUID{0xcc, m.guids, 15: 1}
	m.both(r, "create", func(s *side) error {
		return s.store.Create(r.Context(), name, guid, mail.UIDValidity(1000+int(m.guids)))
	})
	m.listBoxes(r)
}

// both does one thing to both sides, which must agree on whether it can be done. It returns whether it was.
func (m *model) both(r *rapid.T, what string, f func(*side) error) bool {
	errs := [2]error{f(m.sides[0]), f(m.sides[1])}
	for _, kind := range []error{store.ErrExists, store.ErrNotFound, store.ErrName} {
		if errors.Is(errs[0], kind) != errors.Is(errs[1], kind) {
			r.Fatalf("%s: %v, want %v", what, errs[0], errs[1])
		}
	}
	if (errs[0] == nil) != (errs[1] == nil) {
		r.Fatalf("%s: %v, want %v", what, errs[0], errs[1])
	}
	return errs[1] == nil
}

// listBoxes learns which mailboxes there are.
func (m *model) listBoxes(r *rapid.T) {
	m.boxes = nil
	for _, n := range m.mailboxes(r, m.sides[1]) {
		if n.Name != mail.Inbox {
			m.boxes = append(m.boxes, n.Name)
		}
	}
}

func (m *model) mailboxes(r *rapid.T, s *side) (out []mail.Mailbox) {
	nodes, _, err := s.store.Tree(r.Context())
	m.check(r, err)
	for _, n := range nodes {
		if !n.Status.GUID.IsZero() && n.Existence == mail.Exists {
			out = append(out, n)
		}
	}
	return out
}

// inTree reports whether either side knows the name. Stores differ in whether the parent of a mailbox stays without it.
func (m *model) inTree(r *rapid.T, name mail.Name) bool {
	for _, s := range m.sides {
		nodes, _, err := s.store.Tree(r.Context())
		m.check(r, err)
		if slices.ContainsFunc(nodes, func(n mail.Mailbox) bool { return n.Name == name }) {
			return true
		}
	}
	return false
}

func (m *model) guid(r *rapid.T, s *side, name mail.Name) mail.MailboxGUID {
	for _, n := range m.mailboxes(r, s) {
		if n.Name == name {
			return n.Status.GUID
		}
	}
	r.Fatalf("mailbox %q is gone", name)
	return mail.MailboxGUID{}
}

func (m *model) anyCreated(r *rapid.T) mail.Name {
	if len(m.boxes) == 0 {
		r.Skip("no mailbox")
	}
	return rapid.SampledFrom(m.boxes).Draw(r, "created")
}

func (m *model) rename(r *rapid.T) {
	m.refresh(r)
	from := m.anyCreated(r)
	to := rapid.SampledFrom([]mail.Name{"r", "r/s", "b/t"}).Draw(r, "to")
	if m.inTree(r, to) || to.IsBelow(from) {
		r.Skip("the target is taken, if only as a level of hierarchy")
	}
	if !m.both(r, "rename", func(s *side) error { return s.store.Rename(r.Context(), from, to, 0) }) {
		return
	}
	for _, l := range m.live {
		l.mailbox, _ = l.mailbox.Moved(from, to)
	}
	for _, s := range m.sides {
		clear(s.since)
	}
	m.listBoxes(r)
	m.refresh(r)
}

func (m *model) delete(r *rapid.T) {
	m.refresh(r)
	name := m.anyCreated(r)
	if !m.both(r, "delete", func(s *side) error { return s.store.Delete(r.Context(), m.guid(r, s, name)) }) {
		return
	}
	maps.DeleteFunc(m.live, func(_ int, l *liveMail) bool { return l.mailbox == name })
	m.listBoxes(r)
	m.refresh(r)
}

// apply applies to both sides a batch that is made for each.
func (m *model) apply(r *rapid.T, name mail.Name, batch func(s *side, box store.Mailbox) store.Batch) {
	for _, s := range m.sides {
		box, err := s.store.Open(r.Context(), m.guid(r, s, name))
		m.check(r, err)
		res, err := box.Apply(r.Context(), batch(s, box))
		m.check(r, err)
		m.check(r, box.Close())
		if len(res.Vanished)+len(res.Reassigned) > 0 {
			r.Fatalf("result %+v", res)
		}
	}
	m.refresh(r)
}

var keywordSets = rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"$Junk", "Work", "ü", "x1", "x2"}), 0, 3), func(k []string) mail.Keywords {
	return mail.NewKeywords(k...)
})

func (m *model) save(r *rapid.T) {
	m.refresh(r)
	name, n := m.anyBox(r), rapid.IntRange(1, 3).Draw(r, "mails")
	gap, first := mail.UID(rapid.IntRange(0, 2).Draw(r, "gap")), m.number+1
	m.number += n
	flags, keywords := anyFlags(r), keywordSets.Draw(r, "keywords")
	m.apply(r, name, func(_ *side, box store.Mailbox) store.Batch {
		b := store.Batch{Origin: "peer"}
		for i := range n {
			msg := mail.Message{
				UID: box.Status().UIDNext + gap + mail.UID(i), GUID: guidOf(mail.UID(first + i)),
				Flags: flags, Keywords: keywords, Received: base - int64(i),
			}
			staged, err := box.Stage(r.Context(), msg, strings.NewReader(numbered(first+i)))
			m.check(r, err)
			b.Adds = append(b.Adds, store.Add{Message: msg, Staged: staged})
		}
		return b
	})
}

// anyUID draws a message of a mailbox; both sides have the same UIDs.
func (m *model) anyUID(r *rapid.T, name mail.Name) mail.UID {
	view := m.look(r, m.sides[1], name)
	if len(view.messages) == 0 {
		r.Skip("no message")
	}
	return rapid.SampledFrom(view.messages).Draw(r, "message").UID
}

func (m *model) change(r *rapid.T) {
	m.refresh(r)
	name := m.anyBox(r)
	uid := m.anyUID(r, name)
	d := mail.Delta{Add: anyFlags(r), AddKeywords: keywordSets.Draw(r, "add")}
	d.Remove = anyFlags(r) &^ d.Add
	d.RemoveKeywords = keywordSets.Draw(r, "remove").Minus(d.AddKeywords)
	m.apply(r, name, func(*side, store.Mailbox) store.Batch {
		return store.Batch{Origin: "peer", Deltas: []store.FlagChange{{UID: uid, Delta: d}}}
	})
}

func (m *model) expunge(r *rapid.T) {
	m.refresh(r)
	name := m.anyBox(r)
	uid := m.anyUID(r, name)
	for _, seen := range m.look(r, m.sides[1], name).messages {
		if seen.UID == uid {
			delete(m.live, seen.number)
		}
	}
	m.apply(r, name, func(_ *side, box store.Mailbox) store.Batch {
		b := store.Batch{Origin: "peer"}
		for msg, err := range box.Messages(uid - 1) {
			m.check(r, err)
			b.Expunges = []store.Expunge{{UID: uid, GUID: msg.GUID}}
			break
		}
		return b
	})
}

func (m *model) reopen(r *rapid.T) {
	for _, s := range m.sides {
		m.check(r, s.store.Close())
		s.store = s.Reopen(m.t)
	}
	m.refresh(r)
}

// refresh lets both sides notice what happened and compares everything.
func (m *model) refresh(r *rapid.T) {
	var reports [2]store.Report
	for i, s := range m.sides {
		report, err := s.store.Refresh(r.Context(), store.RefreshOptions{})
		m.check(r, err)
		reports[i] = report
	}
	got, want := reports[0], reports[1]
	if got.Added != want.Added || got.Flags != want.Flags || got.Expunged != want.Expunged || !slices.Equal(got.Changed, want.Changed) {
		r.Fatalf("report %+v, want %+v", got, want)
	}
	boxes, wantBoxes := names(m.mailboxes(r, m.sides[0])), names(m.mailboxes(r, m.sides[1]))
	if !slices.Equal(boxes, wantBoxes) {
		r.Fatalf("mailboxes %q, want %q", boxes, wantBoxes)
	}
	for _, name := range boxes {
		got, want := m.look(r, m.sides[0], name), m.look(r, m.sides[1], name)
		if got.String() != want.String() {
			r.Fatalf("mailbox %q is\n%v\nwant\n%v", name, got, want)
		}
	}
	for _, s := range m.sides {
		clear(s.since)
		for _, n := range m.mailboxes(r, s) {
			s.since[n.Name] = n.Status.HighestModSeq
		}
	}
}

func names(boxes []mail.Mailbox) (out []mail.Name) {
	for _, b := range boxes {
		out = append(out, b.Name)
	}
	return out
}

// viewOf is what both sides must agree on in a mailbox.
type viewOf struct {
	next     mail.UID
	messages []seenMessage
	changes  []string // since the last comparison
}

type seenMessage struct {
	mail.Message
	number int // in the body
}

func (v viewOf) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "UIDNEXT %d\n", v.next)
	for _, m := range v.messages {
		fmt.Fprintf(&b, "UID %d: mail %d, %v %q, received %d, size %d\n", m.UID, m.number, m.Flags, []string(m.Keywords), m.Received, m.Size)
	}
	return b.String() + strings.Join(v.changes, "\n")
}

func (m *model) look(r *rapid.T, s *side, name mail.Name) (v viewOf) {
	ctx := r.Context()
	box, err := s.store.Open(ctx, m.guid(r, s, name))
	m.check(r, err)
	v.next = box.Status().UIDNext
	for msg, err := range box.Messages(0) {
		m.check(r, err)
		v.messages = append(v.messages, seenMessage{msg, m.numberOf(r, ctx, box, msg.UID)})
	}
	if since, known := s.since[name]; known {
		changes, ok := box.Changes(since, "")
		if !ok {
			r.Fatalf("the log of %q does not reach back to %d", name, since)
		}
		for c, err := range changes {
			m.check(r, err)
			v.changes = append(v.changes, fmt.Sprintf("change of %d: expunged %v, delta %v", c.UID, c.Expunged, c.Delta))
		}
	}
	m.check(r, box.Close())
	return v
}

func (m *model) numberOf(r *rapid.T, ctx context.Context, box store.Mailbox, uid mail.UID) (n int) {
	b, err := box.Body(ctx, uid)
	m.check(r, err)
	defer b.Close()
	content, err := io.ReadAll(b)
	m.check(r, err)
	_, number, _ := strings.Cut(string(content), "number ")
	if _, err := fmt.Sscan(number, &n); err != nil || string(content) != numbered(n) {
		r.Fatalf("UID %d of %q has the bytes %q", uid, box.Name(), content)
	}
	return n
}
