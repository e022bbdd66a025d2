package fusefs

import (
	"syscall"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Read reads by node: there are no handles.
func (f *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d, err := f.open(in.NodeId, false)
	if err != nil {
		return nil, f.status("read", err)
	}
	defer f.files.release(d)
	if in.Offset == 0 {
		f.countRead(inode.ID(in.NodeId))
	}
	n := 0
	for n < len(buf) {
		l, err := unix.Pread(d.fd, buf[n:], int64(in.Offset)+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, f.status("read", err)
		}
		if l == 0 {
			break
		}
		n += l
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes by node. A visible mail that is written becomes another mail.
func (f *fileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if f.refused() {
		return 0, fuse.EROFS
	}
	if err := f.beforeWrite(in.NodeId); err != nil {
		return 0, f.status("write", err)
	}
	d, err := f.open(in.NodeId, true)
	if err != nil {
		return 0, f.status("write", err)
	}
	defer f.files.release(d)
	n := 0
	for n < len(data) {
		l, err := unix.Pwrite(d.fd, data[n:], int64(in.Offset)+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil && n == 0 {
			return 0, f.status("write", err)
		}
		if err != nil {
			break
		}
		n += l
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		killPrivileges(d.fd)
	}
	return uint32(n), f.status("write", f.afterWrite(in.NodeId, d))
}

// killPrivileges clears set-user-ID, and set-group-ID of what a group may execute, as a write by its owner would have.
func killPrivileges(fd int) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	mode := st.Mode & 0o7777 &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 {
		mode &^= unix.S_ISGID
	}
	if mode != st.Mode&0o7777 {
		unix.Fchmod(fd, mode)
	}
}

// afterWrite remembers the new size and times.
func (f *fileSystem) afterWrite(nodeID uint64, d *descriptor) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if id := f.target(inode.ID(nodeID)); f.table.Get(id) != nil {
		f.refresh(id, &st)
	}
	return nil
}

// Fallocate reserves or punches space.
func (f *fileSystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if f.refused() {
		return fuse.EROFS
	}
	if err := f.beforeWrite(in.NodeId); err != nil {
		return f.status("fallocate", err)
	}
	d, err := f.open(in.NodeId, true)
	if err != nil {
		return f.status("fallocate", err)
	}
	defer f.files.release(d)
	if err := unix.Fallocate(d.fd, in.Mode, int64(in.Offset), int64(in.Length)); err != nil {
		return f.status("fallocate", err)
	}
	return f.status("fallocate", f.afterWrite(in.NodeId, d))
}

// fsyncDataOnly is FUSE_FSYNC_FDATASYNC.
const fsyncDataOnly = 1

// Fsync makes a file durable, and if it is a mail also what was journaled. A file in tmp is no mail yet: nothing is
// journaled of it.
func (f *fileSystem) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if f.isPromised(in.NodeId) {
		return f.durable(cancel, &in.InHeader) // its bytes are not here, and what was wanted of it is kept
	}
	d, err := f.open(in.NodeId, false)
	if err != nil {
		return f.status("fsync", err)
	}
	defer f.files.release(d)
	if in.FsyncFlags&fsyncDataOnly != 0 {
		err = unix.Fdatasync(d.fd)
	} else {
		err = unix.Fsync(d.fd)
	}
	if err != nil {
		return f.status("fsync", err)
	}
	f.mu.Lock()
	id := f.target(inode.ID(in.NodeId))
	visible := f.isVisible(id)
	f.mu.Unlock()
	if !visible {
		return fuse.OK
	}
	if err := f.endRewrite(id); err != nil {
		return f.status("fsync", err)
	}
	return f.durable(cancel, &in.InHeader)
}

// FsyncDir makes the names of a directory durable, and in a mail directory what was journaled.
func (f *fileSystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	d, fd, err := f.dir(in.NodeId)
	if err != nil {
		return f.status("fsyncdir", err)
	}
	defer f.dirFDs.release(fd)
	r, err := unix.Openat(fd.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return f.status("fsyncdir", err)
	}
	defer unix.Close(r)
	if err := unix.Fsync(r); err != nil {
		return f.status("fsyncdir", err)
	}
	if !d.isMail() {
		return fuse.OK
	}
	return f.durable(cancel, &in.InHeader)
}

func (f *fileSystem) durable(cancel <-chan struct{}, header *fuse.InHeader) fuse.Status {
	if err := f.awaitDurable(requestContext(cancel, header)); err != nil {
		return fuse.Status(f.engineErrno("fsync", err))
	}
	return fuse.OK
}

// isVisible reports whether a node is a mail that programs see. The caller holds mu.
func (f *fileSystem) isVisible(id inode.ID) bool {
	n := f.table.Get(id)
	if n == nil || n.Name == "" {
		return false
	}
	d := f.dirs[n.Dir]
	return d != nil && d.isMail() && isMailName(n.Name)
}

// Flush has nothing to do: ENOSYS saves the message at every close.
func (f *fileSystem) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	return fuse.Status(syscall.ENOSYS)
}
