package fusefs

import (
	"unsafe"

	"dsyncfs/fusefs/inode"

	"golang.org/x/sys/unix"
)

// statBuffer is for many stats in a row: [unix.Statx] makes a copy of each name for the kernel, which for a large directory is a quarter
// of what stays in memory of it.
type statBuffer struct {
	name []byte // with its NUL
	st   unix.Statx_t
}

// at stats a name in a directory, not what it points to. The error is an errno; where there is no statx it is ENOSYS or EPERM.
func (b *statBuffer) at(dir int, name string) (inode.Attr, error) {
	b.name = append(append(b.name[:0], name...), 0)
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(&b.name[0])),
		unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&b.st)), 0)
	if errno != 0 {
		return inode.Attr{}, errno
	}
	s := &b.st
	return inode.Attr{
		Ino: s.Ino, Size: int64(s.Size), Atime: nanos(s.Atime), Mtime: nanos(s.Mtime), Ctime: nanos(s.Ctime),
		Nlink: s.Nlink, UID: s.Uid, GID: s.Gid, Blocks: uint32(s.Blocks), Mode: s.Mode,
	}, nil
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
