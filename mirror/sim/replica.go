package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// replica is one location: a disk with a Maildir, the memory of the store, and what goes wrong with both.
type replica struct {
	w      *world
	name   string
	layout maildir.Layout
	disk   *vfs.Mem
	fault  *vfs.Fault
	cat    *catalog
	locks  *maildir.Locks
	memory *maildir.Memory
	pid    int
	random io.Reader
	offset time.Duration // of its clock
	born   bool          // the Maildir was there once, so that nobody may make it again

	edited   bool // a user changed a mail in place since the last full sync
	lostList bool // a uidlist was removed since the last sync that succeeded
	clean    bool // the last sync succeeded

	pushed pushed
	logged map[mail.MailboxGUID]int // see noteDeletions

	witnessed map[witnessed]bool // what was removed through a mount

	state     *vfs.Mem // the disk of the journal
	journal   *journal.Journal
	journaled map[uint64]journaled // what was acknowledged, by number
	durable   uint64               // up to here with an fsync
	checked   uint64               // up to here what is marked as sent was looked for
	intact    bool                 // no power cut since the journal was last open

	wake chan struct{} // inotify of the slave
	turn chan struct{} // one round at a time has the store open

	mu      sync.Mutex
	plan    Fault
	ops     int            // that changed something, in this round
	reads   map[string]int // how often, by operation
	dead    bool
	crashed [2]*vfs.Mem // what the crash left of disk and state
	hit     bool        // the fault came to pass
}

type witnessed struct {
	mailbox mail.Name
	base    string
}

// errDead is what a process gets that does not run any more.
var errDead = errors.New("the process has ended")

func newReplica(w *world, name string, layout maildir.Layout) *replica {
	r := &replica{w: w, name: name, layout: layout, pid: firstPID, witnessed: make(map[witnessed]bool)}
	r.random = rand.NewChaCha8(w.seed32("random " + name))
	r.boot(vfs.NewMem(r.now), vfs.NewMem(r.now))
	r.journaled, r.intact = make(map[uint64]journaled), true
	r.wake, r.turn = make(chan struct{}, 1), make(chan struct{}, 1)
	r.forget()
	return r
}

// firstPID is beyond what Linux gives, so that a lock of an earlier life has a dead owner.
const firstPID = 1 << 24

// boot starts a new life on its disks.
func (r *replica) boot(disk, state *vfs.Mem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disk, r.state, r.dead, r.crashed, r.plan = disk, state, false, [2]*vfs.Mem{}, Fault{}
	r.fault = vfs.NewFault(disk, r.decide)
	r.pid++
	r.clean = false
	if r.cat != nil {
		r.cat.crashed = true
	}
	r.locks = maildir.NewLocks(maildir.LockOptions{Hostname: r.name, PID: r.pid, Now: r.now})
	r.memory = maildir.NewMemory()
	if r.pid%4 > 0 { // some processes watch nothing
		r.memory.Track(tracker{})
	}
	disk.Observe(func(dir, name string) { r.memory.Note(dir, name) })
	r.noteDeletions(false)
}

// tracker is inotify, which here has always told everything.
type tracker struct{}

func (tracker) CatchUp(string) bool { return true }

// forget loses the memory of the store.
func (r *replica) forget() {
	var b [8]byte
	io.ReadFull(r.random, b[:])
	epoch := uint64(1)
	for _, c := range b {
		epoch = epoch<<8 | uint64(c)
	}
	r.cat = newCatalog(epoch, func() error { return r.decide(vfs.Op{Name: "commit"}) })
}

// remembers reports whether the store knows a mail in a mailbox.
func (r *replica) remembers(name mail.Name, base string) bool {
	for guid, b := range r.cat.boxes {
		if b.record.Name != name {
			continue
		}
		for m := range (&catalogTx{c: r.cat}).Messages(guid, 0) {
			if f, _ := mail.ParseFileName(m.File[len("cur/"):]); f.Base == base {
				return true
			}
		}
	}
	return false
}

// knows reports whether the store has a mailbox under its name, by the GUID of its uidlist if there is one.
func (r *replica) knows(name mail.Name, dir string) bool {
	b, err := readBox(r.disk, name, dir)
	for guid, known := range r.cat.boxes {
		if err == nil && known.record.Name == name && (b.noList || b.guid == guid.String()) {
			return true
		}
	}
	return false
}

func (r *replica) now() time.Time { return time.Now().Add(r.offset) }

// begin arms a fault for a round.
func (r *replica) begin(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan, r.ops, r.reads, r.hit = f, 0, make(map[string]int), false
}

// end disarms it. What became of it can still be asked.
func (r *replica) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan = Fault{}
}

// isDead reports whether the process has ended in this round.
func (r *replica) isDead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead
}

// decide says what becomes of an operation. It is called by all goroutines of the replica.
func (r *replica) decide(op vfs.Op) error {
	if !op.Changes() {
		return r.decideRead(op)
	}
	if yields(op) {
		r.w.sched.yield(r.name + " " + op.Name + " " + op.Path + " " + op.To)
	}
	return r.count(op)
}

// decideState is decide for the disk of the journal. Nobody else acts before its operations: the journal holds a mutex.
func (r *replica) decideState(op vfs.Op) error {
	if !op.Changes() {
		return nil
	}
	op.Path = "journal/" + op.Path
	return r.count(op)
}

