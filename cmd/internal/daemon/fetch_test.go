package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// onShelf is a remote that holds a mail for each letter and may be away.
type onShelf struct {
	away    bool
	began   chan struct{} // closed when the body of "endless" is asked for
	release chan struct{} // has it end

	mu    sync.Mutex
	asked []mail.GUID
}

func (*onShelf) Epoch() uint64             { return 1 }
func (*onShelf) Mailboxes() []mail.Mailbox { return nil }
func (*onShelf) Close() error              { return nil }

func (*onShelf) Mails(context.Context, mail.Mailbox, func(mail.Message) error) error { return nil }

func (s *onShelf) Body(_ context.Context, _ mail.Name, guid mail.GUID) (store.Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, guid)
	switch {
	case guid == "endless":
		close(s.began)
		return endless{s.release}, nil
	case len(guid) == 1:
		return text{strings.NewReader(string(guid) + " mail")}, nil
	case guid == "broken":
		return nil, errors.New("its disk is away")
	}
	return nil, store.ErrNotFound
}

// endless is a large body that does not come before it is released.
type endless struct{ release chan struct{} }

func (e endless) Read([]byte) (int, error) {
	<-e.release
	return 0, io.EOF
}

func (endless) Size() int64  { return 1 << 20 }
func (endless) Close() error { return nil }

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

func nothing(int) []fusefs.Following { return nil }

// forgetDown has the remote asked again at once.
func (f *fetcher) forgetDown() {
	f.small.down, f.large.down = time.Time{}, time.Time{}
}

func TestASmallMailDoesNotWaitForALargeOne(t *testing.T) {
	far := &onShelf{began: make(chan struct{}), release: make(chan struct{})}
	f := newFetcher(Options{View: far.view, Logger: discard()}, t.TempDir(), func() bool { return false })
	defer f.close()
	large := make(chan error, 1)
	go func() {
		_, err := f.fetch(t.Context(), wanted{"INBOX", "endless", 1 << 20}, nothing)
		large <- err
	}()
	<-far.began
	for range 2 {
		file, err := f.fetch(t.Context(), wanted{"INBOX", "a", 6}, nothing)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	select {
	case err := <-large:
		t.Errorf("the large mail was not on its way: %v", err)
	default:
	}
	close(far.release)
	if err := <-large; err == nil { // of another size than was said
		t.Error("half a mail")
	}
}

func TestSingleMailsAreFetchedWhole(t *testing.T) {
	far := &onShelf{}
	offline := false
	f := newFetcher(Options{View: far.view, Logger: discard()}, t.TempDir(), func() bool { return offline })
	fetch := func(guid mail.GUID, size int64) (string, error) {
		file, err := f.fetch(t.Context(), wanted{"INBOX", guid, size}, nothing)
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
		f.forgetDown()
	}
	if _, err := fetch("gone", 6); err == nil || !strings.Contains(err.Error(), "does not have it any more") {
		t.Error(err)
	}
	if _, err := fetch("broken", 6); err == nil {
		t.Error("a remote that fails")
	}
	far.away = true
	if _, err := fetch("b", 6); !errors.Is(err, errAway) { // it was lost just now
		t.Error(err)
	}
	f.forgetDown()
	if _, err := fetch("c", 6); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	far.away, offline = false, true
	f.forgetDown()
	if _, err := fetch("d", 6); !errors.Is(err, errAway) {
		t.Error(err)
	}
	offline = false
	if got, err := fetch("e", 6); got != "e mail" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	f.close()
	if _, err := fetch("f", 6); !errors.Is(err, errEnding) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(f.dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestWhatFollowsIsFetchedAhead: who reads mail after mail finds the next ones here, more of them with each that it reads, and each
// comes once. Who jumps gets what it wants, and little besides.
func TestWhatFollowsIsFetchedAhead(t *testing.T) {
	far := &onShelf{}
	f := newFetcher(Options{View: far.view, Logger: discard()}, t.TempDir(), func() bool { return false })
	defer f.close()
	const all = "abcdefghijklmnopqrstuvwxyz"
	after := func(i int) func(int) []fusefs.Following {
		return func(most int) (out []fusefs.Following) {
			for _, c := range all[i+1 : min(len(all), i+1+most)] {
				out = append(out, fusefs.Following{Base: string(c), Size: 6})
			}
			return out
		}
	}
	read := func(i int) {
		t.Helper()
		file, err := f.fetch(t.Context(), wanted{"INBOX", mail.GUID(all[i : i+1]), 6}, after(i))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if got, err := io.ReadAll(io.NewSectionReader(file, 0, 99)); string(got) != all[i:i+1]+" mail" {
			t.Errorf("%q, %v", got, err)
		}
	}
	// kept waits until a mail has come that nobody asked for yet.
	kept := func(i int) {
		t.Helper()
		for {
			_, n, more := f.kept.Since("INBOX", 0)
			if f.has(wanted{"INBOX", mail.GUID(all[i : i+1]), 6}) {
				return
			}
			select {
			case <-more:
			case <-time.After(10 * time.Second):
				t.Fatalf("%d mails are kept, and %c is not", n, all[i])
			}
		}
	}
	read(0)
	kept(aheadLeast)
	read(1)
	kept(1 + 2*aheadLeast)
	read(2)
	kept(2 + 4*aheadLeast)
	far.mu.Lock()
	asked := slices.Clone(far.asked)
	far.mu.Unlock()
	want := []mail.GUID{}
	for _, c := range all[:3+4*aheadLeast] {
		want = append(want, mail.GUID(string(c)))
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	read(20)
	kept(20 + aheadLeast)
	if f.has(wanted{"INBOX", "z", 6}) {
		t.Error("a jump brought all that follows")
	}
	if list, n, _ := f.kept.Since("INBOX", 2); n != len(want)+3 || len(list) != n-2 || list[0] != "c" {
		t.Errorf("kept %q of %d", list, n)
	}
}

// TestLittleIsKept: of two files the older one goes, with its mails, while who has one of them reads on.
func TestLittleIsKept(t *testing.T) {
	k := newKeptMails(t.TempDir())
	k.limit = 20
	add := func(guid mail.GUID, body string) {
		t.Helper()
		if err := k.add("INBOX", guid, int64(len(body)), strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	for _, body := range []string{"longer", ""} {
		if err := k.add("INBOX", "a", 5, strings.NewReader(body)); err == nil {
			t.Errorf("a mail of another size than %q", body)
		}
	}
	add("a", "0123456789")
	add("b", "abcdefghij")
	first, _ := k.Mail("INBOX", "a")
	add("large", strings.Repeat("x", 100))
	if _, ok := k.Mail("INBOX", "a"); !ok {
		t.Error("the older file went too early")
	}
	add("c", "c")
	for guid, want := range map[mail.GUID]bool{"a": false, "b": false, "large": true, "c": true} {
		if _, ok := k.Mail("INBOX", guid); ok != want {
			t.Errorf("%s is kept: %v", guid, ok)
		}
	}
	if _, ok := k.Mail("Work", "c"); ok {
		t.Error("a mail of another mailbox")
	}
	if got, n, _ := k.Since("INBOX", 1); n != 4 || !slices.Equal(got, []mail.GUID{"large", "c"}) {
		t.Errorf("%q, %d", got, n)
	}
	runtime.GC()
	text := make([]byte, 10)
	if _, err := first.Body.ReadAt(text, 0); err != nil || string(text) != "0123456789" {
		t.Errorf("%q, %v", text, err)
	}
}
