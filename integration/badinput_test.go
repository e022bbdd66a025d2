package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// badCase is one kind of bad input. Every one ends with its status and a clear error, and changes nothing.
type badCase struct {
	name   string
	status int
	says   []string
	// prepare spoils a pair that is in sync with 60 mails.
	prepare func(t *testing.T, p *pair)
}

func runBadCases(t *testing.T, newPair func(t *testing.T) *pair, cases []badCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, 60))
			p.mirror().Want(0)
			deliverMany(t, p.a, "Work", "new-here", 3)
			deliverMany(t, p.b, "Work", "new-there", 3)
			c.prepare(t, p)
			var roots []string
			for _, m := range []harness.Maildir{p.a, p.b} {
				if _, err := os.Stat(m.Path); err == nil {
					roots = append(roots, m.Path)
				}
			}
			before := harness.Snap(t, roots...)
			p.mirror().Want(c.status).ClearError().Says(c.says...)
			before.SameButUIDs(t, roots...)
		})
	}
}

// Locations that are none.
func TestBadLocations(t *testing.T) {
	t.Parallel()
	at := func(path string) func(t *testing.T, p *pair) {
		return func(t *testing.T, p *pair) { p.other = []string{"maildir:" + p.Path(path)} }
	}
	runBadCases(t, newPair, []badCase{
		{"a local location that does not exist", 1, []string{"nowhere"}, func(t *testing.T, p *pair) {
			p.options = []string{"-o", "mail_location=maildir:" + p.Path("nowhere")}
		}},
		{"a second location whose parent does not exist", 1, []string{"nowhere"}, at("nowhere/Maildir")},
		{"a file", 1, []string{"file"}, func(t *testing.T, p *pair) {
			must(t, os.WriteFile(p.Path("file"), []byte("x"), 0o600))
			at("file")(t, p)
		}},
		{"a directory that is no Maildir", 1, []string{"Documents"}, func(t *testing.T, p *pair) {
			must(t, os.MkdirAll(p.Path("Documents", "letters"), 0o700))
			must(t, os.WriteFile(p.Path("Documents", "letter.txt"), []byte("Dear Sir"), 0o600))
			p.options = []string{"-o", "mail_location=maildir:" + p.Path("Documents")}
		}},
		{"a directory with other files as destination", 1, []string{"Documents"}, func(t *testing.T, p *pair) {
			must(t, os.MkdirAll(p.Path("Documents", "letters"), 0o700))
			must(t, os.WriteFile(p.Path("Documents", "letter.txt"), []byte("Dear Sir"), 0o600))
			at("Documents")(t, p)
		}},
		{"the same location twice", 64, []string{"both"}, func(t *testing.T, p *pair) { p.other = []string{p.a.Location()} }},
		{"the same location by another path", 64, []string{"both"}, func(t *testing.T, p *pair) {
			must(t, os.Symlink(p.a.Path, p.Path("link")))
			at("link")(t, p)
		}},
		{"mbox", 1, []string{"mbox", "not supported yet"}, func(t *testing.T, p *pair) { p.other = []string{"mbox:" + p.Path("m")} }},
		{"sdbox", 1, []string{"sdbox", "not supported yet"}, func(t *testing.T, p *pair) { p.other = []string{"sdbox:" + p.Path("m")} }},
		{"mdbox", 1, []string{"mdbox", "not supported yet"}, func(t *testing.T, p *pair) { p.other = []string{"mdbox:" + p.Path("m")} }},
		{"no local location", 64, []string{"mail_location"}, func(t *testing.T, p *pair) { p.options = nil }},
		{"an unknown setting", 64, []string{"colour"}, func(t *testing.T, p *pair) { p.options = append(p.options, "-o", "colour=red") }},
		{"a setting with a wrong value", 64, []string{"max_missing"}, func(t *testing.T, p *pair) {
			p.options = append(p.options, "-o", "max_missing=many")
		}},
		{"an unknown option", 64, []string{"--frobnicate"}, func(t *testing.T, p *pair) { p.options = append(p.options, "--frobnicate") }},
		{"-R with mirror", 64, []string{"-R"}, func(t *testing.T, p *pair) { p.options = append(p.options, "-R") }},
		{"no second location", 64, nil, func(t *testing.T, p *pair) { p.other = nil }},
		{"a settings file that is none", 64, []string{"settings"}, func(t *testing.T, p *pair) {
			must(t, os.WriteFile(p.Path("bad.toml"), []byte("mail_location = [1\n"), 0o600))
			p.options = append(p.options, "-c", p.Path("bad.toml"))
		}},
	})
}

