package maildir_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
)

// dovecot is an account that a stock Dovecot works on as well, without a server.
type dovecot struct {
	*account
	conf string

	mu  sync.Mutex
	log bytes.Buffer // what Dovecot complained about
}

// withDovecot runs a test with a Dovecot. As root it runs the test again as nobody, because Dovecot lets nobody be root.
func withDovecot(t *testing.T, test func(t *testing.T, d *dovecot)) {
	t.Helper()
	if _, err := exec.LookPath("doveadm"); err != nil {
		t.Skip("doveadm is not installed (Debian: dovecot-core)")
	}
	if os.Getuid() == 0 {
		runAsNobody(t)
		return
	}
	home := t.TempDir()
	must(t, os.Chmod(home, 0o755))
	root := filepath.Join(home, "Maildir")
	must(t, os.Mkdir(root, 0o700))
	d := &dovecot{account: newAccountAt(t, &account{root: root, state: t.TempDir()}), conf: filepath.Join(home, "dovecot.conf")}
	must(t, os.WriteFile(d.conf, fmt.Appendf(nil, `log_path = /dev/stderr
base_dir = %[1]s/run
state_dir = %[1]s/run
ssl = no
protocols =
first_valid_uid = 1
mail_uid = %[2]d
mail_gid = %[3]d
import_environment = TZ HOME USER
mail_location = maildir:~/Maildir
namespace inbox {
  inbox = yes
  separator = /
}
`, home, os.Getuid(), os.Getgid()), 0o644))
	test(t, d)
	if log := d.log.String(); log != "" {
		t.Errorf("Dovecot said:\n%s", log)
	}
}

func runAsNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nobody")
	must(t, err)
	defer os.RemoveAll(dir)
	nobody, err := user.Lookup("nobody")
	must(t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	must(t, os.Chmod(dir, 0o755))
	self, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "test"), program, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	must(t, os.Chown(filepath.Join(dir, "tmp"), uid, gid))
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = filepath.Join(dir, "tmp")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + cmd.Dir, "HOME=" + cmd.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// run runs doveadm. What it says on stderr is kept.
func (d *dovecot) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("doveadm", append([]string{"-c", d.conf}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "HOME=" + filepath.Dir(d.root), "USER=someone"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		fmt.Fprintf(&d.log, "doveadm %q: %v\n", args, err)
	}
	for line := range strings.Lines(complaints.String()) {
		if !strings.Contains(line, ": UIDVALIDITY changed (1700000000 -> 1800000000)") { // as it was told to
			fmt.Fprintf(&d.log, "doveadm %q: %s", args, line)
		}
	}
	return out.String()
}

// fetch returns what Dovecot says of the messages of a mailbox, a line each: UID, GUID, flags, date, sizes.
func (d *dovecot) fetch(t *testing.T, box mail.Name) []string {
	t.Helper()
	out := d.run(t, "", "-f", "tab", "fetch", "uid guid flags date.received size.physical size.virtual", "mailbox", string(box), "all")
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
		f := strings.Split(l, "\t")
		flags := strings.Fields(f[2])
		flags = slices.DeleteFunc(flags, func(s string) bool { return s == `\Recent` })
		slices.Sort(flags)
		f[2] = strings.Join(flags, " ")
		lines = append(lines, strings.Join(f, "|"))
	}
	return lines
}

// describeAll is fetch from our side.
func describeAll(t *testing.T, s *maildir.Store, name mail.Name) []string {
	t.Helper()
	box := openBox(t, s, name)
	defer box.Close()
	var lines []string
	for m, err := range box.Messages(0) {
		must(t, err)
		words := append(strings.Fields(m.Flags.String()), m.Keywords...)
		slices.Sort(words)
		body, err := box.Body(t.Context(), m.UID)
		must(t, err)
		data, err := io.ReadAll(body)
		must(t, err)
		must(t, body.Close())
		virtual := len(data) + bytes.Count(data, []byte("\n")) - bytes.Count(data, []byte("\r\n"))
		date := time.Unix(m.Received, 0).UTC().Format(time.DateTime)
		lines = append(lines, fmt.Sprintf("%d|%s|%s|%s|%d|%d", m.UID, m.GUID, strings.Join(words, " "), date, m.Size, virtual))
	}
	return lines
}

func openBox(t testing.TB, s *maildir.Store, name mail.Name) store.Mailbox {
	t.Helper()
	nodes, _, err := s.Tree(t.Context())
	must(t, err)
	for _, n := range nodes {
		if n.Name == name && !n.Status.GUID.IsZero() {
			box, err := s.Open(t.Context(), n.Status.GUID)
			must(t, err)
			return box
		}
	}
	t.Fatalf("no mailbox %q", string(name))
	return nil
}

