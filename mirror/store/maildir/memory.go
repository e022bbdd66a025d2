package maildir

import (
	"path"
	"strings"
	"sync"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Memory is what a process remembers of the mailboxes of one Maildir between the times that it has it open, so that one mail
// more in a mailbox of a hundred thousand does not cost a look at all of them. All Stores of the location share it, as they do
// Locks.
//
// It is a short cut and nothing else. It counts while somebody is told of each change in the directories (inotify), and for a
// mailbox whose directories, uidlist and keywords are those that it remembers and whose numbers in the catalog nobody else has
// moved; whatever does not fit makes the next refresh read everything. The catalog does not know of it: the signature of a
// mailbox that was looked at by this way stays one that is not trusted, so that a process that ends without a word leaves what
// it would have left without a Memory.
//
// Lock order: the tracker's own lock, then mu. The tracker is never called with mu held.
type Memory struct {
	trackMu sync.Mutex
	tracker Tracker // nil: nobody is told

	mu    sync.Mutex // guards what follows
	boxes map[string]*boxMemory
	slots int  // of all tables
	other bool // something changed outside of the mailboxes that are remembered
	clock uint64
}

// Tracker is told by the kernel what changes below the root.
type Tracker interface {
	// CatchUp has [Memory.Note] called for everything that happened before the call, and reports whether that is everything:
	// whether it is told of each name that comes or goes in new/ and cur/ of the mailbox in dir.
	CatchUp(dir string) bool
}

// maxSlots bounds the tables of all mailboxes, at 8 bytes each. Those that were not used for longest go first.
const maxSlots = 8 << 20

// maxTouched is from how many changed names on a mailbox is read as a whole.
const maxTouched = 1000

// boxMemory is what is remembered of one mailbox. It is guarded by Memory.mu but for list, which the user of the Store owns.
type boxMemory struct {
	known   bool // what follows is true but for the touched names
	guid    mail.MailboxGUID
	valid   mail.UIDValidity
	numbers store.Numbers // in the catalog
	sig     signature
	list    *uidlistState
	slots   int    // of its table, as counted
	used    uint64 // when

	// touched counts the events of names, as in store.MessageRecord.File, that were not looked at yet. What the store itself
	// is about to do counts downwards, so that its echo is no news.
	touched map[string]int
}

// NewMemory returns a Memory that knows nothing.
func NewMemory() *Memory { return &Memory{boxes: make(map[string]*boxMemory)} }

// Track begins to rely on t, or ends that with nil.
func (m *Memory) Track(t Tracker) {
	m.trackMu.Lock()
	m.tracker = t
	m.trackMu.Unlock()
	m.Note("", "")
}

// Note says that a name came or went in a directory below the root. An empty name means that anything in the directory may have
// changed; for the root, "", anything anywhere. It reports whether that is news to the store.
func (m *Memory) Note(dir, name string) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	box, sub := path.Split(dir)
	box = strings.TrimSuffix(box, "/")
	if b := m.boxes[box]; name != "" && (sub == "new" || sub == "cur") && b != nil {
		return b.touch(sub+"/"+name, 1)
	}
	m.forgetBelow(dir, name)
	m.other = true
	return true
}

// forgetBelow forgets the mailboxes to which something happened that is not a mail coming or going.
func (m *Memory) forgetBelow(dir, name string) {
	if dir == "" && name == "" {
		m.slots = 0
		clear(m.boxes)
		return
	}
	changed := joinPath(dir, name)
	if name == "" {
		changed = dir
	}
	for box := range m.boxes {
		if box == changed || strings.HasPrefix(box, changed+"/") || joinPath(box, "cur") == changed || joinPath(box, "new") == changed {
			m.drop(box)
		}
	}
}

// Pending reports whether something changed that no refresh has looked at.
func (m *Memory) Pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.other {
		return true
	}
	for _, b := range m.boxes {
		if len(b.touched) > 0 {
			return true
		}
	}
	return false
}

// touch counts n events of a name and reports whether there is something to look at.
func (b *boxMemory) touch(file string, n int) bool {
	if b.touched[file] += n; b.touched[file] == 0 {
		delete(b.touched, file)
		return false
	}
	return true
}

// catchUp has everything told that happened so far, and reports whether that is all for a mailbox.
func (m *Memory) catchUp(dir string) bool {
	if m == nil {
		return false
	}
	m.trackMu.Lock()
	t := m.tracker
	m.trackMu.Unlock()
	if t == nil || !t.CatchUp(dir) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.boxes[dir]; b != nil {
		b.lookAtExpected()
	}
	return true
}

// lookAtExpected has what was expected and did not happen looked at: it may hide what does.
func (b *boxMemory) lookAtExpected() {
	for file, n := range b.touched {
		if n < 0 {
			b.touched[file] = 1
		}
	}
}

