package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dsyncfs/integration/harness"
)

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
