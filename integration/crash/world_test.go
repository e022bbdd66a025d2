// Package crash breaks a mirror in every way that a machine or a network can, while mail programs are at work on both sides,
// and demands after each recovery that nothing is lost, nothing is doubled and nobody has to repair anything.
//
// Everything is real: the daemon with its mount, an sshd, a dsync server behind it, signals, full disks and cut connections.
// Both ends keep mail and state on a [harness.Disk], which can kill in the middle of a chosen change of a file.
package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.MainWithClocks(m)) }

// side is one end of the mirror.
type side struct {
	name     string
	letter   string          // the flag that its mail program sets
	programs harness.Maildir // where programs work
	store    harness.Maildir // where the mail is
	medium   string          // the directory with store and state
	disk     *harness.Disk   // which is one of these two
	block    *harness.Block
	clock    *harness.Clock // of dsyncfs there
}

// world is a mounted Maildir, near, that is mirrored with one behind ssh, far.
type world struct {
	*harness.Env
	t         testing.TB
	near, far *side
	remote    *harness.Remote
	link      *harness.Link
	mount     *harness.Mount
	ledger    *ledger
	synced    bool // programs sync what they deliver, and what they do not sync may get lost

	randMu sync.Mutex
	rand   *rand.Rand
}

// diskSize has room for the mail and the state of one end, several times over, in bytes.
const diskSize = 64 << 20

// newWorld makes one on disks that can kill and fill up.
func newWorld(t testing.TB, seed uint64) *world {
	w := &world{Env: harness.New(t), t: t, ledger: newLedger(), rand: rand.New(rand.NewPCG(seed, 0))}
	near, far := w.NewDisk("near", diskSize), w.NewDisk("remote", diskSize)
	w.near = &side{name: "near", letter: "F", medium: near.Path, disk: near}
	w.far = &side{name: "far", letter: "R", medium: far.Path, disk: far}
	w.start()
	return w
}

// anchor puts a mail into each mailbox that nobody moves or expunges. The guard would rightly stop where somebody removes all
// mails of a mailbox while no server is there to see it.
func (w *world) anchor() {
	r := w.newRand()
	for _, box := range mailboxes {
		id, base, m := w.ledger.newMail("nobody", box, r)
		w.near.store.Deliver(w.t, box, base, "", m)
		w.ledger.note(id, func(f *fate) { f.delivered = yes })
	}
}

