package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Maildir is a Maildir on disk, or a mount that shows one.
type Maildir struct {
	Path string
	FS   bool // LAYOUT=fs instead of Maildir++
}

// Location is how the command line names it.
func (m Maildir) Location() string {
	if m.FS {
		return "maildir:" + m.Path + ":LAYOUT=fs"
	}
	return "maildir:" + m.Path
}

// Dir returns the directory of a mailbox; levels of the name are separated by '/'.
func (m Maildir) Dir(mailbox string) string {
	if mailbox == "INBOX" {
		return m.Path
	}
	parts := strings.Split(mailbox, "/")
	for i, p := range parts {
		parts[i] = EncodeName(p)
	}
	if m.FS {
		return filepath.Join(m.Path, filepath.Join(parts...))
	}
	return filepath.Join(m.Path, "."+strings.Join(parts, "."))
}

// Create makes an empty mailbox, if it is not there.
func (m Maildir) Create(tb testing.TB, mailboxes ...string) {
	tb.Helper()
	for _, mailbox := range mailboxes {
		dir := m.Dir(mailbox)
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
				tb.Fatal(err)
			}
		}
		if mailbox != "INBOX" && !m.FS {
			writeFile(tb, filepath.Join(dir, "maildirfolder"), "")
		}
	}
}

// Subscribe writes the file of subscriptions in the form that Dovecot gives new ones.
func (m Maildir) Subscribe(tb testing.TB, mailboxes ...string) {
	tb.Helper()
	text := "V\t2\n\n"
	for _, mailbox := range mailboxes {
		parts := strings.Split(mailbox, "/")
		for i, p := range parts {
			parts[i] = EncodeName(p)
		}
		text += strings.Join(parts, "\t") + "\n"
	}
	writeFile(tb, filepath.Join(m.Path, "subscriptions"), text)
}

// Keywords writes the dovecot-keywords of a mailbox: the first name belongs to the letter a of file names.
func (m Maildir) Keywords(tb testing.TB, mailbox string, names ...string) {
	tb.Helper()
	var text strings.Builder
	for i, name := range names {
		fmt.Fprintf(&text, "%d %s\n", i, name)
	}
	writeFile(tb, filepath.Join(m.Dir(mailbox), "dovecot-keywords"), text.String())
}

// Deliver puts a mail into a mailbox as delivery agents do: written in tmp, then renamed. Without flags it goes to new,
// else to cur; flags are the letters of the file name. It returns the path of the mail.
func (m Maildir) Deliver(tb testing.TB, mailbox, base, flags string, mail Mail) string {
	tb.Helper()
	path, err := m.TryDeliver(mailbox, base, flags, mail)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// TryDeliver is Deliver for where it may fail, and for other goroutines than the test's.
func (m Maildir) TryDeliver(mailbox, base, flags string, mail Mail) (string, error) {
	dir := m.Dir(mailbox)
	tmp := filepath.Join(dir, "tmp", base)
	if err := os.WriteFile(tmp, mail.Text, 0o600); err != nil {
		return "", err
	}
	if err := os.Chtimes(tmp, mail.Date, mail.Date); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "new", base)
	if flags != "" {
		path = filepath.Join(dir, "cur", base+":2,"+flags)
	}
	return path, os.Rename(tmp, path)
}

// UniqueName returns a base name as delivery agents make them; some have a size, some not.
func UniqueName(host string, i int, mail Mail) string {
	base := fmt.Sprintf("%d.M%dP%d_%d.%s", mail.Date.Unix(), i*37%1000000, 4000+i%50, i, host)
	if i%3 == 0 {
		return base + fmt.Sprintf(",S=%d", len(mail.Text))
	}
	return base
}

// Mailboxes are names of every kind that a user may have.
var Mailboxes = []string{
	"INBOX", "Work", "Work/2026", "Work/2026/Q1", "Entwürfe", "日本語/メール", "R&D", "Lists/golang-nuts", "spam", "with space",
}

// flagCycle gives mails flags as people have them: most read, some answered, a few new.
var flagCycle = []string{"S", "S", "", "RS", "S", "FS", "S", "", "S", "DS", "S", "T", "S"}

// Build makes a Maildir of the mails, spread over mailboxes ([Mailboxes] if none is named) in turn. host makes the file
// names of one Maildir different from those of another.
func Build(tb testing.TB, m Maildir, host string, mails []Mail, mailboxes ...string) Maildir {
	tb.Helper()
	if len(mailboxes) == 0 {
		mailboxes = Mailboxes
	}
	m.Create(tb, append([]string{"INBOX"}, mailboxes...)...)
	for i, mail := range mails {
		m.Deliver(tb, mailboxes[i%len(mailboxes)], UniqueName(host, i, mail), flagCycle[i%len(flagCycle)], mail)
	}
	return m
}

// Note is a small made-up mail, for what needs a mail of its own.
func Note(subject string) Mail {
	date := time.Date(2026, time.January, 5, 10, 0, 0, 0, time.UTC)
	text := fmt.Sprintf("From: Ann <ann@example.org>\nTo: Bob <bob@example.net>\nSubject: %s\nMessage-ID: <%x@example.org>\nDate: %s\n\nText of %s.\n",
		subject, subject, date.Format(time.RFC1123Z), subject)
	return Mail{Text: []byte(text), Date: date}
}

func writeFile(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}
