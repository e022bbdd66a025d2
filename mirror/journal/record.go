package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"dsyncfs/mirror/mail"
)

const (
	magic      = "dsyncfsJ"
	version    = 1
	headerSize = 40

	frameSize  = 8                 // length and CRC
	minPayload = 1 + 8 + 8 + 1 + 8 // an event without names
	maxPayload = 16 << 10

	typeEvent = 1

	// maxSeq is beyond what can ever be reached, and leaves room to add to it.
	maxSeq = 1 << 62
)

// Errors of a journal.
var (
	ErrCorrupt = errors.New("journal corrupt")                          // a frame that was good does not read any more
	ErrVersion = errors.New("journal written by a newer version")       // nothing was changed
	ErrEvent   = errors.New("event cannot be recorded")                 // no operation, or names that are too long
	ErrGone    = errors.New("journal does not reach back so far")       // the records were removed as consumed
	ErrUnknown = errors.New("sequence number was not given out so far") // by this journal
	ErrClosed  = errors.New("journal closed")
)

// Record is one entry of the log.
type Record struct {
	Seq     uint64
	Missing uint64 // how many numbers before Seq were asked for but are lost to corruption; usually 0
	Time    time.Time
	Event   mail.Event
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identity is the random id of a journal.
type identity [16]byte

// header is the head of a segment.
type header struct {
	id    identity
	first uint64
}

func (h header) marshal() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = append(b, h.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.first)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseHeader errors wrap ErrCorrupt or ErrVersion.
func parseHeader(b []byte) (h header, err error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return h, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if crc32.Checksum(b[:36], castagnoli) != binary.LittleEndian.Uint32(b[36:]) {
		return h, fmt.Errorf("%w: header checksum", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return h, fmt.Errorf("%w: version %d", ErrVersion, v)
	}
	copy(h.id[:], b[12:28])
	h.first = binary.LittleEndian.Uint64(b[28:])
	if h.first == 0 || h.first > maxSeq {
		return h, fmt.Errorf("%w: first sequence number %d", ErrCorrupt, h.first)
	}
	return h, nil
}

// checksum covers a frame without its own CRC field.
func (id *identity) checksum(frame []byte) uint32 {
	crc := crc32.Checksum(id[:], castagnoli)
	crc = crc32.Update(crc, castagnoli, frame[:4])
	return crc32.Update(crc, castagnoli, frame[frameSize:])
}

// appendFrame adds the frame of a record to b.
func (id *identity) appendFrame(b []byte, r Record) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, frameSize)...)
	b = append(b, typeEvent)
	b = binary.LittleEndian.AppendUint64(b, r.Seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Time.UnixNano()))
	b, err := appendEvent(b, r.Event)
	if err != nil {
		return b[:start], err
	}
	frame := b[start:]
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameSize))
	binary.LittleEndian.PutUint32(frame[4:], id.checksum(frame))
	return b, nil
}

func appendEvent(b []byte, ev mail.Event) ([]byte, error) {
	if ev.Op == 0 {
		return b, fmt.Errorf("%w: no operation", ErrEvent)
	}
	total := minPayload
	b = append(b, byte(ev.Op))
	for _, s := range [...]string{string(ev.Mailbox), string(ev.To), ev.File, ev.NewFile} {
		total += len(s)
		if len(s) > math.MaxUint16 || total > maxPayload {
			return b, fmt.Errorf("%w: names too long", ErrEvent)
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	return b, nil
}

// frameLen returns the length of a whole frame by its first bytes, false if there cannot be one.
func frameLen(b []byte) (int, bool) {
	if len(b) < frameSize {
		return 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	return frameSize + int(n), n >= minPayload && n <= maxPayload
}

// parseFrame reads the frame at the start of b. It is false unless the frame is whole and everything in it is as it must be.
func (id *identity) parseFrame(b []byte) (r Record, n int, ok bool) {
	n, ok = frameLen(b)
	if !ok || n > len(b) {
		return r, 0, false
	}
	b = b[:n]
	if id.checksum(b) != binary.LittleEndian.Uint32(b[4:]) || b[8] != typeEvent {
		return r, 0, false
	}
	r.Seq = binary.LittleEndian.Uint64(b[9:])
	r.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(b[17:])))
	r.Event, ok = parseEvent(b[25:])
	return r, n, ok && r.Seq != 0 && r.Seq <= maxSeq
}

func parseEvent(b []byte) (ev mail.Event, ok bool) {
	ev.Op = mail.EventOp(b[0])
	b = b[1:]
	var s [4]string
	for i := range s {
		if len(b) < 2 {
			return ev, false
		}
		n := int(binary.LittleEndian.Uint16(b))
		if b = b[2:]; n > len(b) {
			return ev, false
		}
		s[i], b = string(b[:n]), b[n:]
	}
	ev.Mailbox, ev.To, ev.File, ev.NewFile = mail.Name(s[0]), mail.Name(s[1]), s[2], s[3]
	return ev, len(b) == 0 && ev.Op != 0
}
