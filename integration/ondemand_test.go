package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// filling is a mount of a remote account of which nothing is here, over a link that takes minutes to bring all of it.
type filling struct {
	*mounted
	there harness.Contents // when the fill began
	want  harness.Copies   // that both sides are to hold when it has ended
}

const (
	fillRate  = 100 << 10 // bytes a second
	fillMails = 800       // of 7 MB
)

func newFilling(t *testing.T, mails, rate int) *filling {
	f := prepareFilling(t, mails)
	f.link.Narrow(rate)
	f.start()
	f.shown()
	return f
}

// prepareFilling makes all of it but the mount.
func prepareFilling(t *testing.T, mails int) *filling {
	m := prepareMount(t)
	harness.Build(t, m.b, "b", harness.Mails(t, mails))
	f := &filling{mounted: m, there: m.b.Read(t)}
	f.want = f.there.Copies()
	t.Cleanup(func() {
		if t.Failed() {
			log := f.daemonLog()
			t.Logf("the daemon's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return f
}

// shown waits until all that the remote has is listed. The mount command returns then, unless the machine is slow.
func (f *filling) shown() {
	f.t.Helper()
	f.Eventually("the mails are shown", time.Minute, func() error {
		if n := f.toCome(); n < f.there.Copies().Len()/2 {
			return fmt.Errorf("%d mails are promised", n)
		}
		return nil
	})
}

// toCome is how many mails are promised, as the daemon says.
func (f *filling) toCome() int {
	f.t.Helper()
	out := f.Run("--json", "status", f.mount.Path).Want(0).Stdout
	var all []struct {
		Fill struct {
			ToCome int `json:"to_come"`
		} `json:"first_fill"`
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		f.t.Fatalf("%v: %s", err, out)
	}
	return all[0].Fill.ToCome
}

// underWay demands that the fill has not ended: else the test has shown nothing.
func (f *filling) underWay() {
	f.t.Helper()
	if n := f.toCome(); n < f.there.Copies().Len()/10 {
		f.t.Fatalf("%d mails are still to come; the link is too fast for this test", n)
	}
}

// filled lets everything come and demands that both sides hold what they should, and nothing else.
func (f *filling) filled() {
	f.t.Helper()
	f.link.Cut()
	f.link.Narrow(0)
	f.link.Join()
	f.Eventually("everything is here", 2*time.Minute, func() error {
		if n := f.toCome(); n > 0 {
			return fmt.Errorf("%d are to come", n)
		}
		return nil
	})
	f.synced()
	f.a.Holds(f.t, f.want)
	f.b.Holds(f.t, f.want)
	for _, left := range []string{"filling", "intents"} {
		if found, err := filepath.Glob(filepath.Join(f.StateDir(), "mounts", "*", left)); err != nil || len(found) > 0 {
			f.t.Errorf("left of the fill: %q, %v", found, err)
		}
	}
}

// listed returns the sizes of all mails of a Maildir by mailbox and base name, without reading any.
func listed(t *testing.T, m harness.Maildir) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(m.Path, func(path string, e fs.DirEntry, err error) error {
		dir := filepath.Base(filepath.Dir(path))
		if err != nil || e.IsDir() || dir != "cur" && dir != "new" {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		box, err := filepath.Rel(m.Path, filepath.Dir(filepath.Dir(path)))
		base, _, _ := strings.Cut(e.Name(), ":")
		if _, twice := sizes[box+"/"+base]; twice {
			t.Errorf("%s is listed twice", path)
		}
		sizes[box+"/"+base] = info.Size()
		return err
	})
	must(t, err)
	return sizes
}

// inMount is where a mail of the remote is in the mount.
func (f *filling) inMount(msg harness.Message) string {
	f.t.Helper()
	path, err := locate(filepath.Join(f.mount.Path, filepath.Dir(filepath.Dir(msg.Path))), msg.Path)
	must(f.t, err)
	return path
}

// locate looks for a mail by its base name in a mailbox directory.
func locate(box, file string) (string, error) {
	base, _, _ := strings.Cut(filepath.Base(file), ":")
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(box, sub))
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if name, _, _ := strings.Cut(e.Name(), ":"); name == base {
				return filepath.Join(box, sub, e.Name()), nil
			}
		}
	}
	return "", fmt.Errorf("%s is not in %s", base, box)
}

// lastOf are the last mails of each mailbox of the remote, which come last.
func (f *filling) lastOf(n int) []harness.Message {
	var out []harness.Message
	for _, name := range slices.Sorted(maps.Keys(f.there.Mailboxes)) {
		msgs := f.there.Mailboxes[name].Messages
		out = append(out, msgs[max(0, len(msgs)-n):]...)
	}
	return out
}

// reads demands that a mail has the bytes that it has at the remote.
func (f *filling) reads(msg harness.Message) {
	f.t.Helper()
	got, err := os.ReadFile(f.inMount(msg))
	must(f.t, err)
	want, err := os.ReadFile(filepath.Join(f.b.Path, msg.Path))
	must(f.t, err)
	if string(got) != string(want) {
		f.t.Errorf("%s: %d bytes that are not the mail's %d", msg.Path, len(got), len(want))
	}
}

func TestAFirstMountShowsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails, fillRate)
	here, there := listed(t, f.mount.Maildir), listed(t, f.b)
	if !maps.Equal(here, there) {
		t.Errorf("%d mails are listed, %d are there", len(here), len(there))
	}
	for _, msg := range f.lastOf(2) {
		f.reads(msg)
	}
	f.underWay()
	if got := f.Run("status", f.mount.Path).Want(0).Stdout; !strings.Contains(got, "first fill") || !strings.Contains(got, "mails are here") {
		t.Error(got)
	}
	f.filled()
	if got := f.Run("status", f.mount.Path).Want(0).Stdout; strings.Contains(got, "first fill") {
		t.Error(got)
	}
}

