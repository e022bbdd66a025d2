package tree

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
)

// world makes trees over few names and few GUIDs, so that everything collides with everything.
type world struct {
	pick  func(n int) int // a number in [0, n)
	guids int
	inbox bool
}

func drawWorld(t *rapid.T) world {
	pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
	return world{pick: pick, guids: []int{5, 10, 20}[pick(3)], inbox: pick(2) == 0}
}

// tree makes one side, with all nodes below prefix: depth up to 4, 1 to 3 children, times 0 to 9.
func (w world) tree(t tester, prefix mail.Name) *Tree {
	t.Helper()
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
	tree, err := New(nodes, w.deletions(nodes, free), '/')
	if err != nil {
		t.Fatal(err)
	}
	return tree
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
		there := func(box mail.Mailbox) bool {
			return box.Name == name && (box.Existence == mail.Exists || kind == mail.Unsubscribed && box.Subscribed)
		}
		if !slices.ContainsFunc(nodes, there) {
			records = append(records, mail.Deletion{Kind: kind, ID: name.NameHash('/'), Time: int64(w.pick(10))})
		}
	}
	return records
}

// checkTwoWay holds what is true of every two-way synchronisation and returns the results of both sides.
func checkTwoWay(t tester, a, b *Tree, o Options) (ra, rb Result) {
	t.Helper()
	mirrored := o
	mirrored.GUIDs = []GUIDRule{GreaterGUID: GreaterGUID, LocalGUID: RemoteGUID, RemoteGUID: LocalGUID}[o.GUIDs]
	beforeA, beforeB := a.String(), b.String()
	ra, rb = mustSync(t, a, b, TwoWay, o), mustSync(t, b, a, TwoWay, mirrored)
	if a.String() != beforeA || b.String() != beforeB {
		t.Fatalf("Sync changed its arguments")
	}
	if d := ra.Local.Diff(ra.Remote); d != "" {
		t.Fatalf("the sides end differently: %s%s", d, report(a, b, ra, rb))
	}
	if d := ra.Local.Diff(rb.Local); d != "" {
		t.Fatalf("not symmetric: %s%s", d, report(a, b, ra, rb))
	}
	checkExecution(t, a, ra)
	checkExecution(t, b, rb)
	checkNothingLost(t, a, b, o, ra, rb)

	// The next round finds nothing to do, whether the deletion records are still there or not.
	for _, next := range [][2]*Tree{
		{withDeletions(ra.Local, nil), withDeletions(rb.Local, nil)},
		{withDeletions(ra.Local, a.deletions), withDeletions(rb.Local, b.deletions)},
	} {
		again := mustSync(t, next[0], next[1], TwoWay, o)
		if len(again.Changes) > 0 || again.Local.Diff(again.Remote) != "" {
			t.Fatalf("second sync: %s%s", script(again.Changes), report(a, b, ra, rb))
		}
	}
	return ra, rb
}

// checkBackup holds what is true of every backup and returns the result of the destination.
func checkBackup(t tester, source, dest *Tree, o Options) Result {
	t.Helper()
	rs, rd := mustSync(t, source, dest, PreserveLocal, o), mustSync(t, dest, source, PreserveRemote, o)
	if len(rs.Changes) > 0 || !rs.Local.Equal(source) || !rd.Remote.Equal(source) {
		t.Fatalf("the source changes%s", report(source, dest, rs, rd))
	}
	if d := rs.Remote.Diff(rd.Local); d != "" {
		t.Fatalf("the source expects something else of the destination: %s%s", d, report(source, dest, rs, rd))
	}
	checkExecution(t, dest, rd)
	srcInbox, _ := source.Lookup(mail.Inbox)
	destInbox, _ := dest.Lookup(mail.Inbox)
	keptInbox := srcInbox.Status.GUID.IsZero() && !destInbox.Status.GUID.IsZero()
	if d := rd.Local.Diff(source); d != "" && !keptInbox {
		t.Fatalf("the destination differs from the source: %s%s", d, report(source, dest, rs, rd))
	}
	for _, c := range rd.Changes {
		if c.Op == Delete && c.Witnessed != source.witnessed(c.GUID) {
			t.Fatalf("%s: witnessed %v%s", c, c.Witnessed, report(source, dest, rs, rd))
		}
	}
	again := mustSync(t, withDeletions(rd.Local, dest.deletions), source, PreserveRemote, o)
	if len(again.Changes) > 0 {
		t.Fatalf("second backup: %s%s", script(again.Changes), report(source, dest, rs, rd))
	}
	return rd
}

