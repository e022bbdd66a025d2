package fusefs

import (
	"context"
	"strconv"
	"strings"
	"syscall"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/mail"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The extended attributes of a mail that are not in the backing file. Keywords are separated by spaces, which no IMAP
// keyword contains (RFC 9051: a keyword is an atom).
const (
	xattrPrefix   = "user.dsyncfs."
	xattrGUID     = xattrPrefix + "guid"
	xattrUID      = xattrPrefix + "uid"
	xattrMirrored = xattrPrefix + "mirrored"
	xattrKeywords = "user.keywords"
)

// metaXattrs gives the values; an empty one is not there.
var metaXattrs = map[string]func(Meta) string{
	xattrGUID: func(m Meta) string { return string(m.GUID) },
	xattrUID: func(m Meta) string {
		if m.UID == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(m.UID), 10)
	},
	xattrMirrored: func(m Meta) string {
		if m.Mirrored {
			return "1"
		}
		return "0"
	},
	xattrKeywords: func(m Meta) string { return strings.Join(m.Keywords, " ") },
}

var metaXattrNames = []string{xattrGUID, xattrUID, xattrMirrored, xattrKeywords}

// mailOf returns mailbox and base name of a node that is a visible mail.
func (f *fileSystem) mailOf(nodeID uint64) (mailbox mail.Name, base string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.target(inode.ID(nodeID))
	if !f.isVisible(id) {
		return "", "", false
	}
	n := f.table.Get(id)
	return f.dirs[n.Dir].box.name, baseOf(n.Name), true
}

// GetXAttr answers what the engine knows of a mail, and passes everything else to the backing file. The kernel asks for
// security.capability of whatever is written or run, and mails have none.
func (f *fileSystem) GetXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if strings.HasPrefix(attr, "system.posix_acl_") {
		return 0, fuse.ENOTSUP
	}
	mailbox, base, isMail := f.mailOf(header.NodeId)
	if value, ours := metaXattrs[attr]; ours && isMail {
		meta, ok := f.engine.Meta(context.Background(), mailbox, base)
		if s := value(meta); ok && s != "" {
			return copyXattr(dest, []byte(s))
		}
		return 0, fuse.ENODATA
	}
	if isMail && attr == "security.capability" {
		return 0, fuse.ENODATA
	}
	to, err := f.xattrs(header.NodeId)
	if err != nil {
		return 0, f.status("getxattr", err)
	}
	defer to.release()
	n, err := to.get(attr, dest)
	return uint32(n), f.status("getxattr", err)
}

func copyXattr(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists the backing file's attributes, and ours of a mail.
func (f *fileSystem) ListXAttr(cancel <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	from, err := f.xattrs(header.NodeId)
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	defer from.release()
	list := make([]byte, 1<<16) // XATTR_LIST_MAX
	n, err := from.list(list)
	if err != nil && err != unix.ENOTSUP {
		return 0, f.status("listxattr", err)
	}
	list = list[:max(n, 0)]
	if mailbox, base, ok := f.mailOf(header.NodeId); ok {
		if meta, ok := f.engine.Meta(context.Background(), mailbox, base); ok {
			for _, name := range metaXattrNames {
				if metaXattrs[name](meta) != "" {
					list = append(append(list, name...), 0)
				}
			}
		}
	}
	return copyXattr(dest, list)
}

// SetXAttr sets the keywords of a mail, or an attribute of the backing file. What the engine alone decides is refused.
func (f *fileSystem) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	if f.refused() {
		return fuse.EROFS
	}
	if strings.HasPrefix(attr, "system.posix_acl_") {
		return fuse.ENOTSUP
	}
	mailbox, base, isMail := f.mailOf(in.NodeId)
	if isMail && attr == xattrKeywords {
		return f.setKeywords(mailbox, base, string(data))
	}
	if isMail && strings.HasPrefix(attr, xattrPrefix) {
		return fuse.EPERM
	}
	to, err := f.xattrs(in.NodeId)
	if err != nil {
		return f.status("setxattr", err)
	}
	defer to.release()
	err = to.set(attr, data, int(in.Flags))
	f.attrChanged(in.NodeId)
	return f.status("setxattr", err)
}