// Files in a Maildir that are not what they should be.
func TestBadMaildirs(t *testing.T) {
	t.Parallel()
	uidlist := func(edit func(lines []string) []string) func(t *testing.T, p *pair) {
		return func(t *testing.T, p *pair) {
			path := filepath.Join(p.b.Dir("Work"), "dovecot-uidlist")
			text, err := os.ReadFile(path)
			must(t, err)
			lines := edit(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"))
			must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		}
	}
	runBadCases(t, newPair, []badCase{
		{"a uidlist of garbage", 1, []string{"Work", "dovecot-uidlist"}, uidlist(func([]string) []string { return []string{"\x00\xffgarbage", "x"} })},
		{"an empty uidlist", 1, []string{"Work", "dovecot-uidlist"}, func(t *testing.T, p *pair) {
			must(t, os.Truncate(filepath.Join(p.b.Dir("Work"), "dovecot-uidlist"), 0))
		}},
		{"a uidlist of an unknown version", 1, []string{"Work", "dovecot-uidlist"}, uidlist(func(l []string) []string {
			l[0] = "7" + l[0][1:]
			return l
		})},
		{"a uidlist with UIDs out of order", 1, []string{"Work", "dovecot-uidlist"}, uidlist(func(l []string) []string {
			l[1], l[2] = l[2], l[1]
			return l
		})},
		{"a uidlist with a slash in a name", 1, []string{"Work", "dovecot-uidlist"}, uidlist(func(l []string) []string {
			l[1] = strings.Replace(l[1], " :", " :../", 1)
			return l
		})},
		{"a mailbox that is a symbolic link out of the Maildir", 1, []string{"Evil"}, func(t *testing.T, p *pair) {
			outside := p.Maildir("outside")
			outside.Create(t, "INBOX")
			deliverMany(t, outside, "INBOX", "secret", 3)
			must(t, os.Symlink(outside.Path, p.a.Dir("Evil")))
		}},
		{"a cur that is a symbolic link out of the Maildir", 1, []string{"Work"}, func(t *testing.T, p *pair) {
			must(t, os.Rename(filepath.Join(p.a.Dir("Work"), "cur"), p.Path("cur-outside")))
			must(t, os.Symlink(p.Path("cur-outside"), filepath.Join(p.a.Dir("Work"), "cur")))
		}},
		{"a mail that is a symbolic link out of the Maildir", 1, []string{"Work"}, func(t *testing.T, p *pair) {
			must(t, os.WriteFile(p.Path("secret"), []byte("Subject: secret\n\nkey\n"), 0o600))
			must(t, os.Symlink(p.Path("secret"), filepath.Join(p.a.Dir("Work"), "cur", "9.M9.evil:2,S")))
		}},
		{"a uidlist that is a symbolic link out of the Maildir", 1, []string{"Work", "dovecot-uidlist"}, func(t *testing.T, p *pair) {
			path := filepath.Join(p.a.Dir("Work"), "dovecot-uidlist")
			must(t, os.Rename(path, p.Path("uidlist-outside")))
			must(t, os.Symlink(p.Path("uidlist-outside"), path))
		}},
		{"a cur that is a file", 1, []string{"Work"}, func(t *testing.T, p *pair) {
			must(t, os.RemoveAll(filepath.Join(p.a.Dir("Work"), "cur")))
			must(t, os.WriteFile(filepath.Join(p.a.Dir("Work"), "cur"), nil, 0o600))
		}},
	})
}

// A peer that is none, or not the one it should be.
func TestBadPeers(t *testing.T) {
	t.Parallel()
	peer := func(script string) func(t *testing.T, p *pair) {
		return func(t *testing.T, p *pair) {
			file := p.Path("peer")
			real := "dsyncfs -o mail_location='" + p.b.Location() + "' -o state_dir='" + p.Path("state-b") + "' dsync-server"
			must(t, os.WriteFile(file, []byte("#!/bin/sh\n"+strings.ReplaceAll(script, "REAL", real)+"\n"), 0o700))
			p.other = []string{file}
			p.options = append(p.options, "-T", "3")
		}
	}
	runBadCases(t, newPair, []badCase{
		{"a program that does not exist", 1, []string{"no-such-program"}, func(t *testing.T, p *pair) {
			p.other = []string{"/usr/bin/no-such-program", "dsync-server"}
		}},
		{"a program that fails", 1, []string{"peer", "7"}, peer("echo it is broken >&2; exit 7")},
		{"garbage", 1, []string{"peer"}, peer("echo 'Welcome to this host!'; cat >/dev/null")},
		{"binary garbage", 1, []string{"peer"}, peer("head -c 100000 /dev/urandom; cat >/dev/null")},
		{"nothing at all", 1, []string{"peer"}, peer("exit 0")},
		{"silence", 75, []string{"peer"}, peer("exec sleep 60")},
		{"an endless line", 1, []string{"peer"}, peer("tr '\\0' a </dev/zero")},
		{"a wrong protocol version", 1, []string{"peer"}, peer("printf 'VERSION\\tdsync\\t9\\t0\\n'; cat >/dev/null")},
		{"another protocol", 1, []string{"peer"}, peer("printf 'VERSION\\timap\\t3\\t5\\n'; cat >/dev/null")},
		{"a stream cut off in the handshake", 1, []string{"peer"}, peer(cutOff(300))},
		{"a stream cut off in the mailbox tree", 1, []string{"peer"}, peer(cutOff(2700))},
	})
}

// cutOff is a script that ends after so many bytes of what the real server says.
func cutOff(bytes int) string {
	return fmt.Sprintf(`mkfifo "$0.fifo"; exec 3<&0; REAL <&3 3<&- >"$0.fifo" & exec 3<&-; dd bs=1 count=%d if="$0.fifo" 2>/dev/null`, bytes)
}

// Mailbox names that would lead out of the Maildir, or that no store can hold: they are refused, or replaced by harmless
// ones as option -C says, and nothing outside the Maildir is touched.
func TestHostileMailboxNames(t *testing.T) {
	t.Parallel()
	for what, name := range map[string]string{
		"..":           "..",
		"../x":         `..\/x`,
		"../../x":      `..\x01t..\x01tx`,
		"a newline":    `a\x01nb`,
		"a NUL":        `a\x010b`,
		"300 bytes":    strings.Repeat("x", 300),
		"cur":          "cur",
		"an escape":    `\x1b[2J`,
		"empty part":   `a\x01t\x01tb`,
		"no UTF-8":     `a\xff\xfeb`,
		"not ours":     "dovecot-uidlist",
		"100 levels":   strings.Repeat(`d\x01t`, 100) + "d",
		"in the INBOX": `INBOX\x01tcur`,
	} {
		t.Run(what, func(t *testing.T) {
			p := newPair(t)
			p.a.FS = true // where names become paths
			p.locate()
			harness.Build(t, p.a, "a", harness.Mails(t, 20))
			before := p.a.Read(t).Copies()
			evil := hostilePeer(t, p, name)
			mail := harness.Snap(t, p.a.Path)
			outside := harness.Snap(t, p.Dir)
			r := p.mirror()
			switch r.Status {
			case 0:
				after := p.a.Read(t).Copies()
				for mailbox := range before {
					delete(after, mailbox)
				}
				if after.Len() != evil {
					t.Errorf("%d mails of the hostile mailbox arrived, want %d", after.Len(), evil)
				}
			case 1:
				r.ClearError()
				mail.SameButUIDs(t, p.a.Path)
			default:
				t.Errorf("exit status %d: %s", r.Status, r.Stderr)
			}
			if strings.ContainsAny(r.Stderr+r.Stdout, "\x1b\x00") {
				t.Errorf("the name reaches the terminal raw: %q", r.Stderr)
			}
			for _, change := range outside.Changed(t, p.Dir) {
				inside := false
				for _, dir := range []string{p.a.Path, p.b.Path, p.Path("state"), p.Path("state-b"), p.Dir + ":"} {
					inside = inside || strings.HasPrefix(change, dir)
				}
				if !inside {
					t.Errorf("outside: %s", change)
				}
			}
		})
	}
}

// hostilePeer makes the second location a server whose mailbox "Evil" has that name, in sed's and the stream's escapes. It
// returns how many mails are in it.
func hostilePeer(t *testing.T, p *pair, name string) int {
	t.Helper()
	script := p.Path("peer")
	text := "#!/bin/sh\ndsyncfs -o mail_location='" + p.b.Location() + "' -o state_dir='" + p.Path("state-b") +
		"' dsync-server | sed -u 's/^NEvil\t/N" + name + "\t/'\n"
	must(t, os.WriteFile(script, []byte(text), 0o700))
	p.b.Create(t, "INBOX", "Evil")
	p.other = []string{script}
	p.options = append(p.options, "-T", "5")
	return deliverMany(t, p.b, "Evil", "evil", 3).Len()
}

// Everything that can be wrong with an ssh connection.
func TestBadSSH(t *testing.T) {
	t.Parallel()
	var remote *harness.Remote
	withSSH := func(t *testing.T) *pair {
		p, r := newSSHPair(t)
		remote = r
		return p
	}
	option := func(name string, value func(t *testing.T, p *pair) string) func(t *testing.T, p *pair) {
		return func(t *testing.T, p *pair) { p.options = append(p.options, "-o", name+"="+value(t, p)) }
	}
	runBadCases(t, withSSH, []badCase{
		{"an unknown host key", 1, []string{"127.0.0.1", "host key"}, option("known_hosts", func(t *testing.T, p *pair) string {
			must(t, os.WriteFile(p.Path("known"), nil, 0o600))
			return p.Path("known")
		})},
		{"a changed host key", 1, []string{"127.0.0.1", "changed"}, option("known_hosts", func(t *testing.T, p *pair) string {
			other := harness.GenerateSSHKey(t, p.Path("other"), "ed25519", "")
			line := fmt.Sprintf("[127.0.0.1]:%d %s\n", remote.Port, other)
			must(t, os.WriteFile(p.Path("known"), []byte(line), 0o600))
			return p.Path("known")
		})},
		{"a refused key", 1, []string{"127.0.0.1"}, option("identity", func(t *testing.T, p *pair) string {
			harness.GenerateSSHKey(t, p.Path("other"), "ed25519", "")
			return p.Path("other")
		})},
		{"a key file that does not exist", 1, []string{"no-key"}, option("identity", func(t *testing.T, p *pair) string { return p.Path("no-key") })},
		{"a key with a passphrase and nobody to ask", 1, []string{"locked", "encrypted"}, option("identity", func(t *testing.T, p *pair) string {
			public := harness.GenerateSSHKey(t, p.Path("locked"), "ed25519", "secret")
			must(t, os.WriteFile(remote.AuthorizedKeys, []byte(public+"\n"), 0o600))
			return p.Path("locked")
		})},
		{"a remote without dsyncfs", 1, []string{"127.0.0.1", "no-dsyncfs"}, option("server_command", func(*testing.T, *pair) string {
			return "no-dsyncfs dsync-server"
		})},
		{"a port where nothing listens", 75, []string{"127.0.0.1"}, func(t *testing.T, p *pair) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			p.other = []string{fmt.Sprintf("ssh://%s@%s", remote.User, l.Addr())}
			must(t, l.Close())
		}},
		{"a host that does not exist", 75, []string{"host.invalid"}, func(t *testing.T, p *pair) { p.other = []string{"ssh://root@host.invalid"} }},
		{"a server that is no ssh server", 1, []string{"127.0.0.1"}, func(t *testing.T, p *pair) {
			p.other = []string{"ssh://root@" + greeter(t, strings.Repeat("220 mail.example.org ESMTP\r\n", 10000))}
		}},
		{"a remote whose ssh_config is wrong", 1, []string{"ssh_config"}, func(t *testing.T, p *pair) {
			p.options = append(p.options, "-o", "ssh_config="+p.Path("no-ssh_config"))
		}},
	})
}

