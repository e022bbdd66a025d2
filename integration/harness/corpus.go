package harness

import (
	"bytes"
	"fmt"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// CorpusSize is how many mails the corpus has, all different.
const CorpusSize = 6046

// Mail is one real mail.
type Mail struct {
	Text []byte    // as it is in a Maildir; never changed
	Date time.Time // of its Date header, or a made-up one if that makes no sense
}

// Mails returns the first n mails of the SpamAssassin corpus, always the same. It is fetched once for each machine. n
// must not be above [CorpusSize].
func Mails(tb testing.TB, n int) []Mail {
	tb.Helper()
	all, err := corpus()
	if err != nil {
		tb.Fatalf("mail corpus: %v", err)
	}
	if n > len(all) {
		tb.Fatalf("%d mails asked for, the corpus has %d", n, len(all))
	}
	return all[:n:n]
}

// Repeat returns n mails: the corpus as often as it takes, with a header that makes each repetition another mail.
func Repeat(tb testing.TB, n int) []Mail {
	tb.Helper()
	all := Mails(tb, CorpusSize)
	mails := make([]Mail, 0, n)
	for i := range n {
		m := all[i%len(all)]
		if round := i / len(all); round > 0 {
			m.Text = append([]byte(fmt.Sprintf("X-Repetition: %d\n", round)), m.Text...)
			m.Date = m.Date.Add(time.Duration(round) * time.Hour)
		}
		mails = append(mails, m)
	}
	return mails
}

var corpus = sync.OnceValues(loadCorpus)

// loadCorpus reads the mails in an order that mixes the groups (easy ham, hard ham, spam).
func loadCorpus() ([]Mail, error) {
	dir, err := corpusDir()
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*", "*.txt"))
	if err != nil {
		return nil, err
	}
	if len(paths) != CorpusSize {
		return nil, fmt.Errorf("%s has %d mails instead of %d; remove it to have it fetched again", dir, len(paths), CorpusSize)
	}
	slices.SortFunc(paths, func(a, b string) int {
		return strings.Compare(filepath.Base(a)+a, filepath.Base(b)+b)
	})
	mails := make([]Mail, 0, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text = withoutEnvelope(text)
		mails = append(mails, Mail{Text: text, Date: dateOf(text, i)})
	}
	return mails, nil
}

func corpusDir() (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	out, err := exec.Command(filepath.Join(root, "integration", "setup.sh"), "corpus").Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = bytes.TrimSpace(exit.Stderr)
		}
		return "", fmt.Errorf("setup.sh corpus: %w: %s", err, stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// withoutEnvelope drops the line "From sender date" that most mails of the corpus have from their mbox.
func withoutEnvelope(text []byte) []byte {
	if bytes.HasPrefix(text, []byte("From ")) {
		if _, rest, ok := bytes.Cut(text, []byte{'\n'}); ok {
			return rest
		}
	}
	return text
}

// dateOf returns the date of the header in whole seconds. Spam likes impossible dates, which get one of 2002.
func dateOf(text []byte, i int) time.Time {
	if m, err := mail.ReadMessage(bytes.NewReader(text)); err == nil {
		if date, err := m.Header.Date(); err == nil && date.Year() > 1995 && date.Year() < 2010 {
			return date.Truncate(time.Second)
		}
	}
	return time.Date(2002, time.September, 1, 0, 0, i, 0, time.UTC)
}

// ModuleRoot returns the directory of go.mod.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above %s", start)
		}
	}
}
