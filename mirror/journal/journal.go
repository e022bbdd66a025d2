package journal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// The names of the two positions that every journal has. Records below the lowest mark may be removed.
const (
	Indexed = "indexed" // the index knows what the records say
	Sent    = "sent"    // the peer has what the records say
)

// Options of a journal. The zero value is usable.
type Options struct {
	Clock       func() time.Time // default time.Now
	Logger      *slog.Logger     // default none; says what Open repaired
	SegmentSize int64            // bytes after which a new segment starts; default 4 MiB, at most 64 MiB
	Retain      int64            // bytes of consumed records to keep as history; default 16 MiB, negative for none
	Consumers   []string         // the marks that hold records back; default Indexed and Sent
}

func (o *Options) fill() {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentSize <= 0 {
		o.SegmentSize = 4 << 20
	}
	o.SegmentSize = min(o.SegmentSize, maxSegment)
	if o.Retain == 0 {
		o.Retain = 16 << 20
	}
	if o.Consumers == nil {
		o.Consumers = []string{Indexed, Sent}
	}
}

// Journal is an open log. All methods may be called concurrently.
type Journal struct {
	opt       Options
	dir       vfs.Dir
	id        identity
	recovery  Recovery
	onClose   []io.Closer // lock and file system of Open
	closeOnce sync.Once
	closeErr  error

	marksMu sync.Mutex // held while the file of marks is written

	mu       sync.Mutex
	segments []segment // oldest first; the last one is being written
	active   vfs.File
	buf      []byte // of the frame being appended
	torn     bool   // the last append left bytes behind that could not be cut off
	failed   error  // of a sync: what is on disk is not known any more
	closed   bool
	durable  uint64        // highest synced number
	syncing  bool          // somebody is in fdatasync
	synced   chan struct{} // closed when that one is done
	appended chan struct{} // closed at the next append; nil if nobody waits
	marks    map[string]uint64
}

// Open opens the journal in the directory at path, which must exist, and repairs it after a crash. The error wraps a
// [*LockedError] if another process, or another Journal of this one, has it open.
func Open(path string, opt Options) (*Journal, error) {
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	f, err := vfs.Open(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), lock.Close())
	}
	j, err := OpenFS(f, opt)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", path, err), f.Close(), lock.Close())
	}
	j.onClose = []io.Closer{f, lock}
	return j, nil
}

// OpenFS is Open for the root directory of a file system, without a lock. The file system stays the caller's.
func OpenFS(f vfs.FS, opt Options) (*Journal, error) {
	opt.fill()
	dir, err := f.OpenDir("")
	if err != nil {
		return nil, err
	}
	j := &Journal{opt: opt, dir: dir, synced: make(chan struct{})}
	if err := j.load(); err != nil {
		dir.Close()
		return nil, err
	}
	return j, nil
}

func (j *Journal) load() error {
	r := recovery{dir: j.dir}
	if err := r.load(); err != nil {
		return err
	}
	marks, used, err := r.loadMarks()
	if err != nil {
		return err
	}
	j.marks, j.id, j.segments, j.recovery = marks, r.id, r.segments, r.found
	used = max(used, r.used)
	if !r.haveID {
		rand.Read(j.id[:])
	}
	if len(j.segments) > 0 {
		if err := j.openActive(); err != nil {
			return err
		}
	}
	if j.active == nil || j.last() != used {
		if err := j.startSegment(used + 1); err != nil {
			return err
		}
	}
	j.durable = used
	j.report()
	return nil
}

func (j *Journal) report() {
	if n := j.recovery.TornBytes; n > 0 {
		j.opt.Logger.Info("journal: an unfinished record was cut off", "bytes", n)
	}
	for _, name := range j.recovery.SetAside {
		j.opt.Logger.Warn("journal: a corrupt file was set aside", "file", name, "err", ErrCorrupt)
	}
}

// Recovery tells what Open repaired. It does not change.
func (j *Journal) Recovery() Recovery { return j.recovery }

// openActive opens the newest segment for appending and syncs what a killed process may have left in memory only.
func (j *Journal) openActive() error {
	f, err := j.dir.OpenAppend(segmentName(j.segments[len(j.segments)-1].first))
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	j.active = f
	return nil
}

// startSegment makes an empty segment and goes on there. It is durable, so that its name never is missing before another.
func (j *Journal) startSegment(first uint64) error {
	if err := makeSegment(j.dir, header{j.id, first}, nil); err != nil {
		return err
	}
	f, err := j.dir.OpenAppend(segmentName(first))
	if err != nil {
		return err
	}
	if j.active != nil {
		j.active.Close() // it is synced; nothing can be lost any more
	}
	j.active = f
	j.segments = append(j.segments, segment{first: first, last: first - 1, size: headerSize})
	return nil
}