// greeter is a server that says that to whoever connects.
func greeter(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(text))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// A directory that may not be read or written. Root may everything, so the runs are another user's.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	for _, c := range []struct {
		name, sub string
		mode      os.FileMode
		side      string
	}{
		{"a mailbox that cannot be read", ".Work/cur", 0o000, "a"},
		{"a mailbox that cannot be entered", ".Work", 0o000, "a"},
		{"a Maildir that cannot be read", "", 0o000, "a"},
		{"a mailbox that cannot be written", ".Work/cur", 0o500, "b"},
		{"a mailbox that cannot be locked", ".Work", 0o500, "b"},
		{"a tmp that cannot be written", ".Work/tmp", 0o500, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, 60))
			p.mirror().Want(0)
			deliverMany(t, p.a, "Work", "new", 3)
			m := map[string]harness.Maildir{"a": p.a, "b": p.b}[c.side]
			want := p.b.Read(t).Copies()
			for dir := p.Dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
				must(t, os.Chmod(dir, 0o711))
			}
			must(t, os.Chmod(filepath.Dir(harness.Binary(t)), 0o755))
			p.Must("chown", "-R", "nobody:nogroup", p.Dir)
			must(t, os.Chmod(filepath.Join(m.Path, c.sub), c.mode))
			before := harness.Snap(t, p.a.Path, p.b.Path)
			r := p.RunAs(65534, p.args("mirror")...)
			r.Want(1).ClearError().Says("permission denied")
			before.SameButUIDs(t, p.a.Path, p.b.Path)
			must(t, os.Chmod(filepath.Join(m.Path, c.sub), 0o700))
			p.b.Holds(t, want)
			p.RunAs(65534, p.args("mirror")...).Want(0)
			harness.Equal(t, p.a, p.b)
		})
	}
}

