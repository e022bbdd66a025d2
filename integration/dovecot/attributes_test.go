package dovecot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// chain is a Maildir that dsyncfs syncs with two Dovecots: what comes from the one has to arrive at the other.
type chain struct {
	first, second *pair
}

func newChain(t *testing.T, format, more string) *chain {
	e := harness.New(t)
	ours := newAccount(e, "ours", "maildir")
	must(t, os.MkdirAll(filepath.Join(ours.home, "Maildir", "cur"), 0o700))
	c := &chain{}
	c.first = pairOf(e, t, ours, newAccountWith(e, "first", format, "/", more))
	c.second = pairOf(e, t, ours, newAccountWith(e, "second", format, "/", more))
	return c
}

// sync carries what is new on either side over to the other.
func (c *chain) sync() {
	c.first.t.Helper()
	c.first.clean("mirror")
	c.second.clean("mirror")
	c.first.clean("mirror")
}

// metadata is what an account has of RFC 5464, as its dictionary has it: alternating lines of keys and values.
func (a *account) metadata() []string {
	a.t.Helper()
	text, err := os.ReadFile(filepath.Join(a.home, "dovecot-attributes"))
	must(a.t, err)
	names := map[string]string{}
	for _, row := range a.status("guid") {
		names[row[1]] = row[0]
	}
	var out []string
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		key := strings.SplitN(lines[i], "/", 3)
		out = append(out, names[key[1]]+" "+key[0]+"/"+key[2]+" "+lines[i+1])
	}
	slices.Sort(out)
	return out
}

func wantLines(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestMetadata(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		c := newChain(t, format, "")
		a, b := c.first.dove, c.second.dove
		set := func(a *account, box, key, value string) {
			t.Helper()
			a.doveadm("mailbox", "metadata", "set", box, key, value)
		}
		both := func(step string, want ...string) {
			t.Helper()
			c.sync()
			wantLines(t, step+": first", a.metadata(), want...)
			wantLines(t, step+": second", b.metadata(), want...)
		}
		a.save("INBOX", note("a mail"))
		a.doveadm("mailbox", "create", "Work")
		set(a, "INBOX", "/private/comment", "mine")
		set(a, "INBOX", "/shared/comment", "for all")
		set(a, "Work", "/private/vendor/example/color", "red")
		both("set by the first", "INBOX priv/comment mine", "INBOX shared/comment for all", "Work priv/vendor/example/color red")
		set(b, "Work", "/private/vendor/example/color", "blue")
		set(b, "INBOX", "/private/comment", "")
		b.doveadm("mailbox", "metadata", "unset", "INBOX", "/shared/comment")
		both("changed by the second", "INBOX priv/comment ", "Work priv/vendor/example/color blue")
		a.doveadm("mailbox", "metadata", "unset", "INBOX", "/private/comment")
		a.doveadm("mailbox", "rename", "Work", "Play")
		both("removed by the first", "Play priv/vendor/example/color blue")
	})
}

const sieveSettings = `
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
`

// scripts are an account's, the active one marked.
func (a *account) scripts() []string {
	a.t.Helper()
	var out []string
	for line := range strings.Lines(a.doveadm("sieve", "list")) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(line, " ")
		text := strings.TrimPrefix(a.doveadm("sieve", "get", name), "sieve script:\n")
		out = append(out, line+": "+strings.TrimSpace(text))
	}
	slices.Sort(out)
	return out
}

func TestSieveScripts(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		c := newChain(t, format, sieveSettings)
		a, b := c.first.dove, c.second.dove
		put := func(a *account, name, text string) {
			t.Helper()
			if r := a.try([]byte(text), "sieve", "put", name); r.status != 0 || a.complains(r.stderr) {
				t.Fatalf("sieve put: %s", r.stderr)
			}
		}
		both := func(step string, want ...string) {
			t.Helper()
			c.sync()
			wantLines(t, step+": first", a.scripts(), want...)
			wantLines(t, step+": second", b.scripts(), want...)
		}
		a.save("INBOX", note("a mail"))
		put(a, "main", "keep;\n")
		put(a, "other", "discard;\n")
		a.doveadm("sieve", "activate", "main")
		both("put by the first", "main ACTIVE: keep;", "other: discard;")
		nextSecond(t)
		put(b, "main", "stop;\n")
		b.doveadm("sieve", "delete", "other")
		both("changed by the second", "main ACTIVE: stop;")
		nextSecond(t)
		put(a, "third", "keep;\nstop;\n")
		a.doveadm("sieve", "activate", "third")
		both("another one activated", "main: stop;", "third ACTIVE: keep;\nstop;")
		nextSecond(t)
		b.doveadm("sieve", "deactivate")
		both("none activated", "main: stop;", "third: keep;\nstop;")
	})
}
