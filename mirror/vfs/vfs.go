// Package vfs is the file system as the stores see it: a rooted tree of directories, each held open, in which a name never
// leads out of the root. [Open] gives the real one, [Mem] lives in memory and can lose power, [Fault] makes operations fail,
// and the FUSE layer wraps the real one so that the last step of a change goes through the mount. [WriteFile] and [Replace]
// are the one place where a file is replaced as a whole.
//
// Everything is relative to an open directory, never to a path of the process, so that a store still works when its own
// directory is hidden under a mount point. All types may be used from several goroutines at once; a Close waits for nobody,
// what still runs finishes with the descriptor that it has. Locks are leaves: none is held while another is taken.
package vfs

import (
	"io"
	"time"
)

// FS is a rooted tree.
type FS interface {
	// OpenDir opens a directory by a path of names below the root, "" for the root itself. Symbolic links are not followed
	// out of the root. The error is fs.ErrNotExist if it is not there.
	OpenDir(path string) (Dir, error)
	// Sync makes everything written so far durable (syncfs).
	Sync() error
	Close() error
}

// Dir is an open directory. Names are single components: not empty, no slash, not "." or "..". Symbolic links are not
// followed: opening one is an error. Errors are *fs.PathError or *os.LinkError that wrap a syscall.Errno.
type Dir interface {
	// Path is the path below the root, for messages.
	Path() string
	// Names calls f with every entry but "." and "..", unsorted, without a stat. It stops at the first error of f. An error
	// while reading means that the listing is not complete.
	Names(f func(name string, typ Type) error) error
	Stat(name string) (Info, error) // of the entry itself, symlinks not followed
	Info() (Info, error)            // of the directory
	Open(name string) (File, error)
	// Create makes a new file for writing; fs.ErrExist if there is one.
	Create(name string, perm uint32) (File, error)
	// OpenAppend opens an existing file for appending.
	OpenAppend(name string) (File, error)
	Mkdir(name string, perm uint32) error
	Rename(name string, to Dir, newName string) error // replaces an existing file
	// RenameNew is Rename that fails with fs.ErrExist if newName is there.
	RenameNew(name string, to Dir, newName string) error
	Link(name string, to Dir, newName string) error
	Remove(name string) error    // a file
	RemoveDir(name string) error // an empty directory
	SetTimes(name string, mtime time.Time) error
	Chmod(name string, perm uint32) error
	Sync() error // the directory itself
	Close() error
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Closer
	Stat() (Info, error)
	Sync() error // data and size (fdatasync)
}

// Truncater is implemented by the files of this package that can be cut to a shorter length, which is for logs only.
type Truncater interface {
	Truncate(size int64) error
}

// Type is what a directory entry is.
type Type uint8

// The types of entries; a file system that does not say gives Unknown.
const (
	Unknown Type = iota
	Regular
	Directory
	Other
)

// Info is what a stat says.
type Info struct {
	Type  Type
	Size  int64
	Mode  uint32 // permission bits
	Mtime time.Time
	Ctime time.Time
	Dev   uint64
	Ino   uint64
	Nlink uint32
	UID   uint32
	GID   uint32
}
