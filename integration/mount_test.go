package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// mounted is a Maildir a that is shown at a mount point and mirrored with b over ssh, through a link that can be cut.
type mounted struct {
	*pair
	remote *harness.Remote
	link   *harness.Link
	mount  *harness.Mount
}

// prepareMount makes all of it but the mount.
func prepareMount(t *testing.T) *mounted {
	p := newPair(t)
	m := &mounted{pair: p, remote: p.NewRemote()}
	m.link = m.remote.NewLink()
	p.b = m.remote.Maildir
	p.options = append([]string{"-o", "mail_location=" + p.a.Location()}, m.link.Options(m.remote)...)
	p.other = []string{m.link.URL}
	return m
}

// newMount has mails in a and nothing in b.
func newMount(t *testing.T, mails int, options ...string) *mounted {
	m := prepareMount(t)
	harness.Build(t, m.a, "a", harness.Mails(t, mails))
	m.start(options...)
	return m
}

func (m *mounted) start(options ...string) {
	m.t.Helper()
	m.mount = m.Mount("mnt", append(append([]string{}, m.options...), options...), m.other...)
}

// synced runs a full sync through the daemon and demands that all is equal then.
func (m *mounted) synced() {
	m.t.Helper()
	m.Run("sync", m.mount.Path).Want(0)
	m.verify().Want(0)
	harness.Equal(m.t, m.a, m.b)
}

// soon waits until something that happened on one side is seen on the other.
func (m *mounted) soon(what string, cond func() error) {
	m.t.Helper()
	took := m.Eventually(what, 20*time.Second, cond)
	m.t.Logf("%s: after %s", what, took.Round(time.Millisecond))
	if limit := 2 * time.Second; took > limit {
		m.t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// exists reports whether a mail of that base name is in a mailbox, with these flags if any are named.
func exists(dir harness.Maildir, mailbox, base, flags string) error {
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir.Dir(mailbox), sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if name, info, _ := strings.Cut(e.Name(), ":2,"); name == base && (flags == "" || info == flags) {
				return nil
			}
		}
	}
	return fmt.Errorf("no %s in %s", base, dir.Dir(mailbox))
}

func missing(dir harness.Maildir, mailbox, base string) error {
	if exists(dir, mailbox, base, "") == nil {
		return fmt.Errorf("%s is still there", base)
	}
	return nil
}

// The scenario that the issue names: 1,000 deliveries, 1,000 flag changes and 200 unlinks through the mount while 500
// mails are delivered at the remote; then verify says equal and by content nothing is missing and nothing is doubled.
func TestMountUnderLoadFromBothSides(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	mails := harness.Mails(t, 2300)
	harness.Build(t, m.a, "a", mails[:600])
	harness.Build(t, m.b, "b", mails[:800][300:])
	m.start()
	m.synced()
	before := m.a.Read(t)
	want := before.Copies()
	inbox, work, lists := before.Mailboxes["INBOX"].Messages, before.Mailboxes["Work"].Messages, []harness.Message(nil)
	for _, name := range []string{"spam", "R&D", "Lists/golang-nuts"} {
		for _, msg := range before.Mailboxes[name].Messages {
			lists = append(lists, msg)
			delete(want[name], msg.Hash)
		}
	}
	if len(lists) < 200 {
		t.Fatalf("%d mails to be unlinked", len(lists))
	}
	for _, msg := range lists[200:] { // these stay
		want.Add(mailboxOf(msg), msg.Hash)
	}
	var wg sync.WaitGroup
	var errs errorList
	wg.Go(func() { errs.add(deliverAll(m.mount.Maildir, "mount", mails[800:1800])) })
	wg.Go(func() { errs.add(deliverAll(m.b, "mx", mails[1800:2300])) })
	wg.Go(func() { errs.add(flagMany(m.mount.Maildir, append(inbox, work...), 1000)) })
	wg.Go(func() {
		for _, msg := range lists[:200] {
			errs.add(os.Remove(filepath.Join(m.mount.Path, msg.Path)))
		}
	})
	wg.Wait()
	errs.report(t)
	for i, mail := range mails[800:2300] { // a thousand on one side, the rest on the other
		want.Add(harness.Mailboxes[i%len(harness.Mailboxes)], harness.HashOf(mail.Text))
	}
	m.synced()
	m.hold(want)
	m.mount.Holds(t, want)
	for _, msg := range append(inbox, work...) {
		if got := find(m.b.Read(t), mailboxOf(msg), msg.Hash); !strings.Contains(got.Flags, "F") {
			t.Fatalf("%s: flags %q at the remote, F was set last", msg.Path, got.Flags)
		}
	}
	m.mount.Umount()
	m.equal()
}

