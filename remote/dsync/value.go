package dsync

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// A value stream is the content of a mail or attribute, byte for byte, but with every '.' at the start of a line doubled,
// and CR LF '.' CR LF after the last byte, whether or not that was a line end (dovecot 2.3 dsync-ibc-stream.c:
// dsync_ibc_stream_send_value_stream; istream-dot.c).

const terminator = "\r\n.\r\n"

var lineStartDot = []byte("\n.")

// writeValue copies the content src to w as a value stream, through buf.
func writeValue(w *bufio.Writer, src io.Reader, buf []byte) error {
	atStart := true
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if err := stuff(w, buf[:n], atStart); err != nil {
				return err
			}
			atStart = buf[n-1] == '\n'
		}
		if err == io.EOF {
			_, err = w.WriteString(terminator)
			return err
		}
		if err != nil {
			return &sourceError{err}
		}
	}
}

// sourceError tells that a value could not be read, as opposed to sent.
type sourceError struct{ cause error }

func (e *sourceError) Error() string { return fmt.Sprintf("read body: %s", e.cause) }
func (e *sourceError) Unwrap() error { return e.cause }

// stuff writes a chunk of content with dots doubled at line starts; atStart says that the chunk begins at one.
func stuff(w *bufio.Writer, chunk []byte, atStart bool) error {
	if atStart && chunk[0] == '.' {
		w.WriteByte('.')
	}
	for {
		i := bytes.Index(chunk, lineStartDot)
		if i < 0 {
			_, err := w.Write(chunk)
			return err
		}
		w.Write(chunk[:i+1])
		if err := w.WriteByte('.'); err != nil { // errors of a bufio.Writer are sticky
			return err
		}
		chunk = chunk[i+1:]
	}
}

// valueReader reads the content of one value stream from the connection's buffer and stops right after its terminator. A
// line break is handed on only when it is known not to belong to the terminator.
type valueReader struct {
	src  *bufio.Reader
	fail func(error) error // told of every error but io.EOF; returns what the reader shall say
	safe int               // bytes at the head of the buffer that are content
	dot  bool              // they are followed by a doubled dot, of which one has to go
	cont bool              // not at the very start
	err  error             // sticky; io.EOF after the terminator
}

// Read implements io.Reader.
func (v *valueReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if v.find(); v.err != nil {
		return 0, v.err
	}
	head, _ := v.src.Peek(min(v.safe, len(p)))
	n := copy(p, head)
	v.skip(n)
	return n, nil
}

// WriteTo implements io.WriterTo: it writes straight out of the buffer.
func (v *valueReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if v.find(); v.err == io.EOF {
			return total, nil
		}
		if v.err != nil {
			return total, v.err
		}
		head, _ := v.src.Peek(v.safe)
		n, err := w.Write(head)
		total += int64(n)
		v.skip(n)
		if err != nil {
			return total, err
		}
	}
}

// Close ends the use of the reader; what was not read is skipped by the next Recv.
func (v *valueReader) Close() error { return nil }

// drain skips what was not read. Who reads on after that gets an error and not the end of the content.
func (v *valueReader) drain() error {
	if v.err == io.EOF {
		return nil
	}
	for v.find(); v.err == nil; v.find() {
		v.skip(v.safe)
	}
	if v.err != io.EOF {
		return v.err
	}
	v.err = errSkipped
	return nil
}

var errSkipped = errors.New("body read after the next item was asked for")

func (v *valueReader) skip(n int) {
	v.src.Discard(n)
	if v.safe -= n; v.safe == 0 && v.dot {
		v.src.Discard(1)
		v.dot = false
	}
}

// find makes safe positive, or sets err.
func (v *valueReader) find() {
	if !v.cont {
		v.cont = true
		v.judge(0)
	}
	for v.err == nil && v.safe == 0 {
		window, err := v.window(1)
		if err != nil {
			return
		}
		switch i := bytes.Index(window, lineStartDot); {
		case i < 0:
			v.hold(window)
		case i > 1 || i == 1 && window[0] != '\r':
			v.safe = i
			if window[i-1] == '\r' {
				v.safe--
			}
		default:
			v.judge(i + 1)
		}
	}
}

// hold takes all of the window as content but a line break at its end, about which the next bytes decide.
func (v *valueReader) hold(window []byte) {
	n := len(window)
	if window[n-1] == '\n' {
		n--
	}
	if n > 0 && window[n-1] == '\r' {
		n--
	}
	if v.safe = n; n == 0 {
		v.window(len(window) + 1)
	}
}

// judge looks at a line that starts after the first brk bytes of the buffer, which are a line break (or nothing, at the
// start): it is the terminator, or has a doubled dot, or is an ordinary first line.
func (v *valueReader) judge(brk int) {
	window, err := v.window(brk + 1)
	if err != nil {
		return
	}
	if window[brk] != '.' { // only at the start
		return
	}
	if window, err = v.window(brk + 2); err != nil {
		return
	}
	end := brk + 2
	if window[brk+1] == '\r' {
		if window, err = v.window(brk + 3); err != nil {
			return
		}
		end = brk + 3
	}
	if window[end-1] == '\n' {
		v.src.Discard(end)
		v.err = io.EOF
		return
	}
	if v.safe, v.dot = brk, true; brk == 0 {
		v.skip(0)
	}
}

// window returns everything that is buffered, at least n bytes.
func (v *valueReader) window(n int) ([]byte, error) {
	if _, err := v.src.Peek(n); err != nil {
		if err == io.EOF {
			err = fmt.Errorf("in the middle of a body: %w", io.ErrUnexpectedEOF)
		}
		v.err = v.fail(err)
		return nil, v.err
	}
	return v.src.Peek(v.src.Buffered())
}
