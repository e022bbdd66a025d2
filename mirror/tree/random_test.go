package tree

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
)

// source yields the choices of a random tree: a number in [0, n).
type source func(n int) int

func rapidSource(t *rapid.T) source {
	return func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
}

func guid(n int) mail.MailboxGUID {
	return mail.MailboxGUID{0: byte(n), 15: 1}
}

// world makes two trees over few names and few GUIDs, so that everything collides with everything.
type world struct {
	pick  source
	guids int
	inbox bool
}

func (w world) tree(prefix mail.Name) ([]mail.Mailbox, []mail.Deletion) {
	free := make([]int, w.guids)
	for i := range free {
		free[i] = i + 1
	}
	var nodes []mail.Mailbox
	var grow func(parent mail.Name, depth int)
	grow = func(parent mail.Name, depth int) {
		parts := []string{"a", "b", "c", "d", "é"}
		if parent == "" && w.inbox {
			parts = append(parts, "INBOX")
		}
		for range 1 + w.pick(3) {
			i := w.pick(len(parts))
			name := parent.Child(parts[i])
			parts = slices.Delete(parts, i, i+1)
			nodes = append(nodes, w.node(name, &free))
			if depth < 4 && w.pick(2) == 0 {
				grow(name, depth+1)
			}
		}
	}
	grow(prefix, 1)
	return nodes, w.deletions(nodes, free)
}

func (w world) node(name mail.Name, free *[]int) mail.Mailbox {
	box := mail.Mailbox{Name: name, Renamed: int64(w.pick(10))}
	switch k := w.pick(8); {
	case k < 6 && len(*free) > 0:
		i := w.pick(len(*free))
		box.Existence = mail.Exists
		box.Status = mail.Status{GUID: guid((*free)[i]), UIDValidity: mail.UIDValidity(1 + w.pick(8)/7), UIDNext: mail.UID(1 + w.pick(8)/6)}
		*free = slices.Delete(*free, i, i+1)
	case k < 7:
		box.Existence = mail.Exists
	}
	if w.pick(3) == 0 {
		box.Subscribed, box.SubscriptionChanged = w.pick(2) == 0, int64(w.pick(10))
	}
	return box
}

// deletions returns records of what is not in nodes.
func (w world) deletions(nodes []mail.Mailbox, free []int) []mail.Deletion {
	var records []mail.Deletion
	for _, g := range free {
		if w.pick(4) == 0 {
			records = append(records, mail.Deletion{Kind: mail.DeletedMailbox, ID: mail.GUID128(guid(g)), Time: int64(w.pick(10))})
		}
	}
	for range w.pick(4) {
		name := mail.Name([]string{"a", "b", "c", "a/a", "a/b", "b/a", "c/a/b"}[w.pick(7)])
		kind := mail.DeletedDirectory
		if w.pick(2) == 0 {
			kind = mail.Unsubscribed
		}
		gone := func(box mail.Mailbox) bool {
			return box.Name == name && (box.Existence == mail.Exists || kind == mail.Unsubscribed && box.Subscribed)
		}
		if !slices.ContainsFunc(nodes, gone) {
			records = append(records, mail.Deletion{Kind: kind, ID: name.NameHash('/'), Time: int64(w.pick(10))})
		}
	}
	return records
}

func mustNew(t testing.TB, nodes []mail.Mailbox, deletions []mail.Deletion) *Tree {
	t.Helper()
	tree, err := New(nodes, deletions, '/')
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// withDeletions is the tree a side comes with to the next round: it still has its deletion records.
func withDeletions(t *Tree, deletions []mail.Deletion) *Tree {
	c := t.clone()
	c.deletions = deletions
	return c
}

// TestMain-like stress is in TestSyncLongRun.
func checkPair(t tester, a, b *Tree, o Options) {
	mirrored := o
	mirrored.GUIDs = []GUIDRule{GreaterGUID, RemoteGUID, LocalGUID}[o.GUIDs]
	beforeA, beforeB := a.String(), b.String()
	ab, err := Sync(a, b, TwoWay, o)
	if err != nil {
		t.Fatal(err)
	}
	ba, err := Sync(b, a, TwoWay, mirrored)
	if err != nil {
		t.Fatal(err)
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s\n--- a\n%s\n%v\n--- b\n%s\n%v\n--- changes of a\n%v\n--- changes of b\n%v", fmt.Sprintf(format, args...), a, a.deletions, b, b.deletions, ab.Changes, ba.Changes)
	}
	if a.String() != beforeA || b.String() != beforeB {
		fail("Sync changed its arguments")
	}
	if d := ab.Local.Diff(ab.Remote); d != "" {
		fail("both sides differ: %s", d)
	}
	if d := ab.Local.Diff(ba.Local); d != "" {
		fail("not symmetric: %s", d)
	}
	if ab.Settled {
		settledCount++
	}
	runs++
	for _, side := range []struct {
		from *Tree
		r    Result
	}{{a, ab}, {b, ba}} {
		after, err := Apply(side.from, side.r.Changes)
		if err != nil {
			fail("%v", err)
		}
		if d := after.Diff(side.r.Local); d != "" {
			fail("executed changes: %s", d)
		}
		for box := range side.r.Local.All() {
			if err := box.Name.Check(); err != nil {
				fail("%v", err)
			}
		}
	}
	for _, deletions := range []bool{false, true} {
		l, r := withDeletions(ab.Local, nil), withDeletions(ab.Remote, nil)
		if deletions {
			l, r = withDeletions(ab.Local, a.deletions), withDeletions(ab.Remote, b.deletions)
		}
		again, err := Sync(l, r, TwoWay, o)
		if err != nil {
			fail("second sync: %v", err)
		}
		if len(again.Changes) > 0 || again.Local.Diff(again.Remote) != "" {
			fail("second sync (deletions %v) plans %v", deletions, again.Changes)
		}
	}
	for _, in := range []*Tree{a, b} {
		for _, box := range in.Mailboxes() {
			_, kept := ab.Local.ByGUID(box.Status.GUID)
			g := box.Status.GUID
			conflict := slices.ContainsFunc(ab.Conflicts, func(c Conflict) bool { return c.Local == g || c.Remote == g })
			if !kept && !conflict && !a.witnessed(g) && !b.witnessed(g) {
				fail("%q lost", string(box.Name))
			}
		}
	}
}

var runs, settledCount int

func TestSyncProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{pick: rapidSource(t), guids: 20, inbox: rapid.Bool().Draw(t, "inbox")}
		an, ad := w.tree("")
		bn, bd := w.tree("")
		a, err := New(an, ad, '/')
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(bn, bd, '/')
		if err != nil {
			t.Fatal(err)
		}
		checkPair(t, a, b, Options{GUIDs: GUIDRule(w.pick(3))})
	})
	t.Log(runs, settledCount)
}

// tester is what a *testing.T and a *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}
