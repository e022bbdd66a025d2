package fusefs

import (
	"sync"
	"time"

	"dsyncfs/fusefs/inode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The bytes of a mail that has just come from the remote are given to the kernel's page cache: whoever the arrival wakes
// opens and reads it without a message to the daemon. A mailbox that is filled for the first time is not worth it.

const (
	pushSize  = 64 << 10              // larger mails are read when they are asked for
	pushBurst = 64                    // so many mails at once
	pushEvery = 20 * time.Millisecond // and one more after each such time
)

// pushBudget counts what may be pushed.
type pushBudget struct {
	mu    sync.Mutex
	spent time.Time // when all of it is there again
}

// take reports whether a mail may be pushed now.
func (b *pushBudget) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent.Before(now) {
		b.spent = now
	}
	if b.spent.Sub(now) >= pushBurst*pushEvery {
		return false
	}
	b.spent = b.spent.Add(pushEvery)
	return true
}

// push queues a mail that arrived through an own operation.
func (f *fileSystem) push(id inode.ID) {
	if !f.pushes.take(time.Now()) {
		return
	}
	f.notices.put(notice{node: id, do: func(k kernel) fuse.Status { return f.store(k, id) }})
}

// store gives the bytes of a mail to the kernel. A program that writes to it meanwhile has said so before it did (see
// rewrite.go): the kernel then forgets what it was given.
func (f *fileSystem) store(k kernel, id inode.ID) fuse.Status {
	d, err := f.open(uint64(id), false)
	if err != nil {
		return fuse.OK // gone already
	}
	defer f.files.release(d)
	var st unix.Stat_t
	if unix.Fstat(d.fd, &st) != nil || st.Size == 0 || st.Size > pushSize || f.isRewritten(id) {
		return fuse.OK
	}
	text := make([]byte, st.Size)
	n, err := unix.Pread(d.fd, text, 0)
	if err != nil || n != len(text) {
		return fuse.OK
	}
	told := k.InodeNotifyStoreCache(uint64(id), 0, text)
	if f.isRewritten(id) {
		return k.InodeNotify(uint64(id), 0, 0)
	}
	return told
}

func (f *fileSystem) isRewritten(id inode.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rewrites[id] != nil
}
