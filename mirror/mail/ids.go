package mail

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
)

// UID identifies a message within a mailbox and UIDVALIDITY (RFC 9051 §2.3.1.1). 0 means not yet assigned.
type UID uint32

// MaxUID bounds the UIDs that we give out or accept; beyond 2^31 a Dovecot can crash (dovecot 2.3.19 maildir-uidlist.c).
const MaxUID UID = 1<<31 - 1

// UIDValidity is a mailbox's UIDVALIDITY. 0 means the mailbox has none yet.
type UIDValidity uint32

// ModSeq is a modification sequence as in CONDSTORE (RFC 7162 §3.1). A mailbox that never changed has 1; 0 means unknown.
type ModSeq uint64

// MailboxGUID identifies a mailbox across renames. The zero value means "no mailbox, only a level of hierarchy".
type MailboxGUID [16]byte

// String returns the 32 lower-case hex digits that Dovecot writes.
func (g MailboxGUID) String() string { return hex.EncodeToString(g[:]) }

// IsZero reports whether g names no mailbox.
func (g MailboxGUID) IsZero() bool { return g == MailboxGUID{} }

// Compare orders GUIDs by their bytes.
func (g MailboxGUID) Compare(o MailboxGUID) int { return bytes.Compare(g[:], o[:]) }

// ParseMailboxGUID reads 32 hex digits of either case.
func ParseMailboxGUID(s string) (MailboxGUID, error) {
	var g MailboxGUID
	if err := parseHex16(g[:], s); err != nil {
		return MailboxGUID{}, fmt.Errorf("mailbox GUID %q: %w", s, err)
	}
	return g, nil
}

// GUID identifies the content of a message across mailboxes and stores. In a Maildir it is the base file name or the G
// field of dovecot-uidlist; dbox formats use 32 hex digits. Empty means unknown.
type GUID string

// MaxGUID bounds the length of a GUID that we accept: the GUID of a Maildir's mail may be a whole file name.
const MaxGUID = 255

// maxGUIDName bounds a GUID that becomes a file name, so that there is room for its flags.
const maxGUIDName = 200

// GUID128 is the short form in which expunge records carry a GUID.
type GUID128 [16]byte

// Hash128 returns the short form of g: the 16 bytes that 32 hex digits stand for, else the last 16 bytes of the SHA-1 of
// g (dovecot 2.3 mail-storage: mail_generate_guid_128_hash).
func (g GUID) Hash128() GUID128 {
	var out GUID128
	if parseHex16(out[:], string(g)) == nil {
		return out
	}
	sum := sha1.Sum([]byte(g))
	copy(out[:], sum[4:])
	return out
}

// String returns 32 lower-case hex digits.
func (g GUID128) String() string { return hex.EncodeToString(g[:]) }

// IsZero reports whether g is unknown.
func (g GUID128) IsZero() bool { return g == GUID128{} }

// ParseGUID128 reads 32 hex digits of either case.
func ParseGUID128(s string) (GUID128, error) {
	var g GUID128
	if err := parseHex16(g[:], s); err != nil {
		return GUID128{}, fmt.Errorf("GUID hash %q: %w", s, err)
	}
	return g, nil
}

// UsableAsFileName reports whether g can be the base name of a Maildir file: rule 8 of the Maildir reference. A GUID with
// a slash makes a stock Dovecot crash when it copies the mail.
func (g GUID) UsableAsFileName() bool {
	if g == "" || len(g) > maxGUIDName || g[0] == '.' {
		return false
	}
	for i := 0; i < len(g); i++ {
		if c := g[i]; c <= ' ' || c >= 0x7f || c == '/' || c == ':' {
			return false
		}
	}
	return !strings.Contains(string(g), ",S=") && !strings.Contains(string(g), ",W=")
}

func parseHex16(dst []byte, s string) error {
	if len(s) != 32 {
		return fmt.Errorf("%d characters instead of 32", len(s))
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

// ContentHash is the SHA-256 of a message's bytes as stored. The zero value means unknown.
type ContentHash [32]byte

// IsZero reports whether h is unknown.
func (h ContentHash) IsZero() bool { return h == ContentHash{} }
