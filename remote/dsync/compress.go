package dsync

import (
	"bufio"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/mirror/item"
)

// Compression between two dsyncfs ends. Who can read deflate says so with a field list of its own in the greeting; a Dovecot
// ignores it. From then on each side may begin to compress what it sends, for good, with a line "Z" between two items: all that
// follows is one deflate stream (RFC 1951) without an end, flushed where the other side waits for an answer. A reader of deflate
// keeps 32 KiB, whatever the stream claims; lines and lists are bounded behind it as always.

// Compression says when to compress what is sent.
type Compression uint8

// The kinds of compression.
const (
	CompressSlow   Compression = iota // when the connection turns out to be slow, or the other side found it to be
	CompressAlways                    // from the start, in both directions
	CompressNever                     // in neither direction
)

const (
	zDeflate = iota
	zAlways
)

// compressionKind is never an item: its field list says what a side can read, and whether it wants it.
var compressionKind = &kind{letter: 'Z', name: "dsyncfs_compression", ours: true, limit: 0, fields: []field{
	zDeflate: {name: "dsyncfs_deflate", ours: true},
	zAlways:  {name: "dsyncfs_always", ours: true},
}}

// compressionHeader announces it; false: not at all.
func compressionHeader(c Compression) (*layout, bool) {
	l := ownLayout(compressionKind, true)
	if c != CompressAlways {
		l.fields = l.fields[:zAlways]
	}
	return l, c != CompressNever
}

// level is a compromise: at 4 MB/s, the fastest that counts as slow, a tenth of a processor of today.
const level = 5

// compress begins to compress what is sent, if it is time to.
func (p *Peer) compress() error {
	if p.deflate != nil || !p.mayCompress || !p.pace.slow.Load() {
		return nil
	}
	if err := p.writeLine(append(p.line[:0], compressionKind.letter)); err != nil {
		return err
	}
	p.wire = p.out
	deflate, err := flate.NewWriter(p.wire, level)
	if err != nil {
		return err
	}
	p.deflate, p.out = deflate, bufio.NewWriterSize(deflate, bufferSize)
	p.opts.Logger.Debug("dsync compresses from now on", "peer", p.opts.Name)
	return nil
}

// flush sends what is buffered, so that the other side can read it.
func (p *Peer) flush() error {
	if p.deflate == nil {
		return p.out.Flush()
	}
	if !p.unflushed {
		return nil
	}
	p.unflushed = false
	return errors.Join(p.out.Flush(), p.deflate.Flush(), p.wire.Flush())
}

// inflate reads what follows as compressed.
func (p *Peer) inflate() error {
	if p.opts.Compress == CompressNever || p.inflates {
		return fmt.Errorf("%w: unexpected compression", ErrProtocol)
	}
	p.inflates = true
	p.pace.slow.Store(true) // the other side found out
	src := &ending{Reader: p.in.src}
	p.in.src = bufio.NewReaderSize(&inflater{flate.NewReader(src), src}, bufferSize)
	return nil
}

// ending notes that a stream has ended.
type ending struct {
	*bufio.Reader
	ended bool
	err   error
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.note(err)
	return n, err
}

func (e *ending) ReadByte() (byte, error) {
	b, err := e.Reader.ReadByte()
	e.note(err)
	return b, err
}

func (e *ending) note(err error) {
	if err != nil && e.err == nil {
		e.err, e.ended = err, err == io.EOF
	}
}

// inflater reads a deflate stream without an end: where the connection ends, so does it. Whether that was a good place is
// judged by what was read, as without compression.
type inflater struct {
	io.Reader
	src *ending
}

func (f *inflater) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	var corrupt flate.CorruptInputError
	switch {
	case err == nil:
	case f.src.ended:
		err = io.EOF
	case f.src.err != nil:
		err = f.src.err
	case errors.As(err, &corrupt), err == io.EOF:
		err = fmt.Errorf("%w: broken compression: %v", ErrProtocol, err)
	}
	return n, err
}

// A connection is slow that has a round trip of at least farAway and takes less than slowRate bytes per second, over a sample of
// so many bytes. Without the round trip it is the other side's disk that is slow, if anything.
const (
	farAway  = 10 * time.Millisecond
	slowRate = 4 << 20
	sample   = 1 << 20
	turnSize = 64 << 10 // what is less tells nothing
)

// pace finds out whether a connection is slow. The round trip is the shortest from a handshake or the announcement of
// a mailbox to what the other side says next: it waits for them. What a connection takes is known by writes that have to wait; as much
// fits into buffers, by what was sent until the other side told its state of a mailbox, which it does when it has got all; and
// by parcels, which are so few at a time that nothing waits for them.
type pace struct {
	slow atomic.Bool // once and for all

	mu     sync.Mutex
	asked  time.Time // when something was sent that the other side waits for; zero: it has answered
	trip   time.Duration
	writes rate // with the time that writes had to wait
	turns  rate
	turn   rate      // what was sent of one mailbox
	begun  time.Time // when it began
	parcel time.Time // when the first parcel of a body was sent
	got    int64     // of that body when the last judgement was made
}

// rate is so many bytes in so much time.
type rate struct {
	bytes int64
	took  time.Duration
}

func (r *rate) add(n int64, took time.Duration) { r.bytes, r.took = r.bytes+n, r.took+took }

// judge looks at a rate that has enough of a sample, and begins another one.
func (p *pace) judge(r *rate) {
	if r.bytes < sample {
		return
	}
	if p.trip >= farAway && float64(r.bytes) < slowRate*r.took.Seconds() {
		p.slow.Store(true)
	}
	*r = rate{}
}

// wrote notes a write and how long it had to wait.
func (p *pace) wrote(n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writes.add(int64(n), took)
	p.judge(&p.writes)
	if p.turn.bytes == 0 {
		p.begun = time.Now().Add(-took)
	}
	p.turn.bytes += int64(n)
}

// sent notes what is answered.
func (p *pace) sent(it item.Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch it := it.(type) {
	case *item.Handshake, *item.Mailbox:
		p.asked, p.turn = time.Now(), rate{}
	case *item.Parcel:
		if it.Offset == 0 {
			p.parcel, p.got = time.Now(), 0
		}
	}
}

// received notes what may be an answer.
func (p *pace) received(it item.Item) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked.IsZero() {
		if took := time.Since(p.asked); p.trip == 0 || took < p.trip {
			p.trip = took
		}
		p.asked = time.Time{}
	}
	switch it := it.(type) {
	case *item.Receipt:
		p.confirmed(it)
	case *item.State:
		if p.turn.bytes >= turnSize {
			p.turns.add(p.turn.bytes, max(0, time.Since(p.begun)-p.trip))
			p.judge(&p.turns)
		}
		p.turn = rate{}
	}
}

// confirmed notes how much of a body that goes ahead has arrived.
func (p *pace) confirmed(r *item.Receipt) {
	if n := int64(r.Got) - p.got; n >= sample && !p.parcel.IsZero() {
		p.judge(&rate{n, time.Since(p.parcel)})
		p.parcel, p.got = time.Now(), int64(r.Got)
	}
}
