package maildir

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// listing is what a scan of new/ and cur/ found: the names of the mails, to be looked up by base name. It takes about 20
// bytes per mail on top of the names.
type listing struct {
	chunks  [][]byte // the names, one after the other
	entries []listEntry
	table   []int32 // open addressing by the hash of the base name: index into entries + 1
	notes   []string

	duplicates []duplicate
	gone       bool // neither new/ nor cur/ was there
}

// duplicate is a file with the base name of an entry.
type duplicate struct {
	entry int32
	file  string // as in [store.MessageRecord].File
}

// listEntry is one mail. uid and mark are for whoever works with the listing.
type listEntry struct {
	off     uint32 // chunk number and place in it
	uid     mail.UID
	nameLen uint8
	baseLen uint8
	inCur   bool
	mark    uint8
}

const chunkBits = 16

// hashSeed is fixed for the process so that hashes of names can be kept.
var hashSeed = maphash.MakeSeed()

func hashBase(base []byte) uint64 { return maphash.Bytes(hashSeed, base) }

func (l *listing) name(i int32) []byte {
	e := &l.entries[i]
	at := e.off & (1<<chunkBits - 1)
	return l.chunks[e.off>>chunkBits][at : at+uint32(e.nameLen)]
}

func (l *listing) base(i int32) []byte { return l.name(i)[:l.entries[i].baseLen] }

// file is where the mail is, in the form of [store.MessageRecord].File.
func (l *listing) file(i int32) string {
	if l.entries[i].inCur {
		return "cur/" + string(l.name(i))
	}
	return "new/" + string(l.name(i))
}

// isFile reports whether the mail is where file says, without allocating.
func (l *listing) isFile(i int32, file string) bool {
	return len(file) > 4 && (file[0] == 'c') == l.entries[i].inCur && file[4:] == string(l.name(i))
}

// find returns the entry of a base name, -1 if there is none.
func (l *listing) find(base []byte) int32 {
	if len(l.table) == 0 {
		return -1
	}
	mask := uint64(len(l.table) - 1)
	for slot := hashBase(base) & mask; ; slot = (slot + 1) & mask {
		i := l.table[slot] - 1
		if i < 0 || string(l.base(i)) == string(base) {
			return i
		}
	}
}

// add puts a name in and returns its entry, or the entry that has its base name already.
func (l *listing) add(name string, baseLen int, inCur bool) (i int32, duplicate bool) {
	if len(l.entries)*4 >= len(l.table)*3 {
		l.grow()
	}
	mask := uint64(len(l.table) - 1)
	slot := maphash.String(hashSeed, name[:baseLen]) & mask
	for ; l.table[slot] != 0; slot = (slot + 1) & mask {
		if j := l.table[slot] - 1; string(l.base(j)) == name[:baseLen] {
			return j, true
		}
	}
	i = int32(len(l.entries))
	l.entries = append(l.entries, listEntry{off: l.store(name), nameLen: uint8(len(name)), baseLen: uint8(baseLen), inCur: inCur})
	l.table[slot] = i + 1
	return i, false
}

// replace gives an entry another name with the same base.
func (l *listing) replace(i int32, name string, inCur bool) {
	e := &l.entries[i]
	e.off, e.nameLen, e.inCur = l.store(name), uint8(len(name)), inCur
}

func (l *listing) store(name string) uint32 {
	last := len(l.chunks) - 1
	if last < 0 || len(l.chunks[last])+len(name) > 1<<chunkBits {
		size := 1 << chunkBits
		if last < 0 {
			size = 1 << 10 // most mailboxes are small
		}
		l.chunks = append(l.chunks, make([]byte, 0, size))
		last++
	}
	at := len(l.chunks[last])
	l.chunks[last] = append(l.chunks[last], name...)
	return uint32(last)<<chunkBits | uint32(at)
}

