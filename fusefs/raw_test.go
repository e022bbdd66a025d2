package fusefs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dsyncfs/fusefs"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// raw is a file system without a mount, and what it tells the kernel.
type raw struct {
	fusefs.Raw
	t      *testing.T
	engine *engine
	dir    string

	mu      sync.Mutex
	notices []string
}

func newRaw(t *testing.T) *raw {
	t.Helper()
	r := &raw{t: t, dir: t.TempDir()}
	makeMaildir(t, r.dir)
	root, err := os.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r.engine = &engine{root: r.dir}
	if r.Raw, err = fusefs.NewRaw(root, fusefs.Options{Engine: r.engine}, r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func (r *raw) EntryNotify(parent uint64, name string) fuse.Status {
	r.note(fmt.Sprintf("entry %d %s", parent, name))
	return fuse.OK
}

func (r *raw) InodeNotify(node uint64, off, length int64) fuse.Status {
	r.note(fmt.Sprintf("inode %d", node))
	return fuse.ENOENT
}

func (r *raw) InodeNotifyStoreCache(node uint64, off int64, data []byte) fuse.Status {
	r.note(fmt.Sprintf("store %d %s", node, data))
	return fuse.OK
}

func (r *raw) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notices = append(r.notices, s)
}

func (r *raw) told() []string {
	r.Sent()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.notices
	r.notices = nil
	return out
}

// header is a request of another program each time: real thread ids of this process would count as one program.
func header(node uint64, pid uint32) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Pid: 1<<30 + pid}}
}

func (r *raw) lookup(parent uint64, name string, pid uint32) (fuse.EntryOut, fuse.Status) {
	var out fuse.EntryOut
	h := header(parent, pid)
	st := r.Lookup(nil, &h, name, &out)
	return out, st
}

// walk looks a path up and returns its node.
func (r *raw) walk(path string) uint64 {
	r.t.Helper()
	node := uint64(fuse.FUSE_ROOT_ID)
	for _, name := range strings.Split(path, "/") {
		out, st := r.lookup(node, name, 0)
		if st != fuse.OK || out.NodeId == 0 {
			r.t.Fatalf("lookup %s of %s: %v", name, path, st)
		}
		node = out.NodeId
	}
	return node
}

func (r *raw) deliver(name string) {
	r.t.Helper()
	tmp, fresh := r.walk("tmp"), r.walk("new")
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: header(tmp, 0), Flags: uint32(os.O_CREATE | os.O_EXCL | os.O_WRONLY), Mode: 0o100600}
	if st := r.Create(nil, &in, name, &out); st != fuse.OK || out.Fh != 0 {
		r.t.Fatalf("create: %v, handle %d", st, out.Fh)
	}
	if _, st := r.Write(nil, &fuse.WriteIn{InHeader: header(out.NodeId, 0)}, []byte("mail "+name)); st != fuse.OK {
		r.t.Fatal(st)
	}
	r.rename(tmp, name, fresh, name, 0)
	r.Forget(out.NodeId, 1)
	r.Forget(tmp, 1)
	r.Forget(fresh, 1)
}

func (r *raw) rename(from uint64, name string, to uint64, newName string, pid uint32) {
	r.t.Helper()
	if st := r.Rename(nil, &fuse.RenameIn{InHeader: header(from, pid), Newdir: to}, name, newName); st != fuse.OK {
		r.t.Fatalf("rename %s to %s: %v", name, newName, st)
	}
}

func (r *raw) read(node uint64) string {
	r.t.Helper()
	buf := make([]byte, 100)
	res, st := r.Read(nil, &fuse.ReadIn{InHeader: header(node, 0), Size: 100}, buf)
	if st != fuse.OK {
		r.t.Fatal(st)
	}
	b, _ := res.Bytes(buf)
	return string(b)
}

func TestOpenIsNeverAskedForAgain(t *testing.T) {
	r := newRaw(t)
	if st := r.Open(nil, &fuse.OpenIn{}, &fuse.OpenOut{}); st != fuse.ENOSYS {
		t.Errorf("OPEN answers %v", st)
	}
	if st := r.Flush(nil, &fuse.FlushIn{}); st != fuse.ENOSYS {
		t.Errorf("FLUSH answers %v", st)
	}
}

