package harness

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
)

// Equal fails the test if two Maildirs are not equal in everything that a client can see, and says where.
func Equal(tb testing.TB, a, b Maildir) {
	tb.Helper()
	reportDifferences(tb, fmt.Sprintf("%s and %s differ", a.Path, b.Path), Diff(a.Read(tb), b.Read(tb)))
}

// Diff returns a line for each difference, a's value first.
func Diff(a, b Contents) []string {
	var diffs []string
	if !slices.Equal(a.Subscriptions, b.Subscriptions) {
		diffs = append(diffs, fmt.Sprintf("subscriptions: %q, %q", a.Subscriptions, b.Subscriptions))
	}
	for _, name := range mailboxNames(a, b) {
		x, y := a.Mailboxes[name], b.Mailboxes[name]
		if x == nil || y == nil {
			diffs = append(diffs, fmt.Sprintf("mailbox %s: there %t, %t", name, x != nil, y != nil))
			continue
		}
		diffs = append(diffs, diffMailbox(name, x, y)...)
	}
	return diffs
}

func mailboxNames(all ...Contents) []string {
	seen := map[string]bool{}
	for _, c := range all {
		for name := range c.Mailboxes {
			seen[name] = true
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func diffMailbox(name string, x, y *Mailbox) []string {
	var diffs []string
	if x.GUID != y.GUID || x.UIDValidity != y.UIDValidity || x.UIDNext != y.UIDNext {
		diffs = append(diffs, fmt.Sprintf("mailbox %s: G%s V%d N%d, G%s V%d N%d", name,
			x.GUID, x.UIDValidity, x.UIDNext, y.GUID, y.UIDValidity, y.UIDNext))
	}
	if len(x.Messages) != len(y.Messages) {
		diffs = append(diffs, fmt.Sprintf("mailbox %s: %d messages, %d", name, len(x.Messages), len(y.Messages)))
	}
	for i := range min(len(x.Messages), len(y.Messages)) {
		if p, q := describe(x.Messages[i]), describe(y.Messages[i]); p != q {
			diffs = append(diffs, fmt.Sprintf("mailbox %s: %s (%s)\n\t%s (%s)", name, p, x.Messages[i].Path, q, y.Messages[i].Path))
		}
		if x.Messages[i].UID == 0 {
			diffs = append(diffs, fmt.Sprintf("mailbox %s: %s has no UID", name, x.Messages[i].Path))
		}
	}
	return diffs
}

func describe(m Message) string {
	return fmt.Sprintf("UID %d GUID %s flags %q keywords %q received %d UIDL %q order %q sha256 %x",
		m.UID, m.GUID, m.Flags, m.Keywords, m.Received, m.POP3UIDL, m.POP3Order, m.Hash[:6])
}

func reportDifferences(tb testing.TB, what string, diffs []string) {
	tb.Helper()
	if len(diffs) == 0 {
		return
	}
	const shown = 12
	text := strings.Join(diffs[:min(shown, len(diffs))], "\n")
	tb.Errorf("%s in %d places:\n%s", what, len(diffs), text)
}

// Copies counts the mails of each content in each mailbox.
type Copies map[string]map[Hash]int

// Copies counts what is in the Maildir.
func (c Contents) Copies() Copies {
	copies := Copies{}
	for name, box := range c.Mailboxes {
		for _, m := range box.Messages {
			copies.Add(name, m.Hash)
		}
	}
	return copies
}

// Add counts one more mail.
func (c Copies) Add(mailbox string, h Hash) {
	if c[mailbox] == nil {
		c[mailbox] = map[Hash]int{}
	}
	c[mailbox][h]++
}

// Union returns what two Maildirs have to hold together when nothing may be lost or doubled: of each content as many as
// the side with more of them has.
func (c Copies) Union(o Copies) Copies {
	u := Copies{}
	for _, side := range []Copies{c, o} {
		for name, hashes := range side {
			for h, n := range hashes {
				if u[name] == nil {
					u[name] = map[Hash]int{}
				}
				u[name][h] = max(u[name][h], n)
			}
		}
	}
	return u
}

// Len is the number of mails.
func (c Copies) Len() int {
	n := 0
	for _, hashes := range c {
		for _, k := range hashes {
			n += k
		}
	}
	return n
}

// Holds fails the test unless the Maildir has exactly these mails: none lost, none doubled, none else.
func (m Maildir) Holds(tb testing.TB, want Copies) {
	tb.Helper()
	got := m.Read(tb).Copies()
	var diffs []string
	for name, hashes := range want {
		for h, n := range hashes {
			switch k := got[name][h]; {
			case k < n:
				diffs = append(diffs, fmt.Sprintf("%s: lost %x: %d of %d", name, h[:6], k, n))
			case k > n:
				diffs = append(diffs, fmt.Sprintf("%s: doubled %x: %d instead of %d", name, h[:6], k, n))
			}
		}
	}
	for name, hashes := range got {
		for h := range hashes {
			if want[name][h] == 0 {
				diffs = append(diffs, fmt.Sprintf("%s: unexpected %x", name, h[:6]))
			}
		}
	}
	sort.Strings(diffs)
	reportDifferences(tb, m.Path+" does not hold what it should", diffs)
}
