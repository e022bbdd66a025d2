// Package fstest is the conformance suite for a directory that claims to be a Maildir: what mail programs may do in one,
// case by case. It runs on a bare directory and on the mount alike.
//
// Start from [Run]. A case touches the directory from a process of its own, because a process must not touch a file system
// that it serves; the caller says how to start one that calls [Check].
package fstest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Case checks one thing in a Maildir. An error says what is wrong.
type Case func(d Dir) error

// Dir is the root of the Maildir of one case, with cur, new and tmp.
type Dir string

// Path joins names to the directory.
func (d Dir) Path(names ...string) string {
	return filepath.Join(append([]string{string(d)}, names...)...)
}

// Names returns the names of all cases, sorted.
func Names() []string { return slices.Sorted(maps.Keys(cases)) }

// Check runs one case in a Maildir that it makes below parent, in the mailbox ".fstest-NAME", and removes.
func Check(name, parent string) error {
	c, ok := cases[name]
	if !ok {
		return fmt.Errorf("no case %q", name)
	}
	d := Dir(filepath.Join(parent, ".fstest-"+name))
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		if err := os.Mkdir(d.Path(sub), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(c(d), os.RemoveAll(string(d)))
}

// Run runs every case below dir, each in a process that command prepares to call [Check].
func Run(t *testing.T, dir string, command func(name, dir string) *exec.Cmd) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			if out, err := command(name, dir).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// cases are all cases by name.
var cases = map[string]Case{}

func register(group map[string]Case) struct{} {
	maps.Copy(cases, group)
	return struct{}{}
}

// expect compares what was found with what should be.
func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s: got %v, want %v", what, got, want)
	}
	return nil
}

// expectErr wants an error of a kind.
func expectErr(what string, err, want error) error {
	if !errors.Is(err, want) {
		return fmt.Errorf("%s: got %v, want %v", what, err, want)
	}
	return nil
}

// steps runs functions until one fails.
func steps(all ...func() error) error {
	for _, f := range all {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func write(path, text string) func() error {
	return func() error { return os.WriteFile(path, []byte(text), 0o644) }
}

func rename(from, to string) func() error { return func() error { return os.Rename(from, to) } }

func remove(path string) func() error { return func() error { return os.Remove(path) } }

func link(from, to string) func() error { return func() error { return os.Link(from, to) } }

// says wants a file of exactly that content.
func says(path, text string) func() error {
	return func() error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return expect("content of "+filepath.Base(path), string(b), text)
	}
}

// missing wants no such file, and no such line in the listing.
func missing(path string) func() error {
	return func() error {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is there: %v", filepath.Base(path), err)
		}
		return nil
	}
}

// lists wants exactly these names.
func lists(dir string, names ...string) func() error {
	return func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		slices.Sort(names)
		return expect("listing of "+filepath.Base(dir), fmt.Sprint(got), fmt.Sprint(names))
	}
}