// startRefresh forgets that something happened elsewhere: a refresh looks at everything.
func (m *Memory) startRefresh() {
	if m == nil || !m.catchUp("") {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.other = false
	for _, b := range m.boxes {
		b.lookAtExpected()
	}
}

// begin remembers what happens from now on to a mailbox that is about to be read as a whole. It reports whether that is
// possible.
func (m *Memory) begin(dir string) bool {
	if !m.catchUp(dir) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(dir)
	m.boxes[dir] = &boxMemory{touched: make(map[string]int)}
	return true
}

// settle says how a mailbox is after a refresh or a batch. What happened meanwhile stays to be looked at.
func (m *Memory) settle(dir string, rec store.MailboxRecord, sig signature, list *uidlistState) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxes[dir]
	if b == nil {
		return
	}
	b.known, b.guid, b.valid, b.sig, b.list = true, rec.Status.GUID, rec.Status.UIDValidity, sig, list
	m.count(b, rec)
}

// count notes the numbers of a mailbox and the size of its table.
func (m *Memory) count(b *boxMemory, rec store.MailboxRecord) {
	m.slots += len(b.list.bases.slots) - b.slots
	b.slots = len(b.list.bases.slots)
	m.clock++
	b.numbers, b.used = store.NumbersOf(rec.Status), m.clock
	for m.slots > maxSlots && len(m.boxes) > 0 {
		m.drop(m.oldest())
	}
}

func (m *Memory) oldest() (dir string) {
	used := m.clock + 1
	for d, b := range m.boxes {
		if b.used < used {
			dir, used = d, b.used
		}
	}
	return dir
}

// forget has the next refresh read a mailbox as a whole.
func (m *Memory) forget(dir string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(dir)
}

// drop is forget for who holds mu.
func (m *Memory) drop(dir string) {
	b := m.boxes[dir]
	if b == nil {
		return
	}
	m.slots -= b.slots
	m.other = m.other || len(b.touched) > 0
	delete(m.boxes, dir)
}

// recall returns what is remembered of a mailbox if that is what the catalog and the directory say, and how many names were
// touched since; nil if it has to be read.
func (m *Memory) recall(dir string, rec *store.MailboxRecord, now signature) (b *boxMemory, touched int) {
	if m == nil || rec == nil {
		return nil, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b = m.boxes[dir]
	if b == nil || !b.fits(rec, now) || len(b.touched) > maxTouched {
		return nil, 0
	}
	return b, len(b.touched)
}

// isOf reports whether the catalog has not changed since.
func (b *boxMemory) isOf(rec store.MailboxRecord) bool {
	return b.known && b.guid == rec.Status.GUID && b.valid == rec.Status.UIDValidity && b.numbers == store.NumbersOf(rec.Status)
}

func (b *boxMemory) fits(rec *store.MailboxRecord, now signature) bool {
	return b.isOf(*rec) && now.cur.ino != 0 && now.new.ino != 0 && b.sig.cur.ino == now.cur.ino && b.sig.new.ino == now.new.ino && b.sig.list == now.list && b.sig.keys == now.keys
}

// fits reports whether what is remembered of a mailbox is what the catalog says.
func (m *Memory) fits(dir string, rec store.MailboxRecord) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxes[dir]
	return b != nil && b.isOf(rec)
}

// update is settle for what the store itself did to a mailbox that fits, with its uidlist.
func (m *Memory) update(dir string, rec store.MailboxRecord, list *uidlistState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.boxes[dir]; b != nil && b.known {
		b.list, b.sig.list = list, list.sig
		m.count(b, rec)
	}
}

// take returns the names that were touched and regards them as looked at.
func (m *Memory) take(b *boxMemory) map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	touched := b.touched
	b.touched = make(map[string]int)
	return touched
}

// listOf returns what is remembered of a uidlist, nil if nothing.
func (m *Memory) listOf(dir string) *uidlistState {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.boxes[dir]; b != nil && b.known {
		return b.list
	}
	return nil
}

// expect says that the store itself is about to make names of a mailbox come or go. The caller takes it back if that fails.
func (m *Memory) expect(dir string, files ...string) (takeBack func()) {
	if m == nil {
		return func() {}
	}
	count := func(n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if b := m.boxes[dir]; b != nil {
			for _, file := range files {
				b.touch(file, n)
			}
		}
	}
	count(-1)
	return func() { count(1) }
}

// look has a name looked at by the next refresh.
func (m *Memory) look(dir, file string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.boxes[dir]; b != nil {
		b.touched[file] = 1
	}
}

// uidTable finds the UIDs that a hash of a base name may have. It takes 11 to 21 bytes per name.
type uidTable struct {
	slots []uint64 // the lower half of the hash, then the UID; open addressing by the former. 0: free
	n     int
}

func (t *uidTable) add(hash uint64, uid mail.UID) {
	if t.n*4 >= len(t.slots)*3 {
		old := t.slots
		t.slots = make([]uint64, max(16, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				t.put(s)
			}
		}
	}
	t.n++
	t.put(hash<<32 | uint64(uid))
}

func (t *uidTable) put(s uint64) {
	mask := uint64(len(t.slots) - 1)
	i := s >> 32 & mask
	for t.slots[i] != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// find returns the UIDs of a hash. Those of names that are gone may be among them, and of another one in four billion.
func (t *uidTable) find(hash uint64) (uids []mail.UID) {
	if len(t.slots) == 0 {
		return nil
	}
	mask := uint64(len(t.slots) - 1)
	for i := hash & 0xffffffff & mask; t.slots[i] != 0; i = (i + 1) & mask {
		if t.slots[i]>>32 == hash&0xffffffff {
			uids = append(uids, mail.UID(t.slots[i]))
		}
	}
	return uids
}
