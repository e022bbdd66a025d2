package maildir

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

func TestKeywordsParse(t *testing.T) {
	table := parseKeywords([]byte("0 $Forwarded\nold\n3 NonJunk\n3 twice\n4 nonjunk\n26 x\n5 \n25 z\n-1 y\n"))
	if got, want := string(table.encode()), "0 $Forwarded\n3 NonJunk\n25 z\n"; got != want {
		t.Errorf("table %q, want %q", got, want)
	}
	if !table.add(mail.NewKeywords("a", "NONJUNK", "with space")) {
		t.Error("nothing added")
	}
	if table.names[1] != "a" || table.letter("with space") != -1 {
		t.Errorf("table %q", table.encode())
	}
}

func TestKeywordsBeyondTheAlphabetStay(t *testing.T) {
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprintf("k%02d", i))
	}
	table := &keywordTable{}
	table.add(mail.NewKeywords(names...))
	before := mail.NewKeywords("k00", "k01", "k29")
	letters := table.letters(before)
	if letters != 3 {
		t.Fatalf("letters %b", letters)
	}
	if got := table.keywords(letters&^1, before); !got.Equal(mail.NewKeywords("k01", "k29")) {
		t.Errorf("keywords %q", got)
	}
	if got := table.keywords(letters|4, mail.NewKeywords("K01")); !got.Equal(mail.NewKeywords("K01", "k00", "k02")) {
		t.Errorf("keywords %q: the spelling of a known keyword changed", got)
	}
}

func TestKeywordsMtimeGoesUp(t *testing.T) {
	fsys, err := vfs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	dir, _ := fsys.OpenDir("")
	defer dir.Close()
	now := time.Unix(1_800_000_000, 999)
	var last time.Time
	for i := range 3 {
		table := &keywordTable{}
		table.add(mail.NewKeywords(fmt.Sprint("k", i)))
		if err := saveKeywords(dir, 0o600, table, now); err != nil {
			t.Fatal(err)
		}
		info, _ := dir.Stat(keywordsName)
		if info.Mtime.Unix() <= last.Unix() {
			t.Errorf("mtime %v after %v", info.Mtime, last)
		}
		last = info.Mtime
		back, err := loadKeywords(dir)
		if err != nil || back.names[0] != fmt.Sprint("k", i) {
			t.Errorf("table %q, %v", back.encode(), err)
		}
	}
}

func FuzzKeywords(f *testing.F) {
	f.Add([]byte("0 $Forwarded\n1 NonJunk\n"))
	f.Add([]byte("00 a\n0 b\nx\n99 c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		once := parseKeywords(data).encode()
		if twice := parseKeywords(once).encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q", once, twice)
		}
	})
}
