package harness

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Clock is the clock of some processes of dsyncfs, which a test can set without setting that of the machine. For this the program
// is built with another time.Now, see [MainWithClocks]; its source is the same. Times of files stay those of the kernel, so
// that who compares both sees what a network file system shows. Timers do not notice, as with a real step.
type Clock struct {
	path string
	tb   testing.TB
}

// clockVariable names the file with the seconds by which the clock is ahead: an int64 as the machine has it, which processes map.
const clockVariable = "DSYNCFS_TEST_CLOCK"

// NewClock makes one that is right. The processes that shall have it need [Clock.Variable] in their environment.
func NewClock(tb testing.TB, path string) *Clock {
	tb.Helper()
	c := &Clock{path: path, tb: tb}
	c.Set(0)
	return c
}

// Variable is NAME=VALUE.
func (c *Clock) Variable() (name, value string) { return clockVariable, c.path }

// Set sets the clock to so much before (or, below 0, behind) that of the machine, in whole seconds, at once.
func (c *Clock) Set(ahead time.Duration) {
	c.tb.Helper()
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.Write(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		c.tb.Fatal(err)
	}
}

// clocks says whether the binary has clocks that can be set.
var clocks bool

// MainWithClocks is [Main] with a dsyncfs whose clocks can be set.
func MainWithClocks(m *testing.M) int {
	clocks = true
	return Main(m)
}

// steppedSource is added to package time.
//
//go:embed testdata/stepped.go.txt
var steppedSource []byte

// clockFlags are the flags of go build for it: an overlay of package time, made in dir.
func clockFlags(dir string) ([]string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		return nil, err
	}
	const read = "\tsec, nsec, mono := runtimeNow()\n"
	if n := strings.Count(string(source), "func Now() Time {\n"+read); n != 1 {
		return nil, fmt.Errorf("%s: time.Now is not what it was", pkg)
	}
	changed := strings.Replace(string(source), "func Now() Time {\n"+read, "func Now() Time {\n"+read+"\tsec += stepped()\n", 1)
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for name, text := range map[string][]byte{"time.go": []byte(changed), "stepped.go": steppedSource} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return nil, err
		}
		overlay.Replace[filepath.Join(pkg, name)] = path
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "overlay.json")
	return []string{"-overlay", path}, os.WriteFile(path, text, 0o600)
}
