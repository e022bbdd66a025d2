package fusefs

import (
	"context"
	"errors"
	"sync"
)

// lockName is the dotlock that guards a mailbox's UID list and, by Dovecot's rules, every change of its mail.
const lockName = "dovecot-uidlist.lock"

// errHeldThroughMount ends the wait for a lock that a program took through the mount.
var errHeldThroughMount = errors.New("the lock is held through the mount")

// uidLocks knows which mailboxes are locked by a program through the mount, and who of us waits for which lock. It exists
// for one deadlock: a handler of a rename in cur/ waits for the lock while the kernel keeps the directory locked, and the
// program that has the lock wants to rename in cur/.
type uidLocks struct {
	mu      sync.Mutex
	through map[string]bool
	waiting map[string]map[*waiter]bool
}

type waiter struct{ cancel context.CancelCauseFunc }

func newUIDLocks() *uidLocks {
	return &uidLocks{through: map[string]bool{}, waiting: map[string]map[*waiter]bool{}}
}

// enter begins a wait for the lock of a mailbox directory. skip says that it is held through the mount. Else the wait may
// last until the context ends, which it does when a program takes the lock through the mount; done ends the wait.
func (l *uidLocks) enter(ctx context.Context, box string, stillThere func() bool) (wait context.Context, done func(), skip bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.through[box] {
		if stillThere() {
			return nil, nil, true
		}
		delete(l.through, box) // broken behind the mount
	}
	wait, cancel := context.WithCancelCause(ctx)
	w := &waiter{cancel}
	if l.waiting[box] == nil {
		l.waiting[box] = map[*waiter]bool{}
	}
	l.waiting[box][w] = true
	return wait, func() { l.leave(box, w) }, false
}

func (l *uidLocks) leave(box string, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting[box], w)
	if len(l.waiting[box]) == 0 {
		delete(l.waiting, box)
	}
	w.cancel(nil)
}

// taken notes that a program made the lock file through the mount, and sends those who wait for it on their way.
func (l *uidLocks) taken(box string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.through[box] = true
	for w := range l.waiting[box] {
		w.cancel(errHeldThroughMount)
	}
}

// released notes that a program removed the lock file through the mount.
func (l *uidLocks) released(box string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.through, box)
}