// A mail that is opened does not wait for a large one that another program has opened, nor for one that the first round brings.
func TestASmallMailDuringTheFirstFill(t *testing.T) {
	t.Parallel()
	m := prepareMount(t)
	m.b.Create(t, "INBOX")
	for i := range 2 {
		slowDelivery(t, m.b, fmt.Sprintf("176726160%d.M%d.large", i, i), 8<<20)
	}
	small := []string{"1767261603.M3.small", "1767261604.M4.small"}
	for _, name := range small {
		m.b.Deliver(t, "INBOX", name, "", harness.Note(name))
	}
	f := &filling{mounted: m, there: m.b.Read(t)}
	f.want = f.there.Copies()
	f.link.Narrow(300_000)
	f.start()
	f.shown()
	large := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(f.mount.Path, "new", "1767261601.M1.large"))
		large <- err
	}()
	carried := f.link.Carried()
	f.Eventually("both large mails are on their way", time.Minute, func() error {
		if n := f.link.Carried() - carried; n < 600_000 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	for _, name := range small {
		text, err := os.ReadFile(filepath.Join(f.mount.Path, "new", name))
		must(t, err)
		if string(text) != string(harness.Note(name).Text) {
			t.Errorf("%s: %d bytes that are not its own", name, len(text))
		}
	}
	select {
	case err := <-large:
		t.Errorf("the large mail was not on its way any more: %v", err)
	default:
	}
	if n := f.toCome(); n < 2 {
		t.Errorf("%d mails are still to come; the link is too fast for this test", n)
	}
	f.filled()
	<-large // it was cut, or has come
}

func TestSearchDuringTheFirstFill(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails/4, 2*fillRate)
	f.underWay()
	if n := f.NotmuchCount(f.mount.Maildir, "*"); n != f.want.Len() {
		t.Errorf("notmuch finds %d mails of %d", n, f.want.Len())
	}
	f.filled()
}

// Changes of mails that are not here yet, and a daemon that is killed before they come.
func TestChangesDuringTheFirstFill(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails, fillRate)
	for round := range 2 {
		f.changes(round)
		f.underWay()
		if round == 0 {
			f.killed()
		}
	}
	f.filled()
	f.flagged(2)
}

