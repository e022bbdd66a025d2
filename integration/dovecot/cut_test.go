package dovecot

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// cuts are the places to try: every one with DSYNCFS_DOVECOT_CUTS=all, one with its number, else a few of them.
func cuts(items int) []int {
	if n := number("DSYNCFS_DOVECOT_CUTS", 0); n > 0 {
		return []int{min(n, items)}
	}
	var places []int
	step := 1
	if os.Getenv("DSYNCFS_DOVECOT_CUTS") != "all" {
		step = max(1, items/7)
	}
	for n := 1; n <= items; n += step {
		places = append(places, n)
	}
	return places
}

// broken is a pair with changes on both sides, to be synced over a link that breaks.
type broken struct{ *served }

func newBroken(t *testing.T, format string) *broken {
	p := &broken{served: filled(t, format)}
	p.pair.clean("mirror")
	p.ours.save("INBOX", note("a"))
	p.ours.save("INBOX", note("b"))
	p.dove.save("INBOX", note("c"))
	p.dove.save("Work", note("d"))
	p.ours.doveadm("flags", "add", `\Draft Kw`, "mailbox", "INBOX", "uid", "1:2")
	p.dove.doveadm("flags", "add", `\Flagged Other`, "mailbox", "INBOX", "uid", "2:3")
	p.ours.doveadm("expunge", "mailbox", "Work", "uid", "1")
	p.dove.doveadm("expunge", "mailbox", "Work", "uid", "6")
	p.ours.doveadm("mailbox", "create", "New/Here")
	p.ours.save("New/Here", note("e"))
	p.dove.doveadm("mailbox", "create", "There")
	p.dove.save("There", note("f"))
	p.dove.save("There", note("f again"))
	p.Must("sh", "-c", "cd "+p.Dir+" && tar cf before.tar ours dove state")
	return p
}

// restore puts everything back to before the sync.
func (p *broken) restore() {
	p.t.Helper()
	p.Must("sh", "-c", "cd "+p.Dir+" && rm -rf ours dove state && tar xf before.tar")
}

// contents is what both sides have: mailboxes and mails with flags, whatever their UIDs.
func contents(a *account) []string {
	var lines []string
	for _, box := range a.mailboxes() {
		lines = append(lines, "mailbox "+box)
	}
	for _, m := range a.mails("*") {
		_, flags, _ := strings.Cut(m.String(), "(")
		flags, _, _ = strings.Cut(flags, ")")
		lines = append(lines, m.Mailbox+" ("+flags+") "+hashOf([]byte(m.Text)))
	}
	slices.Sort(lines)
	return lines
}

// breaks runs a sync that is cut at each place, and then one that has to make everything good.
func (p *broken) breaks(sync func(link func(command []string) []string), settle func()) {
	p.t.Helper()
	through := func(direction string, n int) func([]string) []string {
		return func(command []string) []string { return p.through(direction, n, command) }
	}
	sync(through("up", 0))
	settle()
	want := contents(p.dove)
	items := map[string]int{"up": p.counted("up"), "down": p.counted("down")}
	for _, direction := range []string{"up", "down"} {
		if items[direction] < 20 {
			p.t.Fatalf("only %d items went %s", items[direction], direction)
		}
		for _, n := range cuts(items[direction]) {
			p.restore()
			sync(through(direction, n))
			settle()
			if got := contents(p.dove); !slices.Equal(got, want) {
				p.t.Errorf("cut %s after item %d of %d:\n%s\nwant:\n%s", direction, n, items[direction], strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if p.t.Failed() {
				p.t.Fatalf("cut %s after item %d of %d", direction, n, items[direction])
			}
		}
	}
}

func TestConversationCutAsMaster(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newBroken(t, format)
		p.breaks(func(link func([]string) []string) {
			words := []string{"-o", "mail_location=" + p.ours.maildir().Location(), "mirror"}
			p.Run(append(words, link(p.dove.server())...)...)
		}, func() {
			p.run("mirror").Want(0)
			same(t, p.ours, p.dove)
		})
	})
}

func TestConversationCutAsSlave(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newBroken(t, format)
		p.breaks(func(link func([]string) []string) {
			p.dove.try(nil, append([]string{"sync"}, link(p.remote())...)...)
		}, func() {
			p.sync("sync")
			p.served.clean("sync")
			same(t, p.ours, p.dove)
		})
	})
}