// A disk that is full on either side: an error, and all is made good when there is space again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	for _, full := range []string{"a", "b", "state"} {
		t.Run(full, func(t *testing.T) {
			p := newPair(t)
			small := p.Path("small")
			must(t, os.Mkdir(small, 0o700))
			p.Must("mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", small)
			t.Cleanup(func() { p.Must("umount", "-l", small) })
			switch full {
			case "a":
				p.a.Path = filepath.Join(small, "a")
			case "b":
				p.b.Path = filepath.Join(small, "b")
			}
			p.locate()
			if full == "state" {
				p.options = append(p.options, "-o", "state_dir="+filepath.Join(small, "state"))
				must(t, os.WriteFile(filepath.Join(small, "ballast"), make([]byte, 690<<10), 0o600))
			}
			p.a.Create(t, "INBOX")
			p.b.Create(t, "INBOX")
			source := p.a
			if full == "a" {
				source = p.b
			}
			harness.Build(t, source, "x", harness.Mails(t, 300))
			want := p.union()
			before := harness.Snap(t, source.Path)
			p.mirror().Want(1).ClearError().Says("no space left")
			sourceKept(t, before, source)
			if full == "state" {
				must(t, os.Remove(filepath.Join(small, "ballast")))
			}
			p.Must("mount", "-o", "remount,size=64m", small)
			p.settled()
			p.hold(want)
		})
	}
}

