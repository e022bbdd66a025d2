package dovecot

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// linkVariable makes the test binary a link between the two ends of a conversation, in which something goes wrong:
//
//	up:7 COUNTER     it breaks after the seventh item of the master
//	down:7 COUNTER   it breaks after the seventh item of the slave
//	kill:7 COUNTER   the slave is killed after its seventh item
//	stall:7 COUNTER  nothing comes any more after the seventh item of the slave
//	mute:7 COUNTER   nothing comes any more after the seventh item of the master
//	finish:7 COUNTER the slave's last word reports an error
//
// The number of items that went through is written to the files COUNTER.up and COUNTER.down.
const linkVariable = "DSYNCFS_TEST_LINK"

// link is one that runs.
type link struct {
	fault   string
	limit   int
	counter string
	slave   *exec.Cmd
}

// runLink runs the command of its arguments as the slave and passes the streams on until the place of the fault.
func runLink(spec string) int {
	place, counter, _ := strings.Cut(spec, " ")
	fault, n, _ := strings.Cut(place, ":")
	limit, err := strconv.Atoi(n)
	if err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		return 64
	}
	l := &link{fault: fault, limit: limit, counter: counter, slave: exec.Command(os.Args[1], os.Args[2:]...)}
	l.slave.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, linkVariable+"=") })
	l.slave.Stderr = os.Stderr
	stdin, err1 := l.slave.StdinPipe()
	stdout, err2 := l.slave.StdoutPipe()
	if err := l.slave.Start(); err1 != nil || err2 != nil || err != nil {
		fmt.Fprintln(os.Stderr, "link:", err1, err2, err)
		return 64
	}
	broken := make(chan bool, 2)
	go func() {
		broken <- l.passOn("up", stdin, os.Stdin)
		stdin.Close()
	}()
	go func() {
		broken <- l.passOn("down", os.Stdout, stdout)
		os.Stdout.Close()
	}()
	if !<-broken { // one side is done by itself; the slave still waits for the end of its input
		if !<-broken {
			l.slave.Wait()
			return l.status()
		}
	}
	os.Stdout.Close()
	stdin.Close()
	stdout.Close()
	ended := make(chan struct{})
	go func() { l.slave.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		l.slave.Process.Kill()
		<-ended
	}
	return 1
}

// status is what a shell would say of the slave's end.
func (l *link) status() int {
	if status := l.slave.ProcessState.ExitCode(); status >= 0 {
		return status
	}
	return 128 + 9
}

// passOn copies a stream item by item and reports whether it broke.
func (l *link) passOn(direction string, to io.Writer, from io.Reader) bool {
	in := bufio.NewReader(from)
	items, lists, body := 0, false, false
	defer func() { _ = os.WriteFile(l.counter+"."+direction, []byte(strconv.Itoa(items)), 0o644) }()
	for {
		line, err := in.ReadBytes('\n')
		text := bytes.TrimRight(line, "\r\n")
		if l.fault == "finish" && direction == "down" && string(text) == "F" && !body {
			line = []byte("FDisk is full\t6\n")
		}
		if len(line) > 0 {
			if _, werr := to.Write(line); werr != nil {
				return false
			}
		}
		if err != nil {
			return false
		}
		switch {
		case !lists: // the lists of fields
			lists = string(text) == "."
			continue
		case body:
			if body = string(text) != "."; body {
				continue
			}
		case text[0] == 'M' && !bytes.HasSuffix(text, []byte("\x02")):
			body = true
			continue // the item ends with its body
		}
		if items++; items == l.limit && l.fails(direction, in) {
			return true
		}
	}
}

// fails carries the fault out, if it is one of this direction, and reports whether the link broke over it.
func (l *link) fails(direction string, from io.Reader) bool {
	switch {
	case l.fault == direction:
		return true
	case direction == "up":
		if l.fault == "mute" {
			io.Copy(io.Discard, from)
		}
	case l.fault == "kill":
		l.slave.Process.Kill()
	case l.fault == "stall":
		io.Copy(io.Discard, from)
	}
	return false
}

// through is a command that runs another one over a link with a fault.
func (p *pair) through(fault string, n int, command []string) []string {
	return append([]string{"env", fmt.Sprintf("%s=%s:%d %s", linkVariable, fault, n, p.Path("count")), linkProgram(p.t)}, command...)
}

var linkMu sync.Mutex

// linkProgram is this test binary at a place where the user who owns the mail can run it.
func linkProgram(t testing.TB) string {
	t.Helper()
	linkMu.Lock()
	defer linkMu.Unlock()
	path := filepath.Join(filepath.Dir(harness.Binary(t)), "link")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	self, err := os.Executable()
	must(t, err)
	text, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(path, text, 0o755))
	return path
}

// counted returns how many items went one way in the last conversation over a link.
func (p *pair) counted(direction string) int {
	text, err := os.ReadFile(p.Path("count." + direction))
	must(p.t, err)
	n, err := strconv.Atoi(string(text))
	must(p.t, err)
	return n
}
