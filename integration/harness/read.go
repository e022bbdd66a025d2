package harness

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Hash identifies a mail by its bytes.
type Hash [sha256.Size]byte

// HashOf returns the hash of a mail's text.
func HashOf(text []byte) Hash { return sha256.Sum256(text) }

// Message is what a Maildir says of one mail.
type Message struct {
	UID       uint32 // 0: not in dovecot-uidlist
	GUID      string
	Flags     string   // letters of the system flags, sorted
	Keywords  []string // sorted; those that file names can hold
	Received  int64    // seconds since the epoch
	Hash      Hash
	POP3UIDL  string
	POP3Order string
	Path      string // of the file, relative to the Maildir
}

// Mailbox is what a Maildir says of one mailbox.
type Mailbox struct {
	GUID        string
	UIDValidity uint32
	UIDNext     uint32
	Messages    []Message // by UID
}

// Contents is everything that two Maildirs in sync have in common.
type Contents struct {
	Mailboxes     map[string]*Mailbox
	Subscriptions []string // sorted
}

// Read reads the whole Maildir from its files. It takes no locks: nobody may change it meanwhile.
func (m Maildir) Read(tb testing.TB) Contents {
	tb.Helper()
	c, err := m.Look()
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// Look is Read while others may still change the Maildir: then a mail can have another name by the time it is opened,
// which is an error.
func (m Maildir) Look() (Contents, error) {
	c := Contents{Mailboxes: map[string]*Mailbox{}}
	dirs, err := m.mailboxDirs()
	if err != nil {
		return c, err
	}
	for name, dir := range dirs {
		if c.Mailboxes[name], err = m.readMailbox(dir); err != nil {
			return c, fmt.Errorf("mailbox %s: %w", name, err)
		}
	}
	c.Subscriptions, err = m.readSubscriptions()
	return c, err
}

func (m Maildir) mailboxDirs() (map[string]string, error) {
	dirs := map[string]string{"INBOX": m.Path}
	if !m.FS {
		entries, err := os.ReadDir(m.Path)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), ".")
			if !ok || !e.IsDir() || strings.HasPrefix(name, ".") {
				continue
			}
			// Mail programs keep directories of their own here, such as .notmuch.
			if _, err := os.Stat(filepath.Join(m.Path, e.Name(), "cur")); err == nil {
				dirs[joinDecoded(strings.Split(name, "."))] = filepath.Join(m.Path, e.Name())
			}
		}
		return dirs, nil
	}
	err := filepath.WalkDir(m.Path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || path == m.Path {
			return err
		}
		if base := e.Name(); base == "cur" || base == "new" || base == "tmp" || strings.HasPrefix(base, ".temp.") {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "cur")); err == nil {
			rel, _ := filepath.Rel(m.Path, path)
			dirs[joinDecoded(strings.Split(rel, "/"))] = path
		}
		return nil
	})
	return dirs, err
}

func joinDecoded(parts []string) string {
	for i, p := range parts {
		parts[i] = DecodeName(p)
	}
	return strings.Join(parts, "/")
}

func (m Maildir) readMailbox(dir string) (*Mailbox, error) {
	box := &Mailbox{}
	records, err := box.readUIDList(filepath.Join(dir, "dovecot-uidlist"))
	if err != nil {
		return nil, err
	}
	keywords, err := readKeywords(filepath.Join(dir, "dovecot-keywords"))
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Name()[0] == '.' {
				continue
			}
			msg, err := m.readMessage(filepath.Join(dir, sub, e.Name()), records, keywords)
			if err != nil {
				return nil, err
			}
			box.Messages = append(box.Messages, msg)
		}
	}
	slices.SortFunc(box.Messages, func(a, b Message) int {
		if a.UID != b.UID {
			return int(a.UID) - int(b.UID)
		}
		return strings.Compare(a.Path, b.Path)
	})
	return box, nil
}

func (m Maildir) readMessage(path string, records map[string]Message, keywords map[byte]string) (Message, error) {
	base, info := splitName(filepath.Base(path))
	msg, ok := records[base]
	if !ok {
		msg.GUID = base
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return msg, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		return msg, err
	}
	msg.Hash, msg.Received = HashOf(text), stat.ModTime().Unix()
	msg.Path, _ = filepath.Rel(m.Path, path)
	var flags []byte
	for _, c := range []byte(info) {
		switch {
		case c >= 'A' && c <= 'Z':
			flags = append(flags, c)
		case c >= 'a' && c <= 'z':
			name := keywords[c]
			if name == "" {
				name = "unknown letter " + string(c)
			}
			msg.Keywords = append(msg.Keywords, name)
		}
	}
	slices.Sort(flags)
	flags = slices.Compact(flags)
	slices.Sort(msg.Keywords)
	msg.Keywords = slices.Compact(msg.Keywords)
	msg.Flags = string(flags)
	return msg, nil
}

