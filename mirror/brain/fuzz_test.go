package brain

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"testing/iotest"

	"dsyncfs/mirror/mail"
)

// FuzzMailText holds that what is read of a mail's text does not depend on where its pieces end nor, for what stands for what a
// client sees, on its line ends.
func FuzzMailText(f *testing.F) {
	for _, text := range []string{
		"", "\n", "\r", "\r\n\r\r\n", "From: a\r\nX-TUID: abcdefghijkl\r\n\r\nbody\r", "Date : x\n\ty\nmessage-id: <a?\xc3\xa4?>\n\nDate: body",
		"X-TUID: abcdefghijkl", "X-TUID: abcdefghijkl\nX-TUID: mnopqrstuvwx\n", ": \n:\n\n",
	} {
		f.Add([]byte(text), uint16(3))
	}
	names := []string{"Date", "Message-ID", ""}
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		kept := bytes.Clone(text)
		checkHeaderHash(t, text, names)
		before, after := cutTUID(text)
		if n := len(text) - len(before) - len(after); n != 0 && (n < len(tuid)+tuidValue || !bytes.HasPrefix(text[len(before):], tuid)) {
			t.Fatalf("%q was taken out", text[len(before):len(text)-len(after)])
		}
		without := bytes.Join([][]byte{before, after}, nil)
		// The header has to lie within the buffer, so it is as large as the text.
		whole := textReader{r: bytes.NewReader(text), buf: make([]byte, len(text)+1)}
		parts := textReader{r: iotest.OneByteReader(bytes.NewReader(text)), buf: make([]byte, len(text)+1)}
		want := mail.ContentHash(sha256.Sum256(bytes.ReplaceAll(without, []byte("\r\n"), []byte("\n"))))
		for _, r := range []*textReader{&whole, &parts} {
			if got, err := r.hash(); err != nil || got != want {
				t.Fatalf("hash %x, %v; want %x", got, err, want)
			}
		}
		if got, err := hashContent(bytes.NewReader(text), make([]byte, len(text)+1)); err != nil || got != mail.ContentHash(sha256.Sum256(without)) {
			t.Fatalf("content hash %x, %v", got, err)
		}
		checkLineEnds(t, text, int(cut)%(len(text)+1))
		if !bytes.Equal(text, kept) {
			t.Fatal("the text was changed")
		}
	})
}

// checkHeaderHash: line ends are none of the header's, and the body is not looked at.
func checkHeaderHash(t *testing.T, text []byte, names []string) {
	t.Helper()
	sum := headerHash(text, names)
	if raw, err := hex.DecodeString(sum); err != nil || len(raw) != md5.Size {
		t.Fatalf("header hash %q", sum)
	}
	if crlf := headerHash(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), names); crlf != sum {
		t.Fatalf("header hash %s, with CRLF %s", sum, crlf)
	}
	header := text
	if i := bytes.Index(text, []byte("\n\n")); i >= 0 {
		header = text[:i+2]
	}
	if again := headerHash(append(bytes.Clone(header), "\nDate: body\n"...), names); len(header) < len(text) && again != sum {
		t.Fatalf("header hash %s, with another body %s", sum, again)
	}
}

// checkLineEnds: what a Dovecot would drop is found however the text is cut.
func checkLineEnds(t *testing.T, text []byte, cut int) {
	t.Helper()
	var whole, parts lineEnds
	whole.look(text)
	parts.look(text[:cut])
	parts.look(text[cut:])
	if whole != parts {
		t.Fatalf("%+v, and %+v when cut at %d", whole, parts, cut)
	}
	if whole.crlf != bytes.Contains(text, []byte("\r\n")) || whole.drops != bytes.Contains(text, []byte("\r\r\n")) || (whole.run > 0) != bytes.HasSuffix(text, []byte("\r")) {
		t.Fatalf("%q: %+v", text, whole)
	}
}
