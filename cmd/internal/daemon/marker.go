package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"dsyncfs/mirror/mail"
)

// fillName is the file that says that the first fill has begun and not ended.
const fillName = "filling"

// marker is that file: of which Maildir and from where the fill is, and below that, a line each, the names of the mailboxes that held
// mail before, quoted, and the GUIDs of those that have got all their mails. What a power failure takes of the latter makes the next
// mount compare a mailbox first.
type marker struct {
	path  string
	whose string                    // lines
	own   map[mail.Name]bool        // held mail before
	whole map[mail.MailboxGUID]bool // of earlier mounts

	mu sync.Mutex // one line at a time
}

// openMarker reads it; again says that it is about this fill.
func openMarker(dir, whose string) (m *marker, again bool, err error) {
	m = &marker{path: filepath.Join(dir, fillName), whose: whose, own: make(map[mail.Name]bool), whole: make(map[mail.MailboxGUID]bool)}
	text, err := os.ReadFile(m.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("state directory: %w", err)
	}
	rest, again := strings.CutPrefix(string(text), whose)
	if !again {
		return m, false, nil
	}
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		if name, err := strconv.Unquote(line); err == nil {
			m.own[mail.Name(name)] = true
		} else if guid, err := mail.ParseMailboxGUID(line); err == nil {
			m.whole[guid] = true
		}
	}
	return m, true, nil
}

// begin writes it.
func (m *marker) begin(own []mail.Name) error {
	text := m.whose
	for _, name := range own {
		m.own[name] = true
		text += strconv.Quote(string(name)) + "\n"
	}
	if err := os.WriteFile(m.path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// add notes that a mailbox has got all its mails. The file may have gone with the end of the fill.
func (m *marker) add(box mail.MailboxGUID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	file, err := os.OpenFile(m.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(box.String() + "\n")
	return errors.Join(err, file.Close())
}
