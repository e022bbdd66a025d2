package harness

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Block is an ext4 file system on a disk that can lose power: a file of the test's own file system, in memory, with a loop
// device over it. It knows which writes the kernel has flushed, as a disk with a volatile cache does.
type Block struct {
	Path string // where the file system is mounted

	env    *Env
	server *fuse.Server
	file   string // the disk, as a file
	size   int64

	mu      sync.Mutex
	now     []byte // what a read gives
	durable []byte // what has been flushed
	pending []blockWrite
}

// blockWrite is one write since the last flush.
type blockWrite struct {
	off  int64
	data []byte
}

// sector is what a disk writes whole, in bytes.
const sector = 4096

// LoopDevices says why there can be no [Block] here, empty if there can.
func LoopDevices() string {
	if os.Getuid() != 0 {
		return "a loop device with ext4 needs root"
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return "this machine has no loop devices: " + err.Error()
	}
	return ""
}

// NewBlock makes a new file system of so many bytes in a new directory of that name. It goes away with the test.
func (e *Env) NewBlock(name string, size int64) *Block {
	e.TB.Helper()
	b := &Block{Path: e.Path(name), env: e, size: size, now: make([]byte, size), durable: make([]byte, size)}
	dir := e.Path(name + ".disk")
	for _, d := range []string{b.Path, dir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			e.TB.Fatal(err)
		}
	}
	b.file = filepath.Join(dir, "disk")
	server, err := fs.Mount(dir, &blockDir{b: b}, &fs.Options{MountOptions: fuse.MountOptions{FsName: "disk", Name: "testdisk"}})
	if err != nil {
		e.TB.Fatalf("mount a disk: %v", err)
	}
	b.server = server
	e.TB.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			e.TB.Errorf("unmount %s: %v", dir, err)
		}
		server.Wait()
	})
	e.Must("/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", b.file)
	b.mount()
	e.TB.Cleanup(func() { unmountPlain(e.TB, b.Path) })
	return b
}

func (b *Block) mount() {
	b.env.TB.Helper()
	b.env.Must("mount", "-o", "loop,nodiscard", b.file, b.Path)
	if err := os.Chmod(b.Path, 0o700); err != nil {
		b.env.TB.Fatal(err)
	}
}

// Cut returns what the disk would hold if the power failed now: all that was flushed, and of the rest any sectors.
func (b *Block) Cut(r *rand.Rand) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	image := slices.Clone(b.durable)
	keep := r.IntN(3) // none of them, any, or all
	for _, w := range b.pending {
		for at := 0; at < len(w.data); at += sector {
			if keep == 2 || keep == 1 && r.IntN(2) == 0 {
				copy(image[w.off+int64(at):], w.data[at:min(at+sector, len(w.data))])
			}
		}
	}
	return image
}

// Restart puts an image into the disk and mounts it, as a machine does that has power again. Nobody may use the file system
// any more.
func (b *Block) Restart(image []byte) {
	b.env.TB.Helper()
	// A process that was killed lets go of its files a moment after it has become a zombie.
	b.env.Eventually("the file system can be unmounted", 20*time.Second, func() error { return syscall.Unmount(b.Path, 0) })
	b.env.Eventually("the loop device goes away", 20*time.Second, func() error {
		if used := b.env.Must("/usr/sbin/losetup", "-j", b.file); used != "" {
			return errors.New(used)
		}
		return nil
	})
	b.mu.Lock()
	b.now, b.durable, b.pending = image, slices.Clone(image), nil
	b.mu.Unlock()
	b.mount()
}

func (b *Block) read(p []byte, off int64) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off >= int64(len(b.now)) {
		return 0
	}
	return copy(p, b.now[off:])
}

func (b *Block) write(p []byte, off int64) syscall.Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off+int64(len(p)) > int64(len(b.now)) {
		return syscall.EFBIG
	}
	copy(b.now[off:], p)
	b.pending = append(b.pending, blockWrite{off, slices.Clone(p)})
	return 0
}

func (b *Block) flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.pending {
		copy(b.durable[w.off:], w.data)
	}
	b.pending = nil
}

// blockDir is the directory with the disk in it.
type blockDir struct {
	fs.Inode
	b *Block
}

func (d *blockDir) OnAdd(ctx context.Context) {
	d.AddChild("disk", d.NewPersistentInode(ctx, &blockFile{b: d.b}, fs.StableAttr{Mode: syscall.S_IFREG}), false)
}

// blockFile is the disk.
type blockFile struct {
	fs.Inode
	b *Block
}

func (f *blockFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = syscall.S_IFREG|0o600, uint64(f.b.size)
	return 0
}

func (f *blockFile) Setattr(ctx context.Context, h fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return f.Getattr(ctx, h, out)
}

func (f *blockFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *blockFile) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(p[:f.b.read(p, off)]), 0
}

func (f *blockFile) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(p)), f.b.write(p, off)
}

func (f *blockFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.b.flush()
	return 0
}

func (f *blockFile) Flush(context.Context, fs.FileHandle) syscall.Errno { return 0 }
