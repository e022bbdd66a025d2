// Package integration has the end-to-end tests of dsyncfs: the real binary, real mail, a real sshd, real FUSE mounts, and
// real mail programs. They are written from what is promised to a user, and know nothing of the code.
package integration

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"dsyncfs/integration/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// pair is two locations and how to sync them.
type pair struct {
	*harness.Env
	t       *testing.T
	a, b    harness.Maildir
	options []string // before the command
	other   []string // LOCATION2
}

// newPair is two Maildirs, a and b, on this machine. Neither exists yet.
func newPair(t *testing.T) *pair {
	e := harness.New(t)
	p := &pair{Env: e, t: t, a: e.Maildir("a"), b: e.Maildir("b")}
	p.locate()
	return p
}

// newSSHPair has b at the other end of an ssh connection.
func newSSHPair(t *testing.T) (*pair, *harness.Remote) {
	p := newPair(t)
	r := p.NewRemote()
	p.b = r.Maildir
	p.options = append([]string{"-o", "mail_location=" + p.a.Location()}, r.Options()...)
	p.other = []string{r.URL}
	return p, r
}

// locate is to be called after a or b were changed.
func (p *pair) locate() {
	p.options = []string{"-o", "mail_location=" + p.a.Location()}
	p.other = []string{p.b.Location()}
}

// args is a command line with more options.
func (p *pair) args(command string, more ...string) []string {
	return append(append(append(append([]string{}, p.options...), more...), command), p.other...)
}

func (p *pair) mirror(more ...string) harness.Result {
	p.t.Helper()
	return p.Run(p.args("mirror", more...)...)
}

func (p *pair) backup(more ...string) harness.Result {
	p.t.Helper()
	return p.Run(p.args("backup", more...)...)
}

func (p *pair) verify() harness.Result {
	p.t.Helper()
	return p.Run(p.args("verify")...)
}

// settled syncs and then demands all that holds after a sync: equal by verify and by the files, and nothing left to do.
func (p *pair) settled() {
	p.t.Helper()
	p.mirror().Want(0)
	p.equal()
	p.unchanging()
}

func (p *pair) equal() {
	p.t.Helper()
	p.verify().Want(0)
	harness.Equal(p.t, p.a, p.b)
}

// unchanging demands that one more mirror touches no file on either side. What changed within the last second has to be
// looked at once more, under a lock, whose file leaves its time in the mailbox's directory.
func (p *pair) unchanging() {
	p.t.Helper()
	before := harness.Snap(p.t, p.a.Path, p.b.Path)
	p.mirror().Want(0)
	before.SameMail(p.t, p.a.Path, p.b.Path)
}

// union is what both sides must hold after the next sync if nothing was expunged.
func (p *pair) union() harness.Copies {
	p.t.Helper()
	return p.a.Read(p.t).Copies().Union(p.b.Read(p.t).Copies())
}

// hold demands that both sides have exactly these mails.
func (p *pair) hold(want harness.Copies) {
	p.t.Helper()
	p.a.Holds(p.t, want)
	p.b.Holds(p.t, want)
}

var summary = regexp.MustCompile(`(\d+) messages added, (\d+) sent`)

// moved returns how many mails a run with -v brought here and there.
func moved(t *testing.T, r harness.Result) int {
	t.Helper()
	m := summary.FindStringSubmatch(r.Stderr)
	if m == nil {
		t.Fatalf("no summary of a verbose run: %s", r.Stderr)
	}
	added, _ := strconv.Atoi(m[1])
	sent, _ := strconv.Atoi(m[2])
	return added + sent
}

// deliverMany delivers n made-up mails and returns them counted.
func deliverMany(t *testing.T, m harness.Maildir, mailbox, host string, n int) harness.Copies {
	t.Helper()
	copies := harness.Copies{}
	for i := range n {
		note := harness.Note(fmt.Sprintf("%s %d", host, i))
		m.Deliver(t, mailbox, harness.UniqueName(host, i, note), []string{"S", "", "FS"}[i%3], note)
		copies.Add(mailbox, harness.HashOf(note.Text))
	}
	return copies
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
