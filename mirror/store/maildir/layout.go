package maildir

import (
	"fmt"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Layout is how mailbox names become directories.
type Layout uint8

// The layouts.
const (
	MaildirPlusPlus Layout = iota // mailbox A/B is the directory ".A.B" in the root
	FS                            // mailbox A/B is the directory "A/B" (Dovecot's LAYOUT=fs)
)

// maxDirName is the longest name of a directory entry.
const maxDirName = 255

// MailboxOf returns the mailbox that the directory at a path below the root holds; "" is INBOX. ok is false for paths that
// name none: temporary and odd directories, names that are not modified UTF-7, INBOX in another spelling. Those exist on
// disk at times and are left alone.
func (l Layout) MailboxOf(dirPath string) (name mail.Name, ok bool) {
	if dirPath == "" {
		return mail.Inbox, true
	}
	var parts []string
	switch l {
	case FS:
		parts = strings.Split(dirPath, "/")
	default:
		if dirPath[0] != '.' || strings.Contains(dirPath, "/") {
			return "", false
		}
		parts = strings.Split(dirPath[1:], ".")
	}
	for i, part := range parts {
		decoded, err := decodeMUTF7(part)
		if err != nil {
			return "", false
		}
		parts[i] = decoded
	}
	name = mail.JoinName(parts...)
	// Only what comes back as the same directory has that name; this refuses reserved words and foreign INBOX spellings.
	dir, err := l.DirOf(name)
	return name, err == nil && dir == dirPath
}

// DirOf returns the directory of a mailbox as a path below the root. The error wraps [store.ErrName] if the layout cannot
// hold the name.
func (l Layout) DirOf(name mail.Name) (string, error) {
	if err := name.Check(); err != nil {
		return "", fmt.Errorf("%w: %w", store.ErrName, err)
	}
	name = name.FoldInbox()
	if name == mail.Inbox {
		return "", nil
	}
	parts := name.Parts()
	for i, part := range parts {
		encoded := encodeMUTF7(part)
		if err := l.checkPart(part, encoded); err != nil {
			return "", fmt.Errorf("%w: %q: %w", store.ErrName, string(name), err)
		}
		parts[i] = encoded
	}
	if l == FS {
		return strings.Join(parts, "/"), nil
	}
	dir := "." + strings.Join(parts, ".")
	if len(dir) > maxDirName {
		return "", fmt.Errorf("%w: %.40q...: %d bytes as a directory name", store.ErrName, string(name), len(dir))
	}
	return dir, nil
}

func (l Layout) checkPart(part, encoded string) error {
	if len(encoded) > maxDirName {
		return fmt.Errorf("a part of %d bytes on disk", len(encoded))
	}
	if l == FS {
		if isReserved(encoded) {
			return fmt.Errorf("%q is reserved in a Maildir", part)
		}
		return nil
	}
	if strings.Contains(part, ".") {
		return fmt.Errorf("part %q holds the hierarchy separator '.'", part)
	}
	return nil
}

// isReserved reports whether a directory entry has a meaning of its own in a mailbox, so that with LAYOUT=fs no mailbox can
// have its name.
func isReserved(entry string) bool {
	switch entry {
	case "cur", "new", "tmp", subscriptionsName, subscriptionsName + ".lock", "maildirfolder", "maildirsize", "dovecot-shared",
		"dovecot-acl", "dovecot-acl-list", keywordsName, keywordsName + ".lock", uidlistName, lockName, uidlistName + ".tmp":
		return true
	}
	for _, prefix := range []string{"dovecot.index", "dovecot.list.index", mailboxLogName, validityName} {
		if strings.HasPrefix(entry, prefix) {
			return true
		}
	}
	return false
}

// separator is the hierarchy separator on disk.
func (l Layout) separator() byte {
	if l == FS {
		return '/'
	}
	return '.'
}

// storageParts returns the parts of a name as they are written in the subscriptions file.
func storageParts(name mail.Name) []string {
	parts := name.FoldInbox().Parts()
	for i, p := range parts {
		parts[i] = encodeMUTF7(p)
	}
	return parts
}

// nameOfStorageParts is the reverse of storageParts.
func nameOfStorageParts(parts []string) (mail.Name, bool) {
	decoded := make([]string, len(parts))
	for i, p := range parts {
		d, err := decodeMUTF7(p)
		if err != nil {
			return "", false
		}
		decoded[i] = d
	}
	name := mail.JoinName(decoded...)
	return name.FoldInbox(), name.Check() == nil
}
