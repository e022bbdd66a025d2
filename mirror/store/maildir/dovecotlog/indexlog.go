package dovecotlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"dsyncfs/mirror/mail"
)

// ErrFormat is wrapped by the errors for what is no file of the kind expected, or one that Dovecot has marked corrupt.
var ErrFormat = errors.New("not a usable dovecot index file")

// Log is what one dovecot.index.log or dovecot.index.log.2 says, as far as its transactions are complete.
type Log struct {
	IndexID      uint32 // the same in dovecot.index and both logs
	Sequence     uint32 // of this file
	PrevSequence uint32 // of the file before; 0 if there was none
	UIDValidity  mail.UIDValidity
	// End is the length of the file up to the last complete transaction.
	End int64

	requested []span
	gone      []span
}

// span is a record for the UIDs from first to last; a guid only if they are one.
type span struct {
	first, last mail.UID
	guid        mail.GUID128
}

// The parts of the format (dovecot 2.3.19 mail-transaction-log.h) that matter here. Integers are little-endian.
const (
	logHeaderSize = 40
	maxHeaderSize = 4096
	maxLog        = 128 << 20 // what lies beyond is not read; Dovecot starts a new log after 1 MB

	typeMask     = 0x0fffffff
	typeExternal = 0x10000000

	typeExpunge      = 0x1 | 0xcd90
	typeExpungeGUID  = 0x2000 | 0xcd90
	typeHeaderUpdate = 0x20
	typeBoundary     = 0x80000

	offsetUIDValidity = 24 // in the index header
)

// Read reads a transaction log. A record or transaction that is not complete ends it without an error, as do bytes that
// cannot be a record. Errors wrap ErrFormat, or are those of r.
func Read(r io.Reader) (*Log, error) {
	p := parser{in: bufio.NewReaderSize(io.LimitReader(r, maxLog), 32<<10), log: &Log{}}
	if err := p.header(); err != nil {
		return nil, err
	}
	for {
		err := p.record()
		if err == errEnd || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return p.log, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read dovecot index log: %w", err)
		}
	}
}

// errEnd says that what follows is no record.
var errEnd = errors.New("end of log")

// parser holds the place in the file and the transaction being read.
type parser struct {
	in  *bufio.Reader
	off int64
	log *Log

	staged   staged
	boundary int64 // where the transaction ends; 0 outside of one
}

// staged is what a transaction says, before it is complete.
type staged struct {
	requested, gone []span
	uidValidity     mail.UIDValidity // 0: no change
}

func (p *parser) header() error {
	var h [logHeaderSize]byte
	if _, err := io.ReadFull(p.in, h[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: too short", ErrFormat)
		}
		return fmt.Errorf("read dovecot index log: %w", err)
	}
	size := int(binary.LittleEndian.Uint16(h[2:]))
	p.log.IndexID = binary.LittleEndian.Uint32(h[4:])
	p.log.Sequence = binary.LittleEndian.Uint32(h[8:])
	p.log.PrevSequence = binary.LittleEndian.Uint32(h[12:])
	switch {
	case h[0] != 1:
		return fmt.Errorf("%w: log version %d", ErrFormat, h[0])
	case size < logHeaderSize || size > maxHeaderSize:
		return fmt.Errorf("%w: log header of %d bytes", ErrFormat, size)
	case h[32]&1 == 0:
		return fmt.Errorf("%w: log is big-endian", ErrFormat)
	case p.log.IndexID == 0:
		return fmt.Errorf("%w: log is marked corrupted", ErrFormat)
	}
	if _, err := p.in.Discard(size - logHeaderSize); err != nil {
		return fmt.Errorf("%w: too short", ErrFormat)
	}
	p.off = int64(size)
	p.log.End = p.off
	return nil
}

// record reads one record: size, type and payload.
func (p *parser) record() error {
	var h [8]byte
	if _, err := io.ReadFull(p.in, h[:]); err != nil {
		return err
	}
	size, ok := decodeSize(h[:4])
	end := p.off + size
	if !ok || size < 8 || p.boundary > 0 && end > p.boundary {
		return errEnd
	}
	left, err := p.payload(binary.LittleEndian.Uint32(h[4:]), size-8)
	if err != nil {
		return err
	}
	if err := p.skip(left); err != nil {
		return err
	}
	p.off = end
	if p.off >= p.boundary {
		p.commit()
	}
	return nil
}

