package index

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// filled makes an index with some thousand messages, closes it, and returns its path and epoch.
func filled(t testing.TB) (path string, epoch uint64) {
	t.Helper()
	path = newPath(t)
	x := open(t, path)
	fillWith(t, x, 1, 2000)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	return path, x.Epoch()
}

// fillWith puts n messages with a log entry each into a new mailbox, in batches.
func fillWith(t testing.TB, x *Index, box byte, n mail.UID) {
	t.Helper()
	for from := mail.UID(1); from <= n; from += 10_000 {
		update(t, x, func(tx store.CatalogTx) error {
			r := mailboxRecord(box, mail.Name("box").Child(string('a'+rune(box))))
			r.Status.Messages = uint32(min(n, from+9_999))
			r.Status.UIDNext = n + 1
			if err := tx.PutMailbox(r); err != nil {
				return err
			}
			for uid := from; uid <= min(n, from+9_999); uid++ {
				e := store.LogEntry{ModSeq: mail.ModSeq(uid) + 1, Kind: store.LogAppend, UID: uid, Time: 1_700_000_000}
				if err := errors.Join(tx.PutMessage(guid(box), messageRecord(uid)), tx.AppendLog(guid(box), e)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// readAll reads every record there is.
func readAll(x *Index) error {
	return x.View(func(tx store.CatalogTx) error {
		for r, err := range tx.Mailboxes() {
			if err != nil {
				return err
			}
			for _, err := range tx.Messages(r.Status.GUID, 0) {
				if err != nil {
					return err
				}
			}
			for _, err := range tx.Log(r.Status.GUID, 0) {
				if err != nil {
					return err
				}
			}
		}
		for range tx.Values("bucket") {
		}
		return nil
	})
}

func asideFiles(t testing.TB, path, why string) []string {
	t.Helper()
	found, err := filepath.Glob(path + "." + why + "-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantReplaced opens a file that cannot be used: it must be set aside, with a warning, and a new one take its place.
func wantReplaced(t *testing.T, path, why string, epoch uint64, content []byte) {
	t.Helper()
	before := len(asideFiles(t, path, why))
	var log bytes.Buffer
	x, err := Open(path, logTo(&log))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if x.Epoch() == epoch || x.Epoch() == 0 {
		t.Errorf("epoch %d, was %d", x.Epoch(), epoch)
	}
	aside := asideFiles(t, path, why)
	if len(aside) != before+1 {
		t.Fatalf("set aside: %q", aside)
	}
	if got, err := os.ReadFile(aside[len(aside)-1]); err != nil || !bytes.Equal(got, content) {
		t.Errorf("what was set aside is not what was there: %v", err)
	}
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), aside[len(aside)-1]) {
		t.Errorf("log %q", &log)
	}
	if err := readAll(x); err != nil {
		t.Errorf("the new index: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestDamagedFileIsReplacedAtOpen(t *testing.T) {
	path, epoch := filled(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	used := usedBytes(t, path)
	for name, content := range map[string][]byte{
		"garbage":                bytes.Repeat([]byte("not a database. "), 1000),
		"one byte":               {0},
		"zeros":                  make([]byte, len(good)),
		"half a page":            good[:page/2],
		"two pages":              good[:2*page],
		"half of it":             good[:int(used)/2/page*page],
		"all but a page":         good[:int(used)-page],
		"text":                   []byte("hello\n"),
		"both heads overwritten": append(make([]byte, 2*page), good[2*page:]...),
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, content, 0o600)); err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			wantReplaced(t, path, "corrupt", epoch, content)
			if after := openFiles(t); after != before {
				t.Errorf("%d open files, were %d", after, before)
			}
		})
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func TestSetAsideFilesAreNumberedAndBounded(t *testing.T) {
	path := newPath(t)
	for i := range maxAside + 2 {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte{byte(i)}, 0o600)); err != nil {
			t.Fatal(err)
		}
		x, err := Open(path, logTo(new(bytes.Buffer)))
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(asideFiles(t, path, "corrupt")); n != min(i+1, maxAside) {
			t.Fatalf("%d files set aside after %d times", n, i+1)
		}
	}
}

// alter changes the database below the index.
func alter(t *testing.T, path string, f func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOtherVersionIsReplaced(t *testing.T) {
	for name, change := range map[string]func(*bolt.Tx) error{
		"newer": func(tx *bolt.Tx) error {
			return tx.Bucket(bucketHead).Put(bucketHead, seal(kindHead, 0, bucketHead, []byte{version + 1, 5}))
		},
		"older": func(tx *bolt.Tx) error {
			return tx.Bucket(bucketHead).Put(bucketHead, seal(kindHead, 0, bucketHead, []byte{0, 5}))
		},
		"another program's": func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketHead) },
	} {
		t.Run(name, func(t *testing.T) {
			path, epoch := filled(t)
			alter(t, path, change)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			wantReplaced(t, path, "version", epoch, content)
		})
	}
}

func TestDamagedRecordCondemnsTheIndex(t *testing.T) {
	for name, change := range map[string]func(*bolt.Tx) error{
		"a flipped bit in a message": func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketMessages).Bucket(idKey(1))
			v := bytes.Clone(b.Get(uidKey(700)))
			v[2] ^= 4
			return b.Put(uidKey(700), v)
		},
		"a message under another UID": func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketMessages).Bucket(idKey(1))
			return b.Put(uidKey(701), bytes.Clone(b.Get(uidKey(700))))
		},
		"a record without a checksum": func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Bucket(idKey(1)).Put(modSeqKey(5), []byte{1})
		},
		"an unknown log kind": func(tx *bolt.Tx) error {
			return tx.Bucket(bucketLog).Bucket(idKey(1)).Put(modSeqKey(5), seal(kindLog, 1, modSeqKey(5), []byte{7, 1, 1}))
		},
		"a mailbox without messages": func(tx *bolt.Tx) error { return tx.Bucket(bucketMessages).DeleteBucket(idKey(1)) },
		"a value": func(tx *bolt.Tx) error {
			b, err := tx.Bucket(bucketValues).CreateBucket(valueKey("bucket"))
			if err != nil {
				return err
			}
			return b.Put(valueKey("x"), []byte("no checksum"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, epoch := filled(t)
			alter(t, path, change)
			var log bytes.Buffer
			x, err := Open(path, logTo(&log))
			if err != nil {
				t.Fatal(err)
			}
			if err := readAll(x); !errors.Is(err, ErrCorrupt) || !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("reading: %v", err)
			}
			if err := x.Update(func(tx store.CatalogTx) error { return nil }); !errors.Is(err, ErrCorrupt) {
				t.Errorf("an update after that: %v", err)
			}
			if aside := asideFiles(t, path, "corrupt"); len(aside) != 1 || !strings.Contains(log.String(), aside[0]) {
				t.Errorf("set aside %q, log %q", aside, &log)
			}
			if err := x.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if y := open(t, path); y.Epoch() == epoch {
				t.Error("the old epoch")
			}
		})
	}
}

