// Package watch tells when somebody changes a Maildir, by inotify, and when the network of this machine changed.
//
// Start from [Maildir] and [Network]. Maildir says that something changed and in which directories, never what: the next look at
// the store finds
// out. What only programs of the store's own kind write (locks, indexes, temporary files) does not count.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/mirror/store/maildir"
)

// A change is reported at once. What follows it closely is gathered into one more report, which is due when nothing happened
// for settle, or after maxBurst.
const (
	settle   = 2 * time.Millisecond
	maxBurst = 20 * time.Millisecond
)

// The reader is woken by each change, but for a flood of them, which it takes in portions: it would else run beside each change of
// a program that makes thousands.
const (
	atOnce  = 8                    // wakes in a row, settle apart at most, that are no flood yet
	portion = 5 * time.Millisecond // of a flood
)

// Seen is told of each changed name with its directory below the root, "" for the root itself. An empty name means that
// anything in the directory may have changed; for the root, anything anywhere.
type Seen func(dir, name string)

// Watcher reports changes until its context ends.
type Watcher struct {
	// Changes gets a value after each burst of changes. One that nobody took yet stands for all. It is never closed.
	Changes <-chan struct{}

	root   string
	log    *slog.Logger
	seen   Seen
	memory *maildir.Memory
	out    chan struct{}
	events chan struct{} // holds at most one: there is something to tell
	done   chan struct{}

	mu     sync.Mutex // guards what follows; held while events are taken
	n      *inotify
	closed bool
	blind  bool     // a directory could not be watched
	untold []change // what seen was not told yet
	news   bool     // there is something to report
}

// change is a name below the root as Seen is told of it.
type change struct{ dir, name string }

// maxUntold is how many changes wait for seen; more count as one of everything.
const maxUntold = 1 << 14

var _ maildir.Tracker = (*Watcher)(nil)

// Maildir watches the Maildir at root until ctx ends. seen, which may be nil, is called from one goroutine, before the report
// is due. memory, which may be nil, relies on the Watcher from now on; what is no news to it is not reported.
func Maildir(ctx context.Context, root string, log *slog.Logger, seen Seen, memory *maildir.Memory) (*Watcher, error) {
	n, err := newInotify()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", root, explain(err))
	}
	if seen == nil {
		seen = func(string, string) {}
	}
	m := &Watcher{
		n: n, root: filepath.Clean(root), log: log, seen: seen, memory: memory,
		out: make(chan struct{}, 1), events: make(chan struct{}, 1), done: make(chan struct{}),
	}
	m.Changes = m.out
	if err := m.addTree(m.root, false); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", root, explain(err)), n.poll.Close(), n.close())
	}
	conn, err := n.poll.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", root, err), n.poll.Close(), n.close())
	}
	if memory != nil {
		memory.Track(m)
	}
	go m.run(ctx, conn)
	return m, nil
}

// Wait returns when the context has ended and nothing of the Watcher is left.
func (m *Watcher) Wait() { <-m.done }

// explain says what the kernel means by running out of space and files here.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("too many directories are watched (raise fs.inotify.max_user_watches): %w", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("too many programs watch directories (raise fs.inotify.max_user_instances): %w", err)
	}
	return err
}

// addTree watches dir and the mail directories and mailboxes below it, and reports each of them as changed if told to.
func (m *Watcher) addTree(dir string, report bool) error {
	// "/." makes a root that is a link be followed.
	return filepath.WalkDir(dir+"/.", func(path string, e fs.DirEntry, err error) error {
		top := path == dir+"/."
		if err != nil {
			if top {
				return err
			}
			return nil // it went away, or is none of our business
		}
		if !e.IsDir() {
			return nil
		}
		path = filepath.Clean(path)
		isRoot, mask := path == m.root, uint32(filesMask)
		if !isRoot && ignoredDir(filepath.Base(path)) {
			return filepath.SkipDir
		}
		inside := isMailDir(filepath.Base(path)) && !isRoot
		if inside {
			mask = namesMask
		}
		if err := m.n.add(path+"/.", path, mask); err != nil {
			return err
		}
		if report {
			m.report(path, "")
		}
		if inside {
			return filepath.SkipDir
		}
		return nil
	})
}

func isMailDir(name string) bool { return name == "cur" || name == "new" }

// ignoredDir reports whether a directory holds nobody's mail.
func ignoredDir(name string) bool {
	return name == "tmp" || name == ".notmuch" || strings.HasPrefix(name, "..")
}

// ignoredFile reports whether a file is nobody's mail: locks, indexes, temporary files.
func ignoredFile(name string) bool {
	switch {
	case strings.HasSuffix(name, ".lock"), strings.HasSuffix(name, ".tmp"):
		return true
	case strings.HasPrefix(name, "dovecot.") && name != "dovecot.mailbox.log", strings.HasPrefix(name, "dovecot-uidvalidity"),
		strings.HasPrefix(name, "dovecot-uidlist"), strings.HasPrefix(name, ".temp."), strings.HasPrefix(name, "temp."):
		return true
	}
	return false
}

