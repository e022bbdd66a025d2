package vfs

import (
	"time"

	"golang.org/x/sys/unix"
)

// stat is fstat of the open object; name is for messages.
func (h *handle) stat(name string) (Info, error) {
	var st unix.Stat_t
	fd, err := h.acquire()
	if err == nil {
		err = retry(func() error { return unix.Fstat(fd, &st) })
		h.release()
	}
	if err != nil {
		return Info{}, pathError("stat", name, err)
	}
	return infoOf(&st), nil
}

func infoOf(st *unix.Stat_t) Info {
	return Info{
		Type:  typeOfMode(st.Mode),
		Size:  st.Size,
		Mode:  st.Mode & 0o7777,
		Mtime: time.Unix(st.Mtim.Unix()),
		Ctime: time.Unix(st.Ctim.Unix()),
		Dev:   uint64(st.Dev),
		Ino:   st.Ino,
		Nlink: uint32(st.Nlink),
		UID:   st.Uid,
		GID:   st.Gid,
	}
}

func typeOfMode(mode uint32) Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFDIR:
		return Directory
	}
	return Other
}
