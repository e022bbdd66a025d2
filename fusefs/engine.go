package fusefs

import (
	"context"

	"dsyncfs/mirror/mail"
)

// Engine is what the mount needs of the mirror engine. All methods may be called from many goroutines. None may touch the
// mount's own path, nor wait for somebody who does.
type Engine interface {
	// Mailbox maps a directory path below the root ("", ".A.B" or "A/B") to the mailbox whose cur, new and tmp it holds or
	// would hold. It must be quick and depend on the path alone.
	Mailbox(dir string) (mail.Name, bool)
	// Record journals what a program did, or is about to do, before the program gets its answer. Changes that remove or
	// rename are recorded before they are made and may then fail. An error is the program's error.
	Record(ctx context.Context, ev mail.Event) error
	// Lock joins or takes dovecot-uidlist.lock of a mailbox directory. It is called around changes of visible mail other
	// than delivery into new/. It gives up in bounded time.
	Lock(ctx context.Context, dir string) (unlock func(), err error)
	// Durable returns when everything recorded so far would survive a power failure, and with commit=remote when the remote
	// has it. It is called for fsync of a mail or a mail directory and, with [Options.CommitDeliveries], after a delivery.
	Durable(ctx context.Context) error
	// Meta is what the engine knows of a mail, by its base name.
	Meta(ctx context.Context, mailbox mail.Name, base string) (Meta, bool)
	// SetKeywords gives a mail exactly these keywords.
	SetKeywords(ctx context.Context, mailbox mail.Name, base string, k mail.Keywords) error
}

// Meta is what extended attributes show of a mail.
type Meta struct {
	GUID     mail.GUID
	UID      mail.UID // 0: not assigned yet
	Mirrored bool     // the remote has it
	Keywords mail.Keywords
}
