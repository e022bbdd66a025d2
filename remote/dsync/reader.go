package dsync

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// lineReader reads lines of bounded length.
type lineReader struct {
	src  *bufio.Reader
	long []byte // for lines that do not fit into the buffer of src
}

// line returns the next line without its end (LF or CR LF), valid until the next call. At the end of the stream it is
// io.EOF, in the middle of a line an error that wraps io.ErrUnexpectedEOF. limit tells how long a line may be, by its first
// byte. The line is not empty and holds no NUL.
func (r *lineReader) line(limit func(first byte) int) ([]byte, error) {
	if cap(r.long) > lineLimit {
		r.long = nil
	}
	line, err := r.src.ReadSlice('\n')
	if err == bufio.ErrBufferFull || len(line) > 0 && len(line) > limit(line[0])+2 {
		line, err = r.longLine(line, err, limit(line[0]))
	}
	switch {
	case err == io.EOF && len(line) > 0:
		return nil, fmt.Errorf("in the middle of a line: %w", io.ErrUnexpectedEOF)
	case err != nil:
		return nil, err
	}
	line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
	if len(line) == 0 {
		return nil, fmt.Errorf("%w: empty line", ErrProtocol)
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return nil, fmt.Errorf("%w: NUL in line %s", ErrProtocol, quote(line))
	}
	return line, nil
}

// hasLine reports whether the next line has been read into the buffer. One that begins with except does not count: what it announces
// comes from elsewhere.
func (r *lineReader) hasLine(except byte) bool {
	part, _ := r.src.Peek(r.src.Buffered())
	return len(part) > 0 && part[0] != except && bytes.IndexByte(part, '\n') >= 0
}

// longLine goes on with a line of which only the first part was read, as err says.
func (r *lineReader) longLine(part []byte, err error, limit int) ([]byte, error) {
	r.long = append(r.long[:0], part...)
	for err == bufio.ErrBufferFull && len(r.long) <= limit+2 {
		part, err = r.src.ReadSlice('\n')
		r.long = append(r.long, part...)
	}
	if len(r.long) > limit+2 {
		return nil, fmt.Errorf("%w: line longer than %d bytes: %s", ErrProtocol, limit, quote(r.long))
	}
	return r.long, err
}

// itemLimit bounds a line by its letter. Those of unknown letters are refused anyway.
func itemLimit(letter byte) int {
	if k := kindOf(letter); k != nil && k.limit > 0 {
		return k.limit
	}
	return greetingLimit
}
