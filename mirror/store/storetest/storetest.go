// Package storetest holds the conformance suite of stores: [Run] checks an adapter against every sentence of the comments of
// [store.Store] and [store.Mailbox]. An adapter passes it with a factory that makes a [Fixture].
//
// A bug found in one adapter becomes a case here. The suite knows no format: what other programs do to a place behind the
// store's back is done by the fixture's [Outside].
package storetest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Fixture is one account, empty but for an INBOX without mail, in a place of its own. The suite closes the store.
type Fixture struct {
	Store store.Store
	// Reopen makes a new store over the same place and memory, after the suite closed the last one.
	Reopen  func(t *testing.T) store.Store
	Outside Outside

	// FillDisk makes writing fail for lack of space until the function it returns is called. Nil: not tested.
	FillDisk func(t *testing.T) (free func())
	// Unreadable makes the listing of a mailbox fail until the function it returns is called. Nil: not tested.
	Unreadable func(t *testing.T, mailbox mail.Name) (restore func())
	// LoseMemory is Reopen after the catalog was lost. Nil: not tested.
	LoseMemory func(t *testing.T) store.Store
}

// Outside does what other programs do to the place, without telling the store. A mail is named by the base of its file name:
// what [store.RefreshOptions.Witness] is asked about. Methods fail the test if they cannot.
type Outside interface {
	// Deliver adds a mail as a delivery agent does and returns its base name. The INTERNALDATE is received, in seconds. Base
	// names ascend by [mail.CompareDelivery] in the order of the calls.
	Deliver(t *testing.T, mailbox mail.Name, body string, received int64) (base string)
	// SetFlags changes the system flags of a mail as a reader does.
	SetFlags(t *testing.T, mailbox mail.Name, base string, flags mail.Flags)
	// Remove deletes a mail.
	Remove(t *testing.T, mailbox mail.Name, base string)
	// Move moves a mail to another mailbox under its base name.
	Move(t *testing.T, from mail.Name, base string, to mail.Name)
	CreateMailbox(t *testing.T, name mail.Name)
	// RenameMailbox moves one mailbox that has no children.
	RenameMailbox(t *testing.T, from, to mail.Name)
	DeleteMailbox(t *testing.T, name mail.Name)
}

// Run checks the adapter whose fixtures the factory makes.
func Run(t *testing.T, factory func(t *testing.T) *Fixture) {
	for _, group := range []map[string]func(*testing.T, *suite){
		refreshCases, guardCases, treeCases, mailboxCases, applyCases, identityCases, findCases, stateCases,
	} {
		for _, name := range slices.Sorted(maps.Keys(group)) {
			t.Run(name, func(t *testing.T) {
				f := factory(t)
				s := &suite{Fixture: f, store: f.Store}
				t.Cleanup(func() {
					if err := s.store.Close(); err != nil {
						t.Errorf("close store: %v", err)
					}
				})
				s.refresh(t)
				group[name](t, s)
				checkTree(t, s)
			})
		}
	}
	t.Run("Model", func(t *testing.T) { runModel(t, factory) })
}

// suite is one fixture in use.
type suite struct {
	*Fixture
	store store.Store
}

// base is a date that every format can hold.
const base = int64(1_100_000_000)

// names that more than one case uses.
const (
	work = mail.Name("work")
	play = mail.Name("play")
)