// count counts an operation that changes something, and lets it fail if it is its turn to.
func (r *replica) count(op vfs.Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return errDead
	}
	r.ops++
	f := &r.plan
	switch {
	case f.At == 0 || r.ops < f.At:
		return nil
	case r.ops > f.At:
		if f.What == "full" && grows(op) {
			return syscall.ENOSPC
		}
		return nil
	}
	r.hit = true
	r.w.note("%s: %s at operation %d: %s %s %s", r.name, f.What, f.At, op.Name, op.Path, op.To)
	switch f.What {
	case "crash":
		r.dead, r.crashed = true, r.afterCrash(vfs.Loss(f.Loss), f.Seed)
		return errDead
	case "full":
		if grows(op) {
			return syscall.ENOSPC
		}
		return nil
	case "late":
		return vfs.Late(syscall.EIO)
	}
	return errnos[f.What]
}

var errnos = map[string]error{"eio": syscall.EIO, "enospc": syscall.ENOSPC, "eintr": syscall.EINTR}

// grows reports whether an operation needs space on the disk.
func grows(op vfs.Op) bool {
	switch op.Name {
	case "create", "write", "mkdir", "link", "rename", "commit":
		return true
	}
	return false
}

// yields reports whether others may act before an operation: those that programs can see. It leaves out what the store does
// while it holds a mutex that its sending and its receiving half share.
func yields(op vfs.Op) bool {
	switch op.Name {
	case "rename", "link", "sync", "syncdir", "syncfs", "commit":
		return true
	case "remove":
		return !strings.Contains(op.Path, "tmp/") && !strings.HasSuffix(op.Path, ".lock")
	case "write":
		return !strings.HasSuffix(op.Path, ".lock")
	}
	return false
}

// tempName is the end of a name that vfs.Replace makes of the process and of what it counts over the whole of that.
var tempName = regexp.MustCompile(`\.\d+\.\d+\.tmp$`)

// decideRead fails some reads, the same ones whoever comes first.
func (r *replica) decideRead(op vfs.Op) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return errDead
	}
	if r.plan.Reads == 0 || op.Name == "close" {
		return nil
	}
	key := op.Name + " " + tempName.ReplaceAllString(op.Path, ".tmp")
	r.reads[key]++
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d %d", key, r.reads[key], r.plan.Seed)
	if h.Sum64()%uint64(r.plan.Reads) != 0 {
		return nil
	}
	r.hit = true
	r.w.note("%s: EIO at %s", r.name, key)
	return syscall.EIO
}

// open opens the store for a round.
func (r *replica) open(ctx context.Context) (store.Store, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s, err := maildir.Open(ctx, r.fault, r.cat, maildir.Options{
		Layout: r.layout, Hostname: r.name, PID: r.pid, Clock: r.now, Rand: r.random, Locks: r.locks, Memory: r.memory, Create: !r.born,
	})
	if err != nil {
		<-r.turn
		return nil, err
	}
	r.cat.crashed = false
	r.born = true
	r.pushed.opened(r)
	return &turnStore{s, r}, nil
}

// turnStore gives the store free for the next round when it is closed, as the lock of an index does.
type turnStore struct {
	*maildir.Store
	r *replica
}

func (s *turnStore) Close() error {
	defer func() { <-s.r.turn }()
	return s.Store.Close()
}

// policy is small, so that few mails are many.
var policy = guard.Policy{MaxMissingPercent: 20, MaxMissingMails: 6}

func (r *replica) options(peer *replica) brain.Options {
	return brain.Options{
		Hostname: r.name, Side: r.name, PeerName: peer.name, Guard: policy,
		Now:     func() int64 { return r.now().Unix() },
		Logger:  r.logger(),
		Witness: r.saw,
		Spool:   r.spool,
	}
}

// spool is a file of the state directory that a crash takes along.
func (r *replica) spool() (brain.Spool, error) {
	if r.isDead() {
		return nil, errDead
	}
	return new(spool), nil
}

type spool struct{ bytes.Buffer }

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.Bytes()).ReadAt(p, off)
}
func (s *spool) Close() error { return nil }

// logger writes to the course of a simulation that shows everything.
func (r *replica) logger() *slog.Logger {
	if !Verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(noteWriter{r}, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type noteWriter struct{ r *replica }

func (n noteWriter) Write(p []byte) (int, error) {
	n.r.w.note("  %s: %s", n.r.name, strings.TrimSpace(string(p)))
	return len(p), nil
}

// saw is the witness of the replica's mount.
func (r *replica) saw(box mail.Name, base string) bool { return r.witnessed[witnessed{box, base}] }

// recover starts the process anew after a crash.
func (r *replica) recover() {
	if r.isDead() {
		r.boot(r.crashed[0], r.crashed[1])
	}
}

// crash ends the process between two rounds.
func (r *replica) crash(loss vfs.Loss, seed uint64) {
	left := r.afterCrash(loss, seed)
	r.boot(left[0], left[1])
}

// afterCrash is what a crash at this moment leaves.
func (r *replica) afterCrash(loss vfs.Loss, seed uint64) [2]*vfs.Mem {
	r.w.unseen = r.w.unseen || loss != vfs.LoseNothing
	r.intact = r.intact && loss == vfs.LoseNothing
	return [2]*vfs.Mem{r.disk.Crash(loss, seed), r.state.Crash(loss, seed+1)}
}

// changed is inotify.
func (r *replica) changed() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
