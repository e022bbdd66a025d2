package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// TestNothingWaitsForALargeBody: while a mail of 20 MB crawls over a narrow link, a flag change in its mailbox and a mail in
// another one, which came after it, are there first. So it is in both directions, and the mail arrives whole.
func TestNothingWaitsForALargeBody(t *testing.T) {
	t.Parallel()
	for name, sides := range map[string]func(*mounted) (from, to harness.Maildir){
		"out": func(m *mounted) (from, to harness.Maildir) { return harness.Maildir{Path: m.mount.Path}, m.b },
		"in":  func(m *mounted) (from, to harness.Maildir) { return m.b, harness.Maildir{Path: m.mount.Path} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := prepareMount(t)
			m.a.Create(t, "INBOX", "Work")
			old := m.a.Deliver(t, "INBOX", "1767261600.M1.old", "", harness.Note("old"))
			m.start()
			m.synced()
			from, to := sides(m)
			m.link.Narrow(500_000)
			large := slowDelivery(t, from, "1767261601.M2.large", 20<<20)
			m.Eventually("the large mail is on its way", 20*time.Second, func() error {
				if m.link.Carried() < 300_000 {
					return errors.New("not yet")
				}
				return nil
			})
			read(t, from, filepath.Base(old))
			from.Deliver(t, "Work", "1767261602.M3.small", "", harness.Note("small"))
			m.Eventually("the flag is there", 20*time.Second, func() error { return exists(to, "INBOX", "1767261600.M1.old", "S") })
			m.Eventually("the small mail is there", 20*time.Second, func() error { return exists(to, "Work", "1767261602.M3.small", "") })
			if err := missing(to, "INBOX", "1767261601.M2.large"); err != nil {
				t.Errorf("what came after the large mail waited for it: %v", err)
			}
			m.link.Narrow(0)
			m.Eventually("the large mail is there", 60*time.Second, func() error { return exists(to, "INBOX", "1767261601.M2.large", "") })
			got, err := os.ReadFile(filepath.Join(to.Dir("INBOX"), "new", "1767261601.M2.large"))
			if err != nil || !bytes.Equal(got, large) {
				t.Errorf("%d bytes of %d arrived: %v", len(got), len(large), err)
			}
			m.synced()
			if n := m.link.Carried(); n > 30<<20 {
				t.Errorf("%d bytes passed the link: the body was sent twice", n)
			}
		})
	}
}

// slowDelivery delivers a mail of that size to INBOX and returns its bytes.
func slowDelivery(t *testing.T, m harness.Maildir, name string, size int) []byte {
	t.Helper()
	mail := []byte("From: a@example.org\nSubject: large\n\n")
	for i := 0; len(mail) < size; i++ {
		mail = fmt.Appendf(mail, "%d is followed by %d, and a line may begin with\n.%d\n", i, i+1, i*i)
	}
	tmp := filepath.Join(m.Path, "tmp", name)
	if err := os.WriteFile(tmp, mail, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(m.Path, "new", name)); err != nil {
		t.Fatal(err)
	}
	return mail
}

// read marks a new mail as seen.
func read(t *testing.T, m harness.Maildir, base string) {
	t.Helper()
	if err := os.Rename(filepath.Join(m.Path, "new", base), filepath.Join(m.Path, "cur", base+":2,S")); err != nil {
		t.Fatal(err)
	}
}
