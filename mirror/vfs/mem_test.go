package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dsyncfs/mirror/vfs"
	"dsyncfs/mirror/vfs/vfstest"
)

// ticking is a clock that no two readings agree on; Mem reads it under its lock.
func ticking() func() time.Time {
	now := time.Unix(1700000000, 0)
	return func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}
}

func newMem() *vfs.Mem { return vfs.NewMem(ticking()) }

func TestMem(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return newMem() })
}

func TestFaultThatNeverFails(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS {
		return vfs.NewFault(newMem(), func(vfs.Op) error { return nil })
	})
}

func rootOf(t testing.TB, f vfs.FS) vfs.Dir {
	t.Helper()
	d, err := f.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file, and syncs its bytes and its name if asked to.
func write(t testing.TB, d vfs.Dir, name, content string, sync bool) {
	t.Helper()
	f, err := d.Create(name, 0o600)
	must(t, err)
	_, err = io.WriteString(f, content)
	must(t, err)
	if sync {
		must(t, f.Sync())
		must(t, d.Sync())
	}
	must(t, f.Close())
}

// content is what a root holds, as "name=content" sorted; directories end in a slash.
func content(t testing.TB, f vfs.FS, dir string) string {
	t.Helper()
	d, err := f.OpenDir(dir)
	must(t, err)
	defer d.Close()
	var all []string
	must(t, d.Names(func(name string, typ vfs.Type) error {
		if info, err := d.Stat(name); err != nil {
			return err
		} else if info.Type == vfs.Directory {
			all = append(all, name+"/("+content(t, f, strings.TrimPrefix(dir+"/"+name, "/"))+")")
			return nil
		}
		data, err := vfs.ReadFile(d, name, 1<<20)
		all = append(all, name+"="+string(data))
		return err
	}))
	slices.Sort(all)
	return strings.Join(all, " ")
}

// outcomes collects what crashes with many seeds leave, so that a test can say both what may happen and what does.
func outcomes(t testing.TB, m *vfs.Mem, loss vfs.Loss) []string {
	t.Helper()
	seen := map[string]bool{}
	var all []string
	for seed := range uint64(300) {
		s := content(t, m.Crash(loss, seed), "")
		if again := content(t, m.Crash(loss, seed), ""); again != s {
			t.Fatalf("seed %d: %q, then %q", seed, s, again)
		}
		if !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return all
}

func TestCrash(t *testing.T) {
	both := []vfs.Loss{vfs.LoseTail, vfs.LoseAny}
	for _, c := range []struct {
		name  string
		build func(t *testing.T, f vfs.FS, root vfs.Dir)
		loss  []vfs.Loss
		want  []string
	}{
		{"what is synced survives", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", true)
		}, []vfs.Loss{vfs.LoseNothing, vfs.LoseAll, vfs.LoseTail, vfs.LoseAny}, []string{"a=1"}},
		{"a kill of the process loses nothing", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", false)
		}, []vfs.Loss{vfs.LoseNothing}, []string{"a=1"}},
		{"a name and bytes that were not synced may go", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", false)
		}, both, []string{"", "a=", "a=\x00", "a=1"}},
		{"and go if the kernel wrote nothing", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", false)
		}, []vfs.Loss{vfs.LoseAll}, []string{""}},
		{"a synced name may lead to an empty file", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", false)
			must(t, root.Sync())
		}, []vfs.Loss{vfs.LoseAll}, []string{"a="}},
		{"an unlink that was not synced may be undone", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", true)
			must(t, root.Remove("a"))
		}, both, []string{"", "a=1"}},
		{"a rename is done or not done", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", true)
			write(t, root, "b", "2", true)
			must(t, root.Rename("a", root, "b"))
		}, both, []string{"a=1 b=2", "b=1"}},
		{"link and unlink never lose the file", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			write(t, root, "a", "1", true)
			must(t, root.Link("a", root, "b"))
			must(t, root.Remove("a"))
		}, both, []string{"a=1", "a=1 b=1", "b=1"}},
		{"ext4 keeps the order of unrelated names", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			must(t, root.Mkdir("a", 0o700))
			must(t, root.Mkdir("b", 0o700))
		}, []vfs.Loss{vfs.LoseTail}, []string{"", "a/()", "a/() b/()"}},
		{"POSIX does not", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			must(t, root.Mkdir("a", 0o700))
			must(t, root.Mkdir("b", 0o700))
		}, []vfs.Loss{vfs.LoseAny}, []string{"", "a/()", "a/() b/()", "b/()"}},
		{"the sync of one directory takes a rename out of another along", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			must(t, root.Mkdir("d", 0o700))
			write(t, root, "a", "1", true)
			d, err := f.OpenDir("d")
			must(t, err)
			must(t, root.Rename("a", d, "b"))
			must(t, d.Sync())
		}, []vfs.Loss{vfs.LoseAll}, []string{"d/(b=1)"}},
		{"the sync of a new directory is not that of its name", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			must(t, root.Mkdir("d", 0o700))
			d, err := f.OpenDir("d")
			must(t, err)
			write(t, d, "a", "1", true)
		}, []vfs.Loss{vfs.LoseAll}, []string{""}},
		{"syncfs covers everything", func(t *testing.T, f vfs.FS, root vfs.Dir) {
			must(t, root.Mkdir("d", 0o700))
			d, err := f.OpenDir("d")
			must(t, err)
			write(t, d, "a", "1", false)
			must(t, f.Sync())
		}, []vfs.Loss{vfs.LoseAll, vfs.LoseAny}, []string{"d/(a=1)"}},
	} {
		for _, loss := range c.loss {
			t.Run(fmt.Sprint(c.name, "/", loss), func(t *testing.T) {
				m := newMem()
				c.build(t, m, rootOf(t, m))
				if got := outcomes(t, m, loss); !slices.Equal(got, c.want) {
					t.Errorf("left\n%q, want\n%q", got, c.want)
				}
			})
		}
	}
}

