package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// ways are how the second location can be reached.
var ways = []struct {
	name string
	pair func(t *testing.T) *pair
}{
	{"local", newPair},
	{"command line", func(t *testing.T) *pair {
		p := newPair(t)
		p.other = []string{"dsyncfs", "-o", "mail_location=" + p.b.Location(), "-o", "state_dir=" + p.Path("state-b"), "dsync-server"}
		return p
	}},
	{"script", func(t *testing.T) *pair {
		p := newPair(t)
		script := p.Path("server")
		text := "#!/bin/sh\nexec dsyncfs -o mail_location='" + p.b.Location() + "' -o state_dir='" + p.Path("state-b") + "' \"$@\"\n"
		must(t, os.WriteFile(script, []byte(text), 0o700))
		p.other = []string{script} // dsync-server is appended, as Dovecot does
		return p
	}},
	{"ssh", func(t *testing.T) *pair {
		p, _ := newSSHPair(t)
		return p
	}},
	{"ssh by a host of ssh_config", func(t *testing.T) *pair {
		p, r := newSSHPair(t)
		p.options = []string{"-o", "mail_location=" + p.a.Location(), "-o", "ssh_config=" + r.ConfigFile}
		p.other = []string{"sshd"}
		return p
	}},
	{"ssh_command", func(t *testing.T) *pair {
		p, r := newSSHPair(t)
		p.options = []string{"-o", "mail_location=" + p.a.Location(), "-o", "ssh_command=ssh -F " + r.ConfigFile}
		p.other = []string{"ssh://sshd"}
		return p
	}},
	{"ssh with a command", func(t *testing.T) *pair {
		p, r := newSSHPair(t)
		script := filepath.Join(r.Home, "server")
		must(t, os.WriteFile(script, []byte("#!/bin/sh\nexec dsyncfs dsync-server\n"), 0o700))
		p.other = []string{r.URL + script}
		return p
	}},
}

// The whole thread by every way: a first mirror, one with changes on both sides, a verify that sees a difference.
func TestMirrorByEveryWay(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			p := way.pair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, 150))
			harness.Build(t, p.b, "b", harness.Mails(t, 250)[100:])
			want := p.union()
			p.settled()
			p.hold(want)
			for side, m := range map[string]harness.Maildir{"a": p.a, "b": p.b} {
				for h := range deliverMany(t, m, "Work", side, 3)["Work"] {
					want.Add("Work", h)
				}
			}
			if r := p.verify().Want(2); !strings.Contains(r.Stdout, "Work") {
				t.Errorf("verify does not name the mailbox that differs: %q", r.Stdout)
			}
			p.settled()
			p.hold(want)
		})
	}
}

// backup makes the destination equal to the source whatever happened in the destination, and leaves the source alone.
func TestBackupMakesTheDestinationEqual(t *testing.T) {
	t.Parallel()
	for _, reverse := range []bool{false, true} {
		for _, way := range ways {
			name, options := way.name, []string(nil)
			if reverse {
				name, options = name+", reversed", []string{"-R"}
			}
			t.Run(name, func(t *testing.T) {
				p := way.pair(t)
				source, destination := p.a, p.b
				if reverse {
					source, destination = p.b, p.a
				}
				harness.Build(t, source, "a", harness.Mails(t, 150))
				p.backup(options...).Want(0)
				p.equal()
				want := source.Read(t)
				spoil(t, destination)
				before := harness.Snap(t, source.Path)
				p.backup(options...).Want(0)
				before.SameMail(t, source.Path)
				p.equal()
				if diffs := harness.Diff(want, source.Read(t)); len(diffs) > 0 {
					t.Errorf("the source was changed:\n%s", strings.Join(diffs, "\n"))
				}
			})
		}
	}
}

// spoil does to a Maildir what a backup has to undo.
func spoil(t *testing.T, m harness.Maildir) {
	t.Helper()
	work := m.Read(t).Mailboxes["Work"].Messages
	reflag(t, m, work[0], "FT")
	remove(t, m, work[1])
	move(t, m, work[2], "spam")
	inbox := m.Read(t).Mailboxes["INBOX"].Messages
	remove(t, m, inbox[0])
	reflag(t, m, inbox[1], "DFRST")
	deliverMany(t, m, "INBOX", "unwanted", 5)
	m.Create(t, "Unwanted/Mailbox")
	deliverMany(t, m, "Unwanted/Mailbox", "unwanted", 2)
	m.Subscribe(t, "Unwanted/Mailbox")
}

// What was lost at the destination threatens nobody: the guard has nothing to guard there, and the backup puts it back.
func TestBackupPutsBackWhatTheDestinationLost(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(m harness.Maildir){
		"a mailbox":              func(m harness.Maildir) { must(t, os.RemoveAll(m.Dir("R&D"))) },
		"all mails of a mailbox": func(m harness.Maildir) { vanish(t, m, "R&D", 15) },
		"everything but the dirs": func(m harness.Maildir) {
			for name, box := range m.Read(t).Mailboxes {
				vanish(t, m, name, len(box.Messages))
			}
		},
	} {
		for _, options := range [][]string{nil, {"-R"}} {
			t.Run(what+strings.Join(options, ""), func(t *testing.T) {
				p := newPair(t)
				source, destination := p.a, p.b
				if options != nil {
					source, destination = p.b, p.a
				}
				harness.Build(t, source, "a", harness.Mails(t, 150))
				p.backup(options...).Want(0)
				want := source.Read(t).Copies()
				lose(destination)
				p.backup(options...).Want(0)
				p.hold(want)
				p.equal()
			})
		}
	}
}

// What changes in the source reaches the destination: expunges, flags, moves, mailboxes.
func TestBackupFollowsTheSource(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 150))
	p.backup().Want(0)
	p.equal()
	spoil(t, p.a)
	p.backup().Want(0)
	p.equal()
}

// A dry run says what would be done and does nothing.
func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	for _, way := range ways[:4] {
		t.Run(way.name, func(t *testing.T) {
			p := way.pair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, 60))
			harness.Build(t, p.b, "b", harness.Mails(t, 90)[30:])
			before := harness.Snap(t, p.a.Path, p.b.Path)
			r := p.mirror("--dry-run").Want(0)
			before.SameMail(t, p.a.Path, p.b.Path)
			if want := "30 messages matched, 30 new here, 30 new there"; !strings.Contains(r.Stdout, want) {
				t.Errorf("a dry run says %q, want %q in it", r.Stdout, want)
			}
			p.settled()
		})
	}
}
