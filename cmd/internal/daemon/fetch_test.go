package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// onShelf is a remote that holds two mails and may be away.
type onShelf struct{ away bool }

func (onShelf) Epoch() uint64             { return 1 }
func (onShelf) Mailboxes() []mail.Mailbox { return nil }
func (onShelf) Close() error              { return nil }

func (onShelf) Mails(context.Context, mail.Mailbox, func(mail.Message) error) error { return nil }

func (s *onShelf) Body(_ context.Context, _ mail.Name, guid mail.GUID) (store.Body, error) {
	switch guid {
	case "a":
		return text{strings.NewReader("a mail")}, nil
	case "broken":
		return nil, errors.New("its disk is away")
	}
	return nil, store.ErrNotFound
}

type text struct{ *strings.Reader }

func (text) Close() error { return nil }

// view connects to it.
func (s *onShelf) view(context.Context) (*brain.Viewer, error) {
	if s.away {
		return nil, errors.New("connection refused")
	}
	ours, theirs := brain.Pipe()
	slave := brain.NewSlave(brain.Options{Side: "far", Logger: discard()}, nil, nil)
	slave.Shelf = func(context.Context, bool) (brain.Shelf, error) { return s, nil }
	go func() { _ = slave.Serve(context.Background(), theirs) }() // ends with the connection
	return brain.NewViewer(ours), nil
}

func TestSingleMailsAreFetchedWhole(t *testing.T) {
	far := &onShelf{}
	offline := false
	f := newFetcher(Options{View: far.view, Logger: discard()}, t.TempDir(), func() bool { return offline })
	fetch := func(guid mail.GUID, size int64) (string, error) {
		file, err := f.fetch(t.Context(), "INBOX", guid, size)
		if err != nil {
			return "", err
		}
		defer file.Close()
		got, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
		if err != nil {
			t.Error(err)
		}
		return string(got), nil
	}
	for range 2 {
		if got, err := fetch("a", 6); got != "a mail" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, size := range []int64{0, 5, 7, 1 << 40} {
		if got, err := fetch("a", size); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("a mail of another size than %d: %q, %v", size, got, err)
		}
		f.down = f.down.Add(-downTime)
	}
	if _, err := fetch("gone", 6); err == nil || !strings.Contains(err.Error(), "does not have it any more") {
		t.Error(err)
	}
	if _, err := fetch("broken", 6); err == nil {
		t.Error("a remote that fails")
	}
	far.away = true
	if _, err := fetch("a", 6); !errors.Is(err, errAway) { // it was lost just now
		t.Error(err)
	}
	f.down = f.down.Add(-downTime)
	if _, err := fetch("a", 6); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	far.away, offline = false, true
	f.down = f.down.Add(-downTime)
	if _, err := fetch("a", 6); !errors.Is(err, errAway) {
		t.Error(err)
	}
	offline = false
	if got, err := fetch("a", 6); got != "a mail" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	f.close()
	if _, err := fetch("a", 6); !errors.Is(err, errEnding) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(f.dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
