package vfs_test

import (
	"testing"

	"dsyncfs/mirror/vfs"
	"dsyncfs/mirror/vfs/vfstest"
)

func TestOS(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS {
		f, err := vfs.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return f
	})
}