func (f *fileSystem) setKeywords(mailbox mail.Name, base, value string) fuse.Status {
	keywords := mail.NewKeywords(strings.Fields(value)...)
	if err := f.engine.SetKeywords(context.Background(), mailbox, base, keywords); err != nil {
		return fuse.Status(f.engineErrno("setxattr", err))
	}
	return fuse.OK
}

// RemoveXAttr takes all keywords from a mail, or an attribute from the backing file.
func (f *fileSystem) RemoveXAttr(cancel <-chan struct{}, header *fuse.InHeader, attr string) fuse.Status {
	if f.refused() {
		return fuse.EROFS
	}
	mailbox, base, isMail := f.mailOf(header.NodeId)
	if isMail && attr == xattrKeywords {
		return f.setKeywords(mailbox, base, "")
	}
	if isMail && strings.HasPrefix(attr, xattrPrefix) {
		return fuse.EPERM
	}
	to, err := f.xattrs(header.NodeId)
	if err != nil {
		return f.status("removexattr", err)
	}
	defer to.release()
	err = to.remove(attr)
	f.attrChanged(header.NodeId)
	return f.status("removexattr", err)
}

// attrChanged makes the next question for the attributes of a node, whose ctime changed, go to the backing file.
func (f *fileSystem) attrChanged(nodeID uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.table.Get(f.target(inode.ID(nodeID))); n != nil && !n.Is(inode.Promised) {
		n.Flags &^= inode.HasAttr
	}
}

// xattrCalls are the system calls on the extended attributes of one node.
type xattrCalls struct {
	get     func(attr string, dest []byte) (int, error)
	list    func(dest []byte) (int, error)
	set     func(attr string, data []byte, flags int) error
	remove  func(attr string) error
	release func()
}

// xattrs returns the calls for a node. The l*xattr calls work on no directory descriptor and need a path. A file without a
// name is reached by its descriptor.
func (f *fileSystem) xattrs(nodeID uint64) (xattrCalls, error) {
	f.mu.Lock()
	id := f.target(inode.ID(nodeID))
	n := f.table.Get(id)
	if n == nil {
		f.mu.Unlock()
		return xattrCalls{}, syscall.ESTALE
	}
	isDir, dir, name := f.dirs[id] != nil, n.Dir, n.Name
	promised := f.promiseOf(id) != nil
	f.mu.Unlock()
	switch {
	case promised:
		return noXattrs(), nil
	case isDir:
		dir, name = id, "."
	case name == "":
		return f.namelessXattrs(id)
	}
	d, err := f.dirFD(dir)
	if err != nil {
		return xattrCalls{}, err
	}
	path := "/proc/self/fd/" + strconv.Itoa(d.fd) + "/" + name
	return xattrCalls{
		get:     func(attr string, dest []byte) (int, error) { return unix.Lgetxattr(path, attr, dest) },
		list:    func(dest []byte) (int, error) { return unix.Llistxattr(path, dest) },
		set:     func(attr string, data []byte, flags int) error { return unix.Lsetxattr(path, attr, data, flags) },
		remove:  func(attr string) error { return unix.Lremovexattr(path, attr) },
		release: func() { f.dirFDs.release(d) },
	}, nil
}

func (f *fileSystem) namelessXattrs(id inode.ID) (xattrCalls, error) {
	d := f.files.get(id, false)
	if d == nil {
		return xattrCalls{}, syscall.ESTALE
	}
	return xattrCalls{
		get:     func(attr string, dest []byte) (int, error) { return unix.Fgetxattr(d.fd, attr, dest) },
		list:    func(dest []byte) (int, error) { return unix.Flistxattr(d.fd, dest) },
		set:     func(attr string, data []byte, flags int) error { return unix.Fsetxattr(d.fd, attr, data, flags) },
		remove:  func(attr string) error { return unix.Fremovexattr(d.fd, attr) },
		release: func() { f.files.release(d) },
	}, nil
}
