package brain

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"dsyncfs/mirror/mail"
)

type sizedBody struct{ io.Reader }

func (sizedBody) Close() error { return nil }
func (sizedBody) Size() int64  { return 0 }

func TestLineEndsThatADovecotDoesNotKeep(t *testing.T) {
	for text, want := range map[string]alterations{
		"":             {},
		"a\nb":         {},
		"a\rb\n":       {},
		"a\r\rb\n":     {},
		"a\r\nb\n":     {unseen: []mail.UID{7}},
		"a\r\n":        {unseen: []mail.UID{7}},
		"a\r\r\nb\n":   {visible: []mail.UID{7}},
		"a\r\nb\r\r\n": {visible: []mail.UID{7}},
		"a\nb\r":       {visible: []mail.UID{7}},
		"\r":           {visible: []mail.UID{7}},
	} {
		for name, r := range map[string]io.Reader{
			"at once": bytes.NewReader([]byte(text)), "by bytes": iotest.OneByteReader(bytes.NewReader([]byte(text))),
		} {
			ends := &lineEnds{Body: sizedBody{r}}
			if _, err := io.Copy(io.Discard, io.Reader(ends)); err != nil {
				t.Fatal(err)
			}
			var got alterations
			if got.note(7, ends); len(got.unseen) != len(want.unseen) || len(got.visible) != len(want.visible) {
				t.Errorf("%q %s: unseen %v, visible %v", text, name, got.unseen, got.visible)
			}
		}
	}
}
