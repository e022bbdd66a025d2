package maildir

import (
	"encoding/binary"
	"time"

	"dsyncfs/mirror/vfs"
)

// signature tells whether a mailbox's files changed since they were read: if no part of it differs, they did not, unless
// it is racy.
type signature struct {
	cur, new, list, keys fileSignature
	// racy says that a directory had changed so short before the scan that another change could have come after it without
	// giving a new mtime. dirty says that the mailbox was changed by ourselves, with or without others, since the scan.
	racy, dirty bool
}

type fileSignature struct {
	ino         uint64
	size, mtime int64 // mtime in nanoseconds
}

// racyWindow is the coarsest clock of a file system that we reckon with; Dovecot does with the same.
const racyWindow = time.Second

const signatureVersion = 1

// takeSignature stats the files of a mailbox directory. What is missing has a zero signature.
func takeSignature(box vfs.Dir) (s signature, err error) {
	for _, part := range []struct {
		sig  *fileSignature
		name string
	}{{&s.cur, "cur"}, {&s.new, "new"}, {&s.list, uidlistName}, {&s.keys, keywordsName}} {
		info, err := box.Stat(part.name)
		if notExist(err) {
			continue
		}
		if err != nil {
			return s, err
		}
		*part.sig = fileSignature{ino: info.Ino, size: info.Size, mtime: info.Mtime.UnixNano()}
	}
	return s, nil
}

// sameFiles reports whether both describe the same state of the files.
func (s signature) sameFiles(o signature) bool {
	return s.cur.ino == o.cur.ino && s.cur.mtime == o.cur.mtime && s.new.ino == o.new.ino && s.new.mtime == o.new.mtime &&
		s.list == o.list && s.keys == o.keys
}

// sharesDirectory reports whether cur/ or new/ is the same directory in both.
func (s signature) sharesDirectory(o signature) bool {
	return s.cur.ino != 0 && s.cur.ino == o.cur.ino || s.new.ino != 0 && s.new.ino == o.new.ino
}

// trusted reports whether a mailbox that looks like now has not changed since s was taken.
func (s signature) trusted(now signature) bool { return !s.racy && !s.dirty && s.sameFiles(now) }

// setRacy judges a signature that was taken at the given time, by the clock of the file system.
func (s *signature) setRacy(taken time.Time) {
	limit := taken.Add(-racyWindow).UnixNano()
	s.racy = s.cur.mtime >= limit || s.new.mtime >= limit
}

func (s signature) encode() []byte {
	flags := byte(0)
	if s.racy {
		flags |= 1
	}
	if s.dirty {
		flags |= 2
	}
	out := []byte{signatureVersion, flags}
	for _, f := range []fileSignature{s.cur, s.new, s.list, s.keys} {
		out = f.appendTo(out)
	}
	return out
}

func (f fileSignature) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, f.ino)
	b = binary.BigEndian.AppendUint64(b, uint64(f.size))
	return binary.BigEndian.AppendUint64(b, uint64(f.mtime))
}

// decodeSignature reads a signature; one that is missing or of another version is dirty.
func decodeSignature(data []byte) (s signature) {
	if len(data) != 2+4*24 || data[0] != signatureVersion {
		return signature{dirty: true}
	}
	s.racy, s.dirty = data[1]&1 != 0, data[1]&2 != 0
	data = data[2:]
	for _, f := range []*fileSignature{&s.cur, &s.new, &s.list, &s.keys} {
		f.ino = binary.BigEndian.Uint64(data)
		f.size = int64(binary.BigEndian.Uint64(data[8:]))
		f.mtime = int64(binary.BigEndian.Uint64(data[16:]))
		data = data[24:]
	}
	return s
}
