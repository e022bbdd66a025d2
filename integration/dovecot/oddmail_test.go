package dovecot

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// odd are mails that are not what mails should be.
var odd = map[string]string{
	"nul":        "Subject: NUL\x00 in it\n\nbody \x00 with \x00\x00 NULs\n",
	"barecr":     "Subject: bare CR\n\none\rtwo\r\rthree\n",
	"crlf":       "Subject: CRLF\r\n\r\none\r\ntwo\r\n",
	"mixed":      "Subject: mixed\r\n\none\ntwo\r\n",
	"crcrlf":     "Subject: CRCRLF\n\na\r\r\nb\n",
	"dotcr":      "Subject: CR after a dot\n\na\n.\r\nb\n",
	"finalcr":    "Subject: final CR\n\nthe end\r",
	"nonewline":  "Subject: no final newline\n\nthe end",
	"eightbit":   "Subject: Gr\xfc\xdfe \xff\xfe\nX-\xe4: \x80\n\nK\xf6rper\n",
	"empty":      "",
	"newline":    "\n",
	"dots":       ".\n..\n.x\n\n.\n..\n",
	"noheader":   "no header at all",
	"headeronly": "Subject: header only",
	"longline":   "Subject: long " + strings.Repeat("x", 200000) + "\n\n" + strings.Repeat("y", 300000),
}

// kept is what a Dovecot makes of a mail when it saves it.
func kept(text string) string {
	return strings.TrimSuffix(strings.ReplaceAll(text, "\r\n", "\n"), "\r")
}

func deliverOdd(t *testing.T, m harness.Maildir, box string) {
	t.Helper()
	m.Create(t, "INBOX", box)
	for name, text := range odd {
		m.Deliver(t, box, "1767261600."+name+".odd", "S", harness.Mail{Text: []byte(text), Date: time.Unix(1767261600, 0)})
	}
}

// dboxEnd is what follows a message in a file of sdbox or mdbox, after a newline before it.
const dboxEnd = "\n\x01\x03\n"

// stored returns the messages of an account as they are on disk, each between a newline and dboxEnd.
func (a *account) stored() []byte {
	a.t.Helper()
	var all []byte
	must(a.t, filepath.WalkDir(a.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		message := filepath.Base(filepath.Dir(path)) == "cur"
		if !message && !strings.HasPrefix(d.Name(), "u.") && !strings.HasPrefix(d.Name(), "m.") {
			return nil
		}
		text, err := os.ReadFile(path)
		if all = append(append(all, '\n'), text...); message {
			all = append(all, dboxEnd...)
		}
		return err
	}))
	return all
}

// holds fails the test unless each odd mail is on disk as want says.
func (a *account) holds(want func(string) string) {
	a.t.Helper()
	stored := a.stored()
	for name, text := range odd {
		if !bytes.Contains(stored, []byte("\n"+want(text)+dboxEnd)) {
			a.t.Errorf("%s: the mail %q is not there as it should be", a.name, name)
		}
	}
}

// Odd mails come to a Dovecot as it keeps them, from it byte by byte, and what it does not keep is said.
func TestOddMails(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		s := newServed(t, format)
		p := s.pair
		deliverOdd(t, p.ours.maildir(), "Odd")
		p.ours.own()
		var said string
		if format == "mdbox" { // in the other role
			r := s.sync("sync")
			if said = r.stderr; r.status != 0 {
				t.Errorf("doveadm: exit status %d", r.status)
			}
		} else {
			said = p.run("-v", "mirror").Want(0).Stderr
			if !strings.Contains(said, "mailbox Odd: the Dovecot at the other side keeps LF for the CRLF of message ") {
				t.Errorf("CRLF is not spoken of: %s", said)
			}
		}
		if !strings.Contains(said, "mailbox Odd: the Dovecot at the other side drops a CR from message ") {
			t.Errorf("what is not kept is not said: %s", said)
		}
		p.ours.holds(strings.Clone)
		p.dove.holds(kept)
		p.clean("mirror")
		if got, want := len(p.dove.mails("Odd")), len(odd); got != want {
			t.Errorf("%d mails, want %d", got, want)
		}

		if format == "maildir" {
			deliverOdd(t, p.dove.maildir(), "Raw")
			p.dove.own()
			p.clean("mirror")
			for name, text := range odd {
				files, err := filepath.Glob(p.ours.maildir().Dir("Raw") + "/cur/*." + name + ".odd*")
				must(t, err)
				if len(files) != 1 {
					t.Fatalf("%s: %q", name, files)
				}
				if got, err := os.ReadFile(files[0]); err != nil || string(got) != text {
					t.Errorf("%s came as %.100q (%v)", name, got, err)
				}
			}
		}
		fresh := pairOf(p.Env, t, newAccount(p.Env, "fresh", "maildir"), p.dove)
		fresh.clean("backup", "-R")
		fresh.ours.holds(kept)
	})
}

