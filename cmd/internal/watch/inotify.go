package watch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// What is asked of a directory. Of mail only the names count, and whoever writes one writes it in tmp/.
const (
	namesMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR
	filesMask = namesMask | unix.IN_MODIFY
)

// inotify is an inotify(7) instance with the paths of what it watches. It is guarded by the Watcher's mu.
//
// It is read by hand because the reader must be able to say "that was everything so far": an event is in the queue before the
// system call that caused it returns, and the queue is empty when a read says EAGAIN.
//
// What waits for it is an epoll(7) instance, which tells once of a queue that is not empty and then holds its peace until arm. The
// runtime's own waiting wakes a thread at each event: in a flood of changes that took more of a processor than the changes.
type inotify struct {
	fd   int      // the queue
	poll *os.File // readable if the queue was not empty since arm
	dirs map[int32]string
	wds  map[string]int32
	buf  []byte
}

// event is one of inotify(7). dir is empty for a queue that overflowed.
type event struct {
	dir, name string
	mask      uint32
}

func newInotify() (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	n := &inotify{fd: fd, dirs: make(map[int32]string), wds: make(map[string]int32), buf: make([]byte, 64<<10)}
	if n.poll, err = newPoll(fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return n, nil
}

// newPoll returns an epoll instance that is readable once fd is.
func newPoll(fd int) (*os.File, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, once); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), unix.Close(poll))
	}
	if err := unix.SetNonblock(poll, true); err != nil { // os.NewFile then has the runtime wait for it
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(poll))
	}
	return os.NewFile(uintptr(poll), "inotify"), nil
}

var once = &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}

// quiet has the poll file hold its peace until arm.
func (n *inotify) quiet(poll int) error {
	_, err := unix.EpollWait(poll, make([]unix.EpollEvent, 1), 0)
	return os.NewSyscallError("epoll_wait", err)
}

// arm makes the poll file readable as soon as the queue is not empty, or at once if it is not.
func (n *inotify) arm(poll int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(poll, unix.EPOLL_CTL_MOD, n.fd, once))
}

// close gives up the queue. Nobody waits for the poll file any more.
func (n *inotify) close() error { return os.NewSyscallError("close", unix.Close(n.fd)) }

// watches reports whether a directory is watched under that path.
func (n *inotify) watches(path string) bool {
	_, ok := n.wds[path]
	return ok
}

// add watches the directory at a place under a path. One that is gone is no error.
func (n *inotify) add(place, path string, mask uint32) error {
	wd, err := unix.InotifyAddWatch(n.fd, place, mask)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "inotify_add_watch", Path: path, Err: err}
	}
	if was, ok := n.dirs[int32(wd)]; ok { // it has another name now
		delete(n.wds, was)
	}
	n.dirs[int32(wd)], n.wds[path] = path, int32(wd)
	return nil
}

// dropTree forgets path and what is below it. Events that are in the queue already lead nowhere.
func (n *inotify) dropTree(path string) {
	for p, wd := range n.wds {
		if p == path || strings.HasPrefix(p, path+"/") {
			_, _ = unix.InotifyRmWatch(n.fd, uint32(wd)) // it may be gone already
			delete(n.dirs, wd)
			delete(n.wds, p)
		}
	}
}

// read returns events that are in the queue; none means that it was empty.
func (n *inotify) read() ([]event, error) {
	for {
		size, err := unix.Read(n.fd, n.buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return nil, nil
		case err != nil:
			return nil, os.NewSyscallError("read", err)
		}
		if events := n.parse(n.buf[:size]); len(events) > 0 {
			return events, nil
		}
	}
}

// parse takes apart what a read returned (struct inotify_event: wd, mask, cookie, len, name).
func (n *inotify) parse(data []byte) (events []event) {
	for len(data) >= unix.SizeofInotifyEvent {
		wd, mask := int32(binary.NativeEndian.Uint32(data)), binary.NativeEndian.Uint32(data[4:])
		end := min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(data[12:])), len(data))
		name := string(bytes.TrimRight(data[unix.SizeofInotifyEvent:end], "\x00"))
		data = data[end:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			events = append(events, event{mask: mask})
			continue
		}
		dir, known := n.dirs[wd]
		if !known {
			continue
		}
		if mask&unix.IN_IGNORED != 0 { // the directory is gone
			delete(n.dirs, wd)
			delete(n.wds, dir)
			continue
		}
		if name != "" {
			events = append(events, event{dir: dir, name: name, mask: mask})
		}
	}
	return events
}
