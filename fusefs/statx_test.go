package fusefs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What many stats in a row find is what single ones do, whatever was asked before.
func TestStatsInARowFindWhatSingleOnesDo(t *testing.T) {
	root := t.TempDir()
	long := filepath.Join(root, "1700000000.M1P1234.mail,S=5000,W=5100:2,S")
	if err := os.WriteFile(long, []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1_600_000_000, 123_456_789)
	if err := os.Chtimes(long, old, time.Unix(-5, 1)); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(long, filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b statBuffer
	for _, name := range []string{filepath.Base(long), "b", "none", "l", "dir", filepath.Base(long)} {
		var st unix.Stat_t
		want := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
		got, err := b.at(int(d.Fd()), name)
		if err != want || err == nil && got != attrOf(&st) {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, got, err, attrOf(&st), want)
		}
	}
}
