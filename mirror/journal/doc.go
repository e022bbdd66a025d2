// Package journal is the append-only log of what mail programs meant: each change through the mount is a [mail.Event] here
// before the program gets its answer. It says what to look at, to the index ("indexed") and to the engine ("sent"), and it is
// the history that `dsyncfs log` shows. Start from [Open], [Journal.Append] and [Journal.Read].
//
// It refuses to interpret events, and to guess: what does not read is set aside and reported, never skipped in silence.
//
// # Durability
//
// Append is one write(2): an event survives the death of the process as soon as Append has returned. It survives a power cut
// once Sync has returned. A sequence number must be synced before it is stored or told to anybody; SetMark sees to that by
// itself. Otherwise a power cut could take the record, and the number would come again with another meaning.
//
// # Format
//
// A journal is a directory of segments, named by the sequence number of their first record in 20 decimal digits and ".log",
// and the files "marks" and "lock". Numbers are little-endian. A segment is a header and records without padding:
//
//	 0               8       12               28          36     40
//	+---------------+-------+----------------+-----------+------+
//	| "dsyncfsJ"    |version| id of journal  | first seq | CRC  |   header, 40 bytes
//	+---------------+-------+----------------+-----------+------+
//	 0       4       8      9        17       25
//	+-------+-------+------+--------+--------+------------------+
//	| length| CRC   | type | seq    | time   | event ...        |   record, 8 + length bytes
//	+-------+-------+------+--------+--------+------------------+
//	                       25   26         +2+n         +2+n      +2+n      +2+n
//	                       +----+----------+----------+---------+---------+
//	                       | op | mailbox  | to       | file    | newfile |   event: each string is a uint16 and its bytes
//	                       +----+----------+----------+---------+---------+
//
//	version  uint32   1
//	id       16 bytes drawn at random when the journal is made, the same in all its segments
//	first    uint64   sequence number of the first record of this segment
//	length   uint32   bytes after the CRC, at least 26 and at most 16384
//	type     uint8    1 = event
//	seq      uint64   one more than that of the record before
//	time     int64    nanoseconds since 1970 UTC
//	op       uint8    a mail.EventOp
//
// CRCs are CRC-32C. That of the header covers the 36 bytes before it. That of a record covers the id, the length, and the
// length bytes after the CRC, so that neither zeros nor a record of another journal pass. The smallest record
// is 34 bytes: an event without names.
//
// # Recovery
//
// The header is whole because a segment is made by [vfs.Replace], and an older segment is whole because it is synced before
// the next one is made. So the first frame of the newest segment that does not read ends the log: it is an append that was
// cut short, and is truncated. If good frames follow it, or the segment is not the newest, something else has been at the
// file: the file is set aside as NAME.corrupt-N and each run of good records becomes a segment of its own; the numbers that
// may have been lost are not used again. [Journal.Recovery] tells.
//
// # Locks
//
// Journal.marksMu is taken before Journal.mu, which is a leaf. The latter is held over a write, and over an fdatasync only when
// a segment is finished.
package journal
