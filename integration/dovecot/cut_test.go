package dovecot

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cutVariable makes the test binary a link between the two ends of a conversation that breaks: "up:7 COUNTER" ends it after
// the seventh item of the master, "down:7" after the seventh of the slave. The number of items that went through is written
// to the file of the counter.
const cutVariable = "DSYNCFS_TEST_CUT"

// breakingLink runs the command of its arguments and passes its streams on until the place of the cut.
func breakingLink(spec string) int {
	place, counter, _ := strings.Cut(spec, " ")
	direction, n, _ := strings.Cut(place, ":")
	limit, err := strconv.Atoi(n)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cut:", err)
		return 64
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, cutVariable+"=") })
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := cmd.Start(); err1 != nil || err2 != nil || err != nil {
		fmt.Fprintln(os.Stderr, "cut:", err1, err2, err)
		return 64
	}
	limits := map[string]int{"up": -1, "down": -1}
	limits[direction] = limit
	cut := make(chan bool, 2)
	go func() {
		cut <- passOn(stdin, os.Stdin, limits["up"], counter+".up")
		stdin.Close()
	}()
	go func() { cut <- passOn(os.Stdout, stdout, limits["down"], counter+".down") }()
	if !<-cut { // one side is done by itself; the slave still waits for the end of its input
		if !<-cut {
			cmd.Wait()
			return cmd.ProcessState.ExitCode()
		}
	}
	os.Stdout.Close()
	stdin.Close()
	stdout.Close()
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		<-ended
	}
	return 1
}

// passOn copies a stream item by item and reports whether it was cut after limit of them.
func passOn(to io.Writer, from io.Reader, limit int, counter string) bool {
	in := bufio.NewReader(from)
	items, lists, body := 0, false, false
	defer func() { _ = os.WriteFile(counter, []byte(strconv.Itoa(items)), 0o644) }()
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if _, werr := to.Write(line); werr != nil {
				return false
			}
		}
		if err != nil {
			return false
		}
		text := bytes.TrimRight(line, "\r\n")
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
		if items++; items == limit {
			return true
		}
	}
}

// cuts are the places to try: every one with DSYNCFS_DOVECOT_CUTS=all, one with its number, else a few of them.
func cuts(items int) []int {
	if n := number("DSYNCFS_DOVECOT_CUTS", 0); n > 0 {
		return []int{min(n, items)}
	}
	var places []int
	step := 1
	if os.Getenv("DSYNCFS_DOVECOT_CUTS") != "all" {
		step = max(1, items/7)
	}
	for n := 1; n <= items; n += step {
		places = append(places, n)
	}
	return places
}

// broken is a pair with changes on both sides, to be synced over a link that breaks.
type broken struct{ *served }

func newBroken(t *testing.T, format string) *broken {
	p := &broken{served: filled(t, format)}
	p.pair.clean("mirror")
	p.ours.save("INBOX", note("a"))
	p.ours.save("INBOX", note("b"))
	p.dove.save("INBOX", note("c"))
	p.dove.save("Work", note("d"))
	p.ours.doveadm("flags", "add", `\Draft Kw`, "mailbox", "INBOX", "uid", "1:2")
	p.dove.doveadm("flags", "add", `\Flagged Other`, "mailbox", "INBOX", "uid", "2:3")
	p.ours.doveadm("expunge", "mailbox", "Work", "uid", "1")
	p.dove.doveadm("expunge", "mailbox", "Work", "uid", "6")
	p.ours.doveadm("mailbox", "create", "New/Here")
	p.ours.save("New/Here", note("e"))
	p.dove.doveadm("mailbox", "create", "There")
	p.dove.save("There", note("f"))
	p.dove.save("There", note("f again"))
	p.Must("sh", "-c", "cd "+p.Dir+" && tar cf before.tar ours dove state")
	return p
}

// restore puts everything back to before the sync.
func (p *broken) restore() {
	p.t.Helper()
	p.Must("sh", "-c", "cd "+p.Dir+" && rm -rf ours dove state && tar xf before.tar")
}

// over is a command that runs another one over a link with a cut.
func (p *broken) over(direction string, n int, command []string) []string {
	self, err := os.Executable()
	must(p.t, err)
	return append([]string{"env", fmt.Sprintf("%s=%s:%d %s", cutVariable, direction, n, p.Path("count")), self}, command...)
}

// counted returns how many items went one way in the last conversation.
func (p *broken) counted(direction string) int {
	text, err := os.ReadFile(p.Path("count." + direction))
	must(p.t, err)
	n, err := strconv.Atoi(string(text))
	must(p.t, err)
	return n
}

// contents is what both sides have: mailboxes and mails with flags, whatever their UIDs.
func contents(a *account) []string {
	var lines []string
	for _, box := range a.mailboxes() {
		lines = append(lines, "mailbox "+box)
		for _, m := range a.mails(box) {
			line := m.String()
			_, flags, _ := strings.Cut(line, "(")
			flags, _, _ = strings.Cut(flags, ")")
			lines = append(lines, box+" ("+flags+") "+m.hash())
		}
	}
	slices.Sort(lines)
	return lines
}

// breaks runs a sync that is cut at each place, and then one that has to make everything good.
func (p *broken) breaks(sync func(link func(command []string) []string), settle func()) {
	p.t.Helper()
	through := func(direction string, n int) func([]string) []string {
		return func(command []string) []string { return p.over(direction, n, command) }
	}
	sync(through("up", 0))
	settle()
	want := contents(p.dove)
	items := map[string]int{"up": p.counted("up"), "down": p.counted("down")}
	for _, direction := range []string{"up", "down"} {
		if items[direction] < 20 {
			p.t.Fatalf("only %d items went %s", items[direction], direction)
		}
		for _, n := range cuts(items[direction]) {
			p.restore()
			sync(through(direction, n))
			p.ours.own()
			settle()
			if got := contents(p.dove); !slices.Equal(got, want) {
				p.t.Errorf("cut %s after item %d of %d:\n%s\nwant:\n%s", direction, n, items[direction], strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if p.t.Failed() {
				p.t.Fatalf("cut %s after item %d of %d", direction, n, items[direction])
			}
		}
	}
}

func TestConversationCutAsMaster(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newBroken(t, format)
		p.breaks(func(link func([]string) []string) {
			words := []string{"-o", "mail_location=" + p.ours.maildir().Location(), "mirror"}
			p.Run(append(words, link(p.dove.server())...)...)
		}, func() {
			p.run("mirror").Want(0)
			same(t, p.ours, p.dove)
		})
	})
}

func TestConversationCutAsSlave(t *testing.T) {
	formats(t, func(t *testing.T, format string) {
		p := newBroken(t, format)
		p.breaks(func(link func([]string) []string) {
			p.dove.try(nil, append([]string{"sync"}, link(p.remote())...)...)
		}, func() {
			p.sync("sync")
			p.served.clean("sync")
			same(t, p.ours, p.dove)
		})
	})
}
