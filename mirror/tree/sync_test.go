package tree

import (
	"testing"

	"dsyncfs/mirror/mail"
)

// twoWayCases: a and b before, what both are after, and what each executes. Each runs in both directions.
var twoWayCases = []struct {
	name     string
	a, b     string
	after    string
	onA, onB string
}{
	{"equal trees need nothing", "a=1+ a/b=2", "a=1+ a/b=2", "a=1+ a/b=2", "", ""},
	{"a new mailbox appears on the other side", "a=1 b=2", "a=1", "a=1 b=2", "", "c:b=2"},
	{"new mailboxes of both sides appear on both", "a=1", "b=2", "a=1 b=2", "c:b=2", "c:a=1"},
	{"parents are created before children", "a=1 a/b=2 a/b/c=3", "", "a=1 a/b=2 a/b/c=3", "", "c:a=1 c:a/b=2 c:a/b/c=3"},
	{"a mailbox below an absent parent needs no directory", "a/b=1", "", "a/ a/b=1", "", "c:a/b=1"},
	{"an empty level of hierarchy is created", "a/ b=1", "b=1", "a/ b=1", "", "C:a"},
	{"a level of hierarchy becomes the mailbox of the other side", "a/", "a=1", "a=1", "c:a=1", ""},

	{"the later rename wins", "new=1@5", "old=1@3", "new=1", "", "r:old>new"},
	{"a rename wins over the name that never changed", "new=1@5", "old=1", "new=1", "", "r:old>new"},
	{"renamed on both sides, the later name stays", "x=1@4", "y=1@6", "y=1", "r:x>y", ""},
	{"renamed in the same second, both sides choose alike", "x=1@4", "y=1@4", "x=1", "", "r:y>x"},
	{"children follow their parent", "new=1@5 new/c=2@5", "old=1 old/c=2", "new=1 new/c=2", "", "r:old>new"},
	{"a rename moves below another mailbox", "p=2 p/x=1@5", "p=2 x=1", "p=2 p/x=1", "", "r:x>p/x"},
	{"a rename makes the missing parent", "p/q/x=1@5", "x=1", "p/ p/q/ p/q/x=1", "", "r:x>p/q/x"},
	{"a directory without own mailbox is renamed with what it holds", "new/ new/c=1@5", "old/@1 old/c=1", "new/ new/c=1 old/", "C:old", "r:old/c>new/c"},
	{"a level made later has no say in what a mailbox is called", "new=1@5", "new/@9 old=1@3", "new=1", "", "r:new>new-temp-1 r:old>new D:new-temp-1"},
	{"two mailboxes swapped their names", "a=2@5 b=1@5", "a=1 b=2", "a=2 b=1", "", "r:a>a-temp-1 r:b>a r:a-temp-1>b"},
	{"three mailboxes changed places in a ring", "a=2@5 b=3@5 c=1@5", "a=1 b=2 c=3", "a=2 b=3 c=1", "", "r:a>a-temp-1 r:b>a r:c>b r:a-temp-1>c"},
	{"the renamed mailbox left its name to a new one", "a=9 b=1@5", "a=1", "a=9 b=1", "", "r:a>b c:a=9"},
	{"a child became the parent of its parent", "c=2@5 c/p=1@5", "p=1 p/c=2", "c=2 c/p=1", "", "r:p/c>c r:p>c/p"},
	{"a mailbox moved below its former child", "b=2@5 b/a=1@5 b/a/c=3@5", "a=1 a/b=2 a/c=3", "b=2 b/a=1 b/a/c=3", "", "r:a/b>b r:a>b/a"},
	{"a rename meets a new mailbox of that name", "new=1@5", "old=1 new=2", "new=1 new-temp-02000000000000000000000000000001=2", "c:new-temp-02000000000000000000000000000001=2", "r:new>new-temp-1 r:old>new r:new-temp-1>new-temp-02000000000000000000000000000001"},
	{"INBOX is never renamed: a rename of INBOX leaves both", "INBOX=2@5 old=1@5", "INBOX=1", "INBOX=2 old=1", "", "g:INBOX=2 c:old=1"},
	{"what INBOX was renamed to keeps its GUID", "old=1@5", "INBOX=1", "INBOX=d1 old=1", "c:INBOX=d1", "g:INBOX=d1 c:old=1"},

	{"a deleted mailbox goes from the other side", "b=2 -1", "a=1 b=2", "b=2", "", "d:a!"},
	{"a deletion finds the mailbox under its new name", "-1 -old@5", "new=1@9", "", "", "d:new!"},
	{"without a record a missing mailbox comes back", "", "a=1", "a=1", "c:a=1", ""},
	{"a record of a mailbox that is there again does nothing", "a=1 -1", "a=1", "a=1", "", ""},
	{"deleted and made anew, the two become one", "a=2 -1", "a=1", "a=2", "", "g:a=2"},
	{"children of a deleted mailbox stay", "a/b=2 -1", "a=1 a/b=2", "a/ a/b=2", "", "d:a!"},
	{"deleted on both sides", "-1", "-1", "", "", ""},
	{"INBOX is never deleted", "-1", "INBOX=1", "INBOX=1", "c:INBOX=1", ""},
	{"a deleted directory goes", "b=1 -a@5", "a/@3 b=1", "b=1", "", "D:a"},
	{"a directory made after the deletion stays", "-a@5", "a/@7", "a/", "C:a", ""},
	{"deleted directories go from the inside out", "-a@5 -a/b@5", "a/ a/b/", "", "", "D:a/b D:a"},
	{"a deleted directory that got a mailbox stays", "-a@5", "a/@1 a/b=1", "a/ a/b=1", "c:a/b=1", ""},

	{"the same name with two GUIDs becomes one mailbox", "a=1", "a=2", "a=2", "g:a=2", ""},
	{"two INBOXes become one", "INBOX=7 a=1", "INBOX=3", "INBOX=7 a=1", "", "g:INBOX=7 c:a=1"},

	{"a later subscription wins", "a=1+5", "a=1~3", "a=1+", "", "s:a"},
	{"a later unsubscription wins", "a=1+3", "a=1~5", "a=1", "u:a", ""},
	{"subscribed wins at the same time", "a=1+", "a=1", "a=1+", "", "s:a"},
	{"a subscription without a mailbox is kept in step", "a+5", "", "a+", "", "s:a"},
	{"an unsubscribed name without a mailbox goes", "~a@7", "a+5", "", "", "u:a"},
	{"a record older than the subscription does nothing", "~a@3", "a+5", "a+", "s:a", ""},
	{"a subscription moves with the mailbox", "new=1@5+5 ~old@5", "old=1+2", "new=1+", "", "r:old>new u:old s:new"},
	{"a subscription of the name that a rename takes is kept", "new=1@5", "old=1 new+3", "new=1+", "s:new", "r:old>new"},
}

