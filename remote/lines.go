package remote

import (
	"bytes"
	"strings"
	"sync"
)

// Limits of what is kept of a remote program's standard error, in bytes.
const (
	maxLine = 2048 // a longer line is cut and marked
	maxTail = 1024 // of the last lines, for ExitError
)

// Lines cuts what a remote program writes to its standard error into lines of bounded length and hands each on. The
// remote is not trusted with the terminal: control characters become "?". Safe for concurrent use.
type Lines struct {
	emit func(line string)

	mu   sync.Mutex
	line []byte
	cut  bool // the line being read is longer than maxLine; its rest is dropped
	tail []byte
}

// NewLines returns Lines that call emit once a line, without its end, in order, never concurrently. emit may be nil.
func NewLines(emit func(line string)) *Lines { return &Lines{emit: emit} }

// Write takes the next bytes; it never fails and always takes all.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		part, rest, ended := bytes.Cut(p, []byte{'\n'})
		l.add(part)
		if !ended {
			return n, nil
		}
		l.end()
		p = rest
	}
}

// Flush hands on a last line that has no end yet.
func (l *Lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.end()
	}
}

// Tail returns the last lines seen, at most 1 KiB, joined by newlines.
func (l *Lines) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.ToValidUTF8(string(bytes.TrimSuffix(l.tail, []byte{'\n'})), "")
}

func (l *Lines) add(part []byte) {
	room := maxLine - len(l.line)
	if len(part) > room {
		part, l.cut = part[:room], true
	}
	l.line = append(l.line, part...)
}

func (l *Lines) end() {
	line := printable(strings.TrimSuffix(string(l.line), "\r"))
	if l.cut {
		line += "..."
	}
	l.line, l.cut = l.line[:0], false
	l.tail = append(append(l.tail, line...), '\n')
	if len(l.tail) > maxTail {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-maxTail:]...)
	}
	if l.emit != nil {
		l.emit(line)
	}
}

// printable replaces what a terminal would obey instead of show. C1 controls are included: xterm obeys them too.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r >= 0x20 && r < 0x7f || r >= 0xa0 && r != '\u2028' && r != '\u2029' {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(line, "?"))
}
