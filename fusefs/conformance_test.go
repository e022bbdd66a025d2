package fusefs_test

import (
	"os/exec"
	"testing"

	"dsyncfs/fusefs/fstest"
)

func TestConformance(t *testing.T) {
	command := func(t *testing.T) func(name, dir string) *exec.Cmd {
		return func(name, dir string) *exec.Cmd { return helperCommand(t, "fstest", name, dir) }
	}
	t.Run("bare directory", func(t *testing.T) {
		dir := t.TempDir()
		makeMaildir(t, dir)
		fstest.Run(t, dir, command(t))
	})
	t.Run("mount", func(t *testing.T) {
		m := mountMaildir(t, nil)
		fstest.Run(t, m.dir, command(t))
	})
}
