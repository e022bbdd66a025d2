package dovecotlog

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"dsyncfs/mirror/mail"
)

// Kind says what happened to a mailbox.
type Kind uint8

// The kinds of records (dovecot 2.3.19 mailbox-log.h: enum mailbox_log_record_type).
const (
	DeleteMailbox Kind = iota + 1
	DeleteDirectory
	Rename
	Subscribe
	Unsubscribe
	CreateDirectory
)

// MailboxEvent is a record of dovecot.mailbox.log.
type MailboxEvent struct {
	Kind Kind
	// ID is the GUID of the mailbox for DeleteMailbox. For all others it is the hash of the name, see [mail.Name.NameHash]: of
	// the new name for Rename.
	ID   mail.GUID128
	Time time.Time // whole seconds
}

const (
	mailboxRecordSize = 24       // type, 3 bytes of padding, 16 of id, big-endian uint32 of Unix time
	maxMailboxLog     = 16 << 20 // Dovecot starts a new file after 4 kB
)

// ReadMailboxLog reads a dovecot.mailbox.log, oldest record first. Records of an unknown kind are left out, and one that is not
// whole ends the log without an error: Dovecot may be writing it. Errors are those of r.
func ReadMailboxLog(r io.Reader) ([]MailboxEvent, error) {
	in := bufio.NewReader(io.LimitReader(r, maxMailboxLog))
	var all []MailboxEvent
	var b [mailboxRecordSize]byte
	for {
		_, err := io.ReadFull(in, b[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read dovecot mailbox log: %w", err)
		}
		if k := Kind(b[0]); k >= DeleteMailbox && k <= CreateDirectory {
			all = append(all, MailboxEvent{
				Kind: k,
				ID:   mail.GUID128(b[4:20]),
				Time: time.Unix(int64(binary.BigEndian.Uint32(b[20:])), 0),
			})
		}
	}
}

// AppendTo adds the record of e to b, to be appended to the file by one write. A time that does not fit becomes the nearest that
// does.
func (e MailboxEvent) AppendTo(b []byte) []byte {
	b = append(b, byte(e.Kind), 0, 0, 0)
	b = append(b, e.ID[:]...)
	return binary.BigEndian.AppendUint32(b, uint32(min(max(e.Time.Unix(), 0), math.MaxUint32)))
}
