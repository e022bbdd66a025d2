package fusefs

import (
	"log/slog"
	"maps"
	"sync"
	"syscall"
	"time"

	"dsyncfs/fusefs/inode"
	"dsyncfs/mirror/mail"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// How long the kernel may keep what it was told. Names and attributes of mail are kept exact by notifications; plain files
// may also be changed behind the mount, by programs that nobody tells us of.
const (
	mailTimeout  = 6 * time.Hour
	plainTimeout = time.Second
)

// Bounds of the descriptor caches.
const (
	maxFiles = 256
	maxDirs  = 512
)

// fileSystem answers the kernel. It embeds go-fuse's defaults, which answer ENOSYS to what it does not serve: the kernel
// then does without (FLUSH, STATX, LSEEK, COPY_FILE_RANGE) or keeps it to itself (locks).
type fileSystem struct {
	fuse.RawFileSystem
	engine  Engine
	log     *slog.Logger
	opts    Options
	files   *descriptors
	dirFDs  *descriptors
	notices *notifier
	pushes  pushBudget
	own     *ownOps
	uidLock *uidLocks
	umask   uint32
	isRoot  bool

	mu        sync.Mutex
	table     *inode.Table
	dirs      map[inode.ID]*directory
	byPath    map[string]*directory
	boxes     map[string]*mailbox     // by the path of the mailbox directory
	aliases   map[inode.ID]inode.ID   // alias -> the node it stands for
	aliasesOf map[inode.ID][]inode.ID // and the other way
	pastNames *pastNames
	listings  map[uint64]*listing
	scratch   *scratch // nil: in use, or there is none yet
	handles   uint64
	rewrites  map[inode.ID]*rewrite
	swept     sync.WaitGroup
	closed    bool

	promised   int    // mails that are still to come; see promise.go
	promises   uint64 // that were made
	intentJobs []intentJob
	intended   chan struct{} // closed when intentJobs have been carried out; nil: none are
}

// dirKind says how the names in a directory are treated.
type dirKind uint8

const (
	plainDir dirKind = iota
	tmpDir           // tmp of a mailbox: plain, but its names are unique
	newDir
	curDir
)

// directory is what is known of one directory.
type directory struct {
	id    inode.ID
	path  string // below the root, "" for the root
	kind  dirKind
	box   *mailbox // of new, cur and tmp
	load  sync.Mutex
	names *inode.Dir          // of a loaded mail directory; guarded by fileSystem.mu
	known map[string]inode.ID // of any other: the names that the kernel knows; guarded by fileSystem.mu
	reads int                 // of mails of a mail directory since it was last listed with attributes; guarded by fileSystem.mu

	missed   bool      // programs asked for names of a mail directory that were not there, which the kernel may remember; guarded by fileSystem.mu
	promises *promises // of new and cur; nil: none. Guarded by fileSystem.mu
}

// mailbox is a directory that holds cur, new and tmp.
type mailbox struct {
	path string
	name mail.Name
	sub  [curDir + 1]*directory // by kind
}

// isMail reports whether the directory holds visible mail.
func (d *directory) isMail() bool { return d.kind == newDir || d.kind == curDir }

// timeout is how long the kernel may believe in a name or the attributes of a file in d.
func (d *directory) timeout() time.Duration {
	if d.isMail() {
		return mailTimeout
	}
	return plainTimeout
}

func newFileSystem(rootFD int, opts Options) (*fileSystem, error) {
	var st unix.Stat_t
	if err := unix.Fstat(rootFD, &st); err != nil {
		return nil, err
	}
	f := &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		engine:        opts.Engine, log: opts.Logger, opts: opts,
		files: newDescriptors(maxFiles), dirFDs: newDescriptors(maxDirs),
		own: newOwnOps(), uidLock: newUIDLocks(),
		umask: processUmask(), isRoot: syscall.Geteuid() == 0,
		table: inode.NewTable(), dirs: map[inode.ID]*directory{},
		byPath: map[string]*directory{}, boxes: map[string]*mailbox{},
		aliases: map[inode.ID]inode.ID{}, aliasesOf: map[inode.ID][]inode.ID{}, pastNames: newPastNames(maxPastNames, pastNameAge),
		listings: map[uint64]*listing{}, rewrites: map[inode.ID]*rewrite{},
	}
	f.notices = newNotifier(opts.Logger)
	f.table.Get(inode.Root).SetAttr(attrOf(&st))
	f.table.Index(inode.Root)
	f.dirs[inode.Root] = &directory{id: inode.Root}
	f.classify(f.dirs[inode.Root])
	f.dirFDs.release(f.dirFDs.put(inode.Root, rootFD, false))
	f.dirFDs.pin(inode.Root)
	return f, nil
}

// String names the file system for go-fuse.
func (f *fileSystem) String() string { return subtype }

// Init hands the kernel connection to the notifier.
func (f *fileSystem) Init(s *fuse.Server) { f.notices.start(s) }