// splitName takes the name of a mail apart as Dovecot does: the base ends at the first colon, the flags follow the last one
// if it begins ":2," (dovecot 2.3.19 maildir-filename.c, maildir-filename-flags.c).
func splitName(name string) (base, flags string) {
	base, _, _ = strings.Cut(name, ":")
	flags, ok := strings.CutPrefix(name[strings.LastIndexByte(name, ':')+1:], "2,")
	if !ok || base == name {
		return base, ""
	}
	flags, _, _ = strings.Cut(flags, ",")
	return base, flags
}

// readUIDList reads a version 3 dovecot-uidlist and is strict: whatever Dovecot would answer with a renumbering is an
// error. A missing file is an empty one.
func (b *Mailbox) readUIDList(path string) (map[string]Message, error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	body, complete := strings.CutSuffix(string(text), "\n")
	if !complete {
		return nil, fmt.Errorf("%s: last line is cut off", path)
	}
	lines := strings.Split(body, "\n")
	if err := b.readHeader(lines[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	records := map[string]Message{}
	last := uint32(0)
	for _, line := range lines[1:] {
		msg, base, err := readRecord(line)
		if err != nil || msg.UID <= last {
			return nil, fmt.Errorf("%s: line %q after UID %d: %v", path, line, last, err)
		}
		last = msg.UID
		records[base] = msg
	}
	b.UIDNext = max(b.UIDNext, last+1)
	return records, nil
}

func (b *Mailbox) readHeader(line string) error {
	words := strings.Split(line, " ")
	if words[0] != "3" {
		return fmt.Errorf("version %q", words[0])
	}
	for _, w := range words[1:] {
		if w == "" {
			return fmt.Errorf("header %q", line)
		}
		n, err := strconv.ParseUint(w[1:], 10, 32)
		switch w[0] {
		case 'V':
			b.UIDValidity = uint32(n)
		case 'N':
			b.UIDNext = uint32(n)
		case 'G':
			b.GUID, err = w[1:], nil
		}
		if err != nil {
			return fmt.Errorf("header %q: %w", line, err)
		}
	}
	if b.UIDValidity == 0 || b.UIDNext == 0 || len(b.GUID) != 32 {
		return fmt.Errorf("header %q is not complete", line)
	}
	return nil
}

func readRecord(line string) (msg Message, base string, err error) {
	fields, base, found := strings.Cut(line, " :")
	if !found || base == "" {
		return msg, "", fmt.Errorf("no file name")
	}
	base, _ = splitName(base)
	msg.GUID = base
	words := strings.Split(fields, " ")
	uid, err := strconv.ParseUint(words[0], 10, 31)
	if err != nil {
		return msg, "", err
	}
	msg.UID = uint32(uid)
	for _, w := range words[1:] {
		switch {
		case len(w) < 2:
			return msg, "", fmt.Errorf("empty field")
		case w[0] == 'G':
			msg.GUID = w[1:]
		case w[0] == 'P':
			msg.POP3UIDL = w[1:]
		case w[0] == 'O':
			msg.POP3Order = w[1:]
		}
	}
	return msg, base, nil
}

func readKeywords(path string) (map[byte]string, error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := map[byte]string{}
	for line := range strings.Lines(string(text)) {
		index, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		i, err := strconv.Atoi(index)
		if !ok || err != nil || i > 25 {
			return nil, fmt.Errorf("%s: line %q", path, line)
		}
		names['a'+byte(i)] = name
	}
	return names, nil
}

func (m Maildir) readSubscriptions() ([]string, error) {
	text, err := os.ReadFile(filepath.Join(m.Path, "subscriptions"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	separator := "."
	if m.FS {
		separator = "/"
	}
	body, v2 := strings.CutPrefix(string(text), "V\t2\n\n")
	if v2 {
		separator = "\t"
	}
	var names []string
	for line := range strings.Lines(body) {
		names = append(names, joinDecoded(strings.Split(strings.TrimSuffix(line, "\n"), separator)))
	}
	slices.Sort(names)
	return names, nil
}
