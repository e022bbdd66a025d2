package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// NeomuttCopies opens a mailbox in neomutt, in a terminal as a person does, copies all its mails to an mbox and returns
// how many arrived.
func (e *Env) NeomuttCopies(m Maildir, mailbox string) int {
	e.TB.Helper()
	out, rc, typescript := e.Path("neomutt.mbox"), e.Path("neomuttrc"), e.Path("neomutt.typescript")
	if err := os.RemoveAll(out); err != nil {
		e.TB.Fatal(err)
	}
	writeFile(e.TB, rc, fmt.Sprintf(`set folder = "%s"
set header_cache = ""
set confirm_append = no
set confirm_create = no
set mark_old = no
set quit = yes
set sleep_time = 0
unset wait_key
set delete = yes
`, m.Path))
	command := fmt.Sprintf(`neomutt -n -F %s -f '%s' -e 'push "<tag-pattern>~A<enter><tag-prefix><copy-message>%s<enter><exit>"'`, rc, m.Dir(mailbox), out)
	e.Setenv("TERM", "vt100")
	e.Must("script", "-qec", command, typescript)
	text, err := os.ReadFile(out)
	if err != nil {
		screen, _ := os.ReadFile(typescript)
		e.TB.Fatalf("neomutt copied nothing: %v\n%s", err, head(string(screen), 3000))
	}
	n := 0
	for line := range strings.Lines("\n" + string(text)) {
		if strings.HasPrefix(line, "From ") {
			n++
		}
	}
	return n
}

// NotmuchCount indexes the Maildir with notmuch and returns how many files of mail it found. Its database is in the
// Maildir, as usual.
func (e *Env) NotmuchCount(m Maildir, query string) int {
	e.TB.Helper()
	e.NotmuchSetup(m)
	e.Must("notmuch", "new", "--quiet")
	return e.number("notmuch", "count", "--output=files", query)
}

// NotmuchSetup tells notmuch where the Maildir is.
func (e *Env) NotmuchSetup(m Maildir) {
	e.TB.Helper()
	config := e.Path("notmuch-config")
	writeFile(e.TB, config, fmt.Sprintf("[database]\npath=%s\n[user]\nname=Ann\nprimary_email=ann@example.org\n[new]\ntags=new\nignore=dovecot-uidlist;dovecot-keywords;subscriptions;maildirfolder\n[maildir]\nsynchronize_flags=true\n", m.Path))
	e.Setenv("NOTMUCH_CONFIG", config)
}

// MuCount indexes the Maildir with mu, into a database outside it, and returns how many mails it found.
func (e *Env) MuCount(m Maildir, query ...string) int {
	e.TB.Helper()
	home := e.Path("mu")
	if _, err := os.Stat(home); err != nil {
		e.Must("mu", "init", "--quiet", "--muhome="+home, "--maildir="+m.Path)
	}
	e.Must("mu", "index", "--quiet", "--muhome="+home)
	found := e.Must("mu", append([]string{"find", "--quiet", "--muhome=" + home, "--fields=l", "--skip-dups=false"}, query...)...)
	return strings.Count(found, "\n")
}

func (e *Env) number(program string, args ...string) int {
	e.TB.Helper()
	out := strings.TrimSpace(e.Must(program, args...))
	n, err := strconv.Atoi(out)
	if err != nil {
		e.TB.Fatalf("%s %s: %q is no number", program, strings.Join(args, " "), out)
	}
	return n
}
