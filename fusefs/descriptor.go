package fusefs

import (
	"container/list"
	"sync"
	"syscall"

	"dsyncfs/fusefs/inode"
)

// descriptor is an open file of the backing directory. Whoever got one must release it.
type descriptor struct {
	fd     int
	write  bool // opened for reading and writing
	refs   int  // users, and 1 while it is in the cache
	pinned bool // the file has no name any more: keep until forgotten
	id     inode.ID
	place  *list.Element
}

// descriptors is a cache of open files by node: bounded, least recently used out first, except for the pinned ones, which
// are all that is left of their file. A descriptor is closed when it is out of the cache and nobody uses it.
type descriptors struct {
	mu    sync.Mutex
	limit int
	byID  map[inode.ID]*descriptor
	used  *list.List // of *descriptor, least recently used in front; without the pinned
}

func newDescriptors(limit int) *descriptors {
	return &descriptors{limit: limit, byID: map[inode.ID]*descriptor{}, used: list.New()}
}

// get returns the node's descriptor for use, nil if there is none or it cannot write and write is asked for.
func (c *descriptors) get(id inode.ID, write bool) *descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.byID[id]
	if d == nil || write && !d.write {
		return nil
	}
	if d.place != nil {
		c.used.MoveToBack(d.place)
	}
	d.refs++
	return d
}

// put makes fd the node's descriptor and returns it for use. If another is there already that serves as well, or that is
// pinned, fd is closed and the other is returned.
func (c *descriptors) put(id inode.ID, fd int, write bool) *descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byID[id]; old != nil {
		if old.write || !write || old.pinned {
			syscall.Close(fd)
			old.refs++
			return old
		}
		c.take(old)
	}
	d := &descriptor{fd: fd, write: write, refs: 2, id: id}
	d.place = c.used.PushBack(d)
	c.byID[id] = d
	for c.used.Len() > c.limit {
		c.take(c.used.Front().Value.(*descriptor))
	}
	return d
}

// pin keeps the node's descriptor until drop and reports whether there is one.
func (c *descriptors) pin(id inode.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.byID[id]
	if d == nil {
		return false
	}
	if d.place != nil {
		c.used.Remove(d.place)
		d.place = nil
	}
	d.pinned = true
	return true
}

// unpin lets the node's descriptor go like any other: the file has a name after all.
func (c *descriptors) unpin(id inode.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.byID[id]; d != nil && d.pinned {
		d.pinned = false
		d.place = c.used.PushBack(d)
	}
}

// drop takes the node's descriptor out of the cache.
func (c *descriptors) drop(id inode.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.byID[id]; d != nil {
		c.take(d)
	}
}

// take removes d from the cache; the caller holds mu.
func (c *descriptors) take(d *descriptor) {
	if d.place != nil {
		c.used.Remove(d.place)
		d.place = nil
	}
	delete(c.byID, d.id)
	c.unref(d)
}

// release ends a use. The last one of a file without a name removes its bytes, which takes long and keeps nobody else waiting.
func (c *descriptors) release(d *descriptor) {
	c.mu.Lock()
	d.refs--
	last := d.refs == 0
	c.mu.Unlock()
	if last {
		syscall.Close(d.fd)
	}
}

func (c *descriptors) unref(d *descriptor) {
	if d.refs--; d.refs == 0 {
		syscall.Close(d.fd)
	}
}

// len returns how many descriptors are held in the cache.
func (c *descriptors) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byID)
}

// clear closes what nobody uses; the rest is closed on release.
func (c *descriptors) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.byID {
		c.take(d)
	}
}
