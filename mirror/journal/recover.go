package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dsyncfs/mirror/vfs"
)

// Recovery is what [Open] found and repaired.
type Recovery struct {
	TornBytes int64    // cut off the end of the newest segment: an append that never finished
	SetAside  []string // files that were corrupt, by their new names; events may be lost, so compare everything
}

// Damaged reports whether events may be lost that had been acknowledged.
func (r Recovery) Damaged() bool { return len(r.SetAside) > 0 }

// recovery is the work of finding out what a directory holds.
type recovery struct {
	dir      vfs.Dir
	id       identity // of the oldest segment with a good header
	haveID   bool
	segments []segment
	used     uint64 // the highest number that may have been given out
	found    Recovery
}

// load checks every segment, oldest first, and repairs what needs it. It is idempotent: after a crash in the middle it does
// the same again.
func (r *recovery) load() error {
	var firsts []uint64
	err := r.dir.Names(func(name string, _ vfs.Type) error {
		if first, ok := parseSegmentName(name); ok {
			firsts = append(firsts, first)
		} else if strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") {
			return r.dir.Remove(name) // a crash within vfs.Replace
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(firsts)
	// Look at all headers before changing anything: a newer version must find its files as it left them.
	for _, first := range firsts {
		if err := r.checkVersion(segmentName(first)); err != nil {
			return err
		}
	}
	for i, first := range firsts {
		if err := r.loadSegment(first, i == len(firsts)-1); err != nil {
			return fmt.Errorf("%s: %w", segmentName(first), err)
		}
	}
	r.sortSegments()
	return nil
}

func (r *recovery) checkVersion(name string) error {
	f, err := r.dir.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, headerSize)
	n, _ := f.ReadAt(b, 0) // an error comes again when the segment is loaded
	if _, err := parseHeader(b[:n]); errors.Is(err, ErrVersion) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *recovery) loadSegment(first uint64, newest bool) error {
	name := segmentName(first)
	info, err := r.dir.Stat(name)
	if err != nil {
		return err
	}
	data, err := vfs.ReadFile(r.dir, name, maxSegment+frameSize+maxPayload)
	if err != nil && !errors.Is(err, vfs.ErrTooLarge) {
		return err
	}
	h, herr := parseHeader(data)
	if err != nil || herr != nil || h.first != first || r.haveID && h.id != r.id {
		r.used = max(r.used, min(first, maxSeq)+mostRecords(info.Size))
		return r.setAside(name)
	}
	r.id, r.haveID = h.id, true
	runs, lost := findRuns(h, data)
	switch end := runs[0].end; {
	case lost == 0 && end == len(data):
	case newest && end+lost == len(data) && runs[0].start == headerSize:
		r.found.TornBytes = int64(lost)
		err = truncate(r.dir, name, int64(end))
	default:
		r.used = max(r.used, runs[len(runs)-1].next+mostRecords(int64(lost)))
		err = r.salvage(h, data, runs)
	}
	for _, run := range runs {
		size := int64(headerSize + run.end - run.start)
		r.segments = append(r.segments, segment{first: run.first, last: run.next - 1, size: size})
	}
	return err
}

// mostRecords is how many records fit into so many bytes.
func mostRecords(size int64) uint64 { return uint64(size) / (frameSize + minPayload) }

// salvage keeps a copy of a segment aside and makes a segment of each run of its good records. The original goes last: a
// crash before leaves it to be salvaged again, with the same result and one more copy.
func (r *recovery) salvage(h header, data []byte, runs []run) error {
	for _, run := range runs[1:] {
		if err := makeSegment(r.dir, header{h.id, run.first}, data[run.start:run.end]); err != nil {
			return err
		}
	}
	name := segmentName(h.first)
	aside, err := freeName(r.dir, name)
	if err != nil {
		return err
	}
	if err := vfs.WriteFile(r.dir, aside, 0o600, data); err != nil {
		return err
	}
	r.found.SetAside = append(r.found.SetAside, aside)
	return makeSegment(r.dir, h, data[runs[0].start:runs[0].end])
}

// setAside renames a file that holds nothing of use to NAME.corrupt-N.
func (r *recovery) setAside(name string) error {
	aside, err := freeName(r.dir, name)
	if err != nil {
		return err
	}
	if err := r.dir.RenameNew(name, r.dir, aside); err != nil {
		return err
	}
	r.found.SetAside = append(r.found.SetAside, aside)
	return r.dir.Sync()
}

// freeName returns the first free NAME.corrupt-N.
func freeName(dir vfs.Dir, name string) (string, error) {
	for n := 1; ; n++ {
		aside := fmt.Sprintf("%s.corrupt-%d", name, n)
		if _, err := dir.Stat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, nil
		} else if err != nil {
			return "", err
		}
	}
}

// sortSegments puts what was salvaged in its place, and drops what a segment says twice: a salvage that was cut short.
func (r *recovery) sortSegments() {
	slices.SortStableFunc(r.segments, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
	r.segments = slices.CompactFunc(r.segments, func(a, b segment) bool { return a.first == b.first })
	for _, s := range r.segments {
		r.used = max(r.used, s.last)
	}
}

// truncate cuts a file, durably.
func truncate(dir vfs.Dir, name string, size int64) error {
	f, err := dir.OpenAppend(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := cut(f, size); err != nil {
		return err
	}
	return f.Sync()
}

func cut(f vfs.File, size int64) error {
	t, ok := f.(vfs.Truncater)
	if !ok {
		return errors.ErrUnsupported
	}
	return t.Truncate(size)
}
