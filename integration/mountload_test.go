package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

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
		var killed atomic.Bool
		stopped := make(chan int)
		first := next
		go func() { // delivers until the daemon is killed
			i := first
			for ; i < len(mails) && !killed.Load(); i++ {
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
		killed.Store(true)
		m.mount.Kill()
		m.mount.Again() // over the dead mount; a call that was under way may wait for this
		last := <-stopped
		next = last + 1
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
