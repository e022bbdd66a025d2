package fusefs

import (
	"context"
	"maps"
	"slices"
	"time"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/mail"
)

// A mail is not changed after delivery, but a program may write to one all the same: it rewrites it in place, or it
// creates it directly in new/ or cur/. Without CLOSE we do not see the end of that. So the first write is journaled as a
// replacement before it is made, and once more when nothing was written for a while (or at fsync): then the bytes are
// those that the program meant.

// rewriteQuiet is how long a mail must not have been written for its bytes to count as complete.
const rewriteQuiet = time.Second

// rewrite is a mail that is being written.
type rewrite struct {
	timer *time.Timer
}

// beginRewrite notes that a mail's bytes are changing, and that this is journaled already. The caller holds mu.
func (f *fileSystem) beginRewrite(id inode.ID) {
	if r := f.rewrites[id]; r != nil {
		r.timer.Reset(rewriteQuiet)
		return
	}
	if f.closed {
		return
	}
	r := &rewrite{}
	r.timer = time.AfterFunc(rewriteQuiet, func() { f.rewriteOver(id, r) })
	f.rewrites[id] = r
}

// rewriteOver is called when a mail was not written for a while.
func (f *fileSystem) rewriteOver(id inode.ID, r *rewrite) {
	f.mu.Lock()
	current := f.rewrites[id] == r
	f.mu.Unlock()
	if current {
		f.endRewrite(id) // an error is logged; the next full sync finds the mail
	}
}

// endRewrite journals the final bytes of a mail that was being written.
func (f *fileSystem) endRewrite(id inode.ID) error {
	f.mu.Lock()
	ev, visible := f.replaced(id)
	pending := f.rewrites[id] != nil && visible
	if pending {
		f.swept.Add(1)
		defer f.swept.Done()
	}
	f.dropRewrite(id)
	f.mu.Unlock()
	if !pending {
		return nil
	}
	return f.record(context.Background(), "write", []mail.Event{ev})
}

// dropRewrite forgets that a mail is being written. The caller holds mu.
func (f *fileSystem) dropRewrite(id inode.ID) {
	if r := f.rewrites[id]; r != nil {
		r.timer.Stop()
		delete(f.rewrites, id)
	}
}

// endRewrites journals what is still being written when the mount goes away, and waits for what is being journaled.
func (f *fileSystem) endRewrites() {
	f.mu.Lock()
	f.closed = true
	ids := slices.Collect(maps.Keys(f.rewrites))
	f.mu.Unlock()
	for _, id := range ids {
		f.endRewrite(id)
	}
	f.swept.Wait()
}

// replaced is the event of a mail whose bytes changed. The caller holds mu.
func (f *fileSystem) replaced(id inode.ID) (mail.Event, bool) {
	if !f.isVisible(id) {
		return mail.Event{}, false
	}
	n := f.table.Get(id)
	return mail.Event{Op: mail.EventReplace, Mailbox: f.dirs[n.Dir].box.name, File: n.Name}, true
}

// beforeWrite journals what writing to a node means.
func (f *fileSystem) beforeWrite(nodeID uint64) error {
	f.mu.Lock()
	id := f.target(inode.ID(nodeID))
	n := f.table.Get(id)
	if n == nil || n.Name == "" {
		f.mu.Unlock()
		return nil
	}
	if f.promiseOf(id) != nil {
		f.mu.Unlock()
		return errNotHere
	}
	d, name := f.dirs[n.Dir], n.Name
	ev, visible := f.replaced(id)
	known := visible && f.rewrites[id] != nil
	if visible {
		f.beginRewrite(id)
	}
	f.mu.Unlock()
	if known || d == nil {
		return nil
	}
	if !visible {
		control, ok := f.controlEvent(d, name)
		if !ok {
			return nil
		}
		ev = control
	}
	return f.record(context.Background(), "write", []mail.Event{ev})
}
