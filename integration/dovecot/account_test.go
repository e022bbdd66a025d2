package dovecot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// account is the mail of one user of a stock Dovecot: a home, a configuration and a store of some format. No server runs;
// doveadm works on the files.
type account struct {
	e      *harness.Env
	t      testing.TB
	name   string
	home   string
	conf   string
	format string // maildir, sdbox, mdbox
	domain string // its host's name

	allowed []string // warnings that are no wonder: each line of stderr may have one
}

// settings is what all accounts have in common. Everything above info goes to stderr, where tests look for it.
const settings = `log_path = /dev/stderr
info_log_path = %[1]s.info
base_dir = %[1]s.run
state_dir = %[1]s.run
ssl = no
protocols =
first_valid_uid = 1
mail_uid = %[2]s
mail_gid = %[3]s
mail_home = %[1]s
mail_location = %[4]s
mail_attribute_dict = file:%%h/dovecot-attributes
pop3_uidl_format = %%g
import_environment = TZ HOME USER PATH DOVECOT_HOSTDOMAIN DOVECOT_HOSTNAME GORACE XDG_STATE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR
namespace inbox {
  inbox = yes
  separator = %[5]s
}
`

// locations are the mail_location of each format.
var locations = map[string]string{
	"maildir": "maildir:~/Maildir", "maildir-fs": "maildir:~/Maildir:LAYOUT=fs", "sdbox": "sdbox:~/sdbox", "mdbox": "mdbox:~/mdbox",
}

// newAccount makes an empty account whose mailbox names have '/' between levels.
func newAccount(e *harness.Env, name, format string) *account {
	return newAccountWith(e, name, format, "/", "")
}

// newAccountWith also chooses the separator and adds settings.
func newAccountWith(e *harness.Env, name, format, separator, more string) *account {
	e.TB.Helper()
	a := &account{e: e, t: e.TB, name: name, home: e.Path(name), conf: e.Path(name + ".conf"), format: format, domain: name + ".example.org"}
	must(a.t, os.MkdirAll(a.home, 0o700))
	user, group := mailUser()
	text := fmt.Sprintf(settings, a.home, user, group, locations[format], separator) + more
	must(a.t, os.WriteFile(a.conf, []byte(text), 0o644))
	a.own()
	return a
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// mailUser is as whom Dovecot works: root is not allowed to.
func mailUser() (user, group string) {
	if os.Getuid() == 0 {
		return "nobody", "nogroup"
	}
	return fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid())
}

// nobody is the number of that user.
func nobody(t testing.TB) uint32 {
	t.Helper()
	u, err := user.Lookup("nobody")
	must(t, err)
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	must(t, err)
	return uint32(n)
}

// own gives the account's files to the user as whom Dovecot works, after something else wrote there.
func (a *account) own() {
	a.t.Helper()
	if os.Getuid() != 0 {
		return
	}
	// Nobody has to reach the account through directories that are root's, and to read the current one.
	for _, dir := range []string{filepath.Dir(a.e.Dir), a.e.Dir} {
		must(a.t, os.Chmod(dir, 0o755))
	}
	user, group := mailUser()
	a.e.Must("chown", "-R", user+":"+group, a.home)
}

// maildir is the account's, if that is its format.
func (a *account) maildir() harness.Maildir {
	return harness.Maildir{Path: filepath.Join(a.home, "Maildir"), FS: a.format == "maildir-fs"}
}

// environment is what doveadm may inherit. A doveadm that is the child of another one would read its configuration from
// there, so nothing else comes in.
func (a *account) environment() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + a.home, "USER=" + a.name, "TZ=UTC",
		"DOVECOT_HOSTNAME=" + a.name, "DOVECOT_HOSTDOMAIN=" + a.domain,
	}
}

// server is the command line of a stock dsync server of this account.
func (a *account) server() []string {
	return append(append([]string{"env", "-i"}, a.environment()...), "doveadm", "-c", a.conf, "dsync-server")
}

// result is how a run of doveadm ended.
type result struct {
	status         int
	stdout, stderr string
}

