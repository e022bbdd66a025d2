package maildir

import (
	"context"
	"errors"
	"fmt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// Reader opens the mails of one mailbox by their base names, without the catalog, which somebody else may have in use. It may be
// used from many goroutines.
type Reader struct{ m *mailbox }

// NewReader opens the mailbox of that name. The error wraps store.ErrNotFound if there is none.
func NewReader(fsys vfs.FS, layout Layout, name mail.Name) (*Reader, error) {
	m := &mailbox{}
	var err error
	if m.dir, err = layout.DirOf(name); err != nil {
		return nil, err
	}
	if m.d, err = openDirs(fsys, m.dir); err != nil {
		if notExist(err) {
			err = fmt.Errorf("%w: %w", store.ErrNotFound, err)
		}
		return nil, fmt.Errorf("open %s: %w", describe(name), errors.Join(err, m.d.Close()))
	}
	return &Reader{m}, nil
}

// Body opens a mail, wherever in the mailbox it is now; store.ErrNotFound if it is gone.
func (r *Reader) Body(ctx context.Context, base string) (store.Body, error) {
	if f, ok := mail.ParseFileName(base); !ok || f.Base != base || f.HasInfo {
		return nil, fmt.Errorf("%q: no base name: %w", base, store.ErrNotFound)
	}
	return r.m.openFile(ctx, "new/"+base)
}

// Close lets go of the directories.
func (r *Reader) Close() error { return r.m.d.Close() }

// FileOf says which file a message gets that is added under its GUID and has no keywords: the directory, "new" or "cur", and the
// name. ok is false if that cannot be told: then the base name may be another one. A VirtualSize that is
// not known is -1.
func FileOf(m mail.Message) (dir, name string, ok bool) {
	if !storableGUID(m.GUID) || m.Size < 0 || !usableBase(string(m.GUID), m.Size, m.VirtualSize) {
		return "", "", false
	}
	f := mail.FileName{Base: string(m.GUID), Flags: m.Flags}
	if m.Flags == 0 {
		return "new", f.String(), true
	}
	return "cur", f.String(), true
}