// decodeSize reads a size: four groups of 7 bits, most significant first, each with the high bit set, in units of 4 bytes. It
// is false while the writer has not finished the record.
func decodeSize(b []byte) (int64, bool) {
	var n int64
	for _, c := range b {
		if c&0x80 == 0 {
			return 0, false
		}
		n = n<<7 | int64(c&0x7f)
	}
	return n * 4, true
}

// payload reads what matters of a record and returns how much of it was not read.
func (p *parser) payload(typ uint32, size int64) (left int64, err error) {
	switch typ & typeMask {
	case typeExpunge:
		return p.spans(size, 8, typ, func(b []byte) span { return span{first: uid(b), last: uid(b[4:])} })
	case typeExpungeGUID:
		return p.spans(size, 20, typ, func(b []byte) span {
			return span{first: uid(b), last: uid(b), guid: mail.GUID128(b[4:20])}
		})
	case typeHeaderUpdate:
		return p.headerUpdate(size)
	case typeBoundary:
		return p.startTransaction(size)
	}
	return size, nil
}

func uid(b []byte) mail.UID { return mail.UID(binary.LittleEndian.Uint32(b)) }

// spans reads a record that is an array.
func (p *parser) spans(size, each int64, typ uint32, parse func([]byte) span) (left int64, err error) {
	list := &p.staged.requested
	if typ&typeExternal != 0 {
		list = &p.staged.gone
	}
	var b [20]byte
	for ; size >= each; size -= each {
		if _, err := io.ReadFull(p.in, b[:each]); err != nil {
			return 0, err
		}
		if s := parse(b[:]); s.first > 0 && s.first <= s.last {
			*list = append(*list, s)
		}
	}
	return size, nil
}

// headerUpdate reads {u16 offset, u16 size, data, padding to 4}* and looks for a new UIDVALIDITY.
func (p *parser) headerUpdate(size int64) (left int64, err error) {
	for size >= 4 {
		var b [4]byte
		if _, err := io.ReadFull(p.in, b[:]); err != nil {
			return 0, err
		}
		size -= 4
		offset, n := binary.LittleEndian.Uint16(b[:]), int64(binary.LittleEndian.Uint16(b[2:]))
		padded := (n + 3) &^ 3
		if padded > size {
			return 0, errEnd
		}
		size -= padded
		if offset != offsetUIDValidity || n < 4 {
			if err := p.skip(padded); err != nil {
				return 0, err
			}
			continue
		}
		if _, err := io.ReadFull(p.in, b[:]); err != nil {
			return 0, err
		}
		p.staged.uidValidity = mail.UIDValidity(binary.LittleEndian.Uint32(b[:]))
		if err := p.skip(padded - 4); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// startTransaction reads how many bytes, counted from the start of this record, hold or fail together.
func (p *parser) startTransaction(size int64) (left int64, err error) {
	if size < 4 || p.boundary > 0 {
		return 0, errEnd
	}
	var b [4]byte
	if _, err := io.ReadFull(p.in, b[:]); err != nil {
		return 0, err
	}
	p.boundary = p.off + int64(binary.LittleEndian.Uint32(b[:]))
	return size - 4, nil
}

// commit takes over a complete transaction. A new UIDVALIDITY makes everything before it void: those UIDs are of other mails.
func (p *parser) commit() {
	l, s := p.log, p.staged
	if v := s.uidValidity; v != 0 && v != l.UIDValidity {
		if l.UIDValidity != 0 {
			l.requested, l.gone = nil, nil
		}
		l.UIDValidity = v
	}
	l.requested = append(l.requested, s.requested...)
	l.gone = append(l.gone, s.gone...)
	l.End = p.off
	p.staged, p.boundary = staged{}, 0
}

func (p *parser) skip(n int64) error {
	_, err := io.CopyN(io.Discard, p.in, n)
	return err
}
