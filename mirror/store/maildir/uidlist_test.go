package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

const sampleList = "3 V1700000001 N13 G835b9c2be422046bbf7d0000c17ffdbc Xq\n" +
	"1 G90a73434e422046bc87d0000c17ffdbc Puidl-1 :1795433189.M131610P32205.mail,S=278,W=288\n" +
	"6 Puidl-6 Zz :1795433189.M10651P32202.mail with space\n" +
	"12 :1795433189.M289952P32206.mail:2,S\n"

func readAll(t *testing.T, text string) (uidHeader, []string, mail.UID, bool, error) {
	t.Helper()
	u, err := readUIDList(strings.NewReader(text), "list")
	if err != nil {
		return uidHeader{}, nil, 0, false, err
	}
	var lines []string
	for {
		rec, err := u.next()
		if err == io.EOF {
			return u.header, lines, u.effectiveNext(), u.torn, nil
		}
		if err != nil {
			return u.header, lines, 0, false, err
		}
		lines = append(lines, fmt.Sprintf("%d|%s|%s|%s", rec.uid, rec.fields, rec.base, rec.guid()))
	}
}

func TestUIDListRead(t *testing.T) {
	h, lines, next, torn, err := readAll(t, sampleList)
	if err != nil || torn || next != 13 {
		t.Fatalf("next %d, torn %v, %v", next, torn, err)
	}
	if h.validity != 1700000001 || h.guid.String() != "835b9c2be422046bbf7d0000c17ffdbc" || h.other != " Xq" {
		t.Errorf("header %+v", h)
	}
	want := []string{
		"1| G90a73434e422046bc87d0000c17ffdbc Puidl-1|1795433189.M131610P32205.mail,S=278,W=288|90a73434e422046bc87d0000c17ffdbc",
		"6| Puidl-6 Zz|1795433189.M10651P32202.mail with space|1795433189.M10651P32202.mail with space",
		"12||1795433189.M289952P32206.mail|1795433189.M289952P32206.mail",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("records\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestUIDListOldVersion(t *testing.T) {
	h, lines, next, _, err := readAll(t, "1 1111 5\n3 abc:2,S\n7 x y\n")
	if err != nil || h.version != 1 || h.validity != 1111 || next != 8 || len(lines) != 2 || lines[0] != "3||abc|abc" {
		t.Errorf("%+v %q %d %v", h, lines, next, err)
	}
}

func TestUIDListHalfLine(t *testing.T) {
	_, lines, next, torn, err := readAll(t, sampleList+"13 :half")
	if err != nil || !torn || len(lines) != 3 || next != 13 {
		t.Errorf("%q next %d torn %v %v", lines, next, torn, err)
	}
}

func TestUIDListCorrupt(t *testing.T) {
	head := "3 V1 N1 G835b9c2be422046bbf7d0000c17ffdbc\n"
	for _, text := range []string{
		"", "3 V1 N1", "2 V1 N1\n", "x\n", "\n", "3\n", "3 V0 N1\n", "3 V1 N0\n", "3 V1\n", "3 V1 N1 Gxyz\n", "3 V4294967296 N1\n",
		head + "\n", head + "1\n", head + "1 \n", head + "1 x\n", head + "1 :\n", head + "0 :x\n", head + "2 :x\n2 :y\n", head + "2 :x\n1 :y\n",
		head + "a :x\n", head + "1:x\n", head + "1 :a/b\n", head + "4294967295 :x\n", head + "99999999999999999999 :x\n", head + "1 ::2,S\n",
		head + "1 :" + strings.Repeat("x", 100000) + "\n",
	} {
		if _, _, _, _, err := readAll(t, text); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%.60q: %v, want ErrCorrupt", text, err)
		}
	}
}

func TestUIDListWriterRefuses(t *testing.T) {
	w := uidlistWriter{w: io.Discard}
	if err := w.write(5, nil, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uid          mail.UID
		fields, base string
	}{{5, "", "y"}, {4, "", "y"}, {0, "", "y"}, {mail.MaxUID + 1, "", "y"}, {6, "", ""}, {6, "", "a/b"}, {6, "", "a:2,"}, {6, "", "a\nb"}, {6, "G", "y"}, {6, " G\n", "y"}, {6, " :", "y"}} {
		if err := w.write(c.uid, []byte(c.fields), []byte(c.base)); err == nil {
			t.Errorf("wrote %d %q %q", c.uid, c.fields, c.base)
		}
	}
	if err := w.writeHeader(uidHeader{validity: 1, next: 1}); err == nil {
		t.Error("wrote a header without GUID")
	}
}

func TestUIDListFields(t *testing.T) {
	f := recordFields{guid: "g", uidl: "u", order: 7, size: 3, virtual: -1}
	if got := string(f.encode("base")); got != " Gg Pu O7 S3" {
		t.Errorf("fields %q", got)
	}
	if got := string(f.encode("g")); got != " Pu O7 S3" {
		t.Errorf("fields %q", got)
	}
	if got := string(withFields([]byte(" Gold Zz"), map[byte]string{'G': "new", 'P': "p"})); got != " Zz Gnew Pp" {
		t.Errorf("fields %q", got)
	}
}

func TestUIDListAppendAndReplace(t *testing.T) {
	fsys, err := vfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	dir, err := fsys.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	guid, _ := mail.ParseMailboxGUID("835b9c2be422046bbf7d0000c17ffdbc")
	err = replaceUIDList(dir, 0o600, func(w *uidlistWriter) error {
		if err := w.writeHeader(uidHeader{validity: 9, next: 1, guid: guid, other: " Xq"}); err != nil {
			return err
		}
		return w.write(3, []byte(" Pu"), []byte("a"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := appendUIDList(dir, []byte("5 :b\n")); err != nil {
		t.Fatal(err)
	}
	got, err := vfs.ReadFile(dir, uidlistName, 1<<20)
	if want := "3 V9 N1 G835b9c2be422046bbf7d0000c17ffdbc Xq\n3 Pu :a\n5 :b\n"; err != nil || string(got) != want {
		t.Errorf("file %q, %v; want %q", got, err, want)
	}
}

// FuzzUIDList holds that what is read can be written and reads the same again.
func FuzzUIDList(f *testing.F) {
	f.Add([]byte(sampleList))
	f.Add([]byte("1 1111 5\n3 abc:2,S\n7 x y\n"))
	f.Add([]byte("3 V1 N1 G835b9c2be422046bbf7d0000c17ffdbc\n1 :x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		copyList := func(data []byte) ([]byte, error) {
			u, err := readUIDList(bytes.NewReader(data), "list")
			if err != nil {
				return nil, err
			}
			h := u.header
			if h.guid.IsZero() {
				h.guid[0] = 1
			}
			var out bytes.Buffer
			w := uidlistWriter{w: &out}
			if err := w.writeHeader(h); err != nil {
				t.Fatalf("write: %v", err)
			}
			for {
				rec, err := u.next()
				if err == io.EOF {
					return out.Bytes(), nil
				}
				if err != nil {
					return nil, err
				}
				if len(rec.base) > maxDirName || bytes.IndexByte(rec.base, '\r') >= 0 || bytes.ContainsAny(rec.fields, "\r\x00") {
					continue // no file can have the name, or the writer is stricter on purpose
				}
				if err := w.write(rec.uid, rec.fields, rec.base); err != nil {
					t.Fatalf("write: %v", err)
				}
			}
		}
		once, err := copyList(data)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		twice, err := copyList(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q, %v", once, twice, err)
		}
	})
}
