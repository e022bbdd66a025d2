package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

const lockName = uidlistName + ".lock"

// Times of the lock protocol (dovecot 2.3.19 file-dotlock.c, maildir-uidlist.c).
const (
	lockTimeout    = 122 * time.Second // how long to wait for another program
	lockFresh      = 2 * time.Second   // a lock this young is not questioned
	lockStale      = 120 * time.Second // one without a living local owner and without any change for so long is broken
	lockNameless   = 5 * time.Second   // an empty one is of a process that was killed: the name is written at once
	lockTouch      = 10 * time.Second  // a holder shows that it lives
	lockPollMin    = 2 * time.Millisecond
	lockPollMax    = 200 * time.Millisecond
	maxLockContent = 1024
)

// LockOptions says who we are and how patient. Zero values mean the process's own and Dovecot's.
type LockOptions struct {
	Hostname string // as other programs on this host write it; another one where process ids are not shared with them
	PID      int
	Timeout  time.Duration
	Now      func() time.Time
	Logger   *slog.Logger
}

// Locks holds the dovecot-uidlist.lock of mailboxes for the whole process. Whoever wants a lock that the process holds
// already joins the hold; the file goes away with the last one. So a lock keeps other programs out, not other goroutines:
// the store's own batches exclude each other by a mutex per mailbox on top, see acquireExclusive.
//
// Lock order: mailbox mutex, then the file. Holders of several files take them in the order of their names.
type Locks struct {
	o LockOptions

	names atomic.Uint64 // makes the file names of all stores of the process differ, whatever the clock does

	mu    sync.Mutex
	holds map[dirID]*hold
	boxes map[dirID]*boxMutex
}

// dirID identifies a directory whatever its name.
type dirID struct{ dev, ino uint64 }

// hold is one lock file that we hold or try to get.
type hold struct {
	refs  int           // guarded by Locks.mu
	ready chan struct{} // closed once err or info is set
	err   error
	info  vfs.Info // of the lock file

	mu    sync.Mutex // guards what follows
	touch *time.Timer
	dirs  []vfs.Dir // open directories of the holders
}

// boxMutex is a mutex whose Lock can be given up.
type boxMutex struct {
	refs int // guarded by Locks.mu
	sem  chan struct{}
}

