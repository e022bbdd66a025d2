package endpoint

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// A preview of a Maildir, whose store somebody else has in use while mails are read.
func TestAPreviewOfAMaildir(t *testing.T) {
	c := settings(t)
	dir := makeMaildir(t, filepath.Join(t.TempDir(), "a"), 3)
	l := openLocal(t, c, "maildir:"+dir, false)
	ours, theirs := brain.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- l.NewSlave(brain.Options{Side: "far", Hostname: "far", Logger: discard()}).Serve(context.Background(), theirs)
	}()
	v := brain.NewViewer(ours)
	var boxes []string
	var mails []mail.Message
	err := v.Look(t.Context(),
		func(nodes []*item.Node) error {
			for _, n := range nodes {
				boxes = append(boxes, strings.Join(n.Parts, "/"))
			}
			return nil
		},
		func(_ mail.Status, told []mail.Message) error {
			mails = append(mails, told...)
			return nil
		})
	if err != nil || len(boxes) != 1 || boxes[0] != "INBOX" || len(mails) != 3 {
		t.Fatalf("%q, %+v, %v", boxes, mails, err)
	}
	s, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, m := range mails {
		files, err := filepath.Glob(filepath.Join(dir, "[cn]*", string(m.GUID)+"*"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		want, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(files[0], filepath.Join(dir, "cur", string(m.GUID)+":2,FS")); err != nil {
			t.Fatal(err)
		}
		got, err := bodyOf(t.Context(), v, "INBOX", m.GUID)
		if err != nil || got != string(want) || m.Size != int64(len(want)) {
			t.Errorf("%s: %q, %v; want %q", m.GUID, got, err, want)
		}
	}
	for _, c := range []struct{ box, guid string }{{"INBOX", "none"}, {"None", "a"}, {"../a", string(mails[0].GUID)}, {"INBOX", "../cur/x"}} {
		if got, err := bodyOf(t.Context(), v, mail.Name(c.box), mail.GUID(c.guid)); err != nil || got != "" {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if err := errors.Join(v.Close(), <-served); err != nil {
		t.Error(err)
	}
}

func bodyOf(ctx context.Context, v *brain.Viewer, box mail.Name, guid mail.GUID) (string, error) {
	var text []byte
	err := v.Body(ctx, box, guid, func(r io.Reader) (err error) {
		text, err = io.ReadAll(r)
		return err
	})
	return string(text), err
}
