package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"dsyncfs/mirror/vfs"
)

// maxSegment bounds what is read into memory to check a segment.
const maxSegment = 64 << 20

// segment is one file of the log, whole and checked.
type segment struct {
	first, last uint64 // first-1 is the last of an empty one
	size        int64  // of the file
}

const segmentSuffix = ".log"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func parseSegmentName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	return first, err == nil && first > 0 && first <= maxSeq
}

// run is a stretch of good frames with consecutive numbers.
type run struct {
	first, next uint64 // next is one more than the last
	start, end  int    // in the file
}

// findRuns looks for all good frames of a segment. The first run has h.first and may be empty. lost is how many bytes belong
// to no run.
func findRuns(h header, data []byte) (runs []run, lost int) {
	cur := run{first: h.first, next: h.first, start: headerSize, end: headerSize}
	for pos := headerSize; pos < len(data); {
		r, n, ok := h.id.parseFrame(data[pos:])
		if !ok || r.Seq < cur.next {
			pos++
			lost++
			continue
		}
		if r.Seq != cur.next || pos != cur.end {
			if cur.next > cur.first || r.Seq != cur.first {
				runs = append(runs, cur)
			}
			cur = run{first: r.Seq, next: r.Seq, start: pos, end: pos}
		}
		cur.next++
		cur.end += n
		pos += n
	}
	return append(runs, cur), lost
}

// makeSegment makes a file of the log with a header and frames, durably.
func makeSegment(dir vfs.Dir, h header, frames []byte) error {
	return vfs.WriteFile(dir, segmentName(h.first), 0o600, append(h.marshal(), frames...))
}

// read calls f for the records of a segment from number from on, up to and including last. It stops when f returns false.
func (s segment) read(dir vfs.Dir, id identity, from, last uint64, f func(Record) bool) (more bool, err error) {
	file, err := dir.Open(segmentName(s.first))
	if errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 64<<10)
	if _, err := in.Discard(headerSize); err != nil {
		return false, fmt.Errorf("%s: %w: %w", segmentName(s.first), ErrCorrupt, err)
	}
	last = min(last, s.last)
	for seq := s.first; seq <= last; seq++ {
		r, err := readFrame(in, &id)
		if err == nil && r.Seq != seq {
			err = ErrCorrupt
		}
		if err != nil {
			return false, fmt.Errorf("%s: record %d: %w", segmentName(s.first), seq, err)
		}
		if seq >= from && !f(r) {
			return false, nil
		}
	}
	return true, nil
}

func readFrame(in *bufio.Reader, id *identity) (Record, error) {
	head, err := in.Peek(frameSize)
	if err == nil {
		n, ok := frameLen(head)
		if !ok {
			return Record{}, ErrCorrupt
		}
		var frame []byte
		if frame, err = in.Peek(n); err == nil {
			r, _, ok := id.parseFrame(frame)
			if !ok {
				return Record{}, ErrCorrupt
			}
			_, err = in.Discard(n)
			return r, err
		}
	}
	if errors.Is(err, io.EOF) {
		return Record{}, fmt.Errorf("%w: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	}
	return Record{}, err
}