func TestTimeoutsAreLongForMailAndShortForTheRest(t *testing.T) {
	r := newRaw(t)
	r.deliver("a")
	fresh, cur := r.walk("new"), r.walk("cur")
	r.rename(fresh, "a", cur, "a:2,S", 1)
	for _, c := range []struct {
		name   string
		parent uint64
		entry  string
		long   bool
		known  bool
		zero   bool
	}{
		{"a mail", cur, "a:2,S", true, true, false},
		{"an unknown base", cur, "zzz", true, false, false},
		{"a known base under a name it never had", cur, "a:2,F", false, false, true},
		{"a name of the past", fresh, "a", false, true, true},
		{"a plain file that is not there", fuse.FUSE_ROOT_ID, "dovecot-acl", false, false, false},
		{"a name in tmp that is not there", r.walk("tmp"), "x", false, false, true},
	} {
		out, _ := r.lookup(c.parent, c.entry, 2)
		if known := out.NodeId != 0; known != c.known {
			t.Errorf("%s: known %v", c.name, known)
		}
		if d := out.EntryTimeout(); d > 3600e9 != c.long || d == 0 != c.zero {
			t.Errorf("%s: timeout %v", c.name, d)
		}
	}
}

func TestAMergedFlagChangeTellsTheKernelWhatItDoesNotKnow(t *testing.T) {
	r := newRaw(t)
	r.deliver("a")
	fresh, cur := r.walk("new"), r.walk("cur")
	r.rename(fresh, "a", cur, "a:2,S", 1)
	r.told()
	r.rename(fresh, "a", cur, "a:2,F", 2)
	want := []string{fmt.Sprintf("entry %d a:2,F", cur), fmt.Sprintf("entry %d a:2,S", cur), fmt.Sprintf("entry %d a:2,FS", cur)}
	if got := r.told(); !slices.Equal(got[:3], want) {
		t.Errorf("told %q, want %q first", got, want)
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "cur", "a:2,FS")); string(b) != "mail a" {
		t.Error(string(b), err)
	}
}

