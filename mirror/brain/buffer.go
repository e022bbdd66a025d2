package brain

import (
	"bytes"
	"slices"

	"dsyncfs/mirror/mail"
)

// copyBuffer is the size of the buffer for reading bodies, in bytes.
const copyBuffer = 256 << 10

// buffer returns the buffer of this round's sender. The receiver does not use it at the same time: it hashes only while the
// sender waits for the alignment.
func (r *round) buffer() []byte {
	if r.buf == nil {
		r.buf = make([]byte, copyBuffer)
	}
	return r.buf
}

// sortedGUIDs returns the keys of a map in byte order.
func sortedGUIDs[V any](m map[mail.MailboxGUID]V) []mail.MailboxGUID {
	keys := make([]mail.MailboxGUID, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b mail.MailboxGUID) int { return bytes.Compare(a[:], b[:]) })
	return keys
}