// TestLevelsCountForADovecot: both ends of a conversation have to decide alike.
func TestLevelsCountForADovecot(t *testing.T) {
	a, b := parse(t, "new=1@5"), parse(t, "new/@9 old=1@3")
	for levels, want := range map[bool]string{false: "new=1", true: "new/ old=1"} {
		if r, _ := checkTwoWay(t, a, b, Options{CountLevels: levels}); words(r.Local) != want {
			t.Errorf("counting levels %v: both sides end with %q, want %q", levels, words(r.Local), want)
		}
	}
}

func TestTwoWay(t *testing.T) {
	for _, c := range twoWayCases {
		t.Run(c.name, func(t *testing.T) {
			a, b := parse(t, c.a), parse(t, c.b)
			ra, rb := checkTwoWay(t, a, b, Options{})
			checkTwoWay(t, b, a, Options{})
			if got := words(ra.Local); got != c.after {
				t.Errorf("both sides end with %q, want %q", got, c.after)
			}
			if got := script(ra.Changes); got != c.onA {
				t.Errorf("a executes %q, want %q", got, c.onA)
			}
			if got := script(rb.Changes); got != c.onB {
				t.Errorf("b executes %q, want %q", got, c.onB)
			}
		})
	}
}

var backupCases = []struct {
	name         string
	source, dest string
	adopt        bool
	after        string
	changes      string
}{
	{"what the source lacks is deleted, with a witness or without", "a=1 -2", "a=1 b=2 c=3", false, "a=1", "d:b! d:c?"},
	{"what the destination deleted comes back", "a=1", "-1 -a@9", false, "a=1", "c:a=1"},
	{"an earlier rename in the source wins over a later one", "x=1@3", "y=1@8", false, "x=1", "r:y>x"},
	{"another GUID is replaced", "a=1", "a=2", false, "a=1", "d:a?* c:a=1"},
	{"another UIDVALIDITY is replaced", "a=1v2", "a=1", false, "a=1", "d:a?* c:a=1"},
	{"a greater UIDNEXT is replaced", "a=1n3", "a=1n4", false, "a=1", "d:a?* c:a=1"},
	{"a smaller UIDNEXT is fine", "a=1n4", "a=1n3", false, "a=1", ""},
	{"an adopted mailbox gets the GUID of the source", "a=1v2n3", "a=2n7", true, "a=1", "g:a=1"},
	{"INBOX is adopted, never deleted", "INBOX=1", "INBOX=2n5", false, "INBOX=1", "g:INBOX=1"},
	{"INBOX gives a GUID up that the source has elsewhere", "a=1", "INBOX=1", false, "INBOX=d1 a=1", "g:INBOX=d1 c:a=1"},
	{"swapped GUIDs are adopted without ever being double", "INBOX=1 a=2", "INBOX=2 a=1", true, "INBOX=1 a=2", "g:a=d1 g:INBOX=1 g:a=2"},
	{"children are deleted before their parents", "", "a=1 a/b=2", false, "", "d:a/b? d:a?"},
	{"empty directories of the destination go", "a=1", "a=1 b/ b/c/", false, "a=1", "D:b/c D:b"},
	{"subscriptions are those of the source", "a=1+1 b=2", "a=1~9 b=2+9 c+9", false, "a=1+ b=2", "u:b u:c s:a"},
}