// sourceKept demands that no mail of a side was touched; it may have got its UIDs.
func sourceKept(t *testing.T, before harness.Snapshot, m harness.Maildir) {
	t.Helper()
	for _, change := range before.Changed(t, m.Path) {
		if strings.Contains(change, "/cur/") || strings.Contains(change, "/new/") {
			t.Errorf("source: %s", change)
		}
	}
}

// A corrupt index is noticed, set aside and made anew: no error, and nothing lost, doubled or sent again.
func TestACorruptIndexIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string, size int64) error{
		"garbage":   func(path string, size int64) error { return os.WriteFile(path, make([]byte, size), 0o600) },
		"cut off":   func(path string, size int64) error { return os.Truncate(path, size/3) },
		"empty":     func(path string, _ int64) error { return os.Truncate(path, 0) },
		"not ours":  func(path string, _ int64) error { return os.WriteFile(path, []byte("hello, world\n"), 0o600) },
		"bad pages": overwriteMiddle,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			harness.Build(t, p.a, "a", harness.Mails(t, 100))
			p.settled()
			want := p.a.Read(t)
			inodes := p.b.Inodes(t)
			indexes, err := filepath.Glob(filepath.Join(p.StateDir(), "stores", "*", "index.db"))
			must(t, err)
			if len(indexes) != 2 {
				t.Fatalf("%d indexes: %q", len(indexes), indexes)
			}
			for _, path := range indexes {
				info, err := os.Stat(path)
				must(t, err)
				must(t, damage(path, info.Size()))
			}
			p.mirror().Want(0)
			p.equal()
			p.b.NotRewritten(t, inodes)
			if diffs := harness.Diff(want, p.b.Read(t)); len(diffs) > 0 {
				t.Errorf("changed:\n%s", strings.Join(diffs, "\n"))
			}
			p.unchanging()
		})
	}
}

