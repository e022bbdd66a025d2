// Package brain is one side of a dsync conversation: it exports its store's mailbox tree, states and messages to a [Peer],
// imports the other side's, and applies what tree and merge decide to its own store. Both sides run the same code; what
// differs is who speaks first.
//
//	master                              slave
//	H                                   H
//	[S* .]                                               saved states: in a state sync, between two of ours in any
//	N* . D                              N* . D           the slave's first, so that the master can use its separator
//	{ B                                 B
//	  A* . C* . R* . M* . S             A* . C* . R* . M* . S  }*   per mailbox, both at once
//	.                                   F
//	                                    X                unless both ends keep the connection
//
// A backup source leaves out R, a destination A, C and M. Order and meaning are those of dovecot 2.3 dsync-brain.c and
// dsync-brain-mailbox.c. Between two dsyncfs ends, told by fields of the handshake that a Dovecot ignores, a round can be
// followed by another on the same connection, and a round leaves out mailboxes whose numbers are known on both sides.
//
// Between two rounds either side pushes what changed, see push.go, and large bodies go ahead of their mails, see ahead.go.
//
// Start from [Master], [Slave] and [Pipe]. Two goroutines work while a mailbox is compared, one that sends and one that
// receives; the receiver waits for the sender only after the last body, so bounded pipes cannot deadlock. The package knows no wire, no file
// and no clock but [Options.Now].
package brain
