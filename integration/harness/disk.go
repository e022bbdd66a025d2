package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Disk is a directory that is reached through a file system of the test's own, which sees every operation of the programs
// on it: it can turn read-only from one moment to the next, and kill a dsyncfs in the middle of its n-th change, whichever file
// that is about, mail, index or journal. What is under it may be a real file system of limited size.
type Disk struct {
	Path  string // where it is seen
	Under string // the directory below

	readOnly atomic.Bool

	mu    sync.Mutex
	left  int           // changes until the kill; 0: none is asked for
	fired chan struct{} // closed by the kill
}

// NewDisk makes one in a new directory of that name. It goes away with the test. size, if not 0, limits what it holds, in
// bytes, which needs root.
func (e *Env) NewDisk(name string, size int64) *Disk {
	e.TB.Helper()
	d := &Disk{Path: e.Path(name), Under: e.Path(name + ".under")}
	for _, dir := range []string{d.Path, d.Under} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			e.TB.Fatal(err)
		}
	}
	if size > 0 {
		if err := syscall.Mount("tmpfs", d.Under, "tmpfs", 0, fmt.Sprintf("mode=700,size=%d", size)); err != nil {
			e.TB.Fatalf("mount a tmpfs: %v", err)
		}
		e.TB.Cleanup(func() { unmountPlain(e.TB, d.Under) })
	}
	var st syscall.Stat_t
	if err := syscall.Stat(d.Under, &st); err != nil {
		e.TB.Fatal(err)
	}
	root := &fs.LoopbackRoot{Path: d.Under, Dev: st.Dev}
	node := &diskNode{LoopbackNode: fs.LoopbackNode{RootData: root}, disk: d}
	root.RootNode = node
	valid := time.Second // all changes come through here
	server, err := fs.Mount(d.Path, node, &fs.Options{
		AttrTimeout: &valid, EntryTimeout: &valid,
		MountOptions: fuse.MountOptions{FsName: "disk", Name: "testdisk"},
	})
	if err != nil {
		e.TB.Fatalf("mount a disk: %v", err)
	}
	e.TB.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			if !e.TB.Failed() {
				e.TB.Errorf("unmount %s: %v", d.Path, err)
			}
			if m, ok := MountedAt(d.Path); ok {
				m.force()
			}
		}
		server.Wait()
	})
	return d
}

func unmountPlain(tb testing.TB, point string) {
	if err := syscall.Unmount(point, 0); err != nil {
		tb.Errorf("unmount %s: %v", point, err)
		_ = syscall.Unmount(point, syscall.MNT_DETACH) // nothing else is left to try
	}
}

// SetReadOnly makes every change fail with EROFS, or no longer.
func (d *Disk) SetReadOnly(on bool) { d.readOnly.Store(on) }

// KillAt has the dsyncfs that makes the n-th change from now killed with SIGKILL in it: the change is not made, of a write
// of several pages the first half is. The channel is closed when that happened. Another call replaces this one, n = 0 takes it back.
func (d *Disk) KillAt(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left, d.fired = n, make(chan struct{})
	return d.fired
}

// change is called before each change. An errno other than 0 is the answer, and the change is not to be made; dying
// says that nobody waits for the answer.
func (d *Disk) change(ctx context.Context) (errno syscall.Errno, dying bool) {
	if d.readOnly.Load() {
		return syscall.EROFS, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return 0, false
	}
	pid := callerOf(ctx)
	if pid == 0 {
		return 0, false
	}
	if d.left--; d.left > 0 {
		return 0, false
	}
	close(d.fired)
	_ = syscall.Kill(pid, syscall.SIGKILL) // it waits for us, so it is there
	return syscall.EIO, true
}

// callerOf returns the number of the dsyncfs that asks, 0 if it is another program. The kernel tells which thread it is.
func callerOf(ctx context.Context) int {
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", caller.Pid))
	if err != nil || !bytes.HasPrefix(status, []byte("Name:\tdsyncfs\n")) {
		return 0
	}
	for line := range bytes.Lines(status) {
		if value, ok := bytes.CutPrefix(line, []byte("Tgid:\t")); ok {
			pid, _ := strconv.Atoi(string(bytes.TrimSpace(value)))
			return pid
		}
	}
	return 0
}

// diskNode is a file or directory of a Disk.
type diskNode struct {
	fs.LoopbackNode
	disk *Disk
}

// WrapChild makes what is found below a directory of a Disk ours too.
func (n *diskNode) WrapChild(context.Context, fs.InodeEmbedder) fs.InodeEmbedder {
	return &diskNode{LoopbackNode: fs.LoopbackNode{RootData: n.RootData}, disk: n.disk}
}

// diskFile keeps the kernel from reading and writing past us.
type diskFile struct{ *fs.LoopbackFile }

func (diskFile) PassthroughFd() (int, bool) { return -1, false }

func wrapDiskFile(h fs.FileHandle) fs.FileHandle {
	if f, ok := h.(*fs.LoopbackFile); ok {
		return diskFile{f}
	}
	return h
}

func (n *diskNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&(syscall.O_TRUNC) != 0 {
		if errno, _ := n.disk.change(ctx); errno != 0 {
			return nil, 0, errno
		}
	}
	h, f, errno := n.LoopbackNode.Open(ctx, flags)
	return wrapDiskFile(h), f, errno
}

func (n *diskNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return nil, nil, 0, errno
	}
	inode, h, f, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, wrapDiskFile(h), f, errno
}

func (n *diskNode) Write(ctx context.Context, h fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f := h.(diskFile)
	errno, dying := n.disk.change(ctx)
	if dying {
		// The kernel gives up between two pages, not within one. Nobody is there to be told.
		_, _ = f.Write(ctx, data[:len(data)/2&^(os.Getpagesize()-1)], off)
	}
	if errno != 0 {
		return 0, errno
	}
	return f.Write(ctx, data, off)
}

func (n *diskNode) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

func (n *diskNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *diskNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *diskNode) Unlink(ctx context.Context, name string) syscall.Errno {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *diskNode) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *diskNode) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno, _ := n.disk.change(ctx); errno != 0 {
		return nil, errno
	}
	return n.LoopbackNode.Link(ctx, target, name, out)
}
