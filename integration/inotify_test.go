package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// change is one that a mail program makes in a Maildir.
type change struct {
	name string
	do   func(harness.Maildir) error

	// others is what a watcher on the mount is told if it happens at the remote, where that is not what one in a plain directory is told:
	// in any order, and with "appears" for CREATE or MOVED_TO.
	others []string
}

// renaming is a rename of a mail, both paths below mailboxes' directories.
func renaming(fromBox, from, toBox, to string) func(harness.Maildir) error {
	return func(m harness.Maildir) error {
		return os.Rename(filepath.Join(m.Dir(fromBox), from), filepath.Join(m.Dir(toBox), to))
	}
}

// delivery is tmp, write, rename.
func delivery(box, to string) func(harness.Maildir) error {
	return func(m harness.Maildir) error {
		base, _, _ := strings.Cut(filepath.Base(to), ":")
		tmp := filepath.Join(m.Dir(box), "tmp", base)
		if err := os.WriteFile(tmp, harness.Note(base).Text, 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(m.Dir(box), to))
	}
}

// many is the change whose events come in any order.
const many = "many deliveries at once"

// A move is the end of a mail in one mailbox and a new one in another, each of which is made durable for itself, and a copy may come as
// a delivery does.
var watchedChanges = []change{
	{"a delivery", delivery("INBOX", "new/1767261601.M1.w"), nil},
	{"a delivery into cur", delivery("INBOX", "cur/1767261602.M2.w:2,S"), nil},
	{"a mail that is read", renaming("INBOX", "new/1767261601.M1.w", "INBOX", "cur/1767261601.M1.w:2,S"), nil},
	{"a flag change", renaming("INBOX", "cur/1767261601.M1.w:2,S", "INBOX", "cur/1767261601.M1.w:2,FS"), nil},
	{"a mail that is not read any more", renaming("INBOX", "cur/1767261601.M1.w:2,FS", "INBOX", "cur/1767261601.M1.w:2,F"), nil},
	{"a move", renaming("INBOX", "cur/1767261601.M1.w:2,F", "Work", "cur/1767261601.M1.w:2,F"),
		[]string{"DELETE cur/1767261601.M1.w:2,F", "appears .Work/cur/1767261601.M1.w:2,F"}},
	{"a copy", func(m harness.Maildir) error {
		return os.Link(filepath.Join(m.Dir("INBOX"), "cur", "1767261602.M2.w:2,S"), filepath.Join(m.Dir("Work"), "cur", "1767261603.M3.w:2,S"))
	}, []string{"appears .Work/cur/1767261603.M3.w:2,S"}},
	{"a move into the INBOX", renaming("Work", "cur/1767261603.M3.w:2,S", "INBOX", "cur/1767261603.M3.w:2,S"),
		[]string{"DELETE .Work/cur/1767261603.M3.w:2,S", "appears cur/1767261603.M3.w:2,S"}},
	{"an expunge", func(m harness.Maildir) error {
		return os.Remove(filepath.Join(m.Dir("Work"), "cur", "1767261601.M1.w:2,F"))
	}, nil},
	{many, func(m harness.Maildir) error {
		for i := range 30 {
			if err := delivery("Work", fmt.Sprintf("new/17672617%02d.M1.w", i))(m); err != nil {
				return err
			}
		}
		return nil
	}, nil},
	{"an expunge of a new mail", func(m harness.Maildir) error {
		return os.Remove(filepath.Join(m.Dir("Work"), "new", "1767261707.M1.w"))
	}, nil},
}

// watcher is inotifywait, which watches new/ and cur/ of INBOX and Work for all that can happen, and a directory for marks.
type watcher struct {
	*harness.Process
	env    *harness.Env
	m      harness.Maildir
	marked int
	read   int
}

func newWatcher(e *harness.Env, m harness.Maildir) *watcher {
	e.TB.Helper()
	w := &watcher{env: e, m: m}
	if err := os.Mkdir(filepath.Join(m.Path, "marks"), 0o700); err != nil {
		e.TB.Fatal(err)
	}
	args := []string{"-m", "--format", "%c|%e|%w%f", filepath.Join(m.Path, "marks")}
	for _, box := range []string{"INBOX", "Work"} {
		args = append(args, filepath.Join(m.Dir(box), "new"), filepath.Join(m.Dir(box), "cur"))
	}
	w.Process = e.StartProgram("inotifywait", args...)
	e.Eventually("inotifywait watches", 20*time.Second, func() error {
		if !strings.Contains(w.Output(), "Watches established.\n") {
			return fmt.Errorf("%s", w.Output())
		}
		return nil
	})
	w.read = len(w.Output())
	return w
}

// events are what happened since the last call. Both halves of a rename have the same letter.
func (w *watcher) events() (all []string) {
	w.env.TB.Helper()
	w.marked++
	mark := filepath.Join(w.m.Path, "marks", fmt.Sprint(w.marked))
	if err := os.Mkdir(mark, 0o700); err != nil {
		w.env.TB.Fatal(err)
	}
	var out string
	end := "|CREATE,ISDIR|" + mark + "\n"
	w.env.Eventually("the watcher has come so far", 20*time.Second, func() error {
		if out = w.Output()[w.read:]; !strings.Contains(out, end) {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	w.read += len(out)
	halves := map[string]int{}
	for line := range strings.Lines(out) {
		cookie, _, _ := strings.Cut(line, "|")
		halves[cookie]++
	}
	pairs := map[string]string{"0": ""}
	for line := range strings.Lines(out[:strings.Index(out, end)]) {
		cookie, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "|")
		event, file, _ := strings.Cut(rest, "|")
		file, ok := strings.CutPrefix(file, w.m.Path+"/")
		if !ok || strings.HasPrefix(file, "marks/") {
			continue // the rest of the last mark
		}
		if _, known := pairs[cookie]; !known && halves[cookie] > 1 {
			pairs[cookie] = " " + string(rune('a'+len(pairs)-1))
		}
		all = append(all, event+" "+file+pairs[cookie])
	}
	return all
}

// TestWatchersSeeTheSameOfTheRemote: of a change at the remote inotify tells on the mount what it tells of the same change in a plain
// directory, event by event, and nothing else.
func TestWatchersSeeTheSameOfTheRemote(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	m.a.Create(t, "INBOX", "Work")
	m.start()
	m.synced()
	plain := m.Maildir("plain")
	plain.Create(t, "INBOX", "Work")
	onPlain, onMount := newWatcher(m.Env, plain), newWatcher(m.Env, m.mount.Maildir)
	for _, c := range watchedChanges {
		must(t, c.do(plain))
		must(t, c.do(m.b))
		want := onPlain.events()
		m.Run("sync", m.mount.Path).Want(0)
		got := onMount.events()
		if c.others != nil {
			got, want = appearing(got), c.others
		} else if c.name == many {
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s at the remote:\n%s\nexpected:\n%s", c.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	m.synced()
}

// appearing are events sorted, and with one word for how a mail appears.
func appearing(events []string) (all []string) {
	for _, e := range events {
		what, file, _ := strings.Cut(e, " ")
		if what == "CREATE" || what == "MOVED_TO" {
			what = "appears"
		}
		all = append(all, what+" "+file)
	}
	slices.Sort(all)
	return all
}
