package vfs

// The paths that only an old kernel or another file system takes.
var (
	RenameNewByLink = renameNewByLink
	ChmodByPath     = chmodByPath
	ParseDirents    = parseDirents
)

// ForgetOpenat2 makes f behave as on a kernel without openat2.
func ForgetOpenat2(f FS) { f.(*osFS).noOpenat2.Store(true) }