// TestCrashTakesTheTimeOfADirectoryBackWithItsNames: who remembers the time sees that the names are not those of then.
func TestCrashTakesTheTimeOfADirectoryBackWithItsNames(t *testing.T) {
	m := newMem()
	root := rootOf(t, m)
	write(t, root, "a", "one", true)
	synced, err := root.Info()
	must(t, err)
	must(t, root.Remove("a"))
	for loss, back := range map[vfs.Loss]bool{vfs.LoseNothing: false, vfs.LoseAll: true} {
		info, err := rootOf(t, m.Crash(loss, 1)).Info()
		must(t, err)
		if info.Mtime.Equal(synced.Mtime) != back {
			t.Errorf("loss %d: mtime %v, synced at %v", loss, info.Mtime, synced.Mtime)
		}
	}
}

func TestCrashGivesAWorkingFileSystem(t *testing.T) {
	m := newMem()
	root := rootOf(t, m)
	write(t, root, "a", "1", true)
	must(t, root.Link("a", root, "b"))
	must(t, root.Sync())
	after := m.Crash(vfs.LoseAll, 1)
	d := rootOf(t, after)
	if info, err := d.Stat("a"); err != nil || info.Nlink != 2 {
		t.Errorf("%+v %v", info, err)
	}
	write(t, d, "c", "3", true)
	must(t, d.Remove("a"))
	if got := content(t, after.Crash(vfs.LoseAll, 1), ""); got != "a=1 b=1 c=3" {
		t.Errorf("after the second crash %q", got)
	}
	if got := content(t, m, ""); got != "a=1 b=1" {
		t.Errorf("the first file system changed: %q", got)
	}
}

// TestReplaceSurvivesCrashes cuts the power before every operation of a replacement.
func TestReplaceSurvivesCrashes(t *testing.T) {
	old, fresh := strings.Repeat("old ", 100), strings.Repeat("new", 200)
	for _, loss := range []vfs.Loss{vfs.LoseNothing, vfs.LoseAll, vfs.LoseTail, vfs.LoseAny} {
		m := newMem()
		must(t, vfs.WriteFile(rootOf(t, m), "f", 0o600, []byte(old)))
		crashes, seen := 0, map[string]bool{}
		check := func(o vfs.Op) error {
			for seed := range uint64(20) {
				got, err := vfs.ReadFile(rootOf(t, m.Crash(loss, seed)), "f", 1<<20)
				if s := string(got); err != nil || s != old && s != fresh {
					t.Errorf("before %+v: %d bytes %q %v", o, len(s), s, err)
				} else {
					seen[s] = true
				}
				crashes++
			}
			return nil
		}
		must(t, vfs.WriteFile(rootOf(t, vfs.NewFault(m, check)), "f", 0o600, []byte(fresh)))
		if crashes < 100 || !seen[old] || loss != vfs.LoseAll && !seen[fresh] {
			t.Errorf("loss %d: %d crashes, old seen %v, new seen %v", loss, crashes, seen[old], seen[fresh])
		}
		for seed := range uint64(20) {
			if got := content(t, m.Crash(loss, seed), ""); got != "f="+fresh {
				t.Errorf("after it returned: %q", got)
			}
		}
	}
}

