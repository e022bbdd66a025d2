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
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// A burst of changes is gathered into one report, which is due when nothing happened for settle, or after maxBurst.
const (
	settle   = 2 * time.Millisecond
	maxBurst = 20 * time.Millisecond
)

// Seen is told of each changed name with its directory below the root, "" for the root itself. An empty name means that
// anything in the directory may have changed; for the root, anything anywhere.
type Seen func(dir, name string)

// Watcher reports changes until its context ends.
type Watcher struct {
	// Changes gets a value after each burst of changes. One that nobody took yet stands for all. It is never closed.
	Changes <-chan struct{}

	w    *fsnotify.Watcher
	root string
	log  *slog.Logger
	seen Seen
	out  chan struct{}
	done chan struct{}
}

// Maildir watches the Maildir at root until ctx ends. seen, which may be nil, is called from one goroutine, before the report
// is due.
func Maildir(ctx context.Context, root string, log *slog.Logger, seen Seen) (*Watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", root, explain(err))
	}
	if seen == nil {
		seen = func(string, string) {}
	}
	m := &Watcher{w: w, root: filepath.Clean(root), log: log, seen: seen, out: make(chan struct{}, 1), done: make(chan struct{})}
	m.Changes = m.out
	// "/." makes a root that is a link be followed; names come back without it.
	if err := m.addTree(m.root+"/.", false); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", root, explain(err)), w.Close())
	}
	go m.run(ctx)
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
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // it went away, or is none of our business
		}
		if !e.IsDir() {
			return nil
		}
		isRoot := filepath.Clean(path) == m.root
		if !isRoot && ignoredDir(e.Name()) {
			return filepath.SkipDir
		}
		if err := m.w.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if report {
			m.report(path, "")
		}
		if isMailDir(e.Name()) && !isRoot {
			return filepath.SkipDir
		}
		return nil
	})
}

// dropTree forgets dir and what is below it, which got another name: their watches would go on with the old one.
func (m *Watcher) dropTree(dir string) {
	for _, path := range m.w.WatchList() {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			_ = m.w.Remove(path) // it may be gone already
		}
	}
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

func (m *Watcher) run(ctx context.Context) {
	defer close(m.done)
	errs, drained := m.drainErrors()
	defer func() {
		if err := m.w.Close(); err != nil {
			m.log.Debug("watching the mail store", "root", m.root, "err", err)
		}
		<-drained
	}()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var first time.Time // of a burst that was not reported yet
	changed := func() {
		if first.IsZero() {
			first = time.Now()
		}
		timer.Reset(min(settle, max(0, maxBurst-time.Since(first))))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-m.w.Events:
			if m.take(ev) {
				changed()
			}
		case <-errs:
			m.seen("", "")
			changed()
		case <-timer.C:
			first = time.Time{}
			tell(m.out)
		}
	}
}

// drainErrors passes the errors of fsnotify on: most of all that events were lost. It holds a lock while it tells them, and
// Add waits for that lock, so somebody else than the caller of Add has to listen.
func (m *Watcher) drainErrors() (lost <-chan struct{}, drained <-chan struct{}) {
	errs, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for err := range m.w.Errors { // until it is closed
			m.log.Debug("watching the mail store", "root", m.root, "err", err)
			tell(errs)
		}
	}()
	return errs, done
}

// take follows an event and reports whether it means that mail or mailboxes changed.
func (m *Watcher) take(ev fsnotify.Event) bool {
	dir, name := filepath.Split(ev.Name)
	inMailDir := isMailDir(filepath.Base(dir)) && filepath.Clean(dir) != m.root
	switch {
	case ev.Name == "", ignoredDir(name), ev.Op == fsnotify.Chmod:
		return false
	case ev.Op == fsnotify.Write && inMailDir:
		return false
	case inMailDir:
		if ignoredFile(name) {
			return false
		}
	case ev.Has(fsnotify.Create) && isDir(ev.Name):
		m.dropTree(ev.Name)
		if err := m.addTree(ev.Name, true); err != nil {
			m.log.Warn("watching a new mailbox", "dir", ev.Name, "err", explain(err))
		}
	case ev.Has(fsnotify.Rename):
		m.dropTree(ev.Name)
	case ignoredFile(name):
		return false
	}
	m.report(dir, name)
	return true
}

func isDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// report calls seen with a directory below the root.
func (m *Watcher) report(dir, name string) {
	if name == "" && filepath.Clean(dir) == m.root {
		return // the root as such: its names are reported
	}
	rel, err := filepath.Rel(m.root, dir)
	switch {
	case err != nil:
		m.seen("", "")
	case rel == ".":
		m.seen("", name)
	default:
		m.seen(rel, name)
	}
}
