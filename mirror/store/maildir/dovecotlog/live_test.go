package dovecotlog

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
)

// dovecot is a Maildir that a stock Dovecot works on, without a server.
type dovecot struct {
	t    *testing.T
	dir  string
	conf string
}

func newDovecot(t *testing.T) *dovecot {
	t.Helper()
	if _, err := exec.LookPath("doveadm"); err != nil {
		t.Skip("doveadm is not installed (Debian: dovecot-core)")
	}
	// Not t.TempDir: as root, Dovecot drops to nobody, who must be able to enter.
	dir, err := os.MkdirTemp("", "dovecotlog")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(dir+"/home", 0o700))
	d := &dovecot{t: t, dir: dir, conf: dir + "/dovecot.conf"}
	me, err := user.Current()
	must(t, err)
	owner := "mail_uid = " + me.Uid + "\nmail_gid = " + me.Gid + "\n"
	if os.Getuid() == 0 {
		owner = "mail_uid = nobody\nmail_gid = nogroup\n"
		nobody, err := user.Lookup("nobody")
		must(t, err)
		uid, err := strconv.Atoi(nobody.Uid)
		must(t, err)
		gid, err := strconv.Atoi(nobody.Gid)
		must(t, err)
		must(t, os.Chown(dir+"/home", uid, gid))
	}
	must(t, os.WriteFile(d.conf, []byte(fmt.Sprintf(`log_path = /dev/stderr
base_dir = %[1]s/run
state_dir = %[1]s/run
ssl = no
protocols =
first_valid_uid = 1
%[2]simport_environment = TZ HOME USER
mail_location = maildir:~/Maildir
namespace inbox {
  inbox = yes
  separator = /
}
`, dir, owner)), 0o644))
	return d
}

func (d *dovecot) run(stdin string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command("doveadm", append([]string{"-c", d.conf}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "HOME=" + d.dir + "/home", "USER=someone"}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("doveadm %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (d *dovecot) file(name string) []byte {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, "home/Maildir", name))
	must(d.t, err)
	return data
}

// guid returns the GUID of a mail.
func (d *dovecot) guid(uid int) mail.GUID {
	d.t.Helper()
	out := d.run("", "-f", "flow", "fetch", "guid", "mailbox", "INBOX", "uid", fmt.Sprint(uid))
	g, ok := strings.CutPrefix(strings.TrimSpace(out), "guid=")
	if !ok {
		d.t.Fatalf("no GUID in %q", out)
	}
	return mail.GUID(g)
}

// TestLiveExpunge: an expunge by a command has a request with the mail's GUID, a file removed behind Dovecot's back has none.
func TestLiveExpunge(t *testing.T) {
	d := newDovecot(t)
	for n := range 4 {
		d.run(fmt.Sprintf("Subject: %d\n\nbody\n", n), "save", "-m", "INBOX")
	}
	second, fourth := d.guid(2), d.guid(4) // a GUID is the name of its file
	d.run("", "expunge", "mailbox", "INBOX", "uid", "2")
	files, err := filepath.Glob(d.dir + "/home/Maildir/new/*")
	must(t, err)
	last := slices.IndexFunc(files, func(f string) bool { return strings.HasPrefix(filepath.Base(f), string(fourth)) })
	if len(files) != 3 || last < 0 {
		t.Fatalf("files %q, GUID of the last %q", files, fourth)
	}
	must(t, os.Remove(files[last]))
	if left := d.run("", "-f", "flow", "fetch", "uid", "mailbox", "INBOX", "all"); left != "uid=1\nuid=3\n" {
		t.Fatalf("left %q", left)
	}
	data := d.file("dovecot.index.log")
	l := read(t, data)
	if l.End != int64(len(data)) {
		t.Errorf("read %d of %d bytes", l.End, len(data))
	}
	wantOnly(t, Combine(l, nil), map[mail.UID]Expunge{
		2: {GUID: second.Hash128(), Requested: true, Gone: true},
		4: {Gone: true},
	})
	_, first, _ := strings.Cut(string(d.file("dovecot-uidlist")), " V")
	if v, _, _ := strings.Cut(first, " "); v != fmt.Sprint(l.UIDValidity) {
		t.Errorf("UIDVALIDITY %d, in dovecot-uidlist %s", l.UIDValidity, v)
	}
}

func TestLiveMailboxLog(t *testing.T) {
	d := newDovecot(t)
	d.run("", "mailbox", "create", "Work/A", "B")
	d.run("", "mailbox", "rename", "Work/A", "Work/C")
	d.run("", "mailbox", "subscribe", "B")
	d.run("", "mailbox", "unsubscribe", "B")
	out := d.run("", "-f", "flow", "mailbox", "status", "guid", "B")
	b := guid(t, strings.TrimSpace(out[strings.Index(out, "guid=")+5:]))
	d.run("", "mailbox", "delete", "B")
	all, err := ReadMailboxLog(bytes.NewReader(d.file("dovecot.mailbox.log")))
	must(t, err)
	want := []MailboxEvent{
		{Kind: Rename, ID: mail.Name("Work/C").NameHash('/')},
		{Kind: Subscribe, ID: mail.Name("B").NameHash('/')},
		{Kind: Unsubscribe, ID: mail.Name("B").NameHash('/')},
		{Kind: DeleteMailbox, ID: b},
		{Kind: DeleteDirectory, ID: mail.Name("B").NameHash('/')},
	}
	for i, e := range all {
		if i < len(want) {
			want[i].Time = e.Time
		}
	}
	if fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("got\n%v, want\n%v", all, want)
	}
}
