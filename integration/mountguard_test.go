package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

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

// What vanishes bit by bit adds up, on either side and whatever is started anew: the server at the remote remembered it by itself,
// and who was stopped got through with a new one a moment later.
func TestSmallLossesAmountToALargeOne(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"at the remote", "behind the mount"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			m := prepareMount(t)
			m.a.Create(t, "INBOX", "Big")
			deliverMany(t, m.a, "Big", "big", 200)
			m.start()
			m.synced()
			from, to := m.b, m.a
			if where == "behind the mount" {
				from, to = m.a, m.b
			}
			left := func(n int) {
				t.Helper()
				if got := len(to.Read(t).Mailboxes["Big"].Messages); got != n {
					t.Errorf("%d mails are left at the other side, want %d", got, n)
				}
			}
			vanish(t, from, "Big", 40)
			m.synced()
			left(160)
			m.mount.Umount()
			m.mount.Again()
			vanish(t, from, "Big", 40)
			for range 3 {
				m.Run("sync", m.mount.Path).Want(3).ClearError().Says("80 of 200", "--allow-mass-expunge=Big")
				left(160)
			}
			m.Run("--allow-mass-expunge=Big", "sync", m.mount.Path).Want(0)
			left(120)
			vanish(t, from, "Big", 40) // what was confirmed counts no more
			m.synced()
			left(80)
		})
	}
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
