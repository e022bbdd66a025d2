package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// watched is a Maildir under watch, and what was told of it.
type watched struct {
	t    *testing.T
	root string
	w    *Watcher

	mu    sync.Mutex
	names []string
	more  chan struct{}
}

func start(t *testing.T) *watched {
	root := filepath.Join(t.TempDir(), "Mail dir")
	makeMailbox(t, root)
	return startAt(t, root, root)
}

func startAt(t *testing.T, root, as string) *watched {
	x := &watched{t: t, root: root, more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if x.w, err = Maildir(ctx, as, slog.New(slog.DiscardHandler), x.saw, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		x.w.Wait()
	})
	return x
}

func (x *watched) saw(dir, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names = append(x.names, dir+"|"+name)
	select {
	case x.more <- struct{}{}:
	default:
	}
}

// wait waits until a name was told, and then for the report.
func (x *watched) wait(want string) {
	x.t.Helper()
	limit := time.After(patience)
	for {
		x.mu.Lock()
		found := slices.Contains(x.names, want)
		names := slices.Clone(x.names)
		x.mu.Unlock()
		if found {
			break
		}
		select {
		case <-x.more:
		case <-limit:
			x.t.Fatalf("%q was not told; what was: %q", want, names)
		}
	}
	select {
	case <-x.w.Changes:
	case <-limit:
		x.t.Fatalf("%q was told but no change reported", want)
	}
}

// told returns what was told so far and forgets it.
func (x *watched) told() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	names := x.names
	x.names = nil
	return names
}

