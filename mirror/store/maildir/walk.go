package maildir

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// place is a mailbox on disk.
type place struct {
	name mail.Name
	dir  string // path below the root
}

// walkResult is what the directories say about the mailbox tree.
type walkResult struct {
	boxes  []place     // by name, INBOX among them
	levels []mail.Name // directories that are no mailbox (LAYOUT=fs only), by name
	notes  []string
}

// walk finds the mailboxes. known spares the look into directories that are known to be mailboxes. No directory inside a
// mailbox but those of further mailboxes is read.
func (s *Store) walk(ctx context.Context, known func(mail.Name) bool) (walkResult, error) {
	w := walkResult{boxes: []place{{name: mail.Inbox}}}
	var err error
	if s.o.Layout == FS {
		err = s.walkFS(ctx, &w, "", known)
	} else {
		err = s.walkFlat(ctx, &w, known)
	}
	if err != nil {
		return walkResult{}, err
	}
	slices.SortFunc(w.boxes, func(a, b place) int { return strings.Compare(string(a.name), string(b.name)) })
	slices.Sort(w.levels)
	slices.Sort(w.notes)
	return w, nil
}

// subdirs calls f for each directory in dir, and refuses links to what might be one.
func (w *walkResult) subdirs(dir vfs.Dir, relevant func(name string) bool, f func(name string) error) error {
	return dir.Names(func(name string, typ vfs.Type) error {
		if !relevant(name) {
			return nil
		}
		if typ == vfs.Unknown {
			info, err := dir.Stat(name)
			if err != nil {
				return ignoreGone(err)
			}
			typ = info.Type
		}
		switch typ {
		case vfs.Directory:
			return f(name)
		case vfs.Other:
			return fmt.Errorf("%s: %w", joinPath(dir.Path(), name), ErrLink)
		}
		return nil
	})
}

func (s *Store) walkFlat(ctx context.Context, w *walkResult, known func(mail.Name) bool) error {
	relevant := func(name string) bool { return name[0] == '.' && !strings.HasPrefix(name, "..") }
	return w.subdirs(s.root, relevant, func(dir string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return s.consider(w, dir, known)
	})
}

// consider adds the directory to the mailboxes if it is one.
func (s *Store) consider(w *walkResult, dir string, known func(mail.Name) bool) error {
	name, ok := s.o.Layout.MailboxOf(dir)
	if ok && known(name) {
		w.boxes = append(w.boxes, place{name: name, dir: dir})
		return nil
	}
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return ignoreGone(err)
	}
	defer d.Close()
	switch {
	case !hasMailboxMarks(d):
		// .notmuch and the like
	case !ok:
		w.notes = append(w.notes, fmt.Sprintf("%q: not the directory of a mailbox name, ignored", dir))
	default:
		w.boxes = append(w.boxes, place{name: name, dir: dir})
	}
	return nil
}

func (s *Store) walkFS(ctx context.Context, w *walkResult, path string, known func(mail.Name) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	d, err := s.fs.OpenDir(path)
	if err != nil {
		return ignoreGone(err)
	}
	defer d.Close()
	relevant := func(name string) bool { return name != "cur" && name != "new" && name != "tmp" }
	return w.subdirs(d, relevant, func(sub string) error {
		dir := joinPath(path, sub)
		before := len(w.boxes)
		if err := s.consider(w, dir, known); err != nil {
			return err
		}
		if len(w.boxes) == before {
			if sub[0] == '.' {
				return nil // something private to another program
			}
			if name, ok := s.o.Layout.MailboxOf(dir); ok {
				w.levels = append(w.levels, name)
			}
		}
		return s.walkFS(ctx, w, dir, known)
	})
}
