package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"dsyncfs/mirror/journal"
)

// ErrServed is wrapped when a mount point has a daemon already.
var ErrServed = errors.New("mount point in use")

const (
	journalName = "journal" // directory
	ownerName   = "maildir" // file: whose journal it is
)

// openJournal opens the journal of a mount. One that is about another Maildir is put aside: what was removed from that is no
// witness for this one.
func openJournal(o Options, dir string) (*journal.Journal, error) {
	path := filepath.Join(dir, journalName)
	j, err := lockJournal(o, path)
	if err != nil {
		return nil, err
	}
	ours, err := isJournalOf(dir, o.Local.Canonical())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", o.Mountpoint, err), j.Close())
	}
	if !ours {
		if err := errors.Join(j.Close(), putAside(o, path)); err != nil {
			return nil, fmt.Errorf("mount %s: %w", o.Mountpoint, err)
		}
		if j, err = lockJournal(o, path); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ownerName), []byte(o.Local.Canonical()), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", o.Mountpoint, err), j.Close())
	}
	if j.Recovery().Damaged() {
		o.Logger.Warn("the journal was damaged and repaired; everything is compared now", "set_aside", j.Recovery().SetAside)
	}
	return j, nil
}

// lockJournal opens the journal at path, which is made if it is not there. It is open once.
func lockJournal(o Options, path string) (*journal.Journal, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	j, err := journal.Open(path, journal.Options{Logger: o.Logger})
	var locked *journal.LockedError
	switch {
	case errors.As(err, &locked):
		who := "another process"
		if locked.PID != 0 {
			who = fmt.Sprintf("process %d", locked.PID)
		}
		return nil, fmt.Errorf("mount point %s: %s serves it already (end it with: dsyncfs umount %s): %w", o.Mountpoint, who, o.Mountpoint, ErrServed)
	case err != nil:
		return nil, fmt.Errorf("mount %s: %w", o.Mountpoint, err)
	}
	return j, nil
}

// isJournalOf reports whether the journal of a state directory is about that Maildir. A new one is.
func isJournalOf(dir, maildir string) (bool, error) {
	owner, err := os.ReadFile(filepath.Join(dir, ownerName))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return string(owner) == maildir, err
}

// putAside renames a journal; an older one that was put aside goes.
func putAside(o Options, path string) error {
	old := path + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(path, old); err != nil {
		return err
	}
	o.Logger.Warn("another Maildir was mounted here before; its journal was put aside", "journal", old)
	return nil
}