func (m *Watcher) run(ctx context.Context, conn syscall.RawConn) {
	defer close(m.done)
	read := make(chan struct{})
	go func() {
		defer close(read)
		var p pace
		_ = conn.Read(func(poll uintptr) bool { // until it is closed
			p.wait(ctx, m.woken(int(poll)))
			return m.arm(int(poll))
		})
	}()
	defer func() {
		if m.memory != nil {
			m.memory.Track(nil)
		}
		m.mu.Lock()
		m.closed = true
		m.mu.Unlock()
		err := m.n.poll.Close()
		<-read
		if err := errors.Join(err, m.n.close()); err != nil {
			m.log.Debug("watching the mail store", "root", m.root, "err", err)
		}
	}()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first, last time.Time // of a burst that was not reported yet; the last report
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.events:
			if !m.tellSeen() {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			wait := min(settle, max(0, maxBurst-time.Since(first)))
			if first.Sub(last) > maxBurst {
				wait = 0
			}
			timer.Reset(wait)
		case <-timer.C:
			first, last = time.Time{}, time.Now()
			if m.memory == nil || m.memory.Pending() {
				tell(m.out, struct{}{})
			}
		}
	}
}

// tellSeen tells what was taken and reports whether there is something to report.
func (m *Watcher) tellSeen() (news bool) {
	m.mu.Lock()
	untold, news := m.untold, m.news
	m.untold, m.news = nil, false
	m.mu.Unlock()
	for _, c := range untold {
		m.seen(c.dir, c.name)
	}
	return news
}

// CatchUp implements [maildir.Tracker].
func (m *Watcher) CatchUp(dir string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeAll()
	box := filepath.Join(m.root, dir)
	return !m.closed && !m.blind && m.n.watches(filepath.Join(box, "new")) && m.n.watches(filepath.Join(box, "cur"))
}

// pace knows whether there is a flood.
type pace struct {
	row  int // wakes with events in a row
	last time.Time
}

// wait returns when the reader may be woken again.
func (p *pace) wait(ctx context.Context, some bool) {
	if time.Since(p.last) > settle {
		p.row = 0
	}
	if some {
		p.row++
	}
	if p.row > atOnce {
		timer := time.NewTimer(portion)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	p.last = time.Now()
}

// woken takes what there is, and reports whether that was anything. The reader is not woken again before arm.
func (m *Watcher) woken(poll int) (some bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.n.quiet(poll); err != nil {
		m.lose(err)
	}
	return m.takeAll()
}

// arm lets the reader be woken again, and reports whether it need not be.
func (m *Watcher) arm(poll int) (over bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return true
	}
	if err := m.n.arm(poll); err != nil {
		m.lose(err)
		return true
	}
	return false
}

// takeAll takes the events that are there, and reports whether there were any.
func (m *Watcher) takeAll() (some bool) {
	for !m.closed {
		events, err := m.n.read()
		if err != nil {
			m.lose(err)
		}
		if len(events) == 0 {
			break
		}
		some = true
		for _, ev := range events {
			m.take(ev)
		}
	}
	return some
}

// lose gives up knowing everything that happens.
func (m *Watcher) lose(err error) {
	m.log.Warn("watching the mail store; what is not seen is found by the periodic full sync", "root", m.root, "err", explain(err))
	m.blind = true
	m.report("", "")
}

// take follows an event, and notes it if it means that mail or mailboxes changed.
func (m *Watcher) take(ev event) {
	path := filepath.Join(ev.dir, ev.name)
	isDir := ev.mask&unix.IN_ISDIR != 0
	switch {
	case ev.dir == "":
		m.report("", "")
		return
	case isMailDir(filepath.Base(ev.dir)) && ev.dir != m.root:
		if ignoredFile(ev.name) {
			return
		}
	case ignoredDir(ev.name):
		return
	case isDir && ev.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
		m.n.dropTree(path)
		if err := m.addTree(path, true); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.lose(err)
		}
	case isDir && ev.mask&unix.IN_MOVED_FROM != 0:
		m.n.dropTree(path)
	case !isDir && ignoredFile(ev.name):
		return
	}
	m.report(ev.dir, ev.name)
}

// report notes a name in a directory; both empty: anything.
func (m *Watcher) report(dir, name string) {
	c := change{name: name}
	switch rel, below := strings.CutPrefix(dir, m.root+"/"); {
	case below:
		c.dir = rel
	case dir == m.root && name == "":
		return // the root as such: its names are reported
	case dir != m.root:
		c.name = ""
	}
	if len(m.untold) == maxUntold {
		m.untold, c = m.untold[:0], change{}
	}
	m.untold = append(m.untold, c)
	if m.memory == nil || m.memory.Note(c.dir, c.name) {
		m.news = true
	}
	tell(m.events, struct{}{})
}