// classify sets path and kind of d from its place in the tree. The caller holds mu.
func (f *fileSystem) classify(d *directory) {
	n := f.table.Get(d.id)
	parent := f.dirs[n.Dir]
	switch {
	case d.id == inode.Root:
		f.byPath[""] = d
		return
	case parent == nil: // removed
		d.kind, d.box = plainDir, nil
		f.unload(d)
		return
	}
	d.path = join(parent.path, n.Name)
	f.byPath[d.path] = d
	kind := plainDir
	var box *mailbox
	if k := kindOf(n.Name); k != plainDir {
		if name, ok := f.engine.Mailbox(parent.path); ok {
			kind, box = k, f.box(parent.path, name)
		}
	}
	d.kind, d.box = kind, box
	if !d.isMail() {
		f.unload(d)
	}
	if box != nil {
		box.sub[kind] = d
	}
}

func kindOf(name string) dirKind {
	switch name {
	case "new":
		return newDir
	case "cur":
		return curDir
	case "tmp":
		return tmpDir
	}
	return plainDir
}

func (f *fileSystem) box(path string, name mail.Name) *mailbox {
	b := f.boxes[path]
	if b == nil {
		b = &mailbox{path: path, name: name}
		f.boxes[path] = b
	}
	return b
}

// reclassify looks again at a directory that got another place, and at those below it. The caller holds mu.
func (f *fileSystem) reclassify(top inode.ID) {
	below := map[inode.ID]*directory{}
	for id, d := range f.dirs {
		if f.isBelow(id, top) {
			below[id] = d
		}
	}
	for _, d := range below {
		f.dropPlace(d)
	}
	var visit func(d *directory)
	visit = func(d *directory) {
		if below[d.id] == nil {
			return
		}
		delete(below, d.id)
		if parent := below[f.table.Get(d.id).Dir]; parent != nil {
			visit(parent)
		}
		f.classify(d)
	}
	for _, d := range maps.Clone(below) {
		visit(d)
	}
}

// isBelow reports whether top is a directory itself or one above it.
func (f *fileSystem) isBelow(id, top inode.ID) bool {
	for depth := 0; id != top; depth++ {
		n := f.table.Get(id)
		if n == nil || id == inode.Root || depth > unix.PathMax {
			return false
		}
		id = n.Dir
	}
	return true
}

// dropPlace takes a directory that is gone out of the tree. The caller holds mu.
func (f *fileSystem) dropPlace(d *directory) {
	if d.box != nil && d.box.sub[d.kind] == d {
		d.box.sub[d.kind] = nil
	}
	if f.byPath[d.path] == d {
		delete(f.byPath, d.path)
	}
}

// unload forgets the names of a directory that no longer holds mail: nodes that the kernel knows are found by their number
// from now on, the others are dropped.
func (f *fileSystem) unload(d *directory) {
	if d.names == nil {
		return
	}
	if d.promises != nil {
		f.dropPromises(d, d.promises)
		d.promises = nil
	}
	names := d.names
	d.names = nil
	f.leaveAll(d, names)
}

// leaveAll is unload for names that are not, or no longer, those of the directory.
func (f *fileSystem) leaveAll(d *directory, names *inode.Dir) {
	for _, e := range f.table.AppendAfter(nil, names, 0, names.Len()) {
		f.table.Leave(names, e.Name)
		f.enterPlain(d, e.Name, e.ID)
	}
	for _, id := range d.known {
		f.dropIfUnused(id)
	}
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// baseOf is the part of a file name that identifies the mail; the whole name for what is no mail.
func baseOf(name string) string {
	if base, ok := mail.BaseName(name); ok {
		return base
	}
	return name
}

// isMailName reports whether a name in new or cur is that of a mail.
func isMailName(name string) bool {
	_, ok := mail.BaseName(name)
	return ok
}

// dir returns the directory of a node and its descriptor, loaded if it holds mail. The caller releases the descriptor.
func (f *fileSystem) dir(nodeID uint64) (*directory, *descriptor, error) {
	f.mu.Lock()
	d := f.dirs[inode.ID(nodeID)]
	f.mu.Unlock()
	if d == nil {
		return nil, nil, syscall.ENOTDIR
	}
	fd, err := f.dirFD(d.id)
	if err != nil {
		return nil, nil, err
	}
	if err := f.loaded(d, fd); err != nil {
		f.dirFDs.release(fd)
		return nil, nil, err
	}
	return d, fd, nil
}

// dirFD returns the descriptor of a directory for use, opened by way of its parents if it is not in the cache. A directory
// that is not the one it was (moved or replaced behind the mount) is ESTALE: the kernel then looks it up again.
func (f *fileSystem) dirFD(id inode.ID) (*descriptor, error) {
	if d := f.dirFDs.get(id, false); d != nil {
		return d, nil
	}
	return f.openPlace(f.dirFDs, id, false, func(dir int, name string) (int, error) {
		return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

// close lets go of everything once no more requests come.
func (f *fileSystem) close() {
	f.endRewrites()
	f.awaitIntents()
	f.uidLock.close()
	f.notices.stop()
	f.files.clear()
	f.dirFDs.clear()
}