// hugeSize is that of the huge mail's body, in bytes.
const hugeSize = 100 << 20

// hugeMail is read as the same mail each time. It is never in memory: a child's peak begins with its parent's.
func hugeMail() io.Reader {
	return io.MultiReader(strings.NewReader("Subject: huge\n\n"), io.LimitReader(pattern{}, hugeSize))
}

// pattern is an endless text of lines.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	const line = "0123456789abcdefghijklmnopqrstuvwxyz 0123456789abcdefghijklmnop\n" // 64 bytes
	p = p[:max(min(len(p), 64), len(p)/64*64)]
	for n := 0; n < len(p); {
		n += copy(p[n:], line)
	}
	return len(p), nil
}

// equalStreams reports whether a begins with all of b, and what is left of a then.
func equalStreams(t *testing.T, a, b io.Reader) (equal bool, rest string) {
	t.Helper()
	want := sha256.New()
	size, err := io.Copy(want, b)
	must(t, err)
	got := sha256.New()
	_, err = io.CopyN(got, a, size)
	left, rerr := io.ReadAll(io.LimitReader(a, 1000))
	must(t, rerr)
	return err == nil && bytes.Equal(got.Sum(nil), want.Sum(nil)), string(left)
}

// A mail of 100 MB is streamed in both directions.
func TestHugeMail(t *testing.T) {
	t.Parallel()
	p := newPair(t, "sdbox")
	p.ours.maildir().Create(t, "INBOX")
	write(t, filepath.Join(p.ours.maildir().Path, "cur", "1767261600.huge.odd:2,S"), hugeMail())
	p.ours.own()
	there := p.clean("mirror")
	file := open(t, p.dove.home+"/sdbox/mailboxes/INBOX/dbox-Mails/u.1")
	in := bufio.NewReader(file)
	for range 2 { // headers of the file and of the message
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if equal, rest := equalStreams(t, in, hugeMail()); !equal || !strings.HasPrefix(rest, dboxEnd) {
		t.Errorf("the mail is not there as it was; it goes on with %q", rest)
	}
	fresh := pairOf(p.Env, t, newAccount(p.Env, "fresh", "maildir"), p.dove)
	back := fresh.clean("backup", "-R")
	files, err := filepath.Glob(fresh.ours.maildir().Path + "/cur/*")
	must(t, err)
	if len(files) != 1 {
		t.Fatalf("%q", files)
	}
	if equal, rest := equalStreams(t, open(t, files[0]), hugeMail()); !equal || rest != "" {
		t.Errorf("the mail did not come back as it was; it goes on with %q", rest)
	}
	for _, r := range []harness.Result{there, back} {
		t.Logf("%s, %d MB of memory", r.Took, r.MaxRSS>>20)
		if r.MaxRSS > hugeSize {
			t.Errorf("%d MB of memory for one mail", r.MaxRSS>>20)
		}
	}
}

func write(t *testing.T, path string, from io.Reader) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	_, err = io.Copy(f, from)
	must(t, errors.Join(err, f.Close()))
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}