func mustSync(t tester, local, remote *Tree, mode Mode, o Options) Result {
	t.Helper()
	r, err := Sync(local, remote, mode, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// withDeletions is the tree a side comes with to the next round.
func withDeletions(t *Tree, deletions []mail.Deletion) *Tree {
	c := t.clone()
	c.deletions = deletions
	return c
}

func checkExecution(t tester, before *Tree, r Result) {
	t.Helper()
	after, err := Apply(before, r.Changes)
	if err != nil {
		t.Fatalf("%v\nof: %s\non: %s", err, script(r.Changes), words(before))
	}
	if d := after.Diff(r.Local); d != "" {
		t.Fatalf("executing %s\non %s\nends differently: %s", script(r.Changes), words(before), d)
	}
	for box := range r.Local.All() {
		if err := box.Name.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkNothingLost: a mailbox is deleted only where a record says so, and with that only once. Another GUID is a conflict.
func checkNothingLost(t tester, a, b *Tree, o Options, ra, rb Result) {
	t.Helper()
	for _, side := range []struct {
		t, other *Tree
		r        Result
	}{{a, b, ra}, {b, a, rb}} {
		renamed := make(map[mail.MailboxGUID]mail.MailboxGUID)
		for _, c := range side.r.Changes {
			switch {
			case c.Op == SetGUID:
				renamed[c.Was] = c.GUID
			case c.Op == Delete && (!c.Witnessed || !side.other.witnessed(c.GUID)):
				t.Fatalf("%s without a record%s", c, report(a, b, ra, rb))
			}
		}
		for _, box := range side.t.Mailboxes() {
			g := box.Status.GUID
			for next, ok := renamed[g]; ok; next, ok = renamed[g] {
				delete(renamed, g)
				g = next
			}
			if _, kept := side.r.Local.ByGUID(g); !kept && !side.other.witnessed(box.Status.GUID) {
				t.Fatalf("%q is lost%s", string(box.Name), report(a, b, ra, rb))
			}
		}
	}
}

func TestTwoWayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		checkTwoWay(t, w.tree(t, ""), w.tree(t, ""), Options{GUIDs: GUIDRule(w.pick(3))})
	})
}

func TestTwoWayPropertiesBelowAPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		prefix := []mail.Name{"mail", "INBOX", "mail/box"}[w.pick(3)]
		checkTwoWay(t, w.tree(t, prefix), w.tree(t, prefix), Options{Fixed: []mail.Name{prefix}})
	})
}

func TestTwoWayKeepsWhatHasNewMail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		a, b := w.tree(t, ""), w.tree(t, "")
		keep := func(box mail.Mailbox) bool { return box.Status.GUID[0]%2 == 0 }
		ra, _ := checkTwoWay(t, a, b, Options{Keep: keep})
		for _, c := range ra.Changes {
			if c.Op == Delete && c.GUID[0]%2 == 0 {
				t.Fatalf("%s has new mail", c)
			}
		}
	})
}

func TestBackupProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		adopt := w.pick(2) == 0
		r := checkBackup(t, w.tree(t, ""), w.tree(t, ""), Options{Adopt: adopt})
		for _, c := range r.Changes {
			if c.Op == Delete && c.Replaced && adopt {
				t.Fatalf("%s instead of adopting it", c)
			}
		}
	})
}