// TestReplaceFaults fails one operation after the other until a run finishes unhurt.
func TestReplaceFaults(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EINTR} {
		for n := int64(1); ; n++ {
			m := newMem()
			must(t, vfs.WriteFile(rootOf(t, m), "f", 0o600, []byte("old")))
			var failed vfs.Op
			f := vfs.NewFault(m, func(o vfs.Op) error {
				if o.N == n {
					failed = o
					return errno
				}
				return nil
			})
			d, err := f.OpenDir("")
			if err == nil {
				err = vfs.WriteFile(d, "f", 0o600, []byte("new"))
			}
			got := content(t, m, "")
			if failed.N == 0 {
				if err != nil || got != "f=new" || n < 7 {
					t.Errorf("run %d without a fault: %q %v", n, got, err)
				}
				break
			}
			if !errors.Is(err, errno) {
				t.Errorf("%+v: %v", failed, err)
			}
			if want := map[bool]string{true: "f=new", false: "f=old"}[failed.Name == "syncdir"]; got != want {
				t.Errorf("%+v: left %q, want %q", failed, got, want)
			}
		}
	}
}

func TestFaultKinds(t *testing.T) {
	m := newMem()
	var fault error
	var ops []string
	f := vfs.NewFault(m, func(o vfs.Op) error {
		ops = append(ops, o.Name+" "+o.Path+" "+o.To)
		return fault
	})
	d := rootOf(t, f)
	file, err := d.Create("a", 0o600)
	must(t, err)
	fault = syscall.ENOSPC
	if n, err := file.Write([]byte("123456")); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write: %d %v", n, err)
	}
	fault = vfs.Late(syscall.EIO)
	if err := d.Rename("a", d, "b"); !errors.Is(err, syscall.EIO) {
		t.Errorf("rename: %v", err)
	}
	fault = nil
	if got := content(t, m, ""); got != "b=123" {
		t.Errorf("left %q", got)
	}
	want := []string{"opendir  ", "create a ", "write a ", "rename a b"}
	if !slices.Equal(ops, want) || f.Count() != 4 {
		t.Errorf("operations %q, want %q", ops, want)
	}
	if err := d.Rename("b", rootOf(t, m), "c"); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("rename past the wrapper: %v", err)
	}
}

// TestMemIsLikeOS does the same random operations on both and wants the same results.
func TestMemIsLikeOS(t *testing.T) {
	base := t.TempDir()
	parent := rootOf(t, openOS(t, base))
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		dir := fmt.Sprint(n)
		must(t, parent.Mkdir(dir, 0o700))
		real := openOS(t, base+"/"+dir)
		defer real.Close()
		mem := newMem()
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		where := rapid.SampledFrom([]string{"", "a", "b", "a/b"})
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			step := randomStep{
				op:   rapid.SampledFrom([]string{"write", "append", "mkdir", "rename", "renamenew", "link", "remove", "rmdir"}).Draw(rt, "op"),
				dir:  where.Draw(rt, "dir"),
				name: name.Draw(rt, "name"),
				to:   where.Draw(rt, "to"),
				new:  name.Draw(rt, "new"),
			}
			want, got := step.do(real), step.do(mem)
			if !agree(want, got) {
				rt.Fatalf("%+v: mem %v, os %v", step, got, want)
			}
			if want, got := content(t, real, ""), content(t, mem, ""); want != got {
				rt.Fatalf("%+v: mem %q, os %q", step, got, want)
			}
		}
	})
}

type randomStep struct{ op, dir, name, to, new string }

func (s randomStep) do(f vfs.FS) error {
	d, err := f.OpenDir(s.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	to, err := f.OpenDir(s.to)
	if err != nil {
		return err
	}
	defer to.Close()
	switch s.op {
	case "write", "append":
		open := d.OpenAppend
		if s.op == "write" {
			open = func(name string) (vfs.File, error) { return d.Create(name, 0o600) }
		}
		w, err := open(s.name)
		if err != nil {
			return err
		}
		defer w.Close()
		_, err = w.Write(bytes.Repeat([]byte(s.new), 3))
		return err
	case "mkdir":
		return d.Mkdir(s.name, 0o700)
	case "rename":
		return d.Rename(s.name, to, s.new)
	case "renamenew":
		return d.RenameNew(s.name, to, s.new)
	case "link":
		return d.Link(s.name, to, s.new)
	case "remove":
		return d.Remove(s.name)
	}
	return d.RemoveDir(s.name)
}

// agree reports whether both worked or both failed with an errno; which of several reasons comes first is the kernel's business.
func agree(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	var ea, eb syscall.Errno
	return errors.As(a, &ea) && errors.As(b, &eb)
}
