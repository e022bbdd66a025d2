package tree

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
)

func TestNewRefuses(t *testing.T) {
	box := func(name mail.Name, n int) mail.Mailbox {
		return mail.Mailbox{Name: name, Existence: mail.Exists, Status: mail.Status{GUID: guid(n)}}
	}
	for _, c := range []struct {
		name  string
		nodes []mail.Mailbox
		want  error
	}{
		{"a GUID twice", []mail.Mailbox{box("a", 1), box("b", 1)}, ErrDuplicateGUID},
		{"a name twice", []mail.Mailbox{box("a", 1), box("a", 2)}, ErrDuplicateName},
		{"a name that leads out", []mail.Mailbox{box("a/../b", 1)}, mail.ErrBadName},
		{"the root", []mail.Mailbox{box("", 1)}, mail.ErrBadName},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := New(c.nodes, nil, '/'); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}

func TestNewTakesNodesInAnyOrder(t *testing.T) {
	tree := parse(t, "b/c/d=3 a=1@4 b=2+7")
	if got := words(tree); got != "a=1 b=2+ b/c/ b/c/d=3" {
		t.Errorf("tree %q", got)
	}
	if box, ok := tree.ByGUID(guid(3)); !ok || box.Name != "b/c/d" {
		t.Errorf("ByGUID: %v %v", box, ok)
	}
	if box, ok := tree.Lookup("a"); !ok || box.Renamed != 4 || box.Status.GUID != guid(1) {
		t.Errorf("Lookup: %v %v", box, ok)
	}
	if box, ok := tree.Lookup("b/c"); !ok || box.Existence != mail.Absent {
		t.Errorf("Lookup of a missing parent: %v %v", box, ok)
	}
	if _, ok := tree.Lookup(""); ok {
		t.Error("the root is a mailbox")
	}
	if boxes := tree.Mailboxes(); len(boxes) != 3 || boxes[1].Name != "b" || boxes[2].Name != "b/c/d" {
		t.Errorf("mailboxes %v", boxes)
	}
}

// The vectors are from a conversation of Dovecot 2.3.19.1; the escaped form is what it hashes for a part with a separator.
func TestHashName(t *testing.T) {
	tree := parse(t, "a")
	if got := tree.hashName("Work/2026").String(); got != "c6c130641584df4dc488b6d7b23fc589" {
		t.Errorf("hash %s", got)
	}
	dotted, err := New(nil, nil, '.')
	if err != nil {
		t.Fatal(err)
	}
	if got, want := dotted.WithEscape('%').hashName("a.b/50%"), mail.Name("a%2eb.50%25").NameHash('/'); got != want {
		t.Errorf("escaped hash %s, want %s", got, want)
	}
	if got, want := tree.WithEscape('%').hashName("Work/2026").String(), "c6c130641584df4dc488b6d7b23fc589"; got != want {
		t.Errorf("escaped hash %s, want %s", got, want)
	}
}

func TestDeletionsAreLookedUpWithTheirOwnSeparator(t *testing.T) {
	local := parse(t, "a/b/@1 c=1")
	record := mail.Deletion{Kind: mail.DeletedDirectory, ID: mail.Name("a/b").NameHash('.'), Time: 5}
	remote, err := New(parse(t, "c=1").Mailboxes(), []mail.Deletion{record}, '.')
	if err != nil {
		t.Fatal(err)
	}
	r, _ := checkTwoWay(t, local, remote.WithEscape('%'), Options{})
	if got := script(r.Changes); got != "D:a/b" {
		t.Errorf("executes %q", got)
	}
}

func TestApplyRefuses(t *testing.T) {
	tree := parse(t, "INBOX=9 a=1 a/b=2 d/ d/e/")
	for _, c := range []struct {
		name   string
		change Change
	}{
		{"to create over a mailbox", Change{Op: Create, Name: "a", GUID: guid(5)}},
		{"to create a GUID twice", Change{Op: Create, Name: "n", GUID: guid(1)}},
		{"to create a directory over a mailbox", Change{Op: CreateDirectory, Name: "a"}},
		{"to delete another mailbox of that name", Change{Op: Delete, Name: "a", GUID: guid(2)}},
		{"to delete INBOX", Change{Op: Delete, Name: "INBOX", GUID: guid(9)}},
		{"to delete a directory that holds something", Change{Op: DeleteDirectory, Name: "d"}},
		{"to delete a mailbox as a directory", Change{Op: DeleteDirectory, Name: "a/b"}},
		{"to rename onto a mailbox", Change{Op: Rename, Name: "d", To: "a/b"}},
		{"to rename onto what holds a mailbox", Change{Op: Rename, Name: "a/b", To: "d"}},
		{"to rename below itself", Change{Op: Rename, Name: "a", To: "a/b/c"}},
		{"to rename what is not there", Change{Op: Rename, Name: "x", To: "y"}},
		{"to rename INBOX", Change{Op: Rename, Name: "INBOX", To: "y"}},
		{"to rename out of the store", Change{Op: Rename, Name: "a", To: "../y"}},
		{"a GUID in use", Change{Op: SetGUID, Name: "a", Was: guid(1), GUID: guid(2)}},
		{"a GUID for a directory", Change{Op: SetGUID, Name: "d", GUID: guid(3)}},
		{"what it does not know", Change{Op: 99, Name: "a"}},
		{"a bad name", Change{Op: Subscribe, Name: "a//b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Apply(tree, []Change{c.change}); !errors.Is(err, ErrNotApplicable) && !errors.Is(err, mail.ErrBadName) {
				t.Errorf("%s: error %v", c.change, err)
			}
		})
	}
	if got := words(tree); got != "INBOX=9 a=1 a/b=2 d/ d/e/" {
		t.Errorf("the tree became %q", got)
	}
}

// Many mailboxes that were all moved one by one.
func TestSyncOfLargeTrees(t *testing.T) {
	var a, b []mail.Mailbox
	for i := range 2000 {
		g := mail.MailboxGUID{0: byte(i), 1: byte(i >> 8), 15: 1}
		box := mail.Mailbox{Existence: mail.Exists, Status: mail.Status{GUID: g, UIDValidity: 1, UIDNext: 1}}
		box.Name = mail.JoinName("old", fmt.Sprintf("m%d", i))
		b = append(b, box)
		box.Name, box.Renamed = mail.JoinName("archive", fmt.Sprintf("y%d", i%10), fmt.Sprintf("m%d", i)), 7
		a = append(a, box)
	}
	ta, err := New(a, nil, '/')
	if err != nil {
		t.Fatal(err)
	}
	tb, err := New(b, nil, '/')
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r := mustSync(t, tb, ta, TwoWay, Options{})
	t.Logf("%d changes in %v", len(r.Changes), time.Since(start))
	checkExecution(t, tb, r)
	if d := r.Local.Diff(ta); d != "" {
		t.Errorf("not renamed: %s", d)
	}
}
