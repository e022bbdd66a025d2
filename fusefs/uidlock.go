package fusefs

import (
	"context"
	"errors"
	"sync"
	"time"
)

// lockName is the dotlock that guards a mailbox's UID list and, by Dovecot's rules, every change of its mail.
const lockName = "dovecot-uidlist.lock"

// errHeldThroughMount ends the wait for a lock that a program took through the mount.
var errHeldThroughMount = errors.New("the lock is held through the mount")

// uidLocks knows which mailboxes are locked by a program through the mount, and who of us waits for which lock. It exists
// for one deadlock: a handler of a rename in cur/ waits for the lock while the kernel keeps the directory locked, and the
// program that has the lock wants to rename in cur/.
//
// And it keeps a lock for a moment after it was used: a program that changes the flags of a thousand mails would else make
// and remove a thousand lock files. A program that looks for the lock file through the mount, or lists or removes its
// directory, ends that; others find it free at least every lockSpell.
type uidLocks struct {
	mu      sync.Mutex
	through map[string]bool
	waiting map[string]map[*waiter]bool
	kept    map[string]*keptLock
	rested  map[string]time.Time // until then nothing is kept
}

const (
	lockLinger = 20 * time.Millisecond // how long a lock is kept that nobody uses
	lockSpell  = time.Second           // how long it is kept in all
	lockRest   = 50 * time.Millisecond // how long it is not kept then
)

// keptLock is a lock of ours that is held, and by how many changes.
type keptLock struct {
	unlock func()
	users  int
	until  time.Time   // the end of its spell
	left   time.Time   // when its last user left
	timer  *time.Timer // looks now and then whether it is still used; set anew at each use, it would wake a thread each time
}

type waiter struct{ cancel context.CancelCauseFunc }

func newUIDLocks() *uidLocks {
	return &uidLocks{through: map[string]bool{}, waiting: map[string]map[*waiter]bool{},
		kept: map[string]*keptLock{}, rested: map[string]time.Time{}}
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

// join uses a lock that is kept; ok is false if there is none.
func (l *uidLocks) join(box string) (done func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kept[box]
	if k == nil || time.Now().After(k.until) {
		return nil, false
	}
	k.users++
	return func() { l.done(box, k) }, true
}

// keep takes over a lock that was just taken, for use until done.
func (l *uidLocks) keep(box string, unlock func()) (done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.kept[box] != nil || l.through[box] || now.Before(l.rested[box]) {
		return unlock
	}
	k := &keptLock{unlock: unlock, users: 1, until: now.Add(lockSpell)}
	k.timer = time.AfterFunc(lockLinger, func() { l.look(box, k) })
	l.kept[box] = k
	return func() { l.done(box, k) }
}

// done ends a use. The last one lets go of a lock whose spell is over.
func (l *uidLocks) done(box string, k *keptLock) {
	l.mu.Lock()
	k.users--
	k.left = time.Now()
	over := k.users == 0 && (l.kept[box] != k || k.left.After(k.until))
	if over {
		l.drop(box, k)
	}
	l.mu.Unlock()
	if over {
		k.unlock()
	}
}

// drop forgets a kept lock, which the caller then releases. The caller holds mu.
func (l *uidLocks) drop(box string, k *keptLock) {
	k.timer.Stop()
	if l.kept[box] != k {
		return
	}
	delete(l.kept, box)
	if now := time.Now(); now.After(k.until) {
		l.rested[box] = now.Add(lockRest)
	} else {
		delete(l.rested, box)
	}
}

// look lets go of a lock that was not used for a while, or looks again when that may be so.
func (l *uidLocks) look(box string, k *keptLock) {
	l.mu.Lock()
	wait := lockLinger
	if k.users == 0 {
		wait -= time.Since(k.left)
	}
	free := wait <= 0 && l.kept[box] == k
	switch {
	case free:
		l.drop(box, k)
	case l.kept[box] == k:
		k.timer.Reset(wait)
	}
	l.mu.Unlock()
	if free {
		k.unlock()
	}
}

// yield lets go of a lock that is only kept: a program asks for it. One that is in use goes with its last user.
func (l *uidLocks) yield(box string) {
	l.mu.Lock()
	k := l.kept[box]
	free := k != nil && k.users == 0
	if k != nil {
		k.timer.Stop()
		delete(l.kept, box)
	}
	l.mu.Unlock()
	if free {
		k.unlock()
	}
}

// close lets go of everything that is kept.
func (l *uidLocks) close() {
	l.mu.Lock()
	var boxes []string
	for box := range l.kept {
		boxes = append(boxes, box)
	}
	l.mu.Unlock()
	for _, box := range boxes {
		l.yield(box)
	}
}
