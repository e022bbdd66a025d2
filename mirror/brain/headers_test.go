package brain

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// The values are what Dovecot 2.3.19 told of these mails.
func TestHeaderHash(t *testing.T) {
	names := []string{"Date", "Message-ID"}
	for _, c := range []struct{ text, want string }{
		{"Date: Thu, 01 Jan 2026 10:00:00 +0000\nMessage-ID: <one@example.org>\n\nbody", "c56009fa8b45c79dbedba4cbacbd8662"},
		{"date: Thu, 01 Jan 2026 10:00:00 +0000\nMessage-ID: <one@example.org>\n\nbody", "other"},
		{"From: a\r\nDate: Thu, 01 Jan 2026\t\r\n 10:00:00 +0000\r\nMessage-ID: <two@example.org>\r\n\r\nbody", "other"},
		{"From: a\r\nDate: Thu, 01 Jan 2026 10:00:00 +0000\r\nX: Date: y\r\nMessage-ID: <two@example.org>\r\n\r\nDate: body", "605e270e49c1b397e1d4695352c8cc7c"},
		{"Subject: neither\n\nDate: body", "68b329da9893e34099c7d8ad5cb9c940"},
		{"", "68b329da9893e34099c7d8ad5cb9c940"},
		{"\nDate: body", "68b329da9893e34099c7d8ad5cb9c940"},
	} {
		got := headerHash([]byte(c.text), names)
		known := got == "c56009fa8b45c79dbedba4cbacbd8662" || got == "605e270e49c1b397e1d4695352c8cc7c" || got == "68b329da9893e34099c7d8ad5cb9c940"
		if c.want == "other" && known || c.want != "other" && got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
	// One '?' stands for what neighbours of its kind there are.
	if headerHash([]byte("Date: a\xc3\xa4?\x01b\n\n"), names) != headerHash([]byte("Date: a?b\n\n"), names) {
		t.Error("runs of odd characters are not one")
	}
	if headerHash([]byte("Date: a? ?b\n\n"), names) == headerHash([]byte("Date: a?b\n\n"), names) {
		t.Error("a space does not end a run")
	}
}

// What a client sees is hashed: line ends do not matter, other CRs do, and where the pieces end does not.
func TestTextHash(t *testing.T) {
	const text = "From: a\nX-TUID: abcdefghijkl\nSubject: s\n\none\r\ntwo\rthree\n\r\r\nfour\r"
	hash := func(s string, size int) string {
		t.Helper()
		var r io.Reader = strings.NewReader(s)
		if size == 1 {
			r = iotest.OneByteReader(r)
		}
		sum, err := (&textReader{r: r, buf: make([]byte, 40*size)}).hash()
		if err != nil {
			t.Fatal(err)
		}
		return string(sum[:])
	}
	want := hash(text, 1000)
	for _, same := range []string{strings.ReplaceAll(text, "X-TUID: abcdefghijkl\n", ""), strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")} {
		for _, size := range []int{1, 2, 1000} {
			if hash(same, size) != want {
				t.Errorf("%q has another hash, read in pieces of %d", same, 40*size)
			}
		}
	}
	for _, other := range []string{strings.Replace(text, "two\r", "two", 1), text[:len(text)-1], text + "\n\n"} {
		if hash(other, 1000) == want {
			t.Errorf("%q has the same hash", other)
		}
	}
	failing := &textReader{r: io.MultiReader(bytes.NewReader(make([]byte, 50)), iotest.ErrReader(io.ErrClosedPipe)), buf: make([]byte, 40)}
	if _, err := failing.hash(); err != io.ErrClosedPipe {
		t.Errorf("an error of reading is %v", err)
	}
}