// NewLocks returns a holder that holds nothing.
func NewLocks(o LockOptions) *Locks {
	if o.Hostname == "" {
		o.Hostname = localHostname()
	}
	if o.PID == 0 {
		o.PID = os.Getpid()
	}
	if o.Timeout == 0 {
		o.Timeout = lockTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Locks{o: o, holds: make(map[dirID]*hold), boxes: make(map[dirID]*boxMutex)}
}

// localHostname is the name that Dovecot writes into its locks.
func localHostname() string {
	if name := os.Getenv("DOVECOT_HOSTNAME"); name != "" {
		return name
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// Acquire takes the lock of the mailbox directory, or joins a hold of this process. The directory must stay open until
// release, which everyone who got one must call once. The error is [store.ErrLocked] if another program did not let go in
// time, or the cause of ctx.
func (l *Locks) Acquire(ctx context.Context, dir vfs.Dir) (release func() error, err error) {
	id, err := idOf(dir)
	if err != nil {
		return nil, err
	}
	for {
		h, first := l.join(id)
		if first {
			h.info, h.err = l.create(ctx, dir)
			if h.err != nil {
				l.leave(id, h)
			} else {
				l.startTouching(h)
			}
			close(h.ready)
		}
		select {
		case <-h.ready:
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), l.abandon(id, h, dir))
		}
		if h.err == nil {
			h.addDir(dir)
			return func() error { return l.release(id, h, dir) }, nil
		}
		if first || !isContextError(h.err) {
			return nil, h.err
		}
		// The one that we waited for gave up for a reason of its own.
	}
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func idOf(dir vfs.Dir) (dirID, error) {
	info, err := dir.Info()
	return dirID{dev: info.Dev, ino: info.Ino}, err
}

// join returns the hold of a directory, and whether the caller is the one to create its lock file.
func (l *Locks) join(id dirID) (h *hold, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h = l.holds[id]
	if h == nil {
		h, first = &hold{ready: make(chan struct{})}, true
		l.holds[id] = h
	}
	h.refs++
	return h, first
}

// leave forgets a hold whose lock file could not be made; those that wait for it see its error.
func (l *Locks) leave(id dirID, h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds[id] == h {
		delete(l.holds, id)
	}
}

// abandon is release for someone who stopped waiting before it was known whether there is a hold.
func (l *Locks) abandon(id dirID, h *hold, dir vfs.Dir) error {
	l.mu.Lock()
	h.refs--
	last := h.refs == 0
	l.mu.Unlock()
	if !last {
		return nil
	}
	<-h.ready // its creator has released already, so this does not wait
	if h.err != nil {
		return nil
	}
	return l.drop(id, h, dir)
}

func (l *Locks) release(id dirID, h *hold, dir vfs.Dir) error {
	l.mu.Lock()
	h.refs--
	last := h.refs == 0
	l.mu.Unlock()
	h.removeDir(dir)
	if !last {
		return nil
	}
	return l.drop(id, h, dir)
}

// drop removes the lock file of a hold that nobody is left in, unless someone joined meanwhile.
func (l *Locks) drop(id dirID, h *hold, dir vfs.Dir) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.refs > 0 || l.holds[id] != h {
		return nil
	}
	delete(l.holds, id)
	h.stopTouching()
	// A lock that was broken, because we seemed dead, is someone else's now.
	info, err := dir.Stat(lockName)
	switch {
	case notExist(err) || err == nil && (info.Ino != h.info.Ino || info.Dev != h.info.Dev):
		l.o.Logger.Warn("lock was taken away while held", "path", joinPath(dir.Path(), lockName))
		return nil
	case err != nil:
		return err
	}
	return dir.Remove(lockName)
}

func (h *hold) addDir(dir vfs.Dir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dirs = append(h.dirs, dir)
}

func (h *hold) removeDir(dir vfs.Dir) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, d := range h.dirs {
		if d == dir {
			h.dirs = append(h.dirs[:i], h.dirs[i+1:]...)
			return
		}
	}
}

// startTouching keeps the lock's mtime young while it is held.
func (l *Locks) startTouching(h *hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.touch = time.AfterFunc(lockTouch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.touch == nil {
			return
		}
		if len(h.dirs) > 0 {
			if err := h.dirs[0].SetTimes(lockName, l.o.Now()); err != nil && !notExist(err) {
				l.o.Logger.Warn("touch lock", "path", joinPath(h.dirs[0].Path(), lockName), "err", err)
			}
		}
		h.touch.Reset(lockTouch)
	})
}

// stopTouching returns when no touch is under way and none will come.
func (h *hold) stopTouching() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.touch.Stop()
	h.touch = nil
}

// create makes the lock file, waiting for others.
func (l *Locks) create(ctx context.Context, dir vfs.Dir) (vfs.Info, error) {
	start := time.Now()
	poll := lockPollMin
	var watch staleWatch
	for {
		info, err := l.tryCreate(dir)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return info, err
		}
		stale, err := watch.stale(l, dir)
		if err != nil {
			return vfs.Info{}, err
		}
		if stale {
			l.o.Logger.Warn("removing a stale lock", "path", joinPath(dir.Path(), lockName))
			if err := dir.Remove(lockName); err != nil && !notExist(err) {
				return vfs.Info{}, err
			}
			// As Dovecot does: time for another that found it stale as well and is about to remove it, so that it does not
			// remove ours.
			if err := sleep(ctx, 100*time.Millisecond); err != nil {
				return vfs.Info{}, err
			}
			continue
		}
		if time.Since(start) > l.o.Timeout {
			return vfs.Info{}, fmt.Errorf("%s: held by %s: %w", joinPath(dir.Path(), lockName), watch.owner(), store.ErrLocked)
		}
		if err := sleep(ctx, poll); err != nil {
			return vfs.Info{}, err
		}
		poll = min(poll*3/2, lockPollMax)
	}
}

