package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// TestMain makes this test binary all programs of the scripts: the command line under both its names, and the helpers of
// programs_test.go. What touches a mount is never the process that serves it.
func TestMain(m *testing.M) {
	cli := func() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
	testscript.Main(m, map[string]func(){
		"dsyncfs": cli, "dsync": cli,
		"code": codeProgram, "eventually": eventuallyProgram, "xattr": xattrProgram, "deliver": deliverProgram,
		"hold": holdProgram, "signal": signalProgram, "notified": notifiedProgram, "mtime": mtimeProgram, "owner": ownerProgram,
		"churn": churnProgram,
	})
}

// TestScripts runs the transcripts of testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"maildir": maildirCommand, "snapshot": snapshotCommand, "unchanged": unchangedCommand, "oneline": onelineCommand,
			"newline-name": newlineCommand,
		},
	})
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "fuse":
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR, 0)
		if err != nil {
			return false, nil
		}
		return true, unix.Close(fd)
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// marker is in the environment of every process of a script.
const marker = "DSYNCFS_SCRIPT"

func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	env.Setenv("HOME", home)
	env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	env.Setenv("XDG_STATE_HOME", filepath.Join(home, ".state"))
	env.Setenv("TMPDIR", env.WorkDir)
	env.Setenv("TZ", "UTC")
	env.Setenv(marker, env.WorkDir)
	// The race detector's second of sleep at the end of each process is for readers of terminals.
	env.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(env.WorkDir, "race"))
	env.Defer(func() { cleanUp(env) })
	return nil
}

// cleanUp takes away what a script that failed left behind, and shows what the race detector saw in its processes.
func cleanUp(env *testscript.Env) {
	races, _ := filepath.Glob(filepath.Join(env.WorkDir, "race.*"))
	for _, file := range races {
		text, _ := os.ReadFile(file)
		env.T().Fatal(string(text))
	}
	for _, pid := range processes(env.WorkDir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, point := range mountsBelow(env.WorkDir) {
		_ = syscall.Unmount(point, syscall.MNT_DETACH)
	}
}

// processes are those whose environment has the marker of a script.
func processes(dir string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if slices.Contains(strings.Split(string(environ), "\x00"), marker+"="+dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func mountsBelow(dir string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(unescape.Replace(fields[4]), dir+"/") {
			points = append(points, unescape.Replace(fields[4]))
		}
	}
	slices.Reverse(points)
	return points
}

// maildirCommand is "maildir DIR [N]": makes a mailbox with N mails in it, whose dates are long ago.
func maildirCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: maildir DIR [N]")
	}
	dir, n := ts.MkAbs(args[0]), 0
	if len(args) == 2 {
		var err error
		n, err = strconv.Atoi(args[1])
		ts.Check(err)
	}
	for _, sub := range []string{"tmp", "new", "cur"} {
		ts.Check(os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	then := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range n {
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.M%dP1.host:2,S", 1577934245+i, i))
		ts.Check(os.WriteFile(path, fmt.Appendf(nil, "Subject: %s %d\n\nbody\n", args[0], i), 0o600))
		ts.Check(os.Chtimes(path, then, then.Add(time.Duration(i)*time.Second)))
	}
	for _, sub := range []string{"tmp", "new", "cur", ""} {
		ts.Check(os.Chtimes(filepath.Join(dir, sub), then, then))
	}
}

// state describes everything below the directories: names, modes, inodes, times to the nanosecond, contents. The time of a
// mailbox's own directory is left out: in one that changed a moment ago a lock comes and goes, as Dovecot does it.
func state(ts *testscript.TestScript, dirs []string) string {
	var b strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(ts.MkAbs(dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintf(&b, "%s: %v\n", path, err)
				return nil
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			fmt.Fprintf(&b, "%s %v ino=%d", path, info.Mode(), st.Ino)
			if _, err := os.Stat(filepath.Join(path, "cur")); err != nil {
				fmt.Fprintf(&b, " mtime=%d ctime=%d", info.ModTime().UnixNano(), st.Ctim.Nano())
			}
			if info.Mode().IsRegular() {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, " %d %x", len(text), sha256.Sum256(text))
			}
			b.WriteByte('\n')
			return nil
		})
		ts.Check(err)
	}
	return b.String()
}

// snapshotCommand is "snapshot NAME DIR...": remembers the directories in every detail.
func snapshotCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: snapshot NAME DIR...")
	}
	ts.Check(os.WriteFile(ts.MkAbs("home/"+args[0]+".snapshot"), []byte(state(ts, args[1:])), 0o600))
}

// unchangedCommand is "unchanged NAME DIR...": the directories are as they were.
func unchangedCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: unchanged NAME DIR...")
	}
	before := ts.ReadFile("home/" + args[0] + ".snapshot")
	now := state(ts, args[1:])
	if same := before == now; same == neg {
		old, new := strings.Split(before, "\n"), strings.Split(now, "\n")
		keep := func(in []string) func(string) bool { return func(l string) bool { return slices.Contains(in, l) } }
		ts.Fatalf("before:\n%s\nnow:\n%s", strings.Join(slices.DeleteFunc(slices.Clone(old), keep(new)), "\n"),
			strings.Join(slices.DeleteFunc(slices.Clone(new), keep(old)), "\n"))
	}
}

// onelineCommand wants the last program's standard error to be one line of dsyncfs, with each of the texts in it.
func onelineCommand(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile("stderr")
	if strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "dsyncfs: ") || !strings.HasSuffix(text, "\n") {
		ts.Fatalf("not one line of error: %q", text)
	}
	if len(text) < len("dsyncfs: x: y\n") || len(text) > 600 {
		ts.Fatalf("an error of %d bytes: %q", len(text), text)
	}
	for _, want := range args {
		if !strings.Contains(text, want) {
			ts.Fatalf("%q does not say %q", text, want)
		}
	}
}

// newlineCommand is "newline-name VAR": sets a variable to a path below the working directory with a newline and a space.
func newlineCommand(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], ts.MkAbs("with space\nand newline"))
}

// Tests of what needs no script.

func TestMessagesAreOneLineEach(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"dsyncfs", "-o", "mail_location=maildir:/none\x1b[2J", "mirror", "maildir:/also-none"}, os.Stdin, &out, &out); code != exitUsage {
		t.Errorf("exit status %d: %s", code, out.String())
	}
	if bytes.ContainsRune(out.Bytes(), '\x1b') {
		t.Errorf("a terminal would obey: %q", out.String())
	}
}
