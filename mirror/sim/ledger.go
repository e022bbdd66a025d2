package sim

import (
	"fmt"
	"maps"
	"slices"
)

// ledger is what users did to each mail, by its content, on any replica.
type ledger struct {
	n        int
	deletes  bool // mailboxes were deleted
	contents map[string]*entry
}

// entry is one content. It is owed, that is, it must not be lost, while users made it appear more often than they removed it.
type entry struct {
	n       int
	puts    int  // deliveries, copies, the far ends of moves
	copies  int  // of these; copies that were made on two replicas may be taken for one
	removes int  // expunges, the near ends of moves, deletions of its mailbox
	root    int  // the content that it was before users edited it
	edited  bool // users wrote others in its place, where one of it was

	spare bool   // it is not owed: it came up in a backup
	loose string // nor is it while only this replica has it: whoever delivered it there did not sync the name
}

func newLedger() *ledger { return &ledger{contents: make(map[string]*entry)} }

// fresh makes a content that was never there.
func (l *ledger) fresh(size int, crlf bool) string {
	l.n++
	end := "\n"
	if crlf {
		end = "\r\n"
	}
	b := fmt.Appendf(nil, "Subject: mail %d%sMessage-ID: <%d@sim>%s%s", l.n, end, l.n, end, end)
	for i := 0; len(b) < size; i++ {
		b = fmt.Appendf(b, ".line %d of mail %d%s", i, l.n, end)
	}
	text := string(b)
	l.contents[text] = &entry{n: l.n, root: l.n}
	return text
}

func (l *ledger) put(content string) {
	if e := l.contents[content]; e != nil {
		e.puts++
	}
}

func (l *ledger) copied(content string) {
	if e := l.contents[content]; e != nil {
		e.puts++
		e.copies++
	}
}

func (l *ledger) remove(content string) {
	if e := l.contents[content]; e != nil {
		e.removes++
	}
}

// owed reports whether the mail must be somewhere. What a user wrote in the place of another mail need not outlive its mailbox:
// whoever deletes that elsewhere knew the other mail.
func (l *ledger) owed(e *entry) bool {
	return !e.spare && e.loose == "" && (e.removes == 0 && e.puts > 0 || e.puts-e.copies > e.removes) && (e.n == e.root || !l.deletes)
}

// all returns the contents in the order in which they were made.
func (l *ledger) all() []string {
	return slices.SortedFunc(maps.Keys(l.contents), func(a, b string) int { return l.contents[a].n - l.contents[b].n })
}

// seen says that a replica has a mail. From another one than where it was delivered a power cut must not take it.
func (e *entry) seen(replica string) {
	if e.loose != replica {
		e.loose = ""
	}
}

// rooted says that a user wrote another content in the place of one.
func (l *ledger) rooted(old, content string) {
	if o, e := l.contents[old], l.contents[content]; o != nil && e != nil {
		e.root, o.edited = o.root, true
	}
}
