package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// settings are those of a test, with a state directory of its own.
func settings(t *testing.T) *config.Config {
	t.Helper()
	c := config.Default()
	c.StateDir = filepath.Join(t.TempDir(), "state")
	c.LockTimeout = 5 * time.Second
	return &c
}

func location(t *testing.T, word string) remote.Location {
	t.Helper()
	loc, err := remote.ParseLocation([]string{word})
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// makeMaildir makes a Maildir with n mails and returns its path.
func makeMaildir(t *testing.T, dir string, n int) string {
	t.Helper()
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		addMail(t, dir, i)
	}
	return dir
}

func addMail(t *testing.T, dir string, i int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "cur", fmt.Sprintf("%d.M1.host:2,S", i)), fmt.Appendf(nil, "Subject: %d\n\nx\n", i), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openLocal(t *testing.T, c *config.Config, word string, mayCreate bool) *Local {
	t.Helper()
	l, err := OpenLocal(c, location(t, word), mayCreate, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// refresh looks at the store once and returns how many mails were new.
func refresh(t *testing.T, l *Local) int {
	t.Helper()
	s, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.Refresh(t.Context(), store.RefreshOptions{})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return report.Added
}

func TestAStoreHasOneStateByWhateverWay(t *testing.T) {
	c := settings(t)
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	// Before it exists, by a link, and once it is there.
	before := openLocal(t, c, "maildir:"+link+"/m", true)
	makeMaildir(t, filepath.Join(dir, "m"), 1)
	for _, word := range []string{"maildir:" + link + "/m", "maildir:" + dir + "/m", "maildir:" + dir + "/./m/", "maildir:" + dir + "/m:LAYOUT=fs"} {
		if l := openLocal(t, c, word, false); l.index.path != before.index.path {
			t.Errorf("%s has the state %s, want %s", word, l.index.path, before.index.path)
		}
	}
	if other := openLocal(t, c, "maildir:"+dir, false); other.index.path == before.index.path {
		t.Error("two stores have one state")
	}
}

func TestALocationIsMadeWhenItIsUsed(t *testing.T) {
	c := settings(t)
	path := filepath.Join(t.TempDir(), "new")
	l := openLocal(t, c, "maildir:"+path, true)
	if _, err := os.Stat(path); err == nil {
		t.Fatal("it was made before it was used")
	}
	if n := refresh(t, l); n != 0 {
		t.Errorf("%d mails in a new store", n)
	}
	if info, err := os.Stat(filepath.Join(path, "cur")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
}

func TestALocationThatMayNotBeMade(t *testing.T) {
	c := settings(t)
	dir := t.TempDir()
	for word, says := range map[string]string{
		"maildir:" + dir + "/none":            "no mail store there",
		"maildir:" + dir + "/none/deeper":     "no mail store there",
		"mbox:" + dir:                         "not supported yet",
		"maildir:" + dir + ":INBOX=" + dir:    "not supported yet",
		"ssh://host":                          "not a mail store on this machine",
		"maildir:" + filepath.Dir(c.StateDir): "state_dir",
	} {
		if _, err := OpenLocal(c, location(t, word), false, discard()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", word, err, says)
		}
	}
	if _, err := OpenLocal(c, location(t, "maildir:"+dir+"/none/deeper"), true, discard()); err == nil || !strings.Contains(err.Error(), "make the directory above") {
		t.Errorf("a missing parent: %v", err)
	}
	// An empty directory is no Maildir, and what was found out leaves no memory of one.
	l := openLocal(t, c, "maildir:"+dir, false)
	if _, err := l.Store(t.Context()); !errors.Is(err, store.ErrLocation) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := os.Stat(l.index.path); err == nil {
		t.Error("an index was kept of what is no Maildir")
	}
	if l := openLocal(t, c, "maildir:"+dir, true); !l.create {
		t.Error("it may not be made now, as if mail had been there")
	}
}

// Once mail was known somewhere, an empty or missing directory is a disk that is away: in a later run, and in the same.
func TestADiskThatIsAway(t *testing.T) {
	c := settings(t)
	path := makeMaildir(t, filepath.Join(t.TempDir(), "m"), 3)
	same := openLocal(t, c, "maildir:"+path, true)
	if refresh(t, same) != 3 {
		t.Fatal("the mails were not found")
	}
	away := path + ".away"
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		_, err := same.Store(t.Context())
		_, fresh := OpenLocal(c, location(t, "maildir:"+path), true, discard())
		if fresh == nil {
			_, fresh = openLocal(t, c, "maildir:"+path, true).Store(t.Context())
		}
		for run, err := range map[string]error{"the same run": err, "a later run": fresh} {
			if !errors.Is(err, store.ErrLocation) || !strings.Contains(err.Error(), "is its disk mounted") {
				t.Errorf("%s, %s: %v", what, run, err)
			}
		}
		if entries, _ := os.ReadDir(path); len(entries) > 0 {
			t.Errorf("%s: something was made there", what)
		}
	}
	check("missing")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	check("empty")
	if err := errors.Join(os.Remove(path), os.Rename(away, path)); err != nil {
		t.Fatal(err)
	}
	addMail(t, path, 100)
	if n := refresh(t, same); n != 1 {
		t.Errorf("%d new mails when it is back, want 1", n)
	}
}

// The directory is the one that is there now, whatever was there in an earlier round.
func TestADirectoryThatIsReplaced(t *testing.T) {
	c := settings(t)
	path := makeMaildir(t, filepath.Join(t.TempDir(), "m"), 1)
	l := openLocal(t, c, "maildir:"+path, false)
	refresh(t, l)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	makeMaildir(t, path, 4)
	if n := refresh(t, l); n != 3 {
		t.Errorf("%d new mails, want 3", n)
	}
}

func TestARehearsalMakesNothing(t *testing.T) {
	c := settings(t)
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "new"), empty} {
		l := openLocal(t, c, "maildir:"+path, true)
		cleanUp, err := l.Rehearse()
		if err != nil {
			t.Fatal(err)
		}
		if n := refresh(t, l); n != 0 {
			t.Errorf("%s: %d mails", path, n)
		}
		scratch := filepath.Dir(l.index.path)
		if err := cleanUp(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(scratch); err == nil {
			t.Errorf("%s is left behind", scratch)
		}
		if entries, _ := os.ReadDir(path); len(entries) > 0 {
			t.Errorf("%s: %v was made", path, entries)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("the location was made")
	}
	full := openLocal(t, c, "maildir:"+makeMaildir(t, filepath.Join(dir, "full"), 2), true)
	cleanUp, err := full.Rehearse()
	if err != nil {
		t.Fatal(err)
	}
	if n := refresh(t, full); n != 2 {
		t.Errorf("%d mails in one that is there, want 2", n)
	}
	if err := cleanUp(); err != nil {
		t.Error(err)
	}
}

// While a round has the store, what is known of it can be read, and who wants the store itself waits no longer than asked.
func TestAStoreInUse(t *testing.T) {
	c := settings(t)
	l := openLocal(t, c, "maildir:"+makeMaildir(t, filepath.Join(t.TempDir(), "m"), 3), false)
	refresh(t, l)
	round, err := l.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	err = l.View(t.Context(), func(tx store.CatalogTx) error {
		_, ok, err := maildir.Known(tx, mail.Inbox, "nobody", func(mail.Message, string) { known++ })
		if !ok {
			t.Error("the mailbox is not known")
		}
		return err
	})
	if err != nil || known != 3 {
		t.Errorf("%d mails are known, %v", known, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.StoreBehind(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second user: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		s, err := l.StoreBehind(context.Background())
		if err == nil {
			err = s.Close()
		}
		got <- err
	}()
	if err := round.Close(); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := round.Close(); err != nil { // a second time does nothing
		t.Error(err)
	}
}

// Two mirrors of one store, in one process as in two, wait for each other.
func TestTwoMirrorsOfOneStore(t *testing.T) {
	c := settings(t)
	path := makeMaildir(t, filepath.Join(t.TempDir(), "m"), 2)
	a, b := openLocal(t, c, "maildir:"+path, false), openLocal(t, c, "maildir:"+path, false)
	var users sync.WaitGroup
	for _, l := range []*Local{a, b, a, b} {
		users.Go(func() {
			for range 5 {
				s, err := l.Store(context.Background())
				if err == nil {
					_, err = s.Refresh(context.Background(), store.RefreshOptions{Full: true})
					err = errors.Join(err, s.Close())
				}
				if err != nil {
					t.Error(err)
				}
				if err := l.View(context.Background(), func(store.CatalogTx) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	// One that does not let go is named, after the lock timeout.
	c.LockTimeout = 50 * time.Millisecond
	s, err := a.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := b.Store(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by pid %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Store(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestClaim(t *testing.T) {
	c := settings(t)
	path := makeMaildir(t, filepath.Join(t.TempDir(), "m"), 0)
	a, b := openLocal(t, c, "maildir:"+path, false), openLocal(t, c, "maildir:"+path, false)
	release, err := a.Claim("/mnt/with space")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Claim("/other"); !errors.Is(err, ErrClaimed) || !strings.Contains(err.Error(), fmt.Sprintf("at /mnt/with space by process %d", os.Getpid())) {
		t.Errorf("%v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = b.Claim("/other"); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func TestApart(t *testing.T) {
	dir := t.TempDir()
	makeMaildir(t, filepath.Join(dir, "a"), 0)
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for word, says := range map[string]string{
		"maildir:" + dir + "/a":             "both locations",
		"maildir:" + dir + "/a:LAYOUT=fs":   "both locations",
		"maildir:" + dir + "/link":          "both locations",
		"maildir:" + dir + "/a/below":       "inside",
		"maildir:" + dir + "/link/not/here": "inside",
		"maildir:" + dir:                    "inside",
		"maildir:" + dir + "/ab":            "",
		"host":                              "",
	} {
		err := Apart(location(t, "maildir:"+dir+"/a"), location(t, word))
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", word, err, says)
		}
	}
}