// killed has the daemon killed and started again, and waits until it shows what the remote has.
func (f *filling) killed() {
	f.t.Helper()
	f.mount.Kill()
	f.mount.Again()
	f.Eventually("the mails are shown again", time.Minute, func() error {
		for _, box := range f.there.Mailboxes {
			if last := len(box.Messages) - 5; last >= 4 {
				file := box.Messages[last].Path
				if _, err := locate(filepath.Join(f.mount.Path, filepath.Dir(filepath.Dir(file))), file); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// changes makes one of each kind of change in each mailbox.
func (f *filling) changes(round int) {
	f.t.Helper()
	names := slices.Sorted(maps.Keys(f.there.Mailboxes))
	for i, name := range names {
		box := f.there.Mailboxes[name]
		last := len(box.Messages) - 1 - 4*round
		if last < 4 {
			continue
		}
		flag, removed, moved, both := box.Messages[last], box.Messages[last-1], box.Messages[last-2], box.Messages[last-3]
		old := f.inMount(flag)
		base, _, _ := strings.Cut(filepath.Base(old), ":")
		must(f.t, os.Rename(old, filepath.Join(filepath.Dir(filepath.Dir(old)), "cur", base+":2,FRS")))
		must(f.t, os.Remove(f.inMount(removed)))
		f.want[name][removed.Hash]--
		to := names[(i+1)%len(names)]
		old = f.inMount(moved)
		must(f.t, os.Rename(old, filepath.Join(f.mount.Dir(to), "cur", fmt.Sprintf("%d.moved%d.%d:2,S", 1_700_000_000+i, i, round))))
		f.want[name][moved.Hash]--
		f.want.Add(to, moved.Hash)
		must(f.t, os.Link(f.inMount(both), filepath.Join(f.mount.Dir(to), "cur", fmt.Sprintf("%d.copied%d.%d:2,S", 1_700_000_000+i, i, round))))
		f.want.Add(to, both.Hash)
		note := harness.Note(fmt.Sprintf("delivered into %s, %d", name, round))
		f.mount.Deliver(f.t, name, harness.UniqueName("here", 1000*round+i, note), "", note)
		f.want.Add(name, harness.HashOf(note.Text))
	}
}

// flagged demands that the flag changes of so many rounds have reached the remote.
func (f *filling) flagged(rounds int) {
	f.t.Helper()
	n := 0
	for _, box := range f.b.Read(f.t).Mailboxes {
		for _, msg := range box.Messages {
			if msg.Flags == "FRS" {
				n++
			}
		}
	}
	want := 0
	for round := range rounds {
		for _, box := range f.there.Mailboxes {
			if len(box.Messages)-1-4*round >= 4 {
				want++
			}
		}
	}
	if n < want {
		f.t.Errorf("%d mails have the new flags at the remote, not %d", n, want)
	}
}

func TestACutLinkDuringTheFirstFill(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails, fillRate)
	last := f.lastOf(1)
	f.reads(last[0])
	f.underWay()
	f.link.Cut()
	f.Eventually("the daemon notices", 30*time.Second, func() error {
		if out := f.Run("status", f.mount.Path).Want(0).Stdout; !strings.Contains(out, ": offline") {
			return errors.New(out)
		}
		return nil
	})
	for _, msg := range last[1:] {
		path := f.inMount(msg)
		if text, err := os.ReadFile(path); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
	f.reads(last[0]) // what was read before
	if out := f.daemonLog(); !strings.Contains(out, "a mail that is not here yet cannot be read") {
		t.Errorf("the log does not say why:\n%s", out)
	}
	if here, there := listed(t, f.mount.Maildir), listed(t, f.b); !maps.Equal(here, there) {
		t.Errorf("%d mails are listed, %d are there", len(here), len(there))
	}
	note := harness.Note("delivered while the remote is away")
	f.mount.Deliver(t, "INBOX", harness.UniqueName("here", 1, note), "", note)
	f.want.Add("INBOX", harness.HashOf(note.Text))
	must(t, os.Remove(f.inMount(last[1])))
	f.want[mailboxOf(last[1])][last[1].Hash]--
	f.link.Join()
	f.Eventually("the last mail can be read", time.Minute, func() error {
		_, err := os.ReadFile(f.inMount(last[2]))
		return err
	})
	f.reads(last[2])
	f.filled()
}

// A mailbox gets another name while its mails are still to come: what was wanted of them is not forgotten when the daemon is killed
// then, and they can still be read.
func TestARenamedMailboxDuringTheFirstFill(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails/2, fillRate)
	const was, is = "Work/2026/Q1", "Renamed"
	box := f.there.Mailboxes[was]
	last := len(box.Messages) - 1
	flag, removed, read := box.Messages[last], box.Messages[last-1], box.Messages[last-2]
	old := f.inMount(flag)
	base, _, _ := strings.Cut(filepath.Base(old), ":")
	must(t, os.Rename(old, filepath.Join(f.mount.Dir(was), "cur", base+":2,FRS")))
	must(t, os.Remove(f.inMount(removed)))
	f.want[was][removed.Hash]--
	must(t, os.Rename(f.mount.Dir(was), f.mount.Dir(is)))
	f.want[is] = f.want[was]
	delete(f.want, was)
	f.underWay()
	f.mount.Kill()
	f.mount.Again()
	f.Eventually("the mails are shown under the new name, as they were changed", time.Minute, func() error {
		if _, err := locate(f.mount.Dir(is), removed.Path); err == nil {
			return errors.New("a mail that was removed is back")
		}
		if path, err := locate(f.mount.Dir(is), flag.Path); err != nil || filepath.Base(path) != base+":2,FRS" {
			return fmt.Errorf("%s, %w", path, err)
		}
		return nil
	})
	path, err := locate(f.mount.Dir(is), read.Path)
	must(t, err)
	if text, err := os.ReadFile(path); err != nil || harness.HashOf(text) != read.Hash {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	f.filled()
	for _, msg := range f.b.Read(t).Mailboxes[is].Messages {
		if msg.Hash == flag.Hash && msg.Flags != "FRS" {
			t.Errorf("the mail has the flags %q at the remote", msg.Flags)
		}
	}
}
