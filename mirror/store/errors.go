package store

import "errors"

// Errors of stores. Adapters wrap them with what and where.
var (
	ErrNotFound = errors.New("not found")               // no such mailbox or message (any more)
	ErrExists   = errors.New("exists already")          // a mailbox or directory of that name
	ErrName     = errors.New("name cannot be stored")   // the store cannot hold that name
	ErrNoSpace  = errors.New("no space left on device") // or quota exceeded
	ErrReadOnly = errors.New("store is read-only")
	ErrLocked   = errors.New("locked by another program") // the lock was not given up in time
	ErrCorrupt  = errors.New("corrupt")                   // a file of the store does not parse; nothing was changed
	ErrLocation = errors.New("no mail store there")       // the location does not exist or is none of this format
)
