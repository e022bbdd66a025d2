package journal

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzMarks holds that a file of marks is read only if we wrote it.
func FuzzMarks(f *testing.F) {
	good := marshalMarks(map[string]uint64{"sent": 17, "done": 3})
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(bytes.Replace(good, []byte("17"), []byte("18"), 1))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		marks, err := parseMarks(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if again := marshalMarks(marks); !bytes.Equal(again, data) {
			t.Fatalf("%q became %q", data, again)
		}
	})
}
