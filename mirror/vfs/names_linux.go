package vfs

import (
	"bytes"
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"
)

// The layout of struct linux_dirent64 (getdents64(2)), in native byte order.
const (
	direntIno    = 0  // uint64
	direntReclen = 16 // uint16, from here to the next record
	direntType   = 18 // uint8, DT_*
	direntName   = 19 // NUL-terminated
)

var namesBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Names implements [Dir]. Each listing has its own position, so listings may run side by side and f may start another. What
// is added or removed meanwhile may or may not be seen; everything else is seen once.
func (d *osDir) Names(f func(name string, typ Type) error) error {
	fd, err := d.acquire()
	if err != nil {
		return pathError("readdir", d.full(""), err)
	}
	own, err := retryN(func() (int, error) { return unix.Openat(fd, ".", dirFlags, 0) })
	d.release()
	if err != nil {
		return pathError("readdir", d.full(""), err)
	}
	defer unix.Close(own)
	buf := namesBuffers.Get().(*[32 << 10]byte)
	defer namesBuffers.Put(buf)
	for {
		n, err := retryN(func() (int, error) { return unix.Getdents(own, buf[:]) })
		if err != nil {
			return pathError("readdir", d.full(""), err)
		}
		if n == 0 {
			return nil
		}
		ok, err := parseDirents(buf[:n], f)
		if err != nil {
			return err
		}
		if !ok {
			return pathError("readdir", d.full(""), unix.EIO)
		}
	}
}

// parseDirents calls f for each record of a getdents buffer. It is false if the records do not add up.
func parseDirents(buf []byte, f func(name string, typ Type) error) (ok bool, err error) {
	for len(buf) > 0 {
		if len(buf) <= direntName {
			return false, nil
		}
		l := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
		if l <= direntName || l > len(buf) {
			return false, nil
		}
		rec := buf[:l]
		buf = buf[l:]
		name := rec[direntName:]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if binary.NativeEndian.Uint64(rec[direntIno:]) == 0 || string(name) == "." || string(name) == ".." {
			continue // inode 0 marks an entry that is gone
		}
		if err := f(string(name), typeOfDirent(rec[direntType])); err != nil {
			return true, err
		}
	}
	return true, nil
}

func typeOfDirent(t byte) Type {
	switch t {
	case unix.DT_UNKNOWN:
		return Unknown
	case unix.DT_REG:
		return Regular
	case unix.DT_DIR:
		return Directory
	}
	return Other
}
