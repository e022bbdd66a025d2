package dsync

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	greetingLimit = 64 << 10 // bytes of a line before the first item
	maxHeaders    = 256      // field-list lines
	service       = "dsync"
)

// writeGreeting writes the version line and our field lists.
func writeGreeting(w *bufio.Writer, minor int, c Compression) error {
	var line []byte
	line = fmt.Appendf(line, "VERSION\t%s\t%d\t%d\n", service, Major, minor)
	for _, k := range kinds {
		own := ownLayout(k, true)
		if k == compressionKind {
			var can bool
			if own, can = compressionHeader(c); !can {
				continue
			}
		}
		line = own.appendHeader(line)
		line = append(line, '\n')
	}
	line = append(line, letterEndOfList, '\n')
	_, err := w.Write(line)
	return err
}

// readGreeting reads the peer's version line and field lists. Letters that we do not know are skipped, as are unknown names
// of fields.
func readGreeting(r *lineReader) (minor int, lists *layouts, err error) {
	limit := func(byte) int { return greetingLimit }
	line, err := r.line(limit)
	if err != nil {
		return 0, nil, greetingError(err)
	}
	if minor, err = parseVersion(line); err != nil {
		return 0, nil, err
	}
	lists = &layouts{}
	for range maxHeaders {
		line, err := r.line(limit)
		if err != nil {
			return 0, nil, greetingError(err)
		}
		if len(line) == 1 && line[0] == letterEndOfList {
			return minor, lists, lists.check(minor)
		}
		k := kindOf(line[0])
		if k == nil {
			continue
		}
		if lists[k.letter] != nil {
			return 0, nil, k.errorf("fields announced twice")
		}
		if lists[k.letter], err = parseHeader(k, line[1:]); err != nil {
			return 0, nil, err
		}
	}
	return 0, nil, fmt.Errorf("%w: more than %d kinds of items announced", ErrProtocol, maxHeaders)
}

// greetingError is err, but for the end of the stream, which is never expected here.
func greetingError(err error) error {
	if err == io.EOF {
		return fmt.Errorf("before the end of its greeting: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// parseVersion reads "VERSION TAB dsync TAB major TAB minor" (dovecot 2.3 master-service.c: version_string_verify_full).
func parseVersion(line []byte) (minor int, err error) {
	words := bytes.SplitN(line, []byte{'\t'}, 5)
	if len(words) < 4 || string(words[0]) != "VERSION" || string(words[1]) != service {
		return 0, fmt.Errorf("%w: not a dsync server: it says %s", ErrProtocol, quote(line))
	}
	major, err1 := parseUint(words[2], 10, 1<<16)
	n, err2 := parseUint(words[3], 10, 1<<16)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("%w: version line %s", ErrProtocol, quote(line))
	}
	if major != Major {
		return 0, fmt.Errorf("%w: version %s of the dsync protocol, not %d", ErrProtocol, strconv.FormatUint(major, 10), Major)
	}
	return int(n), nil
}