// Append records an event and returns its number. The record survives the process once Append has returned, and a power cut
// after [Journal.Sync]. If it fails, nothing is recorded, and a later Append may work, as when there is space again.
func (j *Journal) Append(ev mail.Event) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.ready(); err != nil {
		return 0, fmt.Errorf("append to journal: %w", err)
	}
	s := &j.segments[len(j.segments)-1]
	seq := s.last + 1
	var err error
	j.buf, err = j.id.appendFrame(j.buf[:0], Record{Seq: seq, Time: j.opt.Clock(), Event: ev})
	if err != nil {
		return 0, err
	}
	if s.size > headerSize && s.size+int64(len(j.buf)) > j.opt.SegmentSize {
		if err := j.rotate(seq); err != nil {
			return 0, fmt.Errorf("append to journal: %w", err)
		}
		s = &j.segments[len(j.segments)-1]
	}
	if _, err := j.active.Write(j.buf); err != nil {
		j.torn = cut(j.active, s.size) != nil
		return 0, fmt.Errorf("append to journal: %w", err)
	}
	s.size += int64(len(j.buf))
	s.last = seq
	if j.appended != nil {
		close(j.appended)
		j.appended = nil
	}
	return seq, nil
}

// ready refuses work that cannot be done, and cuts off what an earlier append left behind.
func (j *Journal) ready() error {
	switch {
	case j.closed:
		return ErrClosed
	case j.failed != nil:
		return j.failed
	case j.torn:
		if err := cut(j.active, j.segments[len(j.segments)-1].size); err != nil {
			return err
		}
		j.torn = false
	}
	return nil
}

// rotate finishes the newest segment and starts one with number seq.
func (j *Journal) rotate(seq uint64) error {
	// Before the next segment exists: that an older segment is whole is how recovery tells a torn one from a corrupt one.
	if err := j.active.Sync(); err != nil {
		j.failed = err
		return err
	}
	j.durable = seq - 1
	if err := j.startSegment(seq); err != nil {
		return err
	}
	// The history is a little longer than it needs to be if this fails; it is tried again.
	if err := j.prune(); err != nil {
		j.opt.Logger.Warn("journal: an old segment could not be removed", "err", err)
	}
	return nil
}

// prune removes the oldest segments that every consumer has done with, as far as the history is long enough without them.
func (j *Journal) prune() error {
	consumed := uint64(maxSeq)
	for _, name := range j.opt.Consumers {
		consumed = min(consumed, j.marks[name])
	}
	var total int64
	for _, s := range j.segments {
		total += s.size
	}
	for len(j.segments) > 1 {
		s := j.segments[0]
		if s.last > consumed || total-s.size < j.opt.Retain {
			return nil
		}
		if err := j.dir.Remove(segmentName(s.first)); err != nil {
			return err
		}
		total -= s.size
		j.segments = slices.Delete(j.segments, 0, 1)
	}
	return nil
}

// Last returns the highest number given out, 0 if there was none.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last()
}

func (j *Journal) last() uint64 { return j.segments[len(j.segments)-1].last }

// Read gives the records from number from on, in order, up to the last one at the time of the call; from 0 means from the
// oldest one that is kept. It does not wait. An error ends it: ErrGone if from lies before the oldest, ErrCorrupt, ErrClosed,
// or one of the file system.
func (j *Journal) Read(from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		j.mu.Lock()
		segments, last, closed := slices.Clone(j.segments), j.last(), j.closed
		j.mu.Unlock()
		if closed {
			yield(Record{}, ErrClosed)
			return
		}
		if from > 0 && from < segments[0].first {
			yield(Record{}, fmt.Errorf("read journal from %d: %w", from, ErrGone))
			return
		}
		next := from
		for _, s := range segments {
			if s.last < next || s.last < s.first {
				continue
			}
			more, err := s.read(j.dir, j.id, next, last, func(r Record) bool {
				if next > 0 {
					r.Missing = r.Seq - next
				}
				next = r.Seq + 1
				return yield(r, nil)
			})
			if err != nil {
				yield(Record{}, fmt.Errorf("read journal: %w", err))
			}
			if err != nil || !more {
				return
			}
		}
	}
}

// Wait returns as soon as there is a record after the given number. Errors are that of ctx and ErrClosed.
func (j *Journal) Wait(ctx context.Context, after uint64) error {
	for {
		j.mu.Lock()
		if j.closed {
			j.mu.Unlock()
			return ErrClosed
		}
		if j.last() > after {
			j.mu.Unlock()
			return nil
		}
		if j.appended == nil {
			j.appended = make(chan struct{})
		}
		wake := j.appended
		j.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close syncs, wakes all that wait and gives the directory free. A second Close returns the result of the first.
func (j *Journal) Close() error {
	j.closeOnce.Do(func() { j.closeErr = j.close() })
	return j.closeErr
}

func (j *Journal) close() error {
	j.marksMu.Lock() // let a SetMark finish
	defer j.marksMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.appended != nil {
		close(j.appended)
		j.appended = nil
	}
	err := j.active.Sync()
	if err == nil {
		j.durable = j.last()
	}
	err = errors.Join(err, j.active.Close(), j.dir.Close())
	for _, c := range j.onClose {
		err = errors.Join(err, c.Close())
	}
	return err
}
