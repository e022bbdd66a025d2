// Package soak runs a mirror for long, with everything that is usual around it, and looks at what it takes: a mount, an ssh
// remote, delivery agents and mail programs on both sides, notmuch, neomutt, and a Dovecot on either Maildir.
//
// `make soak TIME=1h` prints a table and a verdict. In `make test` it runs for seconds, which shows that it would run.
package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// duration is how long to run.
func duration(t *testing.T) time.Duration {
	s := os.Getenv("DSYNCFS_SOAK_TIME")
	if s == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// scene is everything that runs.
type scene struct {
	*harness.Env
	t                   *testing.T
	near, far           harness.Maildir // the stores
	nearServer, farView *harness.Dovecot
	remote              *harness.Remote
	mount               *harness.Mount
	indexer             *harness.Process // the last notmuch
	load                *load
	lag                 []time.Duration // of deliveries, since the last sample
	programs            int             // runs of programs
}

// mailboxes are where things happen; INBOX and the others.
var mailboxes = []string{"INBOX", "Work", "Entwürfe", "Lists/golang-nuts"}

func newScene(t *testing.T) *scene {
	e := harness.New(t)
	s := &scene{Env: e, t: t}
	s.nearServer = e.NewDovecot("account")
	s.near = s.nearServer.Maildir
	s.remote = e.NewRemote()
	s.far = s.remote.Maildir
	harness.Build(t, s.near, "a", harness.Mails(t, 400), mailboxes...)
	// Mails are removed without a witness on and on; the guard has tests of its own.
	const limit = "100%,1000000"
	config := filepath.Join(s.remote.Home, "config", "dsyncfs")
	if err := errors.Join(os.MkdirAll(config, 0o700), os.WriteFile(filepath.Join(config, "dsyncfs.toml"), []byte("max_missing = \""+limit+"\"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	options := []string{"-o", "mail_location=" + s.near.Location(), "-o", "max_missing=" + limit}
	s.mount = e.Mount("mnt", append(options, s.remote.Options()...), s.remote.URL)
	s.sync()
	s.farView = e.ServeWithDovecot(s.far)
	open(t, s.near.Path, s.far.Path)
	s.sync()
	return s
}

// open lets two users work on the Maildirs: dsyncfs as who runs the tests, and Dovecot, which insists on another one. New
// mail has the mode of its directory.
func open(t *testing.T, roots ...string) {
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // a lock
				return nil
			} else if err != nil {
				return err
			}
			mode := os.FileMode(0o666)
			if e.IsDir() {
				mode = 0o777
			}
			if err := os.Chmod(path, mode); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (s *scene) sync() {
	s.t.Helper()
	s.Eventually("a sync succeeds", time.Minute, func() error {
		if r := s.Run("sync", s.mount.Path); r.Status != 0 {
			return fmt.Errorf("exit status %d: %s", r.Status, r.Stderr)
		}
		return nil
	})
}

// A mirror that runs for long takes no more at its end than at its beginning.
func TestSoak(t *testing.T) {
	total := duration(t)
	s := newScene(t)
	every := max(total/40, 2*time.Second)
	table := newTable(s, total)
	s.load = startLoad(s)
	defer s.load.end()
	end := time.Now().Add(total)
	for time.Now().Before(end) {
		for next := time.Now().Add(every); time.Now().Before(next); <-time.After(pause) {
			s.work()
		}
		s.mount.KeepAlive()
		table.sample()
	}
	s.load.end()
	if s.indexer != nil {
		s.indexer.Wait()
	}
	s.sync()
	harness.Equal(t, s.near, s.far)
	table.verdict(t)
	s.warnings()
}

// warnings prints what the daemon, and through it the server, complained of.
func (s *scene) warnings() {
	s.t.Helper()
	logs, err := filepath.Glob(filepath.Join(s.StateDir(), "mounts", "*", "log*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range logs {
		text, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Printf("the daemon's log has %d lines\n%s", strings.Count(string(text), "\n"), text[:min(len(text), 4000)])
	}
}

// pause is between two runs of programs, for the sake of others on the machine.
const pause = time.Second

// work runs one program, each in turn.
func (s *scene) work() {
	s.t.Helper()
	s.programs++
	box := mailboxes[s.programs%len(mailboxes)]
	switch s.programs % 8 {
	case 0:
		s.notmuch()
	case 1:
		s.NeomuttCopies(s.mount.Maildir, box)
	case 2, 5:
		s.dovecot(s.nearServer, "fetch", "uid flags size.virtual", "mailbox", box, "all")
	case 3, 6:
		s.dovecot(s.farView, "fetch", "uid flags size.virtual", "mailbox", box, "all")
	case 4:
		s.dovecot(s.farView, "flags", "add", `\Answered`, "mailbox", box, "1")
	case 7:
		s.dovecot(s.nearServer, "flags", "add", `$Forwarded`, "mailbox", box, "1")
	}
	s.measureLag()
}

// dovecot runs doveadm, which may complain of files that dsyncfs has just renamed or removed, as it does of any program's.
func (s *scene) dovecot(d *harness.Dovecot, args ...string) {
	s.t.Helper()
	if _, err := d.TryDoveadm(args...); err != nil {
		s.t.Logf("%v", err)
	}
}

// notmuch indexes what is new. On a busy machine it may take longer than its turn, and it does not end well if a file went
// away between its listing and its look (notmuch-new(1): EX_TEMPFAIL); the next run goes on.
func (s *scene) notmuch() {
	s.t.Helper()
	if s.indexer == nil {
		s.NotmuchSetup(s.mount.Maildir)
	} else {
		select {
		case <-s.indexer.Done():
		default:
			return
		}
	}
	s.indexer = s.StartProgram("notmuch", "new", "--quiet")
}

// measureLag delivers a mail on one side and waits for it on the other.
func (s *scene) measureLag() {
	s.t.Helper()
	from, to := s.mount.Maildir, s.far
	if s.programs%2 == 0 {
		from, to = s.far, s.mount.Maildir
	}
	base := fmt.Sprintf("%d.M1P1.lag", s.programs)
	if err := deliver(from, "Work", base, harness.Note(base)); err != nil {
		s.t.Fatal(err)
	}
	took := s.Eventually("a mail arrives", time.Minute, func() error {
		found, err := filepath.Glob(filepath.Join(to.Dir("Work"), "[cn][ue][rw]", base+"*"))
		if err == nil && len(found) == 0 {
			err = os.ErrNotExist
		}
		return err
	})
	s.lag = append(s.lag, took)
	found, err := filepath.Glob(filepath.Join(from.Dir("Work"), "[cn][ue][rw]", base+"*"))
	for _, path := range found {
		if rerr := os.Remove(path); rerr != nil && !strings.Contains(rerr.Error(), "no such file") {
			err = rerr
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
