package harness

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// What was synced is there after a power cut, and what was not may be gone.
func TestABlockLosesWhatWasNotSynced(t *testing.T) {
	if why := LoopDevices(); why != "" {
		t.Skip(why)
	}
	e := New(t)
	b := e.NewBlock("disk", 32<<20)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(b.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(name); err != nil {
			t.Fatal(err)
		}
		if sync {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("synced", true)
	write("written", false)
	image := b.Cut(rand.New(rand.NewPCG(1, 0)))
	b.Restart(image)
	if text, err := os.ReadFile(filepath.Join(b.Path, "synced")); err != nil || string(text) != "synced" {
		t.Errorf("what was synced: %q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(b.Path, "written")); err == nil && string(text) == "written" {
		t.Error("what was only written is there")
	}
}
