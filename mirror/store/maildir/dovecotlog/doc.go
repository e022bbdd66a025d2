// Package dovecotlog reads what a live Dovecot wrote down about a Maildir: who asked for which expunge (dovecot.index.log), and
// which mailboxes were deleted, renamed or subscribed (dovecot.mailbox.log). It is how an expunge through Dovecot has a witness
// although the file is simply gone. Start from [Read], [Combine] and [ReadMailboxLog].
//
// It reads bytes only, of files that another program may be writing at the same time: what is not finished yet ends the log.
// It refuses to repair or write Dovecot's index; only the mailbox log has an encoder.
//
// # What is a witness
//
// An expunge leaves two records. First the session that was told to expunge writes a request (internal, with the GUID). Then
// the session that removes the file writes that the mail is gone (external). But a mail whose file somebody removed behind
// Dovecot's back also gets a record of the second kind, alone, when Dovecot notices; and a rebuilt index gets one for every gap
// between UIDs (dovecot 2.3.19 maildir-sync-index.c). So "gone" alone says no more than a directory listing does, and only
// a request shows that a user wanted it.
package dovecotlog
