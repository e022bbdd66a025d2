package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// Installed under the name dsync it takes the command lines of dsync(1) as they are.
func TestTheSynopsisOfDsync(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 40))
	dsync := p.Path("dsync")
	must(t, os.Symlink(harness.Binary(t), dsync))
	run := func(want int, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := p.Command(ctx, dsync, args...)
		out, err := cmd.CombinedOutput()
		if _, exited := err.(*exec.ExitError); err != nil && !exited || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("dsync %s: %v, want exit status %d\n%s", strings.Join(args, " "), err, want, out)
		}
		return string(out)
	}
	location := "mail_location=" + p.a.Location()
	run(0, "-o", location, "-v", "mirror", p.b.Location())
	p.equal()
	run(0, "-o"+location, "-f", "mirror", p.b.Location())
	run(0, "-Dv", "-o", location, "backup", p.b.Location())
	run(0, "-o", location, "-R", "backup", p.b.Location())
	run(0, "-o", location, "-C", "_", "-m", "Work", "mirror", p.b.Location())
	run(0, "-o", location, "mirror", dsync, "-o", "mail_location="+p.b.Location(), "-o", "state_dir="+p.Path("other"), "dsync-server")
	settings := p.Path("settings.toml")
	must(t, os.WriteFile(settings, []byte("mail_location = \""+p.a.Location()+"\"\n"), 0o600))
	run(0, "-c", settings, "mirror", p.b.Location())
	p.equal()
	if help := run(0, "--help"); !strings.Contains(help, "dsync [options]") {
		t.Errorf("help does not name the program dsync:\n%s", help)
	}
	run(64, "-o", location, "frobnicate", p.b.Location())
	run(64)
}

// -m syncs one mailbox and leaves the others alone.
func TestOneMailboxOnly(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	p.mirror("-m", "Work/2026").Want(0)
	got := p.b.Read(t)
	for name, box := range got.Mailboxes {
		if (len(box.Messages) > 0) != (name == "Work/2026") {
			t.Errorf("mailbox %s has %d mails", name, len(box.Messages))
		}
	}
	if n := len(got.Mailboxes["Work/2026"].Messages); n != 10 {
		t.Errorf("%d mails in the mailbox that was asked for, want 10", n)
	}
	p.settled()
}

// A settings file in its usual place, with comments; the command line wins over it.
func TestTheSettingsFileInItsPlace(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 20))
	dir := p.Path("config", "dsyncfs")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "dsyncfs.toml"), []byte("# mine\nmail_location = \""+p.a.Location()+"\"\nmax_missing = \"30%\"\n"), 0o600))
	p.options = nil
	p.mirror().Want(0)
	p.equal()
	other := p.Maildir("other")
	p.options = []string{"-o", "mail_location=" + other.Location()}
	p.mirror().Want(1).ClearError() // it does not exist
}

// The state is private, and nothing but it and the locations is written.
func TestNothingIsWrittenElsewhere(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 20))
	before := harness.Snap(t, p.Home, p.Path("config"), p.Path("run"))
	p.settled()
	before.Same(t, p.Home, p.Path("config"), p.Path("run"))
	info, err := os.Stat(p.StateDir())
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory has mode %v, want 0700", info.Mode())
	}
	err = filepath.Walk(p.StateDir(), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
		return err
	})
	must(t, err)
}