// mailboxOf is the mailbox of a message of a Maildir++ that [harness.Build] made.
func mailboxOf(msg harness.Message) string {
	for _, name := range harness.Mailboxes {
		if dir := filepath.Dir(filepath.Dir(msg.Path)); name != "INBOX" && dir == filepath.Base((harness.Maildir{Path: "/"}).Dir(name)) {
			return name
		}
	}
	return "INBOX"
}

// deliverAll delivers as a delivery agent does, to all mailboxes in turn.
func deliverAll(to harness.Maildir, host string, mails []harness.Mail) error {
	for i, mail := range mails {
		if _, err := to.TryDeliver(harness.Mailboxes[i%len(harness.Mailboxes)], harness.UniqueName(host, i, mail), "", mail); err != nil {
			return err
		}
	}
	return nil
}

// flagMany toggles flags, n times in all, and leaves each mail flagged.
func flagMany(in harness.Maildir, msgs []harness.Message, n int) error {
	paths := make([]string, len(msgs))
	for i, msg := range msgs {
		paths[i] = filepath.Join(in.Path, msg.Path)
	}
	for i := range n {
		flags := []string{"FS", "S", "FRS"}[i/len(msgs)%3]
		if i >= n-len(msgs) {
			flags = "FS"
		}
		at := i % len(paths)
		base, _, _ := strings.Cut(filepath.Base(paths[at]), ":2,")
		to := filepath.Join(filepath.Dir(filepath.Dir(paths[at])), "cur", base+":2,"+flags)
		if err := os.Rename(paths[at], to); err != nil {
			return err
		}
		paths[at] = to
	}
	return nil
}

// errorList collects errors of goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *errorList) report(t *testing.T) {
	t.Helper()
	if err := errors.Join(l.errs...); err != nil {
		t.Fatalf("%d errors, the first: %v", len(l.errs), l.errs[0])
	}
}

