package brain

import (
	"crypto/sha256"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
)

func TestContentHashLeavesOutWhatMbsyncInserts(t *testing.T) {
	const mailText = "From: a\nSubject: b\n\nX-TUID: abcdefghijkl\nbody"
	plain := sha256.Sum256([]byte(mailText))
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"the mail itself":                  {mailText, true},
		"a line inserted at the top":       {"X-TUID: 123456789012\n" + mailText, true},
		"a line inserted within":           {"From: a\nX-TUID: 123456789012\nSubject: b\n\nX-TUID: abcdefghijkl\nbody", true},
		"with CRLF":                        {"From: a\nX-TUID: 123456789012\r\nSubject: b\n\nX-TUID: abcdefghijkl\nbody", true},
		"a value of another length":        {"X-TUID: 12345\n" + mailText, false},
		"another body line":                {strings.Replace(mailText, "abcdefghijkl", "mnopqrstuvwx", 1), false},
		"two lines":                        {"X-TUID: 123456789012\nX-TUID: 123456789012\n" + mailText, false},
		"a header without an end":          {"From: a", false},
		"nothing":                          {"", false},
		"a header line that only looks so": {"X-TUIDS: 12345678901\n" + mailText, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := hashContent(strings.NewReader(c.text), make([]byte, 1024))
			if err != nil {
				t.Fatal(err)
			}
			if (got == mail.ContentHash(plain)) != c.same {
				t.Errorf("equal is %v, want %v", !c.same, c.same)
			}
		})
	}
}

func TestContentHashReadsToTheEnd(t *testing.T) {
	text := "Subject: long\n\n" + strings.Repeat("0123456789", 1000)
	got, err := hashContent(strings.NewReader(text), make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256([]byte(text)); got != mail.ContentHash(want) {
		t.Error("not the hash of all bytes")
	}
}
