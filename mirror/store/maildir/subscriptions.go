package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

const subscriptionsName = "subscriptions"

// maxSubscriptions bounds the subscriptions file.
const maxSubscriptions = 16 << 20

// Times of the subscriptions dotlock (dovecot 2.3.19 subscription-file.c).
const (
	subscriptionsWait  = 120 * time.Second
	subscriptionsStale = 30 * time.Second
)

const subscriptionsV2 = "V\t2\n\n"

// subscriptions is a subscriptions file. Lines that name no mailbox that we can represent are kept as they are.
type subscriptions struct {
	v2    bool
	sep   byte // between the parts of a name in version 1
	lines []string
}

// parseSubscriptions reads a file of either version; an empty one becomes version 2, as Dovecot writes new files.
func parseSubscriptions(data []byte, layout Layout) *subscriptions {
	s := &subscriptions{sep: layout.separator()}
	rest, isV2 := bytes.CutPrefix(data, []byte(subscriptionsV2))
	s.v2 = isV2 || len(data) == 0
	for line := range strings.SplitSeq(string(rest), "\n") {
		if line != "" {
			s.lines = append(s.lines, line)
		}
	}
	return s
}

func loadSubscriptions(root vfs.Dir, layout Layout) (*subscriptions, error) {
	data, err := vfs.ReadFile(root, subscriptionsName, maxSubscriptions)
	if err != nil && !notExist(err) {
		return nil, err
	}
	return parseSubscriptions(data, layout), nil
}

func (s *subscriptions) encode() []byte {
	var out bytes.Buffer
	if s.v2 {
		out.WriteString(subscriptionsV2)
	}
	for _, l := range s.lines {
		out.WriteString(l)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

// names returns the mailboxes that are subscribed.
func (s *subscriptions) names() map[mail.Name]struct{} {
	out := make(map[mail.Name]struct{}, len(s.lines))
	for _, l := range s.lines {
		if name, ok := s.nameOf(l); ok {
			out[name] = struct{}{}
		}
	}
	return out
}

func (s *subscriptions) nameOf(line string) (mail.Name, bool) {
	if !s.v2 {
		return nameOfStorageParts(strings.Split(line, string(s.sep)))
	}
	parts := strings.Split(line, "\t")
	for i, p := range parts {
		parts[i] = tabUnescape(p)
	}
	return nameOfStorageParts(parts)
}

func (s *subscriptions) lineOf(name mail.Name) string {
	parts := storageParts(name)
	if !s.v2 {
		return strings.Join(parts, string(s.sep))
	}
	for i, p := range parts {
		parts[i] = tabEscape(p)
	}
	return strings.Join(parts, "\t")
}

// set subscribes or unsubscribes a name and reports whether that changed anything.
func (s *subscriptions) set(name mail.Name, subscribed bool) (changed bool) {
	name = name.FoldInbox()
	kept := make([]string, 0, len(s.lines)+1)
	found := false
	for _, l := range s.lines {
		if n, ok := s.nameOf(l); ok && n == name {
			found = true
			if !subscribed {
				continue
			}
		}
		kept = append(kept, l)
	}
	if subscribed == found {
		return false
	}
	if subscribed {
		kept = append(kept, s.lineOf(name))
	}
	s.lines = kept
	return true
}

var (
	tabEscaper   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r")
	tabUnescaper = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01n", "\n", "\x01r", "\r")
)

// tabEscape and tabUnescape are Dovecot's str_tabescape.
func tabEscape(s string) string   { return tabEscaper.Replace(s) }
func tabUnescape(s string) string { return tabUnescaper.Replace(s) }

// editSubscriptions changes the file under its own dotlock, which Dovecot fills with the new content and renames over it.
// edit reports whether it changed anything.
func editSubscriptions(ctx context.Context, root vfs.Dir, layout Layout, perm uint32, edit func(*subscriptions) bool) (err error) {
	const lock = subscriptionsName + ".lock"
	f, err := createDotlock(ctx, root, lock, perm)
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			f.Close()
		}
		if err != nil {
			root.Remove(lock)
		}
	}()
	s, err := loadSubscriptions(root, layout)
	if err != nil {
		return err
	}
	if !edit(s) {
		return root.Remove(lock)
	}
	if _, err := f.Write(s.encode()); err != nil {
		return noSpace(err)
	}
	if err := f.Sync(); err != nil {
		return noSpace(err)
	}
	err = f.Close()
	f = nil
	if err != nil {
		return noSpace(err)
	}
	if err := root.Rename(lock, root, subscriptionsName); err != nil {
		return err
	}
	return root.Sync()
}

// createDotlock makes a lock file by O_EXCL, waiting for another holder and removing what one left behind.
func createDotlock(ctx context.Context, dir vfs.Dir, name string, perm uint32) (vfs.File, error) {
	deadline := time.Now().Add(subscriptionsWait)
	var seen vfs.Info
	var unchanged time.Time
	for {
		f, err := dir.Create(name, perm)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return f, noSpace(err)
		}
		now := time.Now()
		info, err := dir.Stat(name)
		switch {
		case notExist(err):
			continue
		case err != nil:
			return nil, err
		case unchanged.IsZero() || !sameFile(info, seen):
			seen, unchanged = info, now
		}
		if now.Sub(unchanged) > subscriptionsStale || now.Sub(info.Mtime) > 2*subscriptionsStale {
			if err := dir.Remove(name); err != nil && !notExist(err) {
				return nil, err
			}
			continue
		}
		if now.After(deadline) {
			return nil, fmt.Errorf("%s: %w", joinPath(dir.Path(), name), store.ErrLocked)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// sameFile reports whether two stats of one name show the same file with the same content.
func sameFile(a, b vfs.Info) bool {
	return a.Ino == b.Ino && a.Dev == b.Dev && a.Size == b.Size && a.Mtime.Equal(b.Mtime)
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