func refresh(t testing.TB, s *maildir.Store, o store.RefreshOptions) store.Report {
	t.Helper()
	r, err := s.Refresh(t.Context(), o)
	must(t, err)
	return r
}

func stageAdd(t testing.TB, box store.Mailbox, m mail.Message, text string) store.Add {
	t.Helper()
	staged, err := box.Stage(t.Context(), m, strings.NewReader(text))
	must(t, err)
	return store.Add{Message: m, Staged: staged}
}

func apply(t testing.TB, box store.Mailbox, b store.Batch) store.Result {
	t.Helper()
	r, err := box.Apply(t.Context(), b)
	must(t, err)
	return r
}

func wantSame(t *testing.T, what string, ours, theirs []string) {
	t.Helper()
	if !slices.Equal(ours, theirs) {
		t.Errorf("%s: we say\n%s\nDovecot says\n%s", what, strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
}

// TestDovecotAgrees: after each kind of our changes Dovecot sees the same messages, and says nothing of errors.
func TestDovecotAgrees(t *testing.T) {
	withDovecot(t, func(t *testing.T, d *dovecot) {
		s := d.open(t)
		defer func() { must(t, s.Close()) }()
		refresh(t, s, store.RefreshOptions{})
		const name = mail.Name("Entwürfe/R&D")
		must(t, s.Create(t.Context(), name, mail.MailboxGUID{1, 2, 3}, 1_700_000_000))
		must(t, s.Subscribe(t.Context(), name, true))
		box := openBox(t, s, name)
		text := "Subject: x\n\nline\r\nline\n"
		sized := fmt.Sprintf("1700000000.M1P1.host,S=%d,W=%d", len(text), len(text)+3)
		apply(t, box, store.Batch{Adds: []store.Add{
			stageAdd(t, box, mail.Message{UID: 3, GUID: "0123456789abcdef0123456789abcdef", Received: 1_600_000_000}, text),
			stageAdd(t, box, mail.Message{UID: 5, GUID: mail.GUID(sized), Flags: mail.FlagSeen | mail.FlagFlagged, Received: 1_600_000_001}, text),
			stageAdd(t, box, mail.Message{UID: 9, GUID: "with/slash:and,S=1", Keywords: mail.NewKeywords("$Forwarded", "todo"), Received: 1_600_000_002}, text),
			stageAdd(t, box, mail.Message{UID: 10, GUID: "g10", POP3UIDL: "uidl-10", POP3Order: 7, Received: 1_600_000_003}, text),
			stageAdd(t, box, mail.Message{UID: 11, GUID: "g10", Received: 1_600_000_004}, text),
		}, UIDNext: 20})
		wantSame(t, "after saving", describeAll(t, s, name), d.fetch(t, name))
		apply(t, box, store.Batch{
			Deltas: []store.FlagChange{
				{UID: 3, Delta: mail.Delta{Add: mail.FlagAnswered, AddKeywords: mail.NewKeywords("new")}},
				{UID: 9, Delta: mail.Delta{RemoveKeywords: mail.NewKeywords("todo")}},
			},
			Expunges: []store.Expunge{{UID: 5, GUID: mail.GUID(sized)}},
			Adds:     []store.Add{{Message: mail.Message{UID: 20, GUID: "g10", Received: 1_600_000_003}, From: store.Location{Mailbox: mail.MailboxGUID{1, 2, 3}, UID: 10}}},
		})
		wantSame(t, "after changing", describeAll(t, s, name), d.fetch(t, name))
		apply(t, box, store.Batch{Realign: []store.Realign{{UID: 3, NewUID: 30}, {UID: 9, NewGUID: "other"}}})
		wantSame(t, "after renumbering", describeAll(t, s, name), d.fetch(t, name))
		apply(t, box, store.Batch{UIDValidity: 1_800_000_000, Restart: true, Realign: []store.Realign{{UID: 30, NewUID: 1}, {UID: 9, NewUID: 2}}, UIDNext: 50})
		wantSame(t, "after a new UIDVALIDITY", describeAll(t, s, name), d.fetch(t, name))
		must(t, box.Close())
		must(t, s.SetGUID(t.Context(), mail.MailboxGUID{1, 2, 3}, mail.MailboxGUID{4, 5, 6}))
		must(t, s.Rename(t.Context(), name, "Other/x", 0))
		must(t, s.EndRound(t.Context()))
		wantSame(t, "after a rename", describeAll(t, s, "Other/x"), d.fetch(t, "Other/x"))
		got := d.run(t, "", "-f", "flow", "mailbox", "status", "guid uidvalidity uidnext", "Other/x")
		for _, want := range []string{"guid=04050600000000000000000000000000", "uidvalidity=1800000000", "uidnext=50"} {
			if !strings.Contains(got, want) {
				t.Errorf("status %q, want %s", got, want)
			}
		}
		if subs := d.run(t, "", "mailbox", "list", "-s"); !strings.Contains(subs, string(name)) {
			t.Errorf("subscriptions %q", subs)
		}
		must(t, s.Delete(t.Context(), mail.MailboxGUID{4, 5, 6}))
		must(t, s.EndRound(t.Context()))
		if boxes := strings.Fields(d.run(t, "", "mailbox", "list")); !slices.Equal(boxes, []string{"INBOX"}) {
			t.Errorf("mailboxes %q", boxes)
		}
		if r := refresh(t, s, store.RefreshOptions{Full: true}); r.Added+r.Expunged+r.Flags > 0 {
			t.Errorf("report %+v", r)
		}
	})
}

// TestDovecotExpungeIsAWitness: the guard is asked about a file that vanished, and not about a mail that a session expunged.
func TestDovecotExpungeIsAWitness(t *testing.T) {
	withDovecot(t, func(t *testing.T, d *dovecot) {
		s := d.open(t)
		defer func() { must(t, s.Close()) }()
		for i := range 4 {
			d.run(t, fmt.Sprintf("Subject: %d\n\nx\n", i), "save", "-m", "INBOX")
		}
		d.run(t, "", "mailbox", "create", "Work")
		refresh(t, s, store.RefreshOptions{})
		d.run(t, "", "expunge", "mailbox", "INBOX", "uid", "2")
		d.run(t, "", "mailbox", "delete", "Work")
		box := openBox(t, s, mail.Inbox)
		for m, err := range box.Messages(2) {
			must(t, err)
			must(t, os.Remove(d.find(t, mail.Inbox, string(m.GUID))))
			break
		}
		must(t, box.Close())
		var losses []store.Loss
		r := refresh(t, s, store.RefreshOptions{Guard: func(l []store.Loss) error { losses = l; return nil }})
		if !slices.Equal(losses, []store.Loss{{Mailbox: mail.Inbox, Known: 4, Missing: 1}}) || r.Expunged != 2 {
			t.Errorf("losses %+v, report %+v", losses, r)
		}
	})
}

// TestDovecotWritesAtTheSameTime: two writers, and no message changes its UID or GUID.
func TestDovecotWritesAtTheSameTime(t *testing.T) {
	withDovecot(t, func(t *testing.T, d *dovecot) {
		s := d.open(t)
		defer func() { must(t, s.Close()) }()
		refresh(t, s, store.RefreshOptions{})
		seed := openBox(t, s, mail.Inbox)
		for uid := mail.UID(1); uid <= 40; uid++ {
			m := mail.Message{UID: uid, GUID: mail.GUID(fmt.Sprintf("seed-%d", uid)), Received: 1_600_000_000}
			apply(t, seed, store.Batch{Adds: []store.Add{stageAdd(t, seed, m, "Subject: x\n\nx\n")}})
		}
		must(t, seed.Close())
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 25 {
				d.run(t, fmt.Sprintf("Subject: theirs %d\n\nx\n", i), "save", "-m", "INBOX")
				d.run(t, "", "flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", fmt.Sprint(1+i))
				d.run(t, "", "flags", "add", "theirs", "mailbox", "INBOX", "uid", fmt.Sprint(2+i))
			}
		})
		for i := range 60 {
			refresh(t, s, store.RefreshOptions{})
			box := openBox(t, s, mail.Inbox)
			m := mail.Message{UID: box.Status().UIDNext, GUID: mail.GUID(fmt.Sprintf("ours-%d", i)), Received: 1_600_000_001}
			apply(t, box, store.Batch{
				Adds:   []store.Add{stageAdd(t, box, m, "Subject: y\n\ny\n")},
				Deltas: []store.FlagChange{{UID: mail.UID(1 + i%40), Delta: mail.Delta{Add: mail.FlagSeen, AddKeywords: mail.NewKeywords("ours")}}},
			})
			must(t, box.Close())
		}
		wg.Wait()
		refresh(t, s, store.RefreshOptions{})
		ours := describeAll(t, s, mail.Inbox)
		wantSame(t, "at the end", ours, d.fetch(t, mail.Inbox))
		if len(ours) != 40+25+60 {
			t.Errorf("%d messages", len(ours))
		}
		for uid := 1; uid <= 40; uid++ {
			if !strings.HasPrefix(ours[uid-1], fmt.Sprintf("%d|seed-%d|", uid, uid)) || !strings.Contains(ours[uid-1], `ours`) || !strings.Contains(ours[uid-1], `\Seen`) {
				t.Errorf("message %d is %q", uid, ours[uid-1])
			}
		}
		for uid := 2; uid <= 25; uid++ {
			if !strings.Contains(ours[uid-1], `\Flagged`) || !strings.Contains(ours[uid-1], "theirs") {
				t.Errorf("message %d is %q: Dovecot's flags are lost", uid, ours[uid-1])
			}
		}
	})
}