// A node of a directory that is gone is used again. What its mails were once called must not be found in the next one.
func TestPastNamesEndWithTheirDirectory(t *testing.T) {
	r := newRaw(t)
	var cur [2]uint64
	for i := range cur {
		box := filepath.Join(r.dir, ".Box")
		if err := errors.Join(os.Mkdir(box, 0o755), os.Mkdir(box+"/cur", 0o755), os.WriteFile(box+"/cur/a:2,", nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		parent := r.walk(".Box")
		out, _ := r.lookup(parent, "cur", 0)
		cur[i] = out.NodeId
		if out, _ := r.lookup(cur[i], "a:2,S", 2); out.NodeId != 0 {
			t.Error("a name that never was is found")
		}
		r.rename(cur[i], "a:2,", cur[i], "a:2,S", 1)
		r.rename(cur[i], "a:2,S", cur[i], "a:2,F", 1)
		h := header(cur[i], 1)
		if st := r.Unlink(nil, &h, "a:2,F"); st != fuse.OK {
			t.Fatal(st)
		}
		h = header(parent, 1)
		if st := r.Rmdir(nil, &h, "cur"); st != fuse.OK {
			t.Fatal(st)
		}
		h = header(fuse.FUSE_ROOT_ID, 1)
		if st := r.Rmdir(nil, &h, ".Box"); st != fuse.OK {
			t.Fatal(st)
		}
		r.Forget(cur[i], 1)
		r.Forget(parent, 1)
	}
	if cur[0] != cur[1] {
		t.Fatalf("nodes %d and %d: the test tests nothing", cur[0], cur[1])
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	r := newRaw(t)
	r.walk("tmp")
	fresh, cur := r.walk("new"), r.walk("cur")
	nodes := r.Nodes()
	for i := range fusefs.MaxFiles + 50 {
		name := fmt.Sprint("m", i)
		r.deliver(name)
		r.rename(fresh, name, cur, name+":2,S", 1)
		alias, st := r.lookup(fresh, name, 2)
		if st != fuse.OK || r.read(alias.NodeId) != "mail "+name {
			t.Fatal("no alias: ", st)
		}
		real, _ := r.lookup(cur, name+":2,S", 2)
		h := header(cur, 2)
		if st := r.Unlink(nil, &h, name+":2,S"); st != fuse.OK {
			t.Fatal(st)
		}
		if r.read(alias.NodeId) != "mail "+name {
			t.Fatal("unlinked while open, and gone")
		}
		r.Forget(real.NodeId, 1)
		if r.read(alias.NodeId) != "mail "+name {
			t.Fatal("the alias does not hold its mail")
		}
		r.Forget(alias.NodeId, 1)
	}
	if n := r.Nodes(); n != nodes {
		t.Errorf("%d nodes, %d before", n, nodes)
	}
	if n := r.Files(); n != 0 {
		t.Errorf("%d descriptors are held for files that are gone", n)
	}
}

func TestTheDescriptorCacheIsBounded(t *testing.T) {
	r := newRaw(t)
	for i := range fusefs.MaxFiles + 100 {
		r.deliver(fmt.Sprint("m", i))
	}
	fresh := r.walk("new")
	for i := range fusefs.MaxFiles + 100 {
		out, _ := r.lookup(fresh, fmt.Sprint("m", i), 0)
		if r.read(out.NodeId) != fmt.Sprint("mail m", i) {
			t.Fatal("wrong mail")
		}
	}
	if n := r.Files(); n != fusefs.MaxFiles {
		t.Errorf("%d descriptors", n)
	}
}

func TestReadDirPlusAnswersEveryMailOnceWithItsAttributes(t *testing.T) {
	r := newRaw(t)
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(r.dir, "cur", fmt.Sprint(i, ":2,")), make([]byte, i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cur := r.walk("cur")
	seen := map[string]int{}
	offset := uint64(0)
	for {
		buf := make([]byte, 1000)
		list := fuse.NewDirEntryList(buf, offset)
		if st := r.ReadDirPlus(nil, &fuse.ReadIn{InHeader: header(cur, 0), Offset: offset, Size: 1000}, list); st != fuse.OK {
			t.Fatal(st)
		}
		entries, outs, err := fuse.ParseDirLookupEntries(list.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			break
		}
		for i, e := range entries {
			seen[e.Name]++
			offset = e.Off
			if strings.HasPrefix(e.Name, ".") {
				continue
			}
			if want := e.Name; fmt.Sprint(outs[i].Size, ":2,") != want || outs[i].NodeId == 0 || outs[i].Ino != e.Ino {
				t.Errorf("%s: size %d, node %d", want, outs[i].Size, outs[i].NodeId)
			}
		}
	}
	if len(seen) != 102 {
		t.Errorf("%d names", len(seen))
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s %d times", name, n)
		}
	}
}

func TestARescanKeepsTheNodeOfARenamedMail(t *testing.T) {
	r := newRaw(t)
	r.deliver("a")
	fresh, cur := r.walk("new"), r.walk("cur")
	before, _ := r.lookup(fresh, "a", 0)
	if err := os.Rename(filepath.Join(r.dir, "new", "a"), filepath.Join(r.dir, "cur", "a:2,S")); err != nil {
		t.Fatal(err)
	}
	r.told()
	r.Changed("cur")
	r.Changed("new")
	after, _ := r.lookup(cur, "a:2,S", 0)
	if after.NodeId != before.NodeId || after.Ino != before.Ino {
		t.Errorf("node %d, was %d", after.NodeId, before.NodeId)
	}
	told := r.told()
	for _, want := range []string{fmt.Sprintf("entry %d a", fresh), fmt.Sprintf("entry %d a:2,S", cur), fmt.Sprintf("inode %d", fresh), fmt.Sprintf("inode %d", cur)} {
		if !slices.Contains(told, want) {
			t.Errorf("told %q, not %q", told, want)
		}
	}
}

func TestMergeFlags(t *testing.T) {
	for _, c := range []struct{ current, stale, wanted, merged string }{
		{"a:2,S", "a", "a:2,F", "a:2,FS"},
		{"a:2,S", "a:2,", "a:2,", "a:2,S"},
		{"a:2,FS", "a:2,F", "a:2,", "a:2,S"},
		{"a:2,S", "a", "a", "a:2,S"},
		{"a:2,Sac", "a:2,Sab", "a:2,Sb", "a:2,Sc"},
		{"a:2,S,rest", "a:2,", "a:2,R", "a:2,RS,rest"},
		{"a", "a:2,", "a:2,", "a:2,"},
		{"a:2,FS", "a:2,S", "a:2,PS", "a:2,FPS"},
		{"a:2,FPX", "a:2,PX", "a:2,PY", "a:2,FPY"},
	} {
		if got := fusefs.MergeFlags(c.current, c.stale, c.wanted); got != c.merged {
			t.Errorf("current %s, %s to %s: %s, want %s", c.current, c.stale, c.wanted, got, c.merged)
		}
	}
}

// Two programs that change different flags of one mail, each knowing only its own change, end at the same name in either
// order.
func TestMergedFlagChangesCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		subset := func(of, label string) string {
			var out []byte
			for i := range len(of) {
				if rapid.Bool().Draw(t, label) {
					out = append(out, of[i])
				}
			}
			return string(out)
		}
		first, second := "DFPa", "RSb"
		start := "m:2," + subset(first, "start") + subset(second, "start")
		start = fusefs.MergeFlags(start, "m:2,", "m:2,")
		strip := func(flags, set string) string {
			for _, c := range set {
				flags = strings.ReplaceAll(flags, string(c), "")
			}
			return flags
		}
		one := "m:2," + strip(start[4:], first) + subset(first, "one")
		two := "m:2," + strip(start[4:], second) + subset(second, "two")
		a := fusefs.MergeFlags(fusefs.MergeFlags(start, start, one), start, two)
		b := fusefs.MergeFlags(fusefs.MergeFlags(start, start, two), start, one)
		if a != b {
			t.Fatalf("from %s to %s and %s: %s or %s", start, one, two, a, b)
		}
	})
}