func overwriteMiddle(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := size / 4; at < size; at += size / 8 {
		if _, err := f.WriteAt([]byte("\xde\xad\xbe\xef damaged by a test"), at); err != nil {
			return err
		}
	}
	return nil
}

// Two runs on one state: the second says who is at work.
func TestAStateInUseIsToldWithItsOwner(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 60))
	p.mirror().Want(0)
	// A peer that never answers keeps the first one, with its state, waiting.
	silent := p.Path("silent")
	must(t, os.WriteFile(silent, []byte("#!/bin/sh\nhead -c 20 >/dev/null\ntouch "+p.Path("waiting")+"\nexec cat >/dev/null\n"), 0o700))
	first := p.Start("-o", "mail_location="+p.a.Location(), "mirror", silent)
	p.Eventually("the first run waits", 20*time.Second, func() error {
		_, err := os.Stat(p.Path("waiting"))
		return err
	})
	r := p.mirror("-o", "lock_timeout=1s")
	if r.Status == 0 {
		return // it does not hold the state while it waits: all the better
	}
	r.Want(1).ClearError().Says(fmt.Sprint(first.PID()))
}

// A name that the other store cannot hold is another one there, and stays what it is here, whichever side starts.
func TestNamesThatOneLayoutCannotHold(t *testing.T) {
	t.Parallel()
	for _, starter := range []string{"LAYOUT=fs", "Maildir++"} {
		t.Run(starter+" starts", func(t *testing.T) {
			p := newPair(t)
			fs, plus := &p.a, &p.b
			if starter == "Maildir++" {
				fs, plus = &p.b, &p.a
			}
			fs.FS = true
			p.locate()
			fs.Create(t, "INBOX", "v1.2", "Lists/golang.org")
			plus.Create(t, "INBOX")
			want := deliverMany(t, *fs, "v1.2", "here", 2).Len()
			for range 3 {
				p.mirror().Want(0)
			}
			plus.Create(t, "v1_2/below")
			p.mirror().Want(0)
			p.mirror().Want(0)
			for m, names := range map[*harness.Maildir][]string{
				fs: {"INBOX", "Lists/golang.org", "v1.2", "v1.2/below"}, plus: {"INBOX", "Lists/golang_org", "v1_2", "v1_2/below"},
			} {
				boxes := m.Read(t).Mailboxes
				for _, name := range names {
					if boxes[name] == nil {
						t.Errorf("%s is not in %s", name, m.Location())
					} else if strings.HasSuffix(name, "2") && len(boxes[name].Messages) != want {
						t.Errorf("%d mails in %s", len(boxes[name].Messages), name)
					}
				}
				if len(boxes) != len(names) {
					t.Errorf("%s has %d mailboxes, want %q", m.Location(), len(boxes), names)
				}
			}
		})
	}
}