var (
	guidA = mail.MailboxGUID{0xaa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	guidB = mail.MailboxGUID{0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
)

func (s *suite) reopen(t *testing.T) {
	t.Helper()
	s.closeStore(t)
	s.store = s.Reopen(t)
}

func (s *suite) closeStore(t *testing.T) {
	t.Helper()
	if err := s.store.Close(); err != nil {
		t.Fatalf("close store: %v", err)
	}
}

// refresh looks at everything and must succeed.
func (s *suite) refresh(t *testing.T) store.Report {
	t.Helper()
	return s.refreshWith(t, store.RefreshOptions{})
}

func (s *suite) refreshWith(t *testing.T, o store.RefreshOptions) store.Report {
	t.Helper()
	r, err := s.store.Refresh(t.Context(), o)
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if !slices.IsSorted(r.Changed) {
		t.Errorf("changed mailboxes %q are not in byte order", r.Changed)
	}
	return r
}

// quiet checks that a refresh finds nothing.
func (s *suite) quiet(t *testing.T) {
	t.Helper()
	if r := s.refresh(t); r.Added+r.Flags+r.Expunged+len(r.Changed) > 0 {
		t.Errorf("a refresh after nothing happened found %+v", r)
	}
}

// tree returns the nodes by name and the deletions.
func (s *suite) tree(t *testing.T) (map[mail.Name]mail.Mailbox, []mail.Deletion) {
	t.Helper()
	nodes, deletions, err := s.store.Tree(t.Context())
	if err != nil {
		t.Fatalf("tree: %v", err)
	}
	byName := map[mail.Name]mail.Mailbox{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	return byName, deletions
}

// node returns the mailbox of that name, which must exist.
func (s *suite) node(t *testing.T, name mail.Name) mail.Mailbox {
	t.Helper()
	nodes, _ := s.tree(t)
	n, ok := nodes[name]
	if !ok || n.Existence != mail.Exists || n.Status.GUID.IsZero() {
		t.Fatalf("mailbox %q is not in the tree: %+v", name, n)
	}
	return n
}

func (s *suite) open(t *testing.T, name mail.Name) store.Mailbox {
	t.Helper()
	m, err := s.store.Open(t.Context(), s.node(t, name).Status.GUID)
	if err != nil {
		t.Fatalf("open %q: %v", name, err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func (s *suite) create(t *testing.T, name mail.Name, guid mail.MailboxGUID) {
	t.Helper()
	if err := s.store.Create(t.Context(), name, guid, 4711); err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
}

// messages lists a mailbox and checks what holds for every listing.
func (s *suite) messages(t *testing.T, name mail.Name) []mail.Message {
	t.Helper()
	m := s.open(t, name)
	defer closeMailbox(t, m)
	return list(t, m)
}

func closeMailbox(t *testing.T, m store.Mailbox) {
	t.Helper()
	if err := m.Close(); err != nil {
		t.Errorf("close mailbox %q: %v", m.Name(), err)
	}
}

func list(t *testing.T, m store.Mailbox) []mail.Message {
	t.Helper()
	var out []mail.Message
	st := m.Status()
	for msg, err := range m.Messages(0) {
		if err != nil {
			t.Fatalf("messages of %q: %v", m.Name(), err)
		}
		if n := len(out); n > 0 && out[n-1].UID >= msg.UID {
			t.Errorf("%q: UID %d comes after UID %d", m.Name(), msg.UID, out[n-1].UID)
		}
		if msg.UID == 0 || msg.UID >= st.UIDNext {
			t.Errorf("%q: UID %d with UIDNEXT %d", m.Name(), msg.UID, st.UIDNext)
		}
		if msg.ModSeq == 0 || msg.ModSeq > st.HighestModSeq {
			t.Errorf("%q: UID %d has modseq %d with HIGHESTMODSEQ %d", m.Name(), msg.UID, msg.ModSeq, st.HighestModSeq)
		}
		if msg.GUID == "" {
			t.Errorf("%q: UID %d has no GUID", m.Name(), msg.UID)
		}
		out = append(out, msg)
	}
	if int(st.Messages) != len(out) {
		t.Errorf("%q: the status says %d messages, there are %d", m.Name(), st.Messages, len(out))
	}
	return out
}

// message returns the message of that UID.
func (s *suite) message(t *testing.T, name mail.Name, uid mail.UID) mail.Message {
	t.Helper()
	all := s.messages(t, name)
	i := slices.IndexFunc(all, func(m mail.Message) bool { return m.UID == uid })
	if i < 0 {
		t.Fatalf("%q: UID %d is not there, but %v", name, uid, uids(all))
	}
	return all[i]
}

func uids(all []mail.Message) []mail.UID {
	out := make([]mail.UID, len(all))
	for i, m := range all {
		out[i] = m.UID
	}
	return out
}

// deliver delivers a mail behind the store's back, lets it be noticed, and returns it with its base name.
func (s *suite) deliver(t *testing.T, name mail.Name, text string) (mail.Message, string) {
	t.Helper()
	next := s.node(t, name).Status.UIDNext
	file := s.Outside.Deliver(t, name, bodyOf(text), base)
	s.refresh(t)
	return s.message(t, name, next), file
}

// bodyOf makes a mail of several lines that ends in text.
func bodyOf(text string) string {
	return "From: a@example.org\nSubject: " + text + "\n\n" + text + "\n"
}

// content reads a message through the store.
func (s *suite) content(t *testing.T, name mail.Name, uid mail.UID) string {
	t.Helper()
	m := s.open(t, name)
	defer closeMailbox(t, m)
	return readBody(t, m, uid)
}

func readBody(t *testing.T, m store.Mailbox, uid mail.UID) string {
	t.Helper()
	b, err := m.Body(t.Context(), uid)
	if err != nil {
		t.Fatalf("body of %d in %q: %v", uid, m.Name(), err)
	}
	defer b.Close()
	content, err := io.ReadAll(b)
	if err != nil {
		t.Fatalf("read %d in %q: %v", uid, m.Name(), err)
	}
	if b.Size() != int64(len(content)) {
		t.Errorf("%q: UID %d: Size is %d, but %d bytes came", m.Name(), uid, b.Size(), len(content))
	}
	return string(content)
}

// apply applies a batch to a mailbox opened for it.
func (s *suite) apply(t *testing.T, name mail.Name, b store.Batch) store.Result {
	t.Helper()
	m := s.open(t, name)
	defer closeMailbox(t, m)
	return applyTo(t, m, b)
}

func applyTo(t *testing.T, m store.Mailbox, b store.Batch) store.Result {
	t.Helper()
	r, err := m.Apply(t.Context(), b)
	if err != nil {
		t.Fatalf("apply to %q: %v", m.Name(), err)
	}
	return r
}

func stage(t *testing.T, m store.Mailbox, msg mail.Message, text string) store.Staged {
	t.Helper()
	staged, err := m.Stage(t.Context(), msg, strings.NewReader(bodyOf(text)))
	if err != nil {
		t.Fatalf("stage for %q: %v", m.Name(), err)
	}
	return staged
}

// save adds messages with a body of their own each. The body's text is "GUID uid".
func (s *suite) save(t *testing.T, name mail.Name, origin store.Origin, messages ...mail.Message) store.Result {
	t.Helper()
	m := s.open(t, name)
	defer closeMailbox(t, m)
	b := store.Batch{Origin: origin}
	for _, msg := range messages {
		b.Adds = append(b.Adds, store.Add{Message: msg, Staged: stage(t, m, msg, textOf(msg))})
	}
	return applyTo(t, m, b)
}

func textOf(m mail.Message) string { return fmt.Sprintf("%s %d", m.GUID, m.UID) }

// sample is a message as a peer would have us save it.
func sample(uid mail.UID) mail.Message {
	return mail.Message{UID: uid, GUID: guidOf(uid), Received: base + int64(uid), Saved: base + 1000}
}

// guidOf is a GUID that every store can keep.
func guidOf(uid mail.UID) mail.GUID { return mail.GUID(fmt.Sprintf("%032x", 0xabc0000+uint64(uid))) }

// changes gathers what Changes yields; ok says whether the log reaches back.
func (s *suite) changes(t *testing.T, name mail.Name, since mail.ModSeq, skip store.Origin) (out []store.Change, ok bool) {
	t.Helper()
	m := s.open(t, name)
	defer closeMailbox(t, m)
	seq, ok := m.Changes(since, skip)
	if !ok {
		return nil, false
	}
	for c, err := range seq {
		if err != nil {
			t.Fatalf("changes of %q: %v", name, err)
		}
		if n := len(out); n > 0 && out[n-1].UID >= c.UID {
			t.Errorf("%q: change of UID %d comes after one of UID %d", name, c.UID, out[n-1].UID)
		}
		out = append(out, c)
	}
	return out, true
}

// mustChanges is changes where the log has to reach back.
func (s *suite) mustChanges(t *testing.T, name mail.Name, since mail.ModSeq, skip store.Origin) []store.Change {
	t.Helper()
	out, ok := s.changes(t, name, since, skip)
	if !ok {
		t.Fatalf("the log of %q does not reach back to modseq %d", name, since)
	}
	return out
}

func (s *suite) highest(t *testing.T, name mail.Name) mail.ModSeq {
	t.Helper()
	return s.node(t, name).Status.HighestModSeq
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, want %v", what, err, want)
	}
}

// checkTree holds what is true of every tree and the mailboxes in it.
func checkTree(t *testing.T, s *suite) {
	t.Helper()
	nodes, deletions, err := s.store.Tree(t.Context())
	if err != nil {
		t.Errorf("tree: %v", err)
		return
	}
	seen := map[mail.MailboxGUID]mail.Name{}
	names := map[mail.Name]bool{"": true}
	for i, n := range nodes {
		if i > 0 && slices.Compare(nodes[i-1].Name.Parts(), n.Name.Parts()) >= 0 {
			t.Errorf("tree: %q comes after %q", n.Name, nodes[i-1].Name)
		}
		if !names[n.Name.Parent()] {
			t.Errorf("tree: %q comes before its parent", n.Name)
		}
		names[n.Name] = true
		if n.Status.GUID.IsZero() {
			continue
		}
		if other, twice := seen[n.Status.GUID]; twice {
			t.Errorf("tree: %q and %q have one GUID", n.Name, other)
		}
		seen[n.Status.GUID] = n.Name
		if n.Status.UIDValidity == 0 || n.Status.UIDNext == 0 || n.Status.HighestModSeq == 0 {
			t.Errorf("tree: %q has status %+v", n.Name, n.Status)
		}
		checkOpen(t, s, n)
	}
	for _, d := range deletions {
		if name, there := seen[mail.MailboxGUID(d.ID)]; d.Kind == mail.DeletedMailbox && there {
			t.Errorf("tree: %q is there and deleted", name)
		}
	}
	if !names[mail.Inbox] {
		t.Error("tree: there is no INBOX")
	}
	for _, d := range deletions {
		if name, there := seen[mail.MailboxGUID(d.ID)]; there && d.Kind == mail.DeletedMailbox {
			t.Errorf("tree: %q exists and is recorded as deleted", name)
		}
		if d.Time == 0 || d.ID.IsZero() {
			t.Errorf("tree: deletion %+v", d)
		}
	}
}

// checkOpen compares what the tree says of a mailbox with the mailbox.
func checkOpen(t *testing.T, s *suite, n mail.Mailbox) {
	t.Helper()
	m, err := s.store.Open(t.Context(), n.Status.GUID)
	if err != nil {
		t.Errorf("open %q: %v", n.Name, err)
		return
	}
	defer closeMailbox(t, m)
	if m.Name() != n.Name || m.Status() != n.Status {
		t.Errorf("the tree says %q %+v, the mailbox %q %+v", n.Name, n.Status, m.Name(), m.Status())
	}
	list(t, m)
}

// nearNow reports whether a time is one that a store could have noted during the test. Stores with a clock of their own
// only have to note something.
func nearNow(sec int64) bool { return sec > 0 && sec <= time.Now().Unix()+5 }
