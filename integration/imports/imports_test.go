// Package imports holds the code to its import rules: dependencies point inwards, and what is pure stays pure. The table is
// [rules]; docs/architecture.md shows it as a picture.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "dsyncfs/"

// rule is what the packages of one name may import, tests not counted.
type rule struct {
	pkg   string   // path in the module; with "/..." those below too
	own   []string // packages of ours that it may import; nil: none, "..." any
	never []string // imports from elsewhere that it must not have; "x/..." those below too
	why   string
}

// impure is what a package must do without whose result depends on its arguments alone.
var impure = []string{
	"os/...", "net/...", "io/ioutil", "sync/...", "context", "log/...", "time", "math/rand/...", "crypto/rand", "syscall", "golang.org/x/...",
}

const (
	pure    = "the centre decides by its arguments alone, so that both sides of a conversation decide alike"
	port    = "a port is implemented by packages that know nothing of its users"
	adapter = "an adapter knows its port, never another adapter or who uses it"
	suite   = "a conformance suite knows its port and is imported by tests only"
)

// rules has one row for each package, the innermost first.
var rules = []rule{
	{"mirror/mail", nil, impure, pure},

	{"mirror/item", []string{"mirror/mail"}, impure, pure},
	{"mirror/tree", []string{"mirror/mail"}, impure, pure},
	{"mirror/merge", []string{"mirror/mail", "mirror/item"}, impure, pure},
	{"fusefs/inode", nil, impure, pure},
	{"mirror/guard", []string{"mirror/mail", "mirror/store"}, impure,
		pure + "; of the store port it uses the type of a loss, which it judges"},

	{"mirror/store", []string{"mirror/mail"}, []string{"os/...", "net/...", "sync/..."}, port},
	{"mirror/vfs", nil, []string{"net/...", "log/...", "context"}, port},
	{"remote", nil, []string{"golang.org/x/crypto/..."}, port},

	{"mirror/journal", []string{"mirror/mail", "mirror/vfs"}, []string{"net/..."}, adapter},
	{"mirror/index", []string{"mirror/mail", "mirror/store"}, []string{"net/..."}, adapter},
	{"mirror/store/memstore", []string{"mirror/mail", "mirror/store"}, []string{"os/...", "net/..."}, adapter},
	{"mirror/store/maildir", []string{"mirror/mail", "mirror/store", "mirror/store/maildir/dovecotlog", "mirror/vfs"},
		[]string{"os/exec", "net/...", "path/filepath"}, adapter + "; a path of the process would lead past the open root"},
	{"mirror/store/maildir/dovecotlog", []string{"mirror/mail"}, []string{"os/...", "net/..."}, "it reads bytes that it is given"},
	{"remote/command", []string{"remote"}, nil, adapter + "; a transport knows no mail"},
	{"remote/ssh", []string{"remote"}, nil, adapter + "; a transport knows no mail"},
	{"remote/dsync", []string{"mirror/mail", "mirror/item"}, []string{"os/...", "net/..."},
		"the wire format is about items and bytes; order is the brain's, connections the transport's"},

	{"mirror/brain", []string{"mirror/guard", "mirror/item", "mirror/mail", "mirror/merge", "mirror/store", "mirror/tree"},
		[]string{"os/...", "net/..."}, "a brain sees a peer and a store, never an adapter or a transport"},
	{"mirror", []string{"mirror/brain", "mirror/item", "mirror/journal", "mirror/mail", "mirror/store", "mirror/guard", "mirror/index"},
		[]string{"os/...", "net/..."}, "the engine gets stores and peers from whoever wires it"},
	{"fusefs", []string{"fusefs/inode", "mirror/mail", "mirror/vfs"}, []string{"net/..."},
		"the mount reaches the engine through an interface of its own; vfs, because it wraps the store's file system"},

	{"cmd/...", []string{"..."}, nil, "the command line wires everything"},
	{"integration/harness", nil, nil, "end-to-end tests see what a user sees"},
	{"integration/...", []string{"integration/..."}, nil, "end-to-end tests see what a user sees"},

	{"mirror/store/storetest", []string{"mirror/mail", "mirror/store", "mirror/store/memstore"}, nil, suite},
	{"mirror/vfs/vfstest", []string{"mirror/vfs"}, nil, suite},
	{"remote/remotetest", []string{"remote"}, nil, suite},
	{"fusefs/fstest", nil, nil, suite},
	{"mirror/sim", []string{"mirror/...", "remote/dsync"}, nil, suite},
}

// homes are the imports from elsewhere that have one home. Suites may import them too, and the harness, which is a process of
// its own as cmd is: it ends what it started when it is interrupted.
var homes = []struct {
	path, home, why string
}{
	{"github.com/hanwen/go-fuse/...", "fusefs", "the kernel is spoken to in one place"},
	{"go.etcd.io/bbolt/...", "mirror/index", "the database is replaceable"},
	{"golang.org/x/crypto/...", "remote/ssh", "ssh is one transport of several"},
	{"github.com/spf13/...", "cmd/...", "options end at the command line"},
	{"github.com/BurntSushi/toml", "cmd/...", "settings end at the command line"},
	{"github.com/godbus/dbus/...", "cmd/internal/watch", "the bus is one of the ways to notice that the machine slept"},
	{"os/signal", "cmd/...", "signals are for the process; suites of transports test that"},
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	packages := list(t)
	if len(packages) < 20 {
		t.Fatalf("only %d packages found", len(packages))
	}
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(rules, func(r rule) bool { return match(r.pkg, name) })
		if i < 0 {
			t.Errorf("%s: has no row in the table of import rules", name)
			continue
		}
		for _, imported := range p.Imports {
			check(t, name, imported, rules[i])
		}
	}
}

func check(t *testing.T, name, imported string, r rule) {
	t.Helper()
	if own, ok := strings.CutPrefix(imported, module); ok {
		switch {
		case isSuite(own) && !isSuite(name):
			t.Errorf("%s imports %s: %s", name, own, suite)
		case !slices.ContainsFunc(r.own, func(p string) bool { return match(p, own) }):
			t.Errorf("%s imports %s: %s", name, own, r.why)
		}
		return
	}
	if slices.ContainsFunc(r.never, func(p string) bool { return match(p, imported) }) {
		t.Errorf("%s imports %s: %s", name, imported, r.why)
	}
	if imported == "testing" && !isSuite(name) && !strings.HasPrefix(name, "integration/") {
		t.Errorf("%s imports testing: only suites do", name)
	}
	for _, h := range homes {
		if match(h.path, imported) && !match(h.home, name) && !isSuite(name) && !match("integration/harness", name) {
			t.Errorf("%s imports %s, whose home is %s: %s", name, imported, h.home, h.why)
		}
	}
}

func isSuite(name string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool { return r.why == suite && match(r.pkg, name) })
}

// match reports whether a path is the pattern's, or below it where that ends in "/...".
func match(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	base, below := strings.CutSuffix(pattern, "/...")
	return path == base || below && strings.HasPrefix(path, base+"/")
}

// list returns the packages of the module. Transitive imports would say nothing: fmt itself reaches os.
func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"os/...", "os", true},
		{"os/...", "os/exec", true},
		{"os/...", "ossify", false},
		{"time", "time/tzdata", false},
		{"...", "anything", true},
		{"mirror/store", "mirror/store/maildir", false},
	} {
		if got := match(c.pattern, c.path); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.path, got)
		}
	}
}