func makeMailbox(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func (x *watched) write(elem ...string) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(append([]string{x.root}, elem...)...), []byte("x"), 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func (x *watched) rename(from, to string) {
	x.t.Helper()
	if err := os.Rename(filepath.Join(x.root, from), filepath.Join(x.root, to)); err != nil {
		x.t.Fatal(err)
	}
}

func TestADeliveryIsReported(t *testing.T) {
	x := start(t)
	x.write("tmp", "1.M1.host")
	x.rename("tmp/1.M1.host", "new/1.M1.host")
	x.wait("new|1.M1.host")
	x.rename("new/1.M1.host", "cur/1.M1.host:2,S")
	x.wait("cur|1.M1.host:2,S")
	if err := os.Remove(filepath.Join(x.root, "cur", "1.M1.host:2,S")); err != nil {
		t.Fatal(err)
	}
	x.wait("cur|1.M1.host:2,S")
	x.write("dovecot-keywords")
	x.wait("|dovecot-keywords")
	x.write("subscriptions")
	x.wait("|subscriptions")
}

func TestANewMailboxIsWatchedAtOnce(t *testing.T) {
	x := start(t)
	makeMailbox(t, filepath.Join(x.root, ".Work"))
	x.wait(".Work/cur|") // it may have come with mail
	x.write(".Work", "new", "1.M1.host")
	x.wait(".Work/new|1.M1.host")
	// One that arrives complete.
	other := filepath.Join(t.TempDir(), "other")
	makeMailbox(t, other)
	if err := os.Rename(other, filepath.Join(x.root, ".Other")); err != nil {
		t.Fatal(err)
	}
	x.wait(".Other/new|")
	x.write(".Other", "cur", "2.M2.host:2,")
	x.wait(".Other/cur|2.M2.host:2,")
}

func TestARenamedMailboxIsReportedUnderItsNewName(t *testing.T) {
	x := start(t)
	makeMailbox(t, filepath.Join(x.root, "a", "b"))
	x.wait("a/b/new|")
	x.rename("a", "c")
	x.wait("c/b/new|")
	x.told()
	x.write("c", "b", "new", "1.M1.host")
	x.wait("c/b/new|1.M1.host")
	makeMailbox(t, filepath.Join(x.root, "c", "d"))
	x.wait("c/d/new|")
	x.rename("c", "a") // and back
	x.wait("a/b/new|")
	x.told()
	x.write("a", "d", "cur", "2.M2.host:2,")
	x.wait("a/d/cur|2.M2.host:2,")
	for _, name := range x.told() {
		if name[0] == 'c' {
			t.Errorf("told of %q, which has another name now", name)
		}
	}
}

// Mailboxes that come and go at high speed are gone when they are to be watched, or have another name.
func TestMailboxesThatComeAndGo(t *testing.T) {
	x := start(t)
	for i := range 200 {
		from, to := fmt.Sprintf(".A%d", i), fmt.Sprintf(".B%d", i)
		makeMailbox(t, filepath.Join(x.root, from))
		x.rename(from, to)
		if err := os.RemoveAll(filepath.Join(x.root, to)); err != nil {
			t.Fatal(err)
		}
	}
	makeMailbox(t, filepath.Join(x.root, ".Last"))
	x.wait(".Last/new|")
	x.write(".Last", "new", "1.M1.host")
	x.wait(".Last/new|1.M1.host")
}

func TestWhatIsNobodysMailIsIgnored(t *testing.T) {
	x := start(t)
	makeMailbox(t, filepath.Join(x.root, "temp.projects")) // a mailbox whose name looks like a file's
	x.write("new", "first")                                // the order of events is that of the changes
	x.wait("new|first")
	x.told()
	for _, name := range []string{
		"dovecot-uidlist", "dovecot-uidlist.lock", "dovecot.index", "dovecot.index.log", "dovecot-uidvalidity.5",
		".temp.host.1.2", "dovecot-uidlist.tmp", "tmp/1.M1.host", "cur/dovecot.index.cache",
	} {
		x.write(name)
	}
	if err := os.Mkdir(filepath.Join(x.root, ".notmuch"), 0o700); err != nil {
		t.Fatal(err)
	}
	x.write(".notmuch", "xapian")
	x.write("new", "last")
	x.wait("new|last")
	if got := x.told(); !slices.Equal(got, []string{"new|last"}) {
		t.Errorf("told of %q, want the mail only", got)
	}
	x.write("temp.projects", "new", "1.M1.host")
	x.wait("temp.projects/new|1.M1.host")
}

// A real overflow: more events than the kernel keeps, while those who take them are held up.
func TestLostEventsMeanThatAnythingMayHaveChanged(t *testing.T) {
	x := start(t)
	from, to := filepath.Join(x.root, "new", "a"), filepath.Join(x.root, "new", "b")
	x.write("new", "a")
	x.wait("new|a")
	x.w.mu.Lock()
	for range 20000 { // /proc/sys/fs/inotify/max_queued_events is 16384
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		from, to = to, from
	}
	x.w.mu.Unlock()
	x.wait("|")
}

// Whoever hears of changes may be slow, and they are taken all the same.
func TestTooMuchToTellIsToldAsOne(t *testing.T) {
	x := start(t)
	x.mu.Lock() // holds up saw
	x.w.mu.Lock()
	for i := range maxUntold + 1 {
		x.w.report(filepath.Join(x.root, "new"), fmt.Sprint(i))
	}
	x.w.mu.Unlock()
	x.mu.Unlock()
	x.wait("|")
}

func TestARootThatIsALink(t *testing.T) {
	root := filepath.Join(t.TempDir(), "real")
	makeMailbox(t, root)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	x := startAt(t, root, link)
	x.write("new", "1.M1.host")
	x.wait("new|1.M1.host")
}

// The daemon watches a directory that its own mount covers, by its descriptor.
func TestARootThatIsADescriptor(t *testing.T) {
	root := t.TempDir()
	makeMailbox(t, root)
	d, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	x := startAt(t, root, fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
	x.write("new", "1.M1.host")
	x.wait("new|1.M1.host")
	makeMailbox(t, filepath.Join(root, ".Work"))
	x.wait(".Work/new|")
}

func TestNoSuchDirectory(t *testing.T) {
	if _, err := Maildir(t.Context(), filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler), nil, nil); err == nil {
		t.Error("no error for a directory that does not exist")
	}
}

// A flood is taken in portions, and all of it is told.
func TestAFloodIsToldWholly(t *testing.T) {
	x := start(t)
	const n = 5000
	for i := range n {
		x.write("new", fmt.Sprintf("%d.M%dP1.flood", i, i))
	}
	x.wait(fmt.Sprintf("new|%d.M%dP1.flood", n-1, n-1))
	told := x.told()
	for i := range n {
		if name := fmt.Sprintf("new|%d.M%dP1.flood", i, i); !slices.Contains(told, name) {
			t.Fatalf("%s was not told", name)
		}
	}
	x.write("new", "9.M9P9.after")
	x.wait("new|9.M9P9.after")
}
