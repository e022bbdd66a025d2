package bench

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// boxes is how many mailboxes the mails are spread over.
const boxes = 10

func boxName(i int) string {
	if i%boxes == 0 {
		return "INBOX"
	}
	return fmt.Sprintf("box%d", i%boxes)
}

// fill makes a Maildir of n mails: the corpus as often as it takes, each time with another header. They are made one by one;
// 200,000 would be a burden on memory.
func fill(tb testing.TB, m harness.Maildir, n int) harness.Maildir {
	tb.Helper()
	corpus := harness.Mails(tb, min(n, harness.CorpusSize))
	return fillWith(tb, m, n, func(i int) harness.Mail {
		mail := corpus[i%len(corpus)]
		if round := i / len(corpus); round > 0 {
			mail.Text = append([]byte(fmt.Sprintf("X-Repetition: %d\n", round)), mail.Text...)
			mail.Date = mail.Date.Add(time.Duration(round) * time.Hour)
		}
		return mail
	})
}

func fillWith(tb testing.TB, m harness.Maildir, n int, mail func(i int) harness.Mail) harness.Maildir {
	tb.Helper()
	for i := range boxes {
		m.Create(tb, boxName(i))
	}
	flags := []string{"S", "S", "", "RS", "S", "FS"}
	for i := range n {
		text := mail(i)
		m.Deliver(tb, boxName(i), harness.UniqueName("bench", i, text), flags[i%len(flags)], text)
	}
	return m
}

// large makes a Maildir with one mail of that many bytes, as text in lines.
func large(tb testing.TB, m harness.Maildir, size int) harness.Maildir {
	tb.Helper()
	m.Create(tb, "INBOX")
	f, err := os.Create(filepath.Join(m.Path, "cur", "1700000000.M1P1.bench:2,S"))
	if err != nil {
		tb.Fatal(err)
	}
	w := bufio.NewWriter(f)
	header := "From: Ann <ann@example.org>\nSubject: large\nMessage-ID: <large@example.org>\n\n"
	w.WriteString(header)
	line := strings.Repeat("0123456789abcdef", 4) + "\n"
	for n := len(header); n < size; n += len(line) {
		w.WriteString(line)
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	return m
}

// changeFlag renames one mail, which gets or loses \Flagged.
func changeFlag(tb testing.TB, m harness.Maildir) {
	tb.Helper()
	cur := filepath.Join(m.Dir("box1"), "cur")
	entries, err := os.ReadDir(cur)
	if err != nil || len(entries) == 0 {
		tb.Fatalf("%s: %d entries, %v", cur, len(entries), err)
	}
	old := entries[len(entries)/2].Name()
	base, flags, _ := strings.Cut(old, ":2,")
	if rest, ok := strings.CutPrefix(flags, "F"); ok {
		flags = rest
	} else {
		flags = "F" + flags
	}
	if err := os.Rename(filepath.Join(cur, old), filepath.Join(cur, base+":2,"+flags)); err != nil {
		tb.Fatal(err)
	}
}

// oneGUID gives every mail of the INBOX the same GUID, as copies of copies have it.
func oneGUID(tb testing.TB, m harness.Maildir) {
	tb.Helper()
	var text strings.Builder
	entries, err := os.ReadDir(filepath.Join(m.Path, "cur"))
	if err != nil {
		tb.Fatal(err)
	}
	fmt.Fprintf(&text, "3 V1700000000 N%d Gaabbccddeeff00112233445566778899\n", len(entries)+1)
	for i, e := range entries {
		base, _, _ := strings.Cut(e.Name(), ":2,")
		fmt.Fprintf(&text, "%d G0123456789abcdef0123456789abcdef :%s\n", i+1, base)
	}
	write(tb, filepath.Join(m.Path, "dovecot-uidlist"), text.String())
}