func TestBackup(t *testing.T) {
	for _, c := range backupCases {
		t.Run(c.name, func(t *testing.T) {
			source, dest := parse(t, c.source), parse(t, c.dest)
			r := mustSync(t, dest, source, PreserveRemote, Options{Adopt: c.adopt})
			if got := words(r.Local); got != c.after {
				t.Errorf("the destination ends with %q, want %q", got, c.after)
			}
			if got := script(r.Changes); got != c.changes {
				t.Errorf("the destination executes %q, want %q", got, c.changes)
			}
			checkExecution(t, dest, r)
			if r := mustSync(t, source, dest, PreserveLocal, Options{Adopt: c.adopt}); len(r.Changes) > 0 {
				t.Errorf("the source executes %q", script(r.Changes))
			}
		})
	}
}

func TestGUIDRuleOfAOneWaySync(t *testing.T) {
	a, b := parse(t, "a=1 b=4"), parse(t, "a=2 b=3")
	source, dest := checkTwoWay(t, a, b, Options{GUIDs: LocalGUID})
	if got := script(source.Changes); got != "" {
		t.Errorf("the source executes %q", got)
	}
	if got := script(dest.Changes); got != "g:a=1 g:b=4" {
		t.Errorf("the destination executes %q", got)
	}
	want := Conflict{Name: "a", Local: guid(2), Remote: guid(1), GUID: guid(1)}
	if len(dest.Conflicts) != 2 || dest.Conflicts[0] != want {
		t.Errorf("conflicts %v, want %v first", dest.Conflicts, want)
	}
}

func TestADeletedMailboxWithNewMailStays(t *testing.T) {
	a, b := parse(t, "-1 -2 -a@5 -b@5"), parse(t, "a=1n7 b=2n7")
	keep := func(box mail.Mailbox) bool { return box.Name == "a" && box.Status.UIDNext == 7 }
	ra, rb := checkTwoWay(t, a, b, Options{Keep: keep})
	if script(ra.Changes) != "c:a=1" || script(rb.Changes) != "d:b!" {
		t.Errorf("a executes %q, b executes %q", script(ra.Changes), script(rb.Changes))
	}
}

func TestFixedNamesAreNotRenamed(t *testing.T) {
	a, b := parse(t, "ns/x=1 ns/x/y=2@9"), parse(t, "ns/x=1 z=2")
	ra, rb := checkTwoWay(t, a, b, Options{Fixed: []mail.Name{"ns/x/y"}})
	if script(ra.Changes)+script(rb.Changes) == "" || words(ra.Local) != "ns/ ns/x=1 ns/x/y=d2 z=2" {
		t.Errorf("both sides end with %q", words(ra.Local))
	}
}

// Dovecot gives up here: each rename calls for the next one in a circle.
func TestRenamesInACircleEndInOneSidesNames(t *testing.T) {
	a := parse(t, "c/@3 c/a=2@2 c/é=1@2 c/b=3@7")
	b := parse(t, "é=1@2 é/é=2@5 é/b=3@4 d/@1")
	ra, rb := checkTwoWay(t, a, b, Options{})
	if !ra.Settled || !rb.Settled {
		t.Fatal("no circle")
	}
	if got, want := words(ra.Local), "c/ c/a=2 c/b=3 c/é=1 d/"; got != want {
		t.Errorf("both sides end with %q, want %q, the names of the later rename", got, want)
	}
}

func TestNamesThatGetTooLongAreRefused(t *testing.T) {
	long := mail.Name("l")
	for len(long) < mail.MaxName-60 {
		long = long.Child("a part of twenty-two!!")
	}
	deep := func(g mail.MailboxGUID, ts int64, name mail.Name) mail.Mailbox {
		return mail.Mailbox{Name: name, Existence: mail.Exists, Status: mail.Status{GUID: g}, Renamed: ts}
	}
	a, err := New([]mail.Mailbox{deep(guid(1), 5, long.Child("name"))}, nil, '/')
	if err != nil {
		t.Fatal(err)
	}
	below := mail.JoinName("old", "a child with a name that is long enough to lead beyond the limit of the whole")
	b, err := New([]mail.Mailbox{deep(guid(1), 0, "old"), deep(guid(2), 0, below)}, nil, '/')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sync(a, b, TwoWay, Options{}); err == nil {
		t.Error("a name beyond the limit is planned")
	}
}