func (l *listing) grow() {
	l.table = make([]int32, max(64, 2*len(l.table)))
	mask := uint64(len(l.table) - 1)
	for i := range l.entries {
		slot := hashBase(l.base(int32(i))) & mask
		for l.table[slot] != 0 {
			slot = (slot + 1) & mask
		}
		l.table[slot] = int32(i) + 1
	}
}

// dirs are the open directories of one mailbox. tmp, new and cur may be nil if they are missing.
type dirs struct {
	box, cur, new, tmp vfs.Dir
}

// openDirs opens a mailbox's directories as far as they are there. Only box must be.
func openDirs(fsys vfs.FS, path string) (d dirs, err error) {
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.box, err = fsys.OpenDir(path); err != nil {
		return d, err
	}
	return d, d.openSubdirs(fsys, path)
}

// openSubdirs opens what is there of cur, new and tmp and not open yet.
func (d *dirs) openSubdirs(fsys vfs.FS, path string) error {
	for _, sub := range []struct {
		dir  *vfs.Dir
		name string
	}{{&d.cur, "cur"}, {&d.new, "new"}, {&d.tmp, "tmp"}} {
		if *sub.dir != nil {
			continue
		}
		info, err := d.box.Stat(sub.name)
		if notExist(err) {
			continue
		}
		if err == nil && info.Type != vfs.Directory {
			err = fmt.Errorf("%s: not a directory", joinPath(path, sub.name))
		}
		if err != nil {
			return err
		}
		if *sub.dir, err = fsys.OpenDir(joinPath(path, sub.name)); err != nil {
			return err
		}
	}
	return nil
}

func (d *dirs) Close() error {
	var errs []error
	for _, dir := range []*vfs.Dir{&d.cur, &d.new, &d.tmp, &d.box} {
		if *dir != nil {
			errs = append(errs, (*dir).Close())
			*dir = nil
		}
	}
	return errors.Join(errs...)
}

// of returns the directory and the name in it of a [store.MessageRecord].File. The directory may be nil.
func (d *dirs) of(file string) (vfs.Dir, string) {
	if len(file) <= 4 {
		return nil, ""
	}
	if file[:4] == "cur/" {
		return d.cur, file[4:]
	}
	return d.new, file[4:]
}

// scan lists new/ and then cur/, so that a mail on its way from one to the other is seen at least once. Of two files with
// one base name the one in cur/ counts: it is a mail being moved.
func (d *dirs) scan(ctx context.Context) (*listing, error) {
	l := &listing{gone: d.new == nil && d.cur == nil}
	if err := l.read(ctx, d.new, false); err != nil {
		return nil, err
	}
	if err := l.read(ctx, d.cur, true); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *listing) read(ctx context.Context, dir vfs.Dir, inCur bool) error {
	if dir == nil {
		return nil
	}
	count := 0
	return dir.Names(func(name string, typ vfs.Type) error {
		if count++; count%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if name[0] == '.' {
			return nil
		}
		if typ == vfs.Unknown {
			info, err := dir.Stat(name)
			if err != nil {
				return ignoreGone(err)
			}
			typ = info.Type
		}
		if typ == vfs.Other {
			return fmt.Errorf("%s: %w", joinPath(dir.Path(), name), ErrLink)
		}
		if typ != vfs.Regular {
			l.notes = append(l.notes, fmt.Sprintf("%s: not a file, ignored", joinPath(dir.Path(), name)))
			return nil
		}
		f, ok := mail.ParseFileName(name)
		if !ok || len(name) > maxDirName {
			l.notes = append(l.notes, fmt.Sprintf("%q in %s: not the name of a mail, ignored", name, dir.Path()))
			return nil
		}
		i, again := l.add(name, len(f.Base), inCur)
		if !again {
			return nil
		}
		other := duplicate{entry: i, file: "cur/" + name}
		if !l.entries[i].inCur {
			other.file = l.file(i)
			l.replace(i, name, inCur)
		}
		l.duplicates = append(l.duplicates, other)
		return nil
	})
}
