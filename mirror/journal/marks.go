package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dsyncfs/mirror/vfs"
)

const (
	marksName  = "marks"
	marksMagic = "dsyncfs marks 1"
	maxMarks   = 64 << 10
)

// Mark returns a position, 0 if it was never set.
func (j *Journal) Mark(name string) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.marks[name]
}

// SetMark stores durably that a consumer has done with all records up to number seq, which it syncs first. Marks only move
// forward: a lower number than the stored one is no error and changes nothing. A name is made of letters, digits and ".:_-".
// ErrUnknown if seq was not given out yet.
func (j *Journal) SetMark(name string, seq uint64) error {
	return j.SetMarks(map[string]uint64{name: seq})
}

// SetMarks is SetMark for several marks at the price of one.
func (j *Journal) SetMarks(to map[string]uint64) error {
	var highest uint64
	for name, seq := range to {
		if !goodMarkName(name) {
			return fmt.Errorf("mark %q: invalid name", name)
		}
		highest = max(highest, seq)
	}
	// A mark that a power cut left ahead of the log would hide the records that get those numbers next.
	if err := j.Sync(context.Background(), highest); err != nil {
		return fmt.Errorf("marks of the journal: %w", err)
	}
	j.marksMu.Lock()
	defer j.marksMu.Unlock()
	j.mu.Lock()
	old, closed := j.marks, j.closed
	j.mu.Unlock()
	if closed {
		return fmt.Errorf("marks of the journal: %w", ErrClosed)
	}
	marks := maps.Clone(old)
	for name, seq := range to {
		marks[name] = max(marks[name], seq)
	}
	if maps.Equal(marks, old) {
		return nil
	}
	if err := vfs.WriteFile(j.dir, marksName, 0o600, marshalMarks(marks)); err != nil {
		return fmt.Errorf("marks of the journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.marks = marks
	if err := j.prune(); err != nil {
		return fmt.Errorf("remove consumed records: %w", err)
	}
	return nil
}

func goodMarkName(name string) bool {
	return name != "" && name != "crc" && len(name) <= 255 && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".:_-", r)
	})
}

// marshalMarks writes a first line with the version, a line "NAME NUMBER" per mark, sorted, and one with the CRC-32C of the
// lines before it in hex.
func marshalMarks(marks map[string]uint64) []byte {
	b := []byte(marksMagic + "\n")
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		b = fmt.Appendf(b, "%s %d\n", name, marks[name])
	}
	return fmt.Appendf(b, "crc %08x\n", crc32.Checksum(b, castagnoli))
}

// parseMarks accepts exactly what marshalMarks writes.
func parseMarks(b []byte) (map[string]uint64, error) {
	marks := map[string]uint64{}
	lines := strings.SplitAfter(string(b), "\n")
	for _, line := range lines[min(1, len(lines)):] {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if seq, err := strconv.ParseUint(number, 10, 64); err == nil && goodMarkName(name) && seq <= maxSeq {
			marks[name] = seq
		}
	}
	if string(marshalMarks(marks)) != string(b) {
		return nil, fmt.Errorf("%w: file of marks", ErrCorrupt)
	}
	return marks, nil
}

// loadMarks returns the marks and the highest of them. Without a good file all are 0: the consumers do again what they did.
func (r *recovery) loadMarks() (marks map[string]uint64, highest uint64, err error) {
	b, err := vfs.ReadFile(r.dir, marksName, maxMarks)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]uint64{}, 0, nil
	}
	if err == nil {
		marks, err = parseMarks(b)
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, vfs.ErrTooLarge) {
		return map[string]uint64{}, 0, r.setAside(marksName)
	}
	if err != nil {
		return nil, 0, err
	}
	for _, seq := range marks {
		highest = max(highest, seq)
	}
	return marks, highest, nil
}