// start mounts.
func (w *world) start() {
	e, t := w.Env, w.t
	w.near.clock, w.far.clock = harness.NewClock(t, e.Path("near-clock")), harness.NewClock(t, e.Path("far-clock"))
	name, value := w.far.clock.Variable()
	w.remote = e.NewRemoteWith([]string{name + "=" + value})
	w.link = w.remote.NewLink()
	w.far.programs, w.far.store = w.remote.Maildir, w.remote.Maildir
	w.near.store = harness.Maildir{Path: filepath.Join(w.near.medium, "Maildir")}
	// Both unlink without a witness on and on; the guard has tests of its own.
	writeFile(t, filepath.Join(w.remote.Home, "config", "dsyncfs", "dsyncfs.toml"), "max_missing = \"100%,1000000\"\n")
	w.near.store.Create(t, mailboxes...)
	w.anchor()
	options := append([]string{
		"-o", "mail_location=" + w.near.store.Location(), "-o", "max_missing=100%,1000000", "-v",
	}, w.link.Options(w.remote)...)
	w.Setenv(w.near.clock.Variable())
	w.Setenv("XDG_STATE_HOME", filepath.Join(w.near.medium, "state"))
	w.mount = e.Mount("mnt", options, w.link.URL)
	w.near.programs = w.mount.Maildir
	e.Eventually("the mailboxes are on both sides", 30*time.Second, func() error {
		for _, box := range mailboxes {
			if _, err := os.Stat(filepath.Join(w.far.store.Dir(box), "cur")); err != nil {
				return err
			}
		}
		return nil
	})
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newRand returns a source of choices of its own.
func (w *world) newRand() *rand.Rand {
	w.randMu.Lock()
	defer w.randMu.Unlock()
	return rand.New(rand.NewPCG(w.rand.Uint64(), 0))
}

// between returns a number in [lo, hi).
func (w *world) between(lo, hi int) int {
	w.randMu.Lock()
	defer w.randMu.Unlock()
	return lo + w.rand.IntN(hi-lo)
}

// recovery is how long a mirror may take until a sync succeeds again.
const recovery = 60 * time.Second

// undecided is longer than a mirror waits whether more of what vanished behind it follows.
const undecided = time.Second

// settle has the daemon sync and demands all that holds then. Nobody changes anything meanwhile. It returns what was wrong
// with the mail; everything else that is wrong fails the test.
func (w *world) settle() verdict { return w.settleAfter(nil) }

// settleAfter is settle after power cuts at some sides, at the times given.
func (w *world) settleAfter(cuts map[string]time.Time) verdict {
	w.t.Helper()
	w.await(undecided)
	w.sync()
	w.ledger.demote(cuts)
	w.removeAborted()
	near, far := w.near.store.Read(w.t), w.far.store.Read(w.t)
	v := w.ledger.check(near)
	for _, d := range harness.Diff(near, far) {
		v.other = append(v.other, "the sides differ: "+d)
	}
	before := harness.Snap(w.t, w.near.store.Path, w.far.store.Path)
	w.sync()
	for _, d := range before.ChangedMail(w.t, w.near.store.Path, w.far.store.Path) {
		// What a crash left in tmp goes when somebody looks there next; a lock is of a look at what changed a moment ago.
		if !strings.Contains(d, "/tmp/dsyncfs-") && !strings.Contains(d, "/tmp: ") && !strings.Contains(d, ".lock: ") {
			v.other = append(v.other, "one more sync: "+d)
		}
	}
	left := w.remains()
	if len(left) > 0 { // not even now, if it was too early to tell what had become of them
		w.sync()
		left = w.remains()
	}
	if len(left) > 0 {
		v.other = append(v.other, "left behind: "+strings.Join(left, ", "))
	}
	if n := w.status().Queued; n != 0 {
		v.other = append(v.other, fmt.Sprintf("%d changes are still queued", n))
	}
	return v
}

// sync has a full sync made. It may find that the connection is gone, which somebody who waits a moment gets over; whatever
// else goes wrong for good is a repair by hand.
func (w *world) sync() {
	w.t.Helper()
	w.Eventually("a sync succeeds", recovery, func() error {
		switch r := w.Run("sync", w.mount.Path); r.Status {
		case 0:
			return nil
		case 3:
			w.t.Fatalf("the deletion guard stopped the mirror: %s", r.Stderr)
			return nil
		default:
			return fmt.Errorf("exit status %d: %s", r.Status, strings.TrimSpace(r.Stderr))
		}
	})
}

// showLog shows what the daemon said lately.
func (w *world) showLog() {
	text := harness.DaemonLog(w.t, filepath.Join(w.near.medium, "state", "dsyncfs"))
	w.t.Logf("the end of the daemon's log:\n%s", text[max(0, len(text)-6000):])
}

type status struct {
	State    string
	Queued   uint64
	Error    string
	LastFull time.Time `json:"last_full"`
}

func (w *world) status() (s status) {
	w.t.Helper()
	r := w.Run("--json", "status", w.mount.Path).Want(0)
	var all []status
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil || len(all) != 1 {
		w.t.Fatalf("status --json: %v: %s", err, r.Stdout)
	}
	return all[0]
}

// removeAborted removes what the delivery agents, not dsyncfs, left in tmp when they got an error.
func (w *world) removeAborted() {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	for _, f := range w.ledger.mails {
		if f.delivered != maybe {
			continue
		}
		s := w.near
		if f.owner == w.far.name {
			s = w.far
		}
		for _, box := range mailboxes {
			err := os.Remove(filepath.Join(s.programs.Dir(box), "tmp", f.base))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				w.t.Errorf("an aborted delivery: %v", err)
			}
		}
	}
}

// remains names what a broken off sync has left, also once nobody holds a lock for a moment any more.
func (w *world) remains() (left []string) {
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); w.await(50 * time.Millisecond) {
		left = nil
		for _, s := range []*side{w.near, w.far} {
			for _, box := range mailboxes {
				for _, pattern := range []string{"tmp/*", "*.lock", "*.tmp"} {
					found, err := filepath.Glob(filepath.Join(s.store.Dir(box), pattern))
					if err != nil {
						w.t.Fatal(err)
					}
					left = append(left, found...)
				}
			}
		}
		if len(left) == 0 {
			break
		}
	}
	return left
}