func (l *Locks) tryCreate(dir vfs.Dir) (vfs.Info, error) {
	f, err := dir.Create(lockName, 0o600)
	if err != nil {
		return vfs.Info{}, noSpace(err)
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write([]byte(strconv.Itoa(l.o.PID) + ":" + l.o.Hostname))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		dir.Remove(lockName)
		return vfs.Info{}, noSpace(err)
	}
	return info, nil
}

// staleWatch remembers how another program's lock looked while we wait for it.
type staleWatch struct {
	lock, list vfs.Info
	since      time.Time // nothing has changed since then, by our clock
	content    string
}

func (w *staleWatch) owner() string {
	if w.content == "" {
		return "an unknown program"
	}
	return strconv.Quote(w.content)
}

// stale reports whether the lock file may be removed: its owner is a process of this host that is dead, or nobody knows the
// owner and neither the lock nor the uidlist has changed for lockStale.
func (w *staleWatch) stale(l *Locks, dir vfs.Dir) (bool, error) {
	info, err := dir.Stat(lockName)
	if notExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	list, err := dir.Stat(uidlistName)
	if err != nil && !notExist(err) {
		return false, err
	}
	now := l.o.Now()
	if w.since.IsZero() || !unchanged(info, w.lock) || !unchanged(list, w.list) {
		w.lock, w.list, w.since = info, list, now
	}
	if now.Sub(info.Mtime) <= lockFresh && info.Mtime.Before(now.Add(lockFresh)) {
		return false, nil
	}
	content, err := vfs.ReadFile(dir, lockName, maxLockContent)
	if err != nil {
		return false, ignoreGone(err)
	}
	w.content = string(content)
	if pid, ours := l.localPID(w.content); ours {
		if alive(pid) {
			return false, nil
		}
		again, err := dir.Stat(lockName)
		return err == nil && unchanged(again, info), ignoreGone(err)
	}
	if w.content == "" {
		return now.Sub(w.since) > lockNameless, nil
	}
	return now.Sub(w.since) > lockStale, nil
}

// localPID returns the process that a lock's content names, if it is one of this host.
func (l *Locks) localPID(content string) (int, bool) {
	p, host, found := strings.Cut(content, ":")
	pid, err := strconv.Atoi(p)
	return pid, found && err == nil && pid > 0 && host == l.o.Hostname
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return !errors.Is(err, syscall.ESRCH)
}

func unchanged(a, b vfs.Info) bool { return sameFile(a, b) && a.Ctime.Equal(b.Ctime) }

func ignoreGone(err error) error {
	if notExist(err) {
		return nil
	}
	return err
}

// acquireExclusive is Acquire for the store's own batches, which exclude each other but not those that join by Acquire.
func (l *Locks) acquireExclusive(ctx context.Context, dir vfs.Dir) (release func() error, err error) {
	id, err := idOf(dir)
	if err != nil {
		return nil, err
	}
	m := l.boxMutex(id)
	select {
	case m.sem <- struct{}{}:
	case <-ctx.Done():
		l.dropBoxMutex(id, m)
		return nil, context.Cause(ctx)
	}
	unlock := func() {
		<-m.sem
		l.dropBoxMutex(id, m)
	}
	releaseFile, err := l.Acquire(ctx, dir)
	if err != nil {
		unlock()
		return nil, err
	}
	return func() error {
		defer unlock()
		return releaseFile()
	}, nil
}

func (l *Locks) boxMutex(id dirID) *boxMutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.boxes[id]
	if m == nil {
		m = &boxMutex{sem: make(chan struct{}, 1)}
		l.boxes[id] = m
	}
	m.refs++
	return m
}

func (l *Locks) dropBoxMutex(id dirID, m *boxMutex) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.refs--; m.refs == 0 {
		delete(l.boxes, id)
	}
}
