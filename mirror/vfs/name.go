package vfs

import (
	"strings"
	"syscall"
)

// checkName accepts what can name an entry of one directory: not empty, not "." or "..", no slash, no NUL. Everything else
// is EINVAL, before any system call.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return syscall.EINVAL
	}
	return nil
}
