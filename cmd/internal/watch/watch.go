// Package watch tells when somebody changes a Maildir, by inotify.
//
// It says that something changed and in which directories, never what: the next look at the store finds out. What only
// programs of the store's own kind write (locks, indexes, temporary files) does not count.
package watch

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long a burst of changes is gathered into one report.
const settle = 15 * time.Millisecond

// Maildir watches the Maildir at root until ctx ends. A report that nobody took yet stands for all. seen, which may be nil,
// is called from one goroutine for each changed name with its directory below root, and before the report is due; with an
// empty name if anything may have changed.
func Maildir(ctx context.Context, root string, log *slog.Logger, seen func(dir, name string)) (<-chan struct{}, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", root, err)
	}
	m := &watcher{w: w, root: root, log: log, seen: seen, out: make(chan struct{}, 1)}
	if err := m.addTree(root); err != nil {
		w.Close()
		return nil, fmt.Errorf("watching %s: %w", root, err)
	}
	go m.run(ctx)
	return m.out, nil
}

type watcher struct {
	w    *fsnotify.Watcher
	root string
	log  *slog.Logger
	seen func(dir, name string)
	out  chan struct{}
}

// addTree watches dir and the mail directories and mailboxes below it.
func (m *watcher) addTree(dir string) error {
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
		if path != m.root && ignored(e.Name()) {
			return filepath.SkipDir
		}
		if err := m.w.Add(path); err != nil {
			return err
		}
		if isMailDir(e.Name()) && path != m.root {
			return filepath.SkipDir
		}
		return nil
	})
}

func isMailDir(name string) bool { return name == "cur" || name == "new" }

// ignored reports whether a name is nobody's mail: locks, indexes, temporary files, indexers' data.
func ignored(name string) bool {
	switch {
	case name == "tmp", name == ".notmuch", strings.HasPrefix(name, ".."), strings.HasSuffix(name, ".lock"), strings.HasSuffix(name, ".tmp"):
		return true
	case strings.HasPrefix(name, "dovecot.") && name != "dovecot.mailbox.log", strings.HasPrefix(name, "dovecot-uidvalidity"),
		strings.HasPrefix(name, "dovecot-uidlist"), strings.HasPrefix(name, ".temp."), strings.HasPrefix(name, "temp."):
		return true
	}
	return false
}

func (m *watcher) run(ctx context.Context) {
	defer m.w.Close()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-m.w.Events:
			if !ok {
				return
			}
			if m.counts(ev) {
				m.report(ev.Name)
				timer.Reset(settle)
			}
		case err, ok := <-m.w.Errors:
			if !ok {
				return
			}
			m.log.Warn("watching the mail store", "root", m.root, "err", err)
			m.report(m.root) // an overflow: anything may have changed
			timer.Reset(settle)
		case <-timer.C:
			select {
			case m.out <- struct{}{}:
			default:
			}
		}
	}
}

// counts reports whether an event means that mail or mailboxes changed, and watches new directories.
func (m *watcher) counts(ev fsnotify.Event) bool {
	name := filepath.Base(ev.Name)
	if ignored(name) || ev.Op == fsnotify.Chmod || ev.Op == fsnotify.Write && isMailDir(filepath.Base(filepath.Dir(ev.Name))) {
		return false
	}
	if ev.Has(fsnotify.Create) && !isMailDir(filepath.Base(filepath.Dir(ev.Name))) {
		if info, err := os.Lstat(ev.Name); err == nil && info.IsDir() {
			if err := m.addTree(ev.Name); err != nil {
				m.log.Warn("watching a new mailbox", "dir", ev.Name, "err", err)
			}
		}
	}
	return true
}

func (m *watcher) report(path string) {
	if m.seen == nil {
		return
	}
	rel, err := filepath.Rel(m.root, path)
	if err != nil || rel == "." {
		m.seen("", "")
		return
	}
	dir, name := filepath.Split(rel)
	m.seen(strings.TrimSuffix(dir, "/"), name)
}
