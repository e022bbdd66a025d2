package tree

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
)

// guid returns the n-th GUID; they are in byte order of n.
func guid(n int) mail.MailboxGUID { return mail.MailboxGUID{0: byte(n), 15: 1} }

// parse makes a tree from words:
//
//	a/b=3@5   mailbox with GUID 3, renamed at time 5; =3v2n9: UIDVALIDITY 2 instead of 1, UIDNEXT 9 instead of 1
//	a/b/      a level of hierarchy of its own
//	a/b       absent
//	...+ +7   subscribed (at time 7); ~7 unsubscribed at time 7
//	-3        record: the mailbox with GUID 3 was deleted
//	-a/b@7    record: the name was deleted
//	~a/b@7    record: the name was unsubscribed
func parse(t tester, words string) *Tree {
	t.Helper()
	var nodes []mail.Mailbox
	var records []mail.Deletion
	for _, word := range strings.Fields(words) {
		if word[0] == '-' || word[0] == '~' {
			records = append(records, parseRecord(t, word))
		} else {
			nodes = append(nodes, parseNode(t, word))
		}
	}
	tree, err := New(nodes, records, '/')
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func parseRecord(t tester, word string) mail.Deletion {
	name, at, _ := strings.Cut(word[1:], "@")
	d := mail.Deletion{Kind: mail.DeletedDirectory, ID: mail.Name(name).NameHash('/'), Time: number(t, at)}
	if word[0] == '~' {
		d.Kind = mail.Unsubscribed
	} else if n, err := strconv.Atoi(name); err == nil {
		d.Kind, d.ID = mail.DeletedMailbox, mail.GUID128(guid(n))
	}
	return d
}

func parseNode(t tester, word string) mail.Mailbox {
	var box mail.Mailbox
	if i := strings.LastIndexAny(word, "+~"); i >= 0 {
		box.Subscribed, box.SubscriptionChanged = word[i] == '+', number(t, word[i+1:])
		word = word[:i]
	}
	word, at, _ := strings.Cut(word, "@")
	box.Renamed = number(t, at)
	name, id, isMailbox := strings.Cut(word, "=")
	box.Name = mail.Name(strings.TrimSuffix(name, "/"))
	if isMailbox {
		id, next, _ := strings.Cut(id, "n")
		id, validity, _ := strings.Cut(id, "v")
		box.Status = mail.Status{
			GUID:        guid(int(number(t, id))),
			UIDValidity: mail.UIDValidity(max(1, number(t, validity))), UIDNext: mail.UID(max(1, number(t, next))),
		}
	}
	if isMailbox || strings.HasSuffix(name, "/") {
		box.Existence = mail.Exists
	}
	return box
}

func number(t tester, s string) int64 {
	t.Helper()
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// words is the inverse of parse for what Equal compares. A derived GUID is written as its short form.
func words(tree *Tree) string {
	var out []string
	tree.root.walk(func(n *node) {
		word := string(n.name())
		switch {
		case n.isMailbox():
			word += "=" + short(n.guid())
		case n.onDisk():
			word += "/"
		case !n.box.Subscribed:
			return
		}
		if n.box.Subscribed {
			word += "+"
		}
		out = append(out, word)
	})
	return strings.Join(out, " ")
}

func short(g mail.MailboxGUID) string {
	if g == guid(int(g[0])) {
		return strconv.Itoa(int(g[0]))
	}
	for n := range 256 {
		if g == derivedGUID(guid(n)) {
			return "d" + strconv.Itoa(n)
		}
	}
	return g.String()
}

// script writes changes as words: c(reate), C(reate directory), d(elete), D(elete directory), r(ename), s(ubscribe),
// u(nsubscribe), g (set GUID).
func script(changes []Change) string {
	var out []string
	for _, c := range changes {
		word := string(" cCdDrsug"[c.Op]) + ":" + string(c.Name)
		switch c.Op {
		case Rename:
			word += ">" + string(c.To)
		case Create, SetGUID:
			word += "=" + short(c.GUID)
		case Delete:
			word += map[bool]string{true: "!", false: "?"}[c.Witnessed] + map[bool]string{true: "*", false: ""}[c.Replaced]
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

// tester is what a *testing.T and a *rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

var _ tester = (*testing.T)(nil)

// report says what two trees were and what was planned.
func report(a, b *Tree, ra, rb Result) string {
	return fmt.Sprintf("\na: %s %v\nb: %s %v\nchanges of a: %s\nresult of a: %s\nchanges of b: %s\nresult of b: %s",
		words(a), a.deletions, words(b), b.deletions, script(ra.Changes), words(ra.Local), script(rb.Changes), words(rb.Local))
}
