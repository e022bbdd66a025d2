package dovecot

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// everything is what that tells a mail from another and that no client may see change on the way from one Dovecot over
// a Maildir to another.
const everything = "mailbox uid guid flags date.received.unixtime date.saved.unixtime pop3.uidl pop3.order size.virtual text"

func (a *account) all() []string {
	a.t.Helper()
	var mails []map[string]string
	must(a.t, json.Unmarshal([]byte(a.doveadm("-f", "json", "fetch", everything, "mailbox", "*", "all")), &mails))
	var out []string
	for _, m := range mails {
		flags := strings.Fields(strings.ReplaceAll(m["flags"], `\Recent`, ""))
		slices.Sort(flags)
		saved := m["date.saved.unixtime"]
		if a.format == "maildir" {
			saved = "" // the time of a file
		}
		out = append(out, fmt.Sprintln(m["mailbox"], m["uid"], m["guid"], flags, m["date.received.unixtime"], saved,
			m["pop3.uidl"], m["pop3.order"], m["size.virtual"], hashOf([]byte(m["text"]))))
	}
	for _, row := range a.status("guid uidvalidity uidnext messages") {
		out = append(out, fmt.Sprintln("mailbox", row))
	}
	slices.Sort(out)
	return out
}

// modSeqs are the HIGHESTMODSEQ of each mailbox and the modseq of each mail.
func (a *account) modSeqs() map[string]int {
	a.t.Helper()
	out := map[string]int{}
	for _, row := range a.status("highestmodseq") {
		out[row[0]], _ = strconv.Atoi(row[1])
	}
	var mails []map[string]string
	must(a.t, json.Unmarshal([]byte(a.doveadm("-f", "json", "fetch", "mailbox uid modseq", "mailbox", "*", "all")), &mails))
	for _, m := range mails {
		out[m["mailbox"]+" "+m["uid"]], _ = strconv.Atoi(m["modseq"])
	}
	return out
}

func TestFromOneDovecotOverAMaildirToAnother(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		c := newChain(t, format, "")
		a, b := c.first.dove, c.second.dove
		for i := range 5 {
			a.save("INBOX", note(fmt.Sprint("mail ", i)))
		}
		a.doveadm("mailbox", "create", "Work/日本語")
		a.save("Work/日本語", note("nested"))
		a.save("Work/日本語", note("nested too"))
		a.doveadm("expunge", "mailbox", "INBOX", "uid", "1,5") // a hole, and a UIDNEXT above the last
		for i := range 30 {                                    // more than a Maildir has letters
			a.doveadm("flags", "add", fmt.Sprint("Keyword", i), "mailbox", "INBOX", "uid", "2")
		}
		a.doveadm("flags", "add", `\Answered \Flagged`, "mailbox", "*", "all")
		if format == "maildir" { // the POP3 fields that another server left
			list := filepath.Join(a.maildir().Path, "dovecot-uidlist")
			text, err := os.ReadFile(list)
			must(t, err)
			must(t, os.WriteFile(list, []byte(strings.Replace(string(text), "\n4 ", "\n4 Pold.uidl O7 ", 1)), 0o600))
			a.own()
		}
		carried := func(from, to *account, step string) {
			t.Helper()
			before := from.modSeqs()
			c.sync()
			wantLines(t, step, to.all(), from.all()...)
			after := to.modSeqs()
			for what, n := range before { // lower bounds; a mail that was there and did not change keeps its own
				if after[what] < n && (step == "there" || !strings.Contains(what, " ")) {
					t.Errorf("%s: modseq of %s fell from %d to %d", step, what, n, after[what])
				}
			}
		}
		carried(a, b, "there")
		b.doveadm("flags", "remove", `Keyword29 \Answered`, "mailbox", "INBOX", "uid", "2")
		b.doveadm("flags", "add", "Keyword30", "mailbox", "INBOX", "uid", "3")
		b.save("Work/日本語", note("from the second"))
		carried(b, a, "and back")
	})
}
