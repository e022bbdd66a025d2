package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Dovecot is a real Dovecot on one Maildir, by way of doveadm. As root it works as nobody, as which Dovecot insists on
// not being root; the Maildir is made that user's.
type Dovecot struct {
	Maildir
	env  *Env
	home string
	conf string
}

// dovecotConf is the smallest configuration with which doveadm serves one user without a running master.
const dovecotConf = `log_path = /dev/stderr
info_log_path = /dev/stderr
base_dir = %[1]s/run
state_dir = %[1]s/run
ssl = no
protocols =
first_valid_uid = 1
mail_uid = %[2]s
mail_gid = %[3]s
mail_home = %[1]s
mail_location = %[4]s
pop3_uidl_format = %%g
namespace inbox {
  inbox = yes
  separator = /
}
`

// NewDovecot makes an account with an empty Maildir, in a directory of that name.
func (e *Env) NewDovecot(name string) *Dovecot {
	e.TB.Helper()
	d := &Dovecot{env: e, home: e.Path(name), Maildir: Maildir{Path: e.Path(name, "Maildir")}}
	d.setup()
	return d
}

// ServeWithDovecot is an account whose Maildir is there already.
func (e *Env) ServeWithDovecot(m Maildir) *Dovecot {
	e.TB.Helper()
	home, err := os.MkdirTemp(e.Dir, "account-")
	if err != nil {
		e.TB.Fatal(err)
	}
	d := &Dovecot{env: e, home: home, Maildir: m}
	d.setup()
	for dir := m.Path; strings.HasPrefix(dir, e.Dir); dir = filepath.Dir(dir) { // Dovecot's user has to get there
		if err := os.Chmod(dir, 0o711); err != nil {
			e.TB.Fatal(err)
		}
	}
	return d
}

func (d *Dovecot) setup() {
	d.env.TB.Helper()
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		d.env.TB.Fatal(err)
	}
	user, group := mailUser()
	d.conf = d.home + ".conf"
	writeFile(d.env.TB, d.conf, fmt.Sprintf(dovecotConf, d.home, user, group, d.Location()))
	d.Own()
}

func mailUser() (user, group string) {
	if os.Getuid() == 0 {
		return "nobody", "nogroup"
	}
	out, _ := exec.Command("id", "-un").Output()
	grp, _ := exec.Command("id", "-gn").Output()
	return strings.TrimSpace(string(out)), strings.TrimSpace(string(grp))
}

// Own gives the files to the user as whom Dovecot works, after something else wrote there.
func (d *Dovecot) Own() {
	d.env.TB.Helper()
	if os.Getuid() != 0 {
		return
	}
	// Nobody has to reach the account through directories that are root's.
	for dir := d.env.Dir; strings.HasPrefix(dir, filepath.Dir(d.env.Dir)); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			d.env.TB.Fatal(err)
		}
	}
	user, group := mailUser()
	d.env.Must("chown", "-R", user+":"+group, d.home)
}

// Doveadm runs a doveadm command and returns what it prints. Dovecot must have nothing to complain about.
func (d *Dovecot) Doveadm(args ...string) string {
	d.env.TB.Helper()
	r := d.env.run("env", append([]string{"HOME=" + d.home, "doveadm", "-c", d.conf}, args...)...)
	if r.Status != 0 || strings.Contains(r.Stderr, "Error") || strings.Contains(r.Stderr, "Warning") || strings.Contains(r.Stderr, "Panic") {
		d.env.TB.Fatalf("doveadm %s: exit status %d\n%s", strings.Join(args, " "), r.Status, head(r.Stderr, 3000))
	}
	return r.Stdout
}

// TryDoveadm is Doveadm where Dovecot may complain.
func (d *Dovecot) TryDoveadm(args ...string) (string, error) {
	d.env.TB.Helper()
	r := d.env.run("env", append([]string{"HOME=" + d.home, "doveadm", "-c", d.conf}, args...)...)
	if r.Status != 0 {
		return r.Stdout, fmt.Errorf("doveadm %s: exit status %d: %s", strings.Join(args, " "), r.Status, head(r.Stderr, 300))
	}
	return r.Stdout, nil
}

// fetched are the fields of a mail that a client of Dovecot can see.
const fetched = "mailbox uid guid flags date.received.unixtime pop3.uidl pop3.order size.physical size.virtual text"

// DovecotView returns everything that a client of a Dovecot on this Maildir would see, a line for each mail, mailbox and
// subscription. Dovecot works on a copy, so that it leaves nothing behind here.
func (e *Env) DovecotView(m Maildir) []string {
	e.TB.Helper()
	home, err := os.MkdirTemp(e.Dir, "dovecot-")
	if err != nil {
		e.TB.Fatal(err)
	}
	d := &Dovecot{env: e, home: home, Maildir: Maildir{Path: filepath.Join(home, "Maildir"), FS: m.FS}}
	e.Must("cp", "-a", m.Path, d.Path)
	d.setup()
	defer os.RemoveAll(home)
	view := strings.Split(strings.TrimSpace(d.Doveadm("-f", "tab", "mailbox", "status", "guid uidvalidity uidnext messages unseen", "*")), "\n")
	for _, line := range strings.Split(strings.TrimSpace(d.Doveadm("-f", "tab", "fetch", fetched, "mailbox", "*", "all")), "\n") {
		fields := strings.SplitN(line, "\t", 10)
		if len(fields) == 10 && fields[0] != "mailbox" {
			flags := strings.Fields(strings.ReplaceAll(fields[3], `\Recent`, ""))
			slices.Sort(flags)
			fields[3] = strings.Join(flags, " ")
			hash := HashOf([]byte(fields[9]))
			fields[9] = fmt.Sprintf("%x", hash[:8])
		}
		view = append(view, strings.Join(fields, "\t"))
	}
	for _, line := range strings.Fields(d.Doveadm("mailbox", "list", "-s")) {
		view = append(view, "subscribed "+line)
	}
	slices.Sort(view)
	return view
}

// SameForDovecot fails the test unless Dovecot shows its clients the same of both Maildirs.
func (e *Env) SameForDovecot(a, b Maildir) {
	e.TB.Helper()
	x, y := e.DovecotView(a), e.DovecotView(b)
	var diffs []string
	for _, line := range x {
		if _, found := slices.BinarySearch(y, line); !found {
			diffs = append(diffs, a.Path+" only: "+line)
		}
	}
	for _, line := range y {
		if _, found := slices.BinarySearch(x, line); !found {
			diffs = append(diffs, b.Path+" only: "+line)
		}
	}
	reportDifferences(e.TB, "Dovecot sees different things", diffs)
}

// DoveadmSave saves a mail through Dovecot.
func (d *Dovecot) DoveadmSave(tb testing.TB, mailbox string, mail Mail) {
	tb.Helper()
	file := d.home + ".save"
	if err := os.WriteFile(file, mail.Text, 0o644); err != nil {
		tb.Fatal(err)
	}
	d.Doveadm("save", "-m", mailbox, file)
}