// TestDamagedPagesNeverPassUnnoticed overwrites random stretches of a file. Whatever then happens, nobody may crash, hang,
// or read other records than were written.
func TestDamagedPagesNeverPassUnnoticed(t *testing.T) {
	path, _ := filled(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good = good[:usedBytes(t, path)]
	var detected int
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		bad := slices.Clone(good)
		at := rng.IntN(len(bad))
		for i := range bad[at:min(len(bad), at+1+rng.IntN(200))] {
			bad[at+i] = byte(rng.Uint32())
		}
		path := newPath(t)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		x, err := Open(path, logTo(new(bytes.Buffer)))
		if err != nil {
			t.Fatalf("seed %d: open: %v", seed, err)
		}
		if err := readAll(x); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("seed %d: reading: %v", seed, err)
		}
		err = x.View(func(tx store.CatalogTx) error {
			for m, err := range tx.Messages(guid(1), 0) {
				if err != nil {
					return err
				}
				if want := messageRecord(m.UID); m.File != want.File || m.GUID != want.GUID || m.ModSeq != want.ModSeq {
					t.Errorf("seed %d: message %+v", seed, m)
				}
			}
			return nil
		})
		if err == nil {
			err = x.Update(func(tx store.CatalogTx) error {
				if _, known, err := tx.Mailbox(guid(1)); err != nil || !known {
					return err
				}
				return tx.PutMessage(guid(1), messageRecord(900))
			})
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := x.Close(); err != nil {
			t.Errorf("seed %d: close: %v", seed, err)
		}
		if len(asideFiles(t, path, "corrupt"))+len(asideFiles(t, path, "version")) > 0 {
			detected++
		}
	}
	if detected < 30 {
		t.Errorf("only %d of 60 damaged files were noticed", detected)
	}
}

// usedBytes is how much of the file holds pages; the rest is room to grow.
func usedBytes(t *testing.T, path string) (n int64) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bolt.Tx) error { n = tx.Size(); return nil })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFileShortenedWhileOpen reads beyond the end of the file through the mapping, which faults.
func TestFileShortenedWhileOpen(t *testing.T) {
	path, _ := filled(t)
	x, err := Open(path, logTo(new(bytes.Buffer)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(4*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if err := readAll(x); !errors.Is(err, ErrCorrupt) {
		t.Errorf("reading: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	open(t, path)
}
