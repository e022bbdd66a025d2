package daemon

import (
	"maps"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store/maildir"
)

// awaitTime is how long programs wait to see what the remote has, at most.
const awaitTime = 10 * time.Second

// filling is what is known of the mailboxes during a first fill: whether the list of their mails has come, and whether they are
// whole. It implements [fusefs.Filling], and [brain.Progress] to hear of the mailboxes that rounds are done with.
type filling struct {
	layout maildir.Layout
	keep   func(mail.MailboxGUID) // is told of each mailbox that became whole, for the mounts to come
	tree   chan struct{}          // closed when it is known which mailboxes there are, or that it will not be soon
	over   atomic.Bool            // all of them are whole
	lull   lull

	mu     sync.Mutex
	begun  time.Time                // since when programs may be waiting
	opened bool                     // tree is closed
	lists  map[string]chan struct{} // by directory; closed when it is known which mails there are
	parts  map[mail.Name]bool       // mailboxes that are not whole; nil: it is not known which, so all but the whole ones
	whole  map[mail.Name]bool
	own    map[mail.Name]bool // mailboxes that had mail before the fill began
}

func newFilling(l maildir.Layout, own map[mail.Name]bool, keep func(mail.MailboxGUID)) *filling {
	return &filling{
		layout: l, keep: keep, begun: time.Now(), tree: make(chan struct{}), lists: make(map[string]chan struct{}), whole: make(map[mail.Name]bool),
		own: maps.Clone(own), lull: newLull(),
	}
}

// Await implements [fusefs.Filling].
func (f *filling) Await(dir string) {
	f.wait(f.tree)
	if sub := path.Base(dir); sub != "cur" && sub != "new" {
		return
	}
	box := path.Dir(dir)
	if box == "." {
		box = ""
	}
	f.mu.Lock()
	list := f.lists[box]
	f.mu.Unlock()
	if list != nil {
		f.wait(list)
	}
}

// Listing implements [fusefs.Filling].
func (f *filling) Listing(on bool) {
	n := -1
	if on {
		n = 1
	}
	f.lull.move(n)
}

func (f *filling) wait(until <-chan struct{}) {
	select {
	case <-until:
		return
	default:
	}
	f.mu.Lock()
	begun := f.begun
	f.mu.Unlock()
	timer := time.NewTimer(awaitTime - time.Since(begun))
	defer timer.Stop()
	select {
	case <-until:
	case <-timer.C:
	}
}

// expect says which mailboxes lists of mails will come for.
func (f *filling) expect(places map[mail.MailboxGUID]place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts = make(map[mail.Name]bool)
	if f.opened {
		f.begun = time.Now() // the remote was away until now
	}
	for _, at := range places {
		if at.some {
			f.lists[at.dir] = make(chan struct{})
		}
		f.parts[at.name] = true
	}
	f.open()
}

// listed says that the list of a mailbox has come.
func (f *filling) listed(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if list := f.lists[dir]; list != nil {
		close(list)
		delete(f.lists, dir)
	}
}

// noMore says that nothing more will be told of what the remote has, or not before it is back.
func (f *filling) noMore() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, list := range f.lists {
		close(list)
	}
	clear(f.lists)
	f.open()
}

// open lets go of those who wait for the tree. The caller holds mu.
func (f *filling) open() {
	if !f.opened {
		f.opened = true
		close(f.tree)
	}
}

// Whole implements [fusefs.Filling]. While the remote is away, a mailbox that had mail of its own shows that and nothing else, as on
// any mount without its remote.
func (f *filling) Whole(dir string) bool {
	if f.over.Load() {
		return true
	}
	name, ok := f.layout.MailboxOf(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.parts == nil && f.opened && f.own[name] {
		return true
	}
	return !ok || f.whole[name] || f.parts != nil && !f.parts[name]
}

// renamed says that a program is about to give a mailbox, and what is below it, another name. The old one stays what it was, as it
// may come to nothing.
func (f *filling) renamed(from, to mail.Name) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.whole {
		if name == to || name.IsBelow(to) {
			delete(f.whole, name)
		}
	}
	for _, set := range []map[mail.Name]bool{f.parts, f.whole, f.own} {
		for _, name := range slices.Collect(maps.Keys(set)) {
			if now, moved := name.Moved(from, to); moved {
				set[now] = true
			}
		}
	}
}

// Mailbox implements [brain.Progress].
func (f *filling) Mailbox(name mail.Name, guid mail.MailboxGUID, _, _ int) {
	f.mu.Lock()
	known := f.whole[name] || f.over.Load()
	f.whole[name] = true
	f.mu.Unlock()
	if !known {
		f.keep(guid)
	}
}

// Mails implements [brain.Progress].
func (f *filling) Mails(int, int64) {}

var _ brain.Progress = (*filling)(nil)