func TestErrnoOf(t *testing.T) {
	for _, c := range []struct {
		err   error
		errno syscall.Errno
		known bool
	}{
		{nil, 0, true},
		{fmt.Errorf("append to the journal: %w", &fs.PathError{Op: "write", Path: "j", Err: unix.ENOSPC}), syscall.ENOSPC, true},
		{fmt.Errorf("lock: %w", fs.ErrPermission), syscall.EACCES, true},
		{fmt.Errorf("wait: %w", fusefs.ErrNotMirrored), syscall.EIO, true},
		{errors.New("no idea"), syscall.EIO, false},
	} {
		if errno, known := fusefs.ErrnoOf(c.err); errno != c.errno || known != c.known {
			t.Errorf("%v: %v, %v", c.err, errno, known)
		}
	}
}

func TestFindMount(t *testing.T) {
	const info = `22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw
30 22 0:50 / /home/u/My\040Mail rw,nosuid - fuse.dsyncfs work rw,user_id=0
31 30 0:51 / /home/u/My\040Mail rw,nosuid - fuse.dsyncfs on\134top rw
`
	fsType, source, ok := fusefs.FindMount(strings.NewReader(info), "/home/u/My Mail")
	if !ok || fsType != "fuse.dsyncfs" || source != `on\top` {
		t.Error(fsType, source, ok)
	}
	if _, _, ok := fusefs.FindMount(strings.NewReader(info), "/home/u"); ok {
		t.Error("found what is not mounted")
	}
}

// Whoever a mail from the remote wakes reads it without asking: its bytes are in the page cache. A flag change of the engine
// is no arrival, and what a program delivers it has in its cache itself.
func TestAMailFromTheRemoteIsPushed(t *testing.T) {
	r := newRaw(t)
	r.deliver("local")
	if err := os.WriteFile(r.dir+"/tmp/remote", []byte("from afar"), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp, cur := r.walk("tmp"), r.walk("cur")
	node := r.walk("tmp/remote")
	r.told()
	rename := func(from uint64, dir, name, newName string) {
		t.Helper()
		r.ExpectRename(dir, name, "cur", newName)
		in := fuse.RenameIn{InHeader: header(from, 0), Newdir: cur}
		if st := r.Rename(nil, &in, name, newName); st != fuse.OK {
			t.Fatal(st)
		}
	}
	rename(tmp, "tmp", "remote", "remote:2,")
	if got, want := r.told(), fmt.Sprintf("store %d from afar", node); len(got) != 1 || got[0] != want {
		t.Errorf("told %q, want %q", got, want)
	}
	rename(cur, "cur", "remote:2,", "remote:2,S")
	if got := r.told(); len(got) != 0 {
		t.Errorf("told %q after a flag change", got)
	}
}

// After many reads the kernel would ask for the attributes of each mail: it is made to list the directory instead.
func TestAListingAfterManyReads(t *testing.T) {
	r := newRaw(t)
	for i := range 60 {
		r.deliver(fmt.Sprintf("%d.M1.h", i))
	}
	dir := r.walk("new")
	cached := func() bool {
		t.Helper()
		var out fuse.OpenOut
		if st := r.OpenDir(nil, &fuse.OpenIn{InHeader: header(dir, 0)}, &out); st != fuse.OK {
			t.Fatal(st)
		}
		return out.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0
	}
	list := func() {
		t.Helper()
		entries := fuse.NewDirEntryList(make([]byte, 1<<16), 0)
		if st := r.ReadDirPlus(nil, &fuse.ReadIn{InHeader: header(dir, 0), Size: 1 << 16}, entries); st != fuse.OK {
			t.Fatal(st)
		}
	}
	list()
	for i := range 60 {
		if i == 10 && !cached() {
			t.Error("a few reads cost a listing")
		}
		r.read(r.walk(fmt.Sprintf("new/%d.M1.h", i)))
	}
	if cached() {
		t.Error("after many reads a listing comes from the kernel's cache")
	}
	list()
	if !cached() {
		t.Error("the listing after that is not cached")
	}
}