// try runs doveadm and judges nothing.
func (a *account) try(stdin []byte, args ...string) result {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	words := append(append([]string{"-i"}, a.environment()...), "doveadm", "-c", a.conf)
	cmd := a.e.Command(ctx, "env", append(words, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		a.t.Fatalf("doveadm %s: %v (%v): %s", strings.Join(args, " "), err, ctx.Err(), stderr.String())
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// doveadm runs a command that has to succeed and about which Dovecot must have nothing to say.
func (a *account) doveadm(args ...string) string {
	a.t.Helper()
	r := a.try(nil, args...)
	if r.status != 0 || a.complains(r.stderr) {
		a.t.Fatalf("%s: doveadm %s: exit status %d: %s", a.name, strings.Join(args, " "), r.status, r.stderr)
	}
	return r.stdout
}

// complains reports whether Dovecot says something that it should not.
func (a *account) complains(stderr string) bool {
	for line := range strings.SplitSeq(strings.TrimSpace(stderr), "\n") {
		if line != "" && !slices.ContainsFunc(a.allowed, func(text string) bool { return strings.Contains(line, text) }) {
			return true
		}
	}
	return false
}

// save saves a mail as if it came now.
func (a *account) save(mailbox string, mail harness.Mail) {
	a.t.Helper()
	r := a.try(mail.Text, "save", "-m", mailbox)
	if r.status != 0 || r.stderr != "" {
		a.t.Fatalf("%s: save into %s: exit status %d: %s", a.name, mailbox, r.status, r.stderr)
	}
}

// view is everything that a client can see of the account, one line for each mailbox, subscription and mail, sorted.
func (a *account) view() []string {
	a.t.Helper()
	var lines []string
	for _, name := range strings.Split(strings.TrimSpace(a.doveadm("mailbox", "list", "-s")), "\n") {
		if name != "" {
			lines = append(lines, "subscribed "+name)
		}
	}
	for _, m := range a.mails("*") {
		lines = append(lines, m.String())
	}
	// After the mails were looked at: the numbers of a mailbox that nobody opened may lag behind its directories.
	for _, line := range a.status("guid uidvalidity uidnext messages unseen") {
		lines = append(lines, "mailbox "+strings.Join(line, " "))
	}
	slices.Sort(lines)
	return lines
}

// mailboxes are the account's, sorted, INBOX among them.
func (a *account) mailboxes() []string {
	a.t.Helper()
	var boxes []string
	for _, row := range a.status("messages") {
		boxes = append(boxes, row[0])
	}
	if !slices.Contains(boxes, "INBOX") {
		boxes = append(boxes, "INBOX")
	}
	slices.Sort(boxes)
	return boxes
}

// mails are those of a mailbox, or of all that a pattern matches.
func (a *account) mails(box string) []mailView {
	a.t.Helper()
	var mails []mailView
	must(a.t, json.Unmarshal([]byte(a.doveadm("-f", "json", "fetch", fetched, "mailbox", box, "all")), &mails))
	return mails
}

// mailView is what doveadm fetch shows of a mail.
type mailView struct {
	Mailbox, UID, GUID, Flags, Text string
	Received                        string `json:"date.received.unixtime"`
	Size                            string `json:"size.virtual"`
}

const fetched = "mailbox uid guid flags date.received.unixtime size.virtual text"

func (m mailView) String() string {
	flags := strings.Fields(strings.ReplaceAll(m.Flags, `\Recent`, ""))
	slices.Sort(flags)
	return fmt.Sprintf("mail %s %s %s (%s) received %s size %s hash %s", m.Mailbox, m.UID, m.GUID, strings.Join(flags, " "), m.Received, m.Size, hashOf([]byte(m.Text)))
}

// status returns a row for each mailbox. A level of hierarchy that is none, and a subscription of none, are errors to doveadm.
func (a *account) status(fields string) [][]string {
	a.t.Helper()
	r := a.try(nil, "-f", "tab", "mailbox", "status", fields, "*")
	for _, line := range strings.Split(strings.TrimSpace(r.stderr), "\n") {
		if line != "" && !strings.Contains(line, "Mailbox doesn't exist") {
			a.t.Fatalf("%s: mailbox status: %s", a.name, line)
		}
	}
	return table(r.stdout)
}

// table reads what doveadm -f tab prints, without the header.
func table(text string) [][]string {
	var rows [][]string
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i > 0 && line != "" {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	return rows
}

// same fails the test unless clients of both accounts see the same.
func same(t testing.TB, a, b *account) {
	t.Helper()
	x, y := a.view(), b.view()
	var diffs []string
	for _, line := range x {
		if !slices.Contains(y, line) {
			diffs = append(diffs, a.name+" only: "+line)
		}
	}
	for _, line := range y {
		if !slices.Contains(x, line) {
			diffs = append(diffs, b.name+" only: "+line)
		}
	}
	if len(diffs) > 0 {
		t.Errorf("the two sides differ in %d places:\n%s", len(diffs), strings.Join(diffs[:min(len(diffs), 25)], "\n"))
	}
}
