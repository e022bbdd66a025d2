package maildir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// heldMails are the mails that this round expunged, kept as hard links in the root's tmp/ until EndRound so that they can
// be moved instead of fetched again. Their names say whose expunge they are: after a crash between an unlink and the
// catalog's transaction they are the witnesses.
type heldMails struct {
	mu    sync.Mutex
	mails map[mail.GUID]heldMail
	files []string          // in tmp/, ours to remove
	trash []string          // directories of deleted mailboxes
	past  map[heldID]string // of an earlier process: name in tmp/

	pastTrash map[string]mail.MailboxGUID // likewise, of deleted mailboxes: by name in tmp/
}

// heldMail is a mail that is kept.
type heldMail struct {
	path    string // below the root
	message mail.Message
}

// heldID is the message that a held file was.
type heldID struct {
	box mail.MailboxGUID
	uid mail.UID
}

const heldKind = "held"

// heldName returns a name for the file of an expunged message.
func (s *Store) heldName(box mail.MailboxGUID, uid mail.UID) string {
	return s.tempName(fmt.Sprintf("%s-%s-%d", heldKind, box, uid))
}

// parseHeldName is the reverse of heldName.
func parseHeldName(name string) (heldID, bool) {
	rest, ok := strings.CutPrefix(name, tempPrefix+heldKind+"-")
	parts := strings.SplitN(rest, "-", 3)
	if !ok || len(parts) != 3 {
		return heldID{}, false
	}
	guid, err := mail.ParseMailboxGUID(parts[0])
	uid, uerr := strconv.ParseUint(parts[1], 10, 32)
	return heldID{box: guid, uid: mail.UID(uid)}, err == nil && uerr == nil
}

// add keeps a file of tmp/.
func (h *heldMails) add(m mail.Message, name string) {
	h.put(m, "tmp/"+name)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files = append(h.files, name)
}

func (h *heldMails) put(m mail.Message, path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mails == nil {
		h.mails = make(map[mail.GUID]heldMail)
	}
	h.mails[m.GUID] = heldMail{path: path, message: m}
}

func (h *heldMails) addTrash(path string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trash = append(h.trash, path)
}

// wasHeld reports whether an earlier process of ours was expunging the message when it ended.
func (h *heldMails) wasHeld(box mail.MailboxGUID, uid mail.UID) bool {
	_, ok := h.past[heldID{box: box, uid: uid}]
	return ok
}

// wasTrashed reports whether an earlier process of ours was deleting the mailbox when it ended.
func (h *heldMails) wasTrashed(box mail.MailboxGUID) bool {
	for _, guid := range h.pastTrash {
		if guid == box {
			return true
		}
	}
	return false
}

// holdAll lets the mails of a mailbox that was moved away serve for Find.
func (s *Store) holdAll(rec store.MailboxRecord, path string) error {
	s.held.addTrash(path)
	c := newCursor(s.cat, rec.Status.GUID, 0)
	for {
		r, ok, err := c.next()
		if err != nil || !ok {
			return err
		}
		s.held.put(r.Message, path+"/"+r.File)
	}
}

// splitHeld takes the name of a kept mail apart, into its directory and its name there.
func splitHeld(held string) (dir, name string, err error) {
	i := strings.LastIndexByte(held, '/')
	if i < 0 || !strings.HasPrefix(held, "tmp/"+tempPrefix) {
		return "", "", fmt.Errorf("held mail %q: %w", held, store.ErrNotFound)
	}
	return held[:i], held[i+1:], nil
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, want map[mail.GUID]struct{}, fits func(store.Location) bool) (map[mail.GUID]store.Location, error) {
	out := make(map[mail.GUID]store.Location)
	if len(want) == 0 {
		return out, nil
	}
	known, err := s.records()
	if err != nil {
		return nil, err
	}
	for _, rec := range known {
		if len(out) == len(want) {
			break
		}
		c := newCursor(s.cat, rec.Status.GUID, 0)
		for n := 0; ; n++ {
			if n%1024 == 0 && ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			r, ok, err := c.next()
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			at := store.Location{Mailbox: rec.Status.GUID, UID: r.UID}
			if _, wanted := want[r.GUID]; wanted && (fits == nil || fits(at)) && s.isSame(rec.Name, r) {
				out[r.GUID] = at
			}
		}
	}
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	for guid := range want {
		h, ok := s.held.mails[guid]
		at := store.Location{Held: h.path}
		if _, there := out[guid]; ok && !there && (fits == nil || fits(at)) {
			out[guid] = at
		}
	}
	return out, nil
}

// isSame reports whether the file of a message has the bytes of that mail, as far as its size and time tell. One that was
// renamed since the last refresh gets the benefit of the doubt: whoever takes it looks again.
func (s *Store) isSame(box mail.Name, r store.MessageRecord) bool {
	dir, err := s.o.Layout.DirOf(box)
	if err != nil || len(r.File) <= 4 {
		return false
	}
	d, err := s.fs.OpenDir(joinPath(dir, r.File[:3]))
	if err != nil {
		return false
	}
	defer d.Close()
	info, err := d.Stat(r.File[4:])
	return notExist(err) || err == nil && info.Size == r.Size && info.Mtime.Unix() == r.Received
}

// EndRound implements [store.Store].
func (s *Store) EndRound(ctx context.Context) error {
	clear(s.lists)
	return errors.Join(s.dropHeld(), s.dropPast())
}

// dropHeld removes what was kept for Find.
func (s *Store) dropHeld() error {
	s.held.mu.Lock()
	files, trash := s.held.files, s.held.trash
	s.held.files, s.held.trash, s.held.mails = nil, nil, nil
	s.held.mu.Unlock()
	var errs []error
	if len(files) > 0 {
		errs = append(errs, s.removeTemps(files))
	}
	for _, path := range trash {
		errs = append(errs, s.removeTree(path))
	}
	return errors.Join(errs...)
}

// dropPast removes what an earlier process left, once a Refresh has recorded its expunges. A file that is young may be in
// use by another process of ours that is alive.
func (s *Store) dropPast() error {
	if len(s.held.past)+len(s.held.pastTrash) == 0 {
		return nil
	}
	tmp, err := s.fs.OpenDir("tmp")
	if err != nil {
		return ignoreGone(err)
	}
	defer tmp.Close()
	// Those that are old are chosen first: the removal of one makes others young again if they are the same file.
	var old []string
	for id, name := range maps.Clone(s.held.past) {
		over, err := s.isOver(tmp, name)
		if err != nil {
			return err
		}
		if over {
			delete(s.held.past, id)
			old = append(old, name)
		}
	}
	for _, name := range old {
		if err := ignoreGone(tmp.Remove(name)); err != nil {
			return err
		}
	}
	for name := range maps.Clone(s.held.pastTrash) {
		over, err := s.isOver(tmp, name)
		if over {
			delete(s.held.pastTrash, name)
			err = s.removeTree(joinPath("tmp", name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isOver reports whether what an earlier process kept in tmp/ is of no use any more.
func (s *Store) isOver(tmp vfs.Dir, name string) (bool, error) {
	info, err := tmp.Stat(name)
	if err != nil {
		return notExist(err), ignoreGone(err)
	}
	return s.looked && s.isDead(name) || !s.isYoung(info), nil
}

func (s *Store) removeTemps(names []string) error {
	tmp, err := s.ns.OpenDir("tmp") // a mount may know them: mails were linked from there
	if err != nil {
		return ignoreGone(err)
	}
	defer tmp.Close()
	var errs []error
	for _, name := range names {
		errs = append(errs, ignoreGone(tmp.Remove(name)))
	}
	return errors.Join(errs...)
}
