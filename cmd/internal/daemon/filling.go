package daemon

import (
	"path"
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
	begun  time.Time
	tree   chan struct{} // closed when it is known which mailboxes there are, or that it will not be
	over   atomic.Bool   // all of them are whole

	mu     sync.Mutex
	opened bool                     // tree is closed
	lists  map[string]chan struct{} // by directory; closed when it is known which mails there are
	parts  map[mail.Name]bool       // mailboxes that are not whole; nil: it is not known which, so all but the whole ones
	whole  map[mail.Name]bool
}

func newFilling(l maildir.Layout) *filling {
	return &filling{layout: l, begun: time.Now(), tree: make(chan struct{}), lists: make(map[string]chan struct{}), whole: make(map[mail.Name]bool)}
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

func (f *filling) wait(until <-chan struct{}) {
	select {
	case <-until:
		return
	default:
	}
	timer := time.NewTimer(awaitTime - time.Since(f.begun))
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

// noMore says that nothing more will be told of what the remote has.
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

// Whole implements [fusefs.Filling].
func (f *filling) Whole(dir string) bool {
	if f.over.Load() {
		return true
	}
	name, ok := f.layout.MailboxOf(dir)
	f.mu.Lock()
	defer f.mu.Unlock()
	return !ok || f.whole[name] || f.parts != nil && !f.parts[name]
}

// Mailbox implements [brain.Progress].
func (f *filling) Mailbox(name mail.Name, _, _ int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.whole[name] = true
}

// Mails implements [brain.Progress].
func (f *filling) Mails(int, int64) {}

var _ brain.Progress = (*filling)(nil)