// Changes pass in both directions within two seconds, and watchers on the mount see those of the remote.
func TestChangesPassThroughTheMountAtOnce(t *testing.T) {
	m := newMount(t, 60)
	m.synced()
	watch := m.StartProgram("inotifywait", "-m", "-r", "--format", "%e %w%f", m.mount.Path)
	m.Eventually("inotifywait watches", 20*time.Second, func() error {
		if !strings.Contains(watch.Output(), "Watches established") {
			return fmt.Errorf("%s", watch.Output())
		}
		return nil
	})
	seen := func(event, file string) func() error {
		return func() error {
			for line := range strings.Lines(watch.Output()) {
				if strings.HasPrefix(line, event) && strings.Contains(line, file) {
					return nil
				}
			}
			return fmt.Errorf("no %s of %s", event, file)
		}
	}
	note := harness.Note("from the remote")
	m.b.Deliver(t, "Work", "1.M1.remote", "", note)
	m.soon("a mail delivered at the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "1.M1.remote", "") })
	m.soon("a watcher sees the mail of the remote", seen("MOVED_TO", "1.M1.remote"))
	text, err := os.ReadFile(filepath.Join(m.mount.Dir("Work"), "new", "1.M1.remote"))
	must(t, err)
	if !bytes.Equal(text, note.Text) {
		t.Error("it has other bytes")
	}
	old := filepath.Join(m.b.Dir("Work"), "new", "1.M1.remote")
	must(t, os.Rename(old, filepath.Join(m.b.Dir("Work"), "cur", "1.M1.remote:2,FS")))
	m.soon("a flag set at the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "1.M1.remote", "FS") })
	must(t, os.Remove(filepath.Join(m.b.Dir("Work"), "cur", "1.M1.remote:2,FS")))
	m.soon("a mail expunged at the remote is gone from the mount", func() error { return missing(m.mount.Maildir, "Work", "1.M1.remote") })
	m.soon("a watcher sees the expunge", seen("DELETE", "1.M1.remote"))
	m.b.Create(t, "Fresh/there")
	m.b.Deliver(t, "Fresh/there", "3.M3.remote", "", note)
	m.soon("a mailbox created at the remote is in the mount, with its mail", func() error {
		return exists(m.mount.Maildir, "Fresh/there", "3.M3.remote", "")
	})

	m.mount.Deliver(t, "INBOX", "2.M2.mount", "", note)
	m.soon("a mail delivered in the mount is at the remote", func() error { return exists(m.b, "INBOX", "2.M2.mount", "") })
	must(t, os.Rename(filepath.Join(m.mount.Path, "new", "2.M2.mount"), filepath.Join(m.mount.Path, "cur", "2.M2.mount:2,RS")))
	m.soon("a flag set in the mount is at the remote", func() error { return exists(m.b, "INBOX", "2.M2.mount", "RS") })
	must(t, os.Rename(filepath.Join(m.mount.Path, "cur", "2.M2.mount:2,RS"), filepath.Join(m.mount.Dir("Work"), "cur", "2.M2.mount:2,RS")))
	m.soon("a mail moved in the mount is moved at the remote", func() error {
		return errors.Join(exists(m.b, "Work", "2.M2.mount", "RS"), missing(m.b, "INBOX", "2.M2.mount"))
	})
	must(t, os.Remove(filepath.Join(m.mount.Dir("Work"), "cur", "2.M2.mount:2,RS")))
	m.soon("a mail unlinked in the mount is gone at the remote", func() error { return missing(m.b, "Work", "2.M2.mount") })
	m.mount.Create(t, "Fresh/here")
	m.mount.Deliver(t, "Fresh/here", "4.M4.mount", "", note)
	m.soon("a mailbox created in the mount is at the remote, with its mail", func() error { return exists(m.b, "Fresh/here", "4.M4.mount", "") })
	m.synced()
}

// Promise 6: the daemon is killed while programs write. What returned success is there after the next start, on both
// sides; nothing is doubled.
func TestDaemonKilledUnderLoad(t *testing.T) {
	t.Parallel()
	m := newMount(t, 100)
	m.synced()
	want := m.a.Read(t).Copies()
	mails := harness.Mails(t, 3000)[1000:]
	next := 0
	for round := range rounds(t, 3) {
		var acknowledged []int
		var delivered atomic.Int64
		stopped := make(chan int)
		first := next
		go func() { // delivers until the mount is dead
			i := first
			for ; i < len(mails); i++ {
				if _, err := m.mount.TryDeliver(harness.Mailboxes[i%10], harness.UniqueName("load", i, mails[i]), "", mails[i]); err != nil {
					break
				}
				acknowledged = append(acknowledged, i)
				delivered.Add(1)
			}
			stopped <- i
		}()
		m.Eventually("some mails are delivered", 60*time.Second, func() error {
			if n := delivered.Load(); n < int64(20+30*round) {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		m.mount.Kill()
		last := <-stopped
		next = last + 1
		m.mount.Again() // over the dead mount
		m.synced()
		for _, i := range acknowledged {
			want.Add(harness.Mailboxes[i%10], harness.HashOf(mails[i].Text))
		}
		// The delivery that was cut off may have happened.
		if last < len(mails) {
			box, h := harness.Mailboxes[last%10], harness.HashOf(mails[last].Text)
			if m.a.Read(t).Copies()[box][h] == 1 {
				want.Add(box, h)
			}
		}
		m.hold(want)
		m.mount.Holds(t, want)
	}
}

// status is what the tests use of status --json.
func (m *mounted) status() string {
	m.t.Helper()
	r := m.Run("status", m.mount.Path, "--json") // its exit status tells of what stopped the mirror
	if !json.Valid([]byte(r.Stdout)) {
		m.t.Fatalf("status --json is no JSON: %s", r.Stdout)
	}
	return r.Stdout
}

// Without the remote the mount works in full and queues; everything arrives when the remote is back, also what was
// changed in between at the other end and over a restart of the daemon.
func TestOfflineQueuesAndCatchesUp(t *testing.T) {
	t.Parallel()
	m := newMount(t, 100)
	m.synced()
	before := m.a.Read(t)
	want := before.Copies()
	m.link.Cut()
	for h := range deliverMany(t, m.mount.Maildir, "Work", "offline", 30)["Work"] {
		want.Add("Work", h)
	}
	for _, msg := range before.Mailboxes["spam"].Messages[:5] {
		must(t, os.Remove(filepath.Join(m.mount.Path, msg.Path)))
		delete(want["spam"], msg.Hash)
	}
	must(t, flagMany(m.mount.Maildir, before.Mailboxes["INBOX"].Messages, 10))
	for h := range deliverMany(t, m.b, "Entwürfe", "meanwhile", 20)["Entwürfe"] {
		want.Add("Entwürfe", h)
	}
	m.status()
	m.Run("sync", m.mount.Path).Want(75).ClearError()
	m.mount.Umount()
	m.mount.Again() // the remote is away: no reason not to mount
	for h := range deliverMany(t, m.mount.Maildir, "R&D", "still-offline", 10)["R&D"] {
		want.Add("R&D", h)
	}
	m.link.Join()
	// It reconnects by itself.
	m.Eventually("the queue arrives", 60*time.Second, func() error {
		if n := m.b.Read(t).Copies().Len(); n != want.Len() {
			return fmt.Errorf("%d mails at the remote, %d are to come", n, want.Len())
		}
		return nil
	})
	m.synced()
	m.hold(want)
}

// The backing directory may be the mount point.
func TestTheBackingDirectoryUnderItsOwnMount(t *testing.T) {
	m := prepareMount(t)
	m.a.Path = m.Path("mnt")
	m.options = append([]string{"-o", "mail_location=" + m.a.Location()}, m.link.Options(m.remote)...)
	harness.Build(t, m.a, "a", harness.Mails(t, 60))
	want := m.a.Read(t).Copies()
	m.start()
	want.Add("INBOX", harness.HashOf(harness.Note("through").Text))
	m.mount.Deliver(t, "INBOX", "1.M1.mount", "", harness.Note("through"))
	want.Add("Work", harness.HashOf(harness.Note("remote").Text))
	m.Run("sync", m.mount.Path).Want(0)
	m.b.Deliver(t, "Work", "2.M2.remote", "", harness.Note("remote"))
	m.soon("a mail of the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "2.M2.remote", "") })
	m.Run("sync", m.mount.Path).Want(0)
	m.mount.Holds(t, want)
	m.mount.Umount()
	m.a.Holds(t, want)
	m.equal()
}

// Each way to unmount ends the daemon in time, with everything saved and sent.
func TestWaysToUnmount(t *testing.T) {
	t.Parallel()
	m := newMount(t, 40)
	m.synced()
	ways := []struct {
		name string
		do   func(pid int)
	}{
		{"umount", func(int) { m.Run("umount", m.mount.Path).Want(0) }},
		{"fusermount3 -u", func(int) { m.Must("fusermount3", "-u", m.mount.Path) }},
		{"SIGTERM", func(pid int) { must(t, syscall.Kill(pid, syscall.SIGTERM)) }},
	}
	for i, way := range ways {
		note := harness.Note("just before " + way.name)
		base := fmt.Sprintf("%d.M7.mount", i+1)
		m.mount.Deliver(t, "INBOX", base, "", note)
		pid := m.mount.PID()
		way.do(pid)
		m.mount.Unmounted(pid)
		if err := exists(m.b, "INBOX", base, ""); err != nil {
			t.Errorf("%s: what was delivered just before is not at the remote: %v", way.name, err)
		}
		info, err := os.Stat(m.mount.Path)
		must(t, err)
		if info.Mode().Perm() != 0o500 {
			t.Errorf("%s: the bare mount point has mode %v, want 0500", way.name, info.Mode())
		}
		m.mount.Again()
		m.synced()
	}
}

// Real mail programs read the mount, all mailboxes of it, and what they change arrives.
func TestMailProgramsOnTheMount(t *testing.T) {
	m := newMount(t, 200)
	m.synced()
	for _, name := range []string{"INBOX", "Work/2026", "日本語/メール", "R&D"} {
		if n := m.NeomuttCopies(m.mount.Maildir, name); n != 20 {
			t.Errorf("neomutt sees %d mails in %s, want 20", n, name)
		}
	}
	if n := m.NotmuchCount(m.mount.Maildir, "*"); n != 200 {
		t.Errorf("notmuch sees %d mails, want 200", n)
	}
	if n := m.MuCount(m.mount.Maildir, ""); n != 200 {
		t.Errorf("mu sees %d mails, want 200", n)
	}
	// notmuch writes tags into file names.
	unread := m.NotmuchCount(m.mount.Maildir, "tag:unread")
	m.Must("notmuch", "tag", "+flagged", "-unread", "--", "tag:unread")
	if unread == 0 {
		t.Fatal("no unread mail")
	}
	m.b.Deliver(t, "INBOX", "1.M1.remote", "", harness.Note("needle in a haystack"))
	m.soon("a mail of the remote is in the mount", func() error { return exists(m.mount.Maildir, "INBOX", "1.M1.remote", "") })
	if n := m.NotmuchCount(m.mount.Maildir, "subject:needle"); n != 1 {
		t.Errorf("notmuch finds the new mail %d times", n)
	}
	if n := m.MuCount(m.mount.Maildir, "subject:needle"); n != 1 {
		t.Errorf("mu finds the new mail %d times", n)
	}
	m.synced()
	flagged := 0
	for _, box := range m.b.Read(t).Mailboxes {
		for _, msg := range box.Messages {
			if strings.Contains(msg.Flags, "F") {
				flagged++
			}
		}
	}
	if flagged < unread {
		t.Errorf("%d mails are flagged at the remote, notmuch flagged %d", flagged, unread)
	}
	err := filepath.WalkDir(m.b.Path, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, "notmuch") {
			t.Errorf("notmuch's database is at the remote: %s", path)
		}
		return err
	})
	must(t, err)
}

// Mount points that cannot be used: an error that says why, and no change.
func TestBadMountPoints(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	harness.Build(t, m.a, "a", harness.Mails(t, 20))
	try := func(what, point string, says ...string) {
		t.Helper()
		r := m.Run(append(append(append([]string{}, m.options...), "mount", point), m.other...)...)
		if r.Status != 1 {
			t.Errorf("%s: exit status %d, want 1: %s", what, r.Status, r.Stderr)
			m.Run("umount", point)
			return
		}
		r.ClearError().Says(says...)
	}
	try("missing", m.Path("nowhere"), "nowhere")
	must(t, os.WriteFile(m.Path("file"), nil, 0o600))
	try("a file", m.Path("file"), "file")
	must(t, os.Mkdir(m.Path("full"), 0o700))
	must(t, os.WriteFile(m.Path("full", "letter"), []byte("x"), 0o600))
	before := harness.Snap(t, m.Path("full"))
	try("not empty", m.Path("full"), "full", "not empty")
	before.Same(t, m.Path("full"))
	m.Run("umount", m.Path("full")).Want(1).ClearError().Says("full")

	m.start()
	try("a mount point in use", m.mount.Path, m.mount.Path)
	must(t, os.Mkdir(m.Path("second"), 0o700))
	try("a Maildir in use by another mount", m.Path("second"), fmt.Sprint(m.mount.PID()))
	if err := exists(m.mount.Maildir, "INBOX", "none", ""); err == nil || !strings.Contains(err.Error(), "no none") {
		t.Errorf("the first mount does not work any more: %v", err)
	}
}

// What SIGKILL leaves behind is a dead mount; the next start takes its place, also while programs still sit in it.
func TestADeadMountIsReplaced(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	m.mount.Kill()
	m.Run("status", m.mount.Path) // whatever it says, it must not hang
	m.mount.Again()
	m.synced()
	f, err := os.Open(filepath.Join(m.mount.Path, "cur"))
	must(t, err)
	defer f.Close()
	m.mount.Kill()
	m.mount.Again()
	m.synced()
	// umount removes a dead mount too, or says how.
	m.mount.Kill()
	if r := m.Run("umount", m.mount.Path); r.Status != 0 {
		r.ClearError().Says("fusermount3 -uz " + m.mount.Path)
		m.Must("fusermount3", "-uz", m.mount.Path)
	}
	m.mount.Again()
}

// rm of half a mailbox behind the mount stops the mirror, which says what to do; unlinks through the mount do not.
func TestDeletionsBehindTheMount(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	harness.Build(t, m.a, "a", harness.Mails(t, 40))
	m.a.Create(t, "Big")
	deliverMany(t, m.a, "Big", "big", 200)
	m.start()
	m.synced()
	want := m.b.Read(t).Copies()
	vanish(t, m.a, "Big", 100)
	m.Run("sync", m.mount.Path).Want(3).ClearError().Says("Big", "--allow-mass-expunge=Big", "--restore=Big")
	m.b.Holds(t, want)
	if !strings.Contains(m.status(), "Big") {
		t.Errorf("status does not tell: %s", m.status())
	}
	m.Run("--restore=Big", "sync", m.mount.Path).Want(0)
	m.hold(want)
	// Through the mount the same is an expunge.
	for _, msg := range m.mount.Read(t).Mailboxes["Big"].Messages[:150] {
		must(t, os.Remove(filepath.Join(m.mount.Path, msg.Path)))
	}
	m.synced()
	if n := len(m.b.Read(t).Mailboxes["Big"].Messages); n != 50 {
		t.Errorf("%d mails are left at the remote, want 50", n)
	}
}

// What vanishes at the remote bit by bit adds up, also from one connection to the next: the server there remembered it, and who
// was stopped got through with a new one a moment later.
func TestSmallLossesAtTheRemoteAmountToALargeOne(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	m.a.Create(t, "INBOX", "Big")
	deliverMany(t, m.a, "Big", "big", 200)
	m.start()
	m.synced()
	here := func(n int) {
		t.Helper()
		if got := len(m.a.Read(t).Mailboxes["Big"].Messages); got != n {
			t.Errorf("%d mails are left here, want %d", got, n)
		}
	}
	vanish(t, m.b, "Big", 40)
	m.synced()
	here(160)
	vanish(t, m.b, "Big", 40)
	for range 3 {
		m.Run("sync", m.mount.Path).Want(3).ClearError().Says("80 of 200", "--allow-mass-expunge=Big")
		here(160)
	}
	m.Run("--allow-mass-expunge=Big", "sync", m.mount.Path).Want(0)
	here(120)
	vanish(t, m.b, "Big", 40) // what was confirmed counts no more
	m.synced()
	here(80)
}

// Who asks for a sync gets one that is complete, also if a mail vanished at the remote a moment before. It ended with 0 while
// the remote still waited whether more would vanish.
func TestSyncDecidesWhatJustVanishedAtTheRemote(t *testing.T) {
	t.Parallel()
	m := newMount(t, 40)
	m.synced()
	for _, msg := range m.b.Read(t).Mailboxes["INBOX"].Messages[:2] {
		must(t, os.Remove(filepath.Join(m.b.Path, msg.Path)))
		m.synced()
	}
	if n := len(m.a.Read(t).Mailboxes["INBOX"].Messages); n != 2 {
		t.Errorf("%d mails are left here, want 2", n)
	}
}

// status and log say what happened, for people and for programs.
func TestStatusAndLogOfAMount(t *testing.T) {
	m := newMount(t, 20)
	m.synced()
	m.mount.Deliver(t, "Work", "1.M1.mount", "", harness.Note("logged"))
	m.soon("it is at the remote", func() error { return exists(m.b, "Work", "1.M1.mount", "") })
	for _, args := range [][]string{{"status"}, {"status", m.mount.Path}} {
		if r := m.Run(args...).Want(0); !strings.Contains(r.Stdout, m.mount.Path) {
			t.Errorf("%s does not name the mount: %q", strings.Join(args, " "), r.Stdout)
		}
	}
	m.status()
	m.Eventually("the log says that it was sent", 10*time.Second, func() error {
		r := m.Run("log", m.mount.Path).Want(0)
		for line := range strings.Lines(r.Stdout) {
			if strings.Contains(line, "1.M1.mount") && strings.Contains(line, "Work") && strings.Contains(line, "sent") {
				return nil
			}
		}
		return fmt.Errorf("%q", r.Stdout)
	})
	m.mount.Umount()
	if r := m.Run("status", m.mount.Path); r.Status == 0 && strings.Contains(r.Stdout, "running") {
		t.Errorf("status of what is not mounted: %q", r.Stdout)
	}
}

// Attributes of the mails in the mount tell what names cannot.
func TestAttributesOfMails(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	msg := m.a.Read(t).Mailboxes["INBOX"].Messages[0]
	path := filepath.Join(m.mount.Path, msg.Path)
	get := func(name string) string {
		t.Helper()
		buf := make([]byte, 512)
		n, err := syscall.Getxattr(path, name, buf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return string(buf[:n])
	}
	for name, want := range map[string]string{"user.dsyncfs.guid": msg.GUID, "user.dsyncfs.uid": fmt.Sprint(msg.UID), "user.dsyncfs.mirrored": "1"} {
		if got := get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	must(t, syscall.Setxattr(path, "user.keywords", []byte("todo $Forwarded"), 0))
	m.synced()
	if got := find(m.b.Read(t), "INBOX", msg.Hash).Keywords; strings.Join(got, " ") != "$Forwarded todo" {
		t.Errorf("keywords %q at the remote", got)
	}
}

// With commit=remote a delivery returns when the remote has the mail, and fails when it cannot get it.
func TestCommitRemote(t *testing.T) {
	m := newMount(t, 20, "-o", "commit=remote,commit_timeout=3s")
	m.synced()
	for i := range 10 {
		base := fmt.Sprintf("%d.M1.mount", i)
		m.mount.Deliver(t, "Work", base, "", harness.Note(base))
		if err := exists(m.b, "Work", base, ""); err != nil {
			t.Fatalf("the delivery returned, but: %v", err)
		}
	}
	m.link.Cut()
	start := time.Now()
	_, err := m.mount.TryDeliver("Work", "99.M1.mount", "", harness.Note("lost?"))
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("a delivery without the remote: %v, want an I/O error", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %s to fail, 3s were asked for", took)
	}
	m.link.Join()
	m.Eventually("the remote is back", 60*time.Second, func() error {
		if r := m.Run("sync", m.mount.Path); r.Status != 0 {
			return errors.New(r.Stderr)
		}
		return nil
	})
	m.synced()
}

// A program that still knows an old name of a mail reaches it all the same, and the flag changes of two programs merge.
func TestAStaleNameStillWorks(t *testing.T) {
	t.Parallel()
	m := newMount(t, 20)
	m.synced()
	msg := m.a.Read(t).Mailboxes["INBOX"].Messages[0]
	base, _, _ := strings.Cut(filepath.Base(msg.Path), ":2,")
	at := func(flags string) string { return filepath.Join(m.mount.Path, "cur", base+":2,"+flags) }
	old := filepath.Join(m.mount.Path, msg.Path)
	m.Must("mv", old, at("F"+msg.Flags)) // who renames a mail himself has to know it
	text, err := os.ReadFile(old)
	must(t, err)
	if harness.HashOf(text) != msg.Hash {
		t.Error("the old name shows another mail")
	}
	must(t, os.Rename(old, at("R"+msg.Flags)))
	m.synced()
	if got, want := find(m.b.Read(t), "INBOX", msg.Hash).Flags, merged(msg.Flags, "F"+msg.Flags, "R"+msg.Flags); got != want {
		t.Errorf("flags %q after two programs set F and R on %q, want %q", got, msg.Flags, want)
	}
}

// A mount that only reads refuses changes and still shows those of the remote.
func TestReadOnlyMount(t *testing.T) {
	m := newMount(t, 20, "-o", "ro")
	if _, err := m.mount.TryDeliver("INBOX", "1.M1.mount", "", harness.Note("no")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a delivery: %v, want EROFS", err)
	}
	m.Run("sync", m.mount.Path).Want(0)
	m.b.Deliver(t, "Work", "2.M2.remote", "", harness.Note("yes"))
	m.soon("a mail of the remote is in the mount", func() error { return exists(m.mount.Maildir, "Work", "2.M2.remote", "") })
}
