package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/fusefs"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// newTestPort is a port on a Maildir with mails in it that a round has seen, with an engine that does not run.
func newTestPort(t *testing.T, mails int) (*port, *endpoint.Local) {
	t.Helper()
	cfg := config.Default()
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	l := openLocal(t, &cfg, mails)
	s, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Refresh(t.Context(), store.RefreshOptions{})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	j, err := journal.OpenFS(vfs.NewMem(time.Now), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	tree, err := vfs.Open(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	e := mirror.NewEngine(mirror.Pair{Logger: discard(), Options: brain.Options{Logger: discard()}}, brain.Request{}, mirror.Timing{}, j)
	return newPort(Options{Config: &cfg, Local: l, Logger: discard()}, t.TempDir(), j, e, tree), l
}

// A round holds the store while programs ask for attributes and set keywords: the first are answered, the second told to try
// again, and neither waits for long.
func TestAttributesDuringARound(t *testing.T) {
	p, l := newTestPort(t, 3)
	round, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	meta, ok := p.Meta(t.Context(), mail.Inbox, "1.M1.host")
	if !ok || meta.UID == 0 || meta.GUID == "" || meta.Mirrored {
		t.Errorf("%+v %v", meta, ok)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := p.SetKeywords(ctx, mail.Inbox, "1.M1.host", mail.NewKeywords("todo")); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > keywordTime {
		t.Errorf("it took %s", took)
	}
	if err := round.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.SetKeywords(t.Context(), mail.Inbox, "1.M1.host", mail.NewKeywords("todo")); err != nil {
		t.Fatal(err)
	}
	if meta, _ := p.Meta(t.Context(), mail.Inbox, "1.M1.host"); len(meta.Keywords) != 1 || meta.Keywords[0] != "todo" {
		t.Errorf("%+v", meta)
	}
}

// Keywords of a mail that no round has seen yet; what is missing beside it is for a round to judge.
func TestKeywordsOfANewMail(t *testing.T) {
	p, l := newTestPort(t, 3)
	file := filepath.Join(l.Path, "new", "9.M9.host")
	if err := os.WriteFile(file, []byte("Subject: 9\n\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Meta(t.Context(), mail.Inbox, "9.M9.host"); ok {
		t.Error("it is known before anybody looked")
	}
	if err := p.SetKeywords(t.Context(), mail.Inbox, "9.M9.host", mail.NewKeywords("todo")); err != nil {
		t.Fatal(err)
	}
	if got, _ := filepath.Glob(filepath.Join(l.Path, "*", "9.M9.host:2,a")); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if err := p.SetKeywords(t.Context(), mail.Inbox, "none", nil); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a mail that is not there: %v", err)
	}
	if err := os.Remove(filepath.Join(l.Path, "cur", "0.M1.host:2,S")); err != nil {
		t.Fatal(err)
	}
	if err := p.SetKeywords(t.Context(), mail.Inbox, "none", nil); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("beside a mail that vanished: %v", err)
	}
	if _, ok := p.Meta(t.Context(), mail.Inbox, "0.M1.host"); !ok {
		t.Error("the vanished mail counts as expunged, and no round decided that")
	}
}

func TestFewMailboxesAreRemembered(t *testing.T) {
	p, l := newTestPort(t, 1)
	for _, name := range []string{".a", ".b", ".c", ".d", ".e", ".f"} {
		for _, sub := range []string{"tmp", "new", "cur"} {
			if err := os.MkdirAll(filepath.Join(l.Path, name, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Refresh(t.Context(), store.RefreshOptions{})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []mail.Name{"a", "b", "c", "d", "e", "f", "INBOX"} {
		p.Meta(t.Context(), name, "x")
	}
	if len(p.known) != maxKnown {
		t.Errorf("%d mailboxes are remembered, want %d", len(p.known), maxKnown)
	}
	if _, ok := p.Meta(t.Context(), mail.Inbox, "0.M1.host"); !ok {
		t.Error("the last one was forgotten")
	}
}

func TestTheJournalOfAnotherMaildirIsPutAside(t *testing.T) {
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	dir := t.TempDir()
	open := func(l *endpoint.Local, want uint64) {
		t.Helper()
		j, err := openJournal(Options{Local: l, Mountpoint: "/mnt", Logger: discard()}, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if j.Last() != want {
			t.Errorf("%d changes in the journal, want %d", j.Last(), want)
		}
		if _, err := j.Append(mail.Event{Op: mail.EventExpunge, Mailbox: mail.Inbox, File: "x"}); err != nil {
			t.Fatal(err)
		}
		_, err = openJournal(Options{Local: l, Mountpoint: "/mnt", Logger: discard()}, dir)
		if !errors.Is(err, ErrServed) || !strings.Contains(err.Error(), "dsyncfs umount /mnt") {
			t.Errorf("a second one: %v", err)
		}
	}
	a, b := openLocal(t, &cfg, 0), openLocal(t, &cfg, 0)
	open(a, 0)
	open(a, 1)
	open(b, 0)
	open(b, 1)
	open(a, 0)
}

func TestPlacesThatCannotBe(t *testing.T) {
	cfg := config.Default()
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	l := openLocal(t, &cfg, 0)
	point := filepath.Join(t.TempDir(), "mnt")
	check := func(o Options) error {
		o.Config, o.Local = &cfg, l
		return Check(o)
	}
	if err := check(Options{Mountpoint: point}); !errors.Is(err, fusefs.ErrMountpoint) {
		t.Errorf("missing: %v", err)
	}
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := check(Options{Mountpoint: point, RemotePath: "/elsewhere"}); err != nil {
		t.Error(err)
	}
	if err := check(Options{Mountpoint: l.Path}); err != nil {
		t.Errorf("the backing directory itself: %v", err)
	}
	for what, o := range map[string]Options{
		"the remote below":  {Mountpoint: point, RemotePath: filepath.Join(point, "r")},
		"the remote itself": {Mountpoint: point, RemotePath: point},
		"within the remote": {Mountpoint: point, RemotePath: filepath.Dir(point)},
	} {
		if err := check(o); !errors.Is(err, fusefs.ErrMountpoint) || !strings.Contains(err.Error(), "inside") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
