package fusefs_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/vfs"
)

func TestOpenFilesOutliveTheirNames(t *testing.T) {
	m := mountMaildir(t, nil)
	out := m.sh(t, `echo one > $M/tmp/a; mv $M/tmp/a $M/new/a
		exec 3< $M/new/a; rm $M/new/a; cat <&3
		echo two > $M/f; echo three > $M/g; exec 4< $M/f 5<>$M/f; mv $M/g $M/f; cat <&4; cat $M/f
		rm $M/f; printf 'changed' >&5; exec 6< /proc/$$/fd/5; cat <&6`)
	if want := "one\ntwo\nthree\nchanged"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestTheBackingDirectoryMayBeTheMountPoint(t *testing.T) {
	backing := filepath.Join(t.TempDir(), "maildir")
	makeMaildir(t, backing)
	m := mount(t, backing, backing, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a; mv $M/new/a $M/cur/a:2,S; test $(cat $M/cur/a:2,S) = x; mkdir $M/.Sub`)
	m.expect(t, "append INBOX a", "flags INBOX a -> a:2,S", "create Sub")
	if err := m.Unmount(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(backing + "/cur/a:2,S"); string(b) != "x\n" || err != nil {
		t.Errorf("the backing directory has %q, %v", b, err)
	}
}

// A mail that is renamed while the directory is being read appears exactly once.
func TestListingDuringRenamesHasEveryMailOnce(t *testing.T) {
	m := mountMaildir(t, nil)
	const mails = 2000
	m.helper(t, "fill", m.dir, fmt.Sprint(mails))
	renames := helperCommand(t, "flip-flags", m.dir+"/cur")
	stop, err := renames.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := renames.Start(); err != nil {
		t.Fatal(err)
	}
	out, listErr := helperCommand(t, "list-exactly", m.dir+"/cur", fmt.Sprint(mails), "8").CombinedOutput()
	stop.Close()
	if err := renames.Wait(); err != nil {
		t.Error("renames:", err)
	}
	if listErr != nil {
		t.Errorf("%v: %s", listErr, out)
	}
}

func TestExtendedAttributesOfMail(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a; echo y > $M/plain`)
	m.helper(t, "xattrs", m.dir+"/new/a", m.dir+"/plain")
	if k := m.engine.keywordsOf("a"); len(k) != 2 || k[0] != "Junk" || k[1] != "todo" {
		t.Errorf("keywords %q", k)
	}
}

func TestMemoryMappedFilesAndLocks(t *testing.T) {
	m := mountMaildir(t, nil)
	m.helper(t, "mmap", m.dir+"/dovecot.index")
	m.helper(t, "locks", m.dir+"/dovecot.index.log")
}

func TestFilesWithoutNames(t *testing.T) {
	m := mountMaildir(t, nil)
	m.helper(t, "tmpfile", m.dir)
	m.expect(t, "append INBOX from-tmpfile")
}

func TestRewritingAMailIsAReplacement(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a`)
	m.helper(t, "rewrite", m.dir+"/new/a")
	// Once before the first write, once at the fsync after the last.
	m.expect(t, "append INBOX a", "replace INBOX a", "replace INBOX a")
}

func TestDurabilityIsAskedForWhenTheProgramAsks(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.CommitDeliveries = true })
	m.sh(t, `echo x > $M/tmp/a; sync $M/tmp/a`)
	if m.engine.asked() != 0 {
		t.Error("a file in tmp is no mail")
	}
	m.sh(t, `mv $M/tmp/a $M/new/a`)
	if m.engine.asked() != 1 {
		t.Errorf("asked %d times after the delivery", m.engine.asked())
	}
	m.sh(t, `sync $M/new`)
	if m.engine.asked() != 2 {
		t.Errorf("asked %d times after fsync of new", m.engine.asked())
	}
}

func TestAnEngineThatFailsFailsTheProgram(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/cur/a:2,`)
	m.engine.mu.Lock()
	m.engine.fail = syscall.ENOSPC
	m.engine.mu.Unlock()
	if out, err := m.try(t, `rm $M/cur/a:2,`); err == nil || !strings.Contains(out, "No space left") {
		t.Errorf("rm says %q, %v", out, err)
	}
	m.engine.mu.Lock()
	m.engine.fail = nil
	m.engine.mu.Unlock()
	m.sh(t, `cat $M/cur/a:2,; rm $M/cur/a:2,`)
}

func TestReadOnlyMountRefusesProgramsButNotTheEngine(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.ReadOnly = true })
	for _, script := range []string{`touch $M/x`, `mkdir $M/.X`, `rm -f $M/tmp/x; ln -s a $M/s`, `mkfifo $M/p`} {
		if out, err := m.try(t, script); err == nil || !strings.Contains(out, "Read-only") {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	dir := m.through(t, "tmp")
	deliverThrough(t, m, dir, "a", "a:2,S")
	if out := m.sh(t, `ls $M/cur`); out != "a:2,S\n" {
		t.Errorf("listed %q", out)
	}
}

// through opens a directory as the engine does.
func (m *mounted) through(t *testing.T, path string) vfs.Dir {
	t.Helper()
	root, err := vfs.Open(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	d, err := m.Through(root).OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// deliverThrough writes tmp/name behind the mount and renames it to cur/target.
func deliverThrough(t *testing.T, m *mounted, tmp vfs.Dir, name, target string) {
	t.Helper()
	f, err := tmp.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("remote\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tmp.RenameNew(name, m.through(t, "cur"), target); err != nil {
		t.Fatal(err)
	}
}

func TestAProgramThatHoldsTheUIDListLockThroughTheMountIsNotWaitedFor(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `for i in a b; do echo x > $M/tmp/$i; mv $M/tmp/$i $M/cur/$i:2,; done
		set -C; echo 1:host > $M/dovecot-uidlist.lock; mv $M/cur/a:2, $M/cur/a:2,S; rm $M/dovecot-uidlist.lock
		mv $M/cur/b:2, $M/cur/b:2,S; ls $M/cur; test ! -e $M/dovecot-uidlist.lock`)
	m.expect(t, "append INBOX a:2,", "append INBOX b:2,", "flags INBOX a:2, -> a:2,S", "flags INBOX b:2, -> b:2,S")
}

// A handler that waits for the lock keeps its directory locked in the kernel. A program that gets the lock through the
// mount and wants to work in that directory must not wait for it.
func TestAWaitForTheUIDListLockEndsWhenAProgramTakesIt(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.Engine.(*engine).waits = make(chan string) })
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a`)
	renamed := make(chan error, 1)
	go func() {
		_, err := m.try(t, `mv $M/new/a $M/cur/a:2,`)
		renamed <- err
	}()
	if box := <-m.engine.waits; box != "" {
		t.Errorf("locks %q", box)
	}
	m.sh(t, `echo 1 > $M/dovecot-uidlist.lock; mv $M/cur/a:2, $M/cur/a:2,S; rm $M/dovecot-uidlist.lock`)
	if err := <-renamed; err != nil {
		t.Error(err)
	}
	m.expect(t, "append INBOX a", "flags INBOX a -> a:2,", "flags INBOX a:2, -> a:2,S")
}

func TestMailDirectoriesHoldOnlyFiles(t *testing.T) {
	m := mountMaildir(t, nil)
	for _, script := range []string{`mkdir $M/cur/x`, `ln -s /etc/passwd $M/new/x`, `mkfifo $M/cur/x`, `ln -s y $M/tmp/l; mv $M/tmp/l $M/cur/l`} {
		if out, err := m.try(t, script); err == nil || !strings.Contains(out, "not permitted") {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
}

func TestMountPointsThatAreUnfit(t *testing.T) {
	m := mountMaildir(t, nil)
	root, err := os.Open(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	full, file := t.TempDir(), filepath.Join(t.TempDir(), "f")
	if err := errors.Join(os.WriteFile(full+"/x", nil, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, says string }{
		"missing": {full + "/no", "no such directory"},
		"a file":  {file, "not a directory"},
		"full":    {full, "not empty"},
		"mounted": {m.dir, "mounted there already"},
	} {
		_, err := fusefs.New(fusefs.Options{Backing: root, Mountpoint: c.path, Engine: &engine{}})
		if !errors.Is(err, fusefs.ErrMountpoint) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestABusyMountSaysWhoHoldsIt(t *testing.T) {
	m := mountMaildir(t, nil)
	holder := exec.Command("sh", "-c", "cd "+m.dir+" && echo in && read x")
	hold, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var busy *fusefs.BusyError
	if err := m.Unmount(t.Context(), false); !errors.As(err, &busy) {
		t.Errorf("unmount: %v", err)
	} else if len(busy.Holders) != 1 || busy.Holders[0].PID != holder.Process.Pid {
		t.Errorf("holders %+v, want pid %d", busy.Holders, holder.Process.Pid)
	}
	hold.Close()
	holder.Wait()
	if err := m.Unmount(t.Context(), false); err != nil {
		t.Error(err)
	}
}

func TestProtectedMountPoint(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.Protect = true })
	m.sh(t, `echo x > $M/plain`)
	if err := m.Unmount(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(m.dir)
	if err != nil || st.Mode().Perm() != 0o500 {
		t.Errorf("the bare directory has mode %v, %v", st.Mode(), err)
	}
	again := mount(t, filepath.Dir(m.backing)+"/"+filepath.Base(m.backing), m.dir, func(o *fusefs.Options) { o.Protect = true })
	if out := again.sh(t, `cat $M/plain`); out != "x\n" {
		t.Errorf("read %q", out)
	}
}

func TestRemountAfterSIGKILL(t *testing.T) {
	backing, dir := filepath.Join(t.TempDir(), "maildir"), filepath.Join(t.TempDir(), "mnt")
	makeMaildir(t, backing)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	daemon := helperCommand(t, "serve", backing, dir)
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exec.Command("fusermount3", "-uz", dir).Run() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatal(line, err)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	daemon.Wait()
	m := mount(t, backing, dir, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a`)
	m.expect(t, "append INBOX a")
}

// Remote changes wake inotify watchers of the mount, while eight programs work in the same directories.
func TestEngineChangesWakeWatchersUnderLoad(t *testing.T) {
	m := mountMaildir(t, nil)
	watcher := exec.CommandContext(t.Context(), "inotifywait", "-m", "-e", "moved_to,moved_from,delete", "--format", "%e %f", m.dir+"/cur")
	events, err := watcher.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := watcher.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watcher.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(says); lines.Scan() && !strings.Contains(lines.Text(), "established"); {
	}
	var load sync.WaitGroup
	for i := range 8 {
		cmd := helperCommand(t, "churn", m.dir, fmt.Sprint(i), "100")
		load.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("churn: %v: %s", err, out)
			}
		})
	}
	const mails = 100
	tmp, cur := m.through(t, "tmp"), m.through(t, "cur")
	for i := range mails {
		name := fmt.Sprintf("remote%d", i)
		deliverThrough(t, m, tmp, name, name+":2,")
		if err := cur.Rename(name+":2,", cur, name+":2,S"); err != nil {
			t.Fatal(err)
		}
		if err := cur.Remove(name + ":2,S"); err != nil {
			t.Fatal(err)
		}
	}
	load.Wait()
	m.sh(t, `echo x > $M/tmp/end; mv $M/tmp/end $M/cur/end`)
	var got []string
	for lines := bufio.NewScanner(events); lines.Scan() && lines.Text() != "MOVED_TO end"; {
		if strings.Contains(lines.Text(), "remote") {
			got = append(got, lines.Text())
		}
	}
	watcher.Process.Kill()
	watcher.Wait()
	if len(got) != 4*mails {
		t.Fatalf("%d events, want %d", len(got), 4*mails)
	}
	for i := range mails {
		want := fmt.Sprintf("MOVED_TO remote%d:2,|MOVED_FROM remote%d:2,|MOVED_TO remote%d:2,S|DELETE remote%d:2,S", i, i, i, i)
		if s := strings.Join(got[4*i:4*i+4], "|"); s != want {
			t.Errorf("events %s, want %s", s, want)
		}
	}
	for _, ev := range m.engine.take() {
		if strings.Contains(ev, "remote") {
			t.Error("the engine's own change was journaled:", ev)
		}
	}
}

// What the engine or somebody else changes behind the mount is seen by the next system call.
func TestChangesBehindTheMountAreSeenAtOnce(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/cur/a:2,; echo 1 > $M/dovecot-uidlist; cat $M/dovecot-uidlist; ls -l $M/cur; test ! -e $M/cur/b:2,`)
	root := m.through(t, "")
	f, err := root.OpenAppend("dovecot-uidlist")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("2\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if out := m.sh(t, `cat $M/dovecot-uidlist; echo 3 >> $M/dovecot-uidlist; cat $M/dovecot-uidlist`); out != "1\n2\n1\n2\n3\n" {
		t.Errorf("UID list %q", out)
	}
	m.sh(t, `mv $B/cur/a:2, $B/cur/a:2,S; echo y > $B/cur/b:2,; echo z > $B/new/c`)
	m.Invalidate("cur")
	m.Invalidate("new", "c")
	if out := m.sh(t, `ls $M/cur $M/new; cat $M/cur/a:2, $M/cur/b:2, $M/new/c`); out != strings.ReplaceAll("M/cur:\na:2,S\nb:2,\n\nM/new:\nc\nx\ny\nz\n", "M", m.dir) {
		t.Errorf("seen %q", out)
	}
	m.sh(t, `rm $B/cur/b:2,; rm $B/new/c; echo longer > $B/cur/a:2,S`)
	m.Invalidate("cur")
	m.Invalidate("new")
	m.Invalidate("cur", "a:2,S")
	if out := m.sh(t, `ls $M/cur $M/new; cat $M/cur/a:2,S`); out != strings.ReplaceAll("M/cur:\na:2,S\n\nM/new:\nlonger\n", "M", m.dir) {
		t.Errorf("seen %q", out)
	}
}

// An ordinary user mounts by fusermount3. Run as root, daemon and programs are those of another user, in a mount namespace
// in which /dev/fuse is open to all, as it is everywhere but in containers.
func TestMountAsAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests are run by an ordinary user already")
	}
	base, err := os.MkdirTemp("", "fusefs") // not t.TempDir, which other users cannot enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	makeMaildir(t, base+"/maildir")
	if err := errors.Join(os.Chmod(base, 0o755), os.WriteFile(base+"/test", self, 0o755), os.Mkdir(base+"/mnt", 0o755)); err != nil {
		t.Fatal(err)
	}
	// The file says is made first: the shell in the background may open it after grep has looked for it.
	script := `mknod -m 666 $D/fuse c 10 229; mount --bind $D/fuse /dev/fuse; chown -R nobody $D
		cd $D; exec setpriv --reuid nobody --regid nogroup --clear-groups sh -ec '
		: > says
		` + helperEnv + `=serve ./test maildir mnt > says & daemon=$!
		until grep -q ready says; do kill -0 $daemon; sleep 0.02; done
		umask 077; echo x > mnt/tmp/a; mv mnt/tmp/a mnt/new/a; mv mnt/new/a mnt/cur/a:2,S; cat mnt/cur/a:2,S
		umask 022; echo y > mnt/plain; stat -c %a mnt/cur/a:2,S mnt/plain; fusermount3 -u mnt; wait $daemon'`
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-ec", script)
	cmd.Env = append(os.Environ(), "D="+base, "HOME="+base)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "x\n600\n644\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// What the engine moves away to delete it is forgotten by the kernel, with all that is in it; otherwise each deleted mailbox would
// keep its directories open until the kernel's memory gets short.
func TestADeletedMailboxIsNotKeptOpen(t *testing.T) {
	m := mountMaildir(t, nil)
	before := deleted(t)
	m.sh(t, `for i in 1 2 3; do mkdir -p $M/.Box$i/cur $M/.Box$i/new $M/.Box$i/tmp; echo x > $M/.Box$i/tmp/a; mv $M/.Box$i/tmp/a $M/.Box$i/new/a; done
		cat $M/.Box*/new/a; ls -l $M/.Box*/*`)
	root, tmp := m.through(t, ""), m.through(t, "tmp")
	for _, i := range []string{"1", "2", "3"} {
		for _, err := range []error{root.Rename(".Box"+i, tmp, "trying"+i), tmp.Rename("trying"+i, tmp, "delete"+i), os.RemoveAll(filepath.Join(m.backing, "tmp", "delete"+i))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	closed(t, before)
}

// A store makes a file anew for each line that it takes out of a uidlist.
func TestAFileThatIsToReplaceAnotherOneIsNotListed(t *testing.T) {
	m := mountMaildir(t, nil)
	out := m.sh(t, `cd $M; touch .dovecot-uidlist.4711.12.tmp .x.tmp .4711.12.tmp; ls -A | grep tmp$
		echo; touch -d '1 hour ago' .dovecot-uidlist.4711.12.tmp; ls -A | grep tmp$`)
	if want := ".4711.12.tmp\n.x.tmp\ntmp\n\n.4711.12.tmp\n.dovecot-uidlist.4711.12.tmp\n.x.tmp\ntmp\n"; out != want {
		t.Errorf("listed: %q, want %q", out, want)
	}
}

// A lock is found by who asks for it and not listed, unless its owner is long dead: whoever reads all that is listed would find that
// it is gone.
func TestALockIsNotListed(t *testing.T) {
	m := mountMaildir(t, nil)
	out := m.sh(t, `cd $M; touch dovecot-uidlist.lock dovecot-uidlist; test -e dovecot-uidlist.lock; ls -d dove*; ls | grep dove
		touch -d '1 hour ago' dovecot-uidlist.lock; ls | grep dove`)
	if want := "dovecot-uidlist\ndovecot-uidlist\ndovecot-uidlist\ndovecot-uidlist.lock\n"; out != want {
		t.Errorf("listed: %q, want %q", out, want)
	}
}

// A mail of several names has the others when one of them is removed behind the mount, be it the one that it is known by.
func TestANameRemovedBehindTheMountIsNotTheOnlyOne(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo mail > $M/tmp/a; ln $M/tmp/a $M/cur/b:2,; rm $B/tmp/a; ln $M/cur/b:2, $M/.Work/cur/b:2,`)
	if out := m.sh(t, `cat $M/.Work/cur/b:2,; ls $M/.Work/cur; test ! -e $M/tmp/a`); out != "mail\nb:2,\n" {
		t.Errorf("%q", out)
	}
	m.expect(t, "append INBOX b:2,", "append Work b:2,")
}

// What the store writes in the backing directory is there for programs at once: its own files, and the time of cur.
func TestFilesOfTheStoreAreFollowed(t *testing.T) {
	m := mountMaildir(t, nil)
	root, err := vfs.Open(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := m.Through(root).(interface{ Follow(dir, name string) })
	m.sh(t, `echo 1 > $B/dovecot-uidlist; cat $M/dovecot-uidlist; stat $M/cur`)
	for i, script := range []string{`echo 2 >> $B/dovecot-uidlist`, `echo 1 > $B/x; echo 2 >> $B/x; echo 3 >> $B/x; mv $B/x $B/dovecot-uidlist`} {
		m.sh(t, script)
		f.Follow("", "dovecot-uidlist")
		if out := m.sh(t, `cat $M/dovecot-uidlist`); out != "1\n2\n3\n"[:2*i+4] {
			t.Errorf("%q", out)
		}
	}
	m.sh(t, `touch -d @1234567890 $B/cur`)
	f.Follow("", "cur")
	if out := m.sh(t, `stat -c %Y $M/cur`); out != "1234567890\n" {
		t.Errorf("cur is of %s", out)
	}
}

// With commit=remote the kernel keeps the directories of a delivery locked until the remote has it: whoever brings it there must not
// wait for the kernel to hear of them.
func TestWhatADeliveryWaitsForDoesNotWaitForIt(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.CommitDeliveries = true })
	root, err := vfs.Open(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	f := m.Through(root).(interface{ Follow(dir, name string) })
	m.sh(t, `echo a > $M/new/a; ls $M/new`)
	m.engine.mu.Lock()
	m.engine.remote = func() {
		m.sh(t, `echo b > $B/new/b; echo 1 > $B/dovecot-uidlist`)
		m.Invalidate("new", "b")
		f.Follow("", "dovecot-uidlist")
		f.Follow("", "cur")
	}
	m.engine.mu.Unlock()
	m.sh(t, `echo c > $M/tmp/c; mv $M/tmp/c $M/new/c`)
	m.Invalidate("new", "b") // what was not waited for is sent before this
	if out := m.sh(t, `ls $M/new; cat $M/dovecot-uidlist`); out != "a\nb\nc\n1\n" {
		t.Errorf("%q", out)
	}
}

// What the other side did meanwhile, in the directories of the delivery, must not hold the engine up either.
func TestWhatADeliveryWaitsForChangesTheSameDirectories(t *testing.T) {
	m := mountMaildir(t, func(o *fusefs.Options) { o.CommitDeliveries = true })
	root, err := vfs.Open(m.backing)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	through := m.Through(root)
	open := func(path string) vfs.Dir {
		d, err := through.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	unseen, seen, temp, top := open("new"), open("cur"), open("tmp"), open("")
	m.sh(t, `touch $B/tmp/come $B/tmp/linked $B/new/gone $B/new/read $B/cur/flag:2,; ls $M/new $M/cur`)
	m.Invalidate("new", "gone", "read")
	m.Invalidate("cur", "flag:2,")
	m.engine.mu.Lock()
	m.engine.remote = func() {
		for what, err := range map[string]error{
			"come": temp.Rename("come", unseen, "come"), "link": temp.Link("linked", unseen, "linked"), "expunge": unseen.Remove("gone"),
			"read": unseen.RenameNew("read", seen, "read:2,S"), "flag": seen.Rename("flag:2,", seen, "flag:2,F"), "mailbox": top.Mkdir(".Box", 0o700),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	m.engine.mu.Unlock()
	m.sh(t, `echo c > $M/tmp/c; mv $M/tmp/c $M/new/c`)
	m.Invalidate("new", "come") // what was not waited for is sent before this
	if out := m.sh(t, `cd $M; ls -A new cur; ls -d .Box`); out != "cur:\nflag:2,F\nread:2,S\n\nnew:\nc\ncome\nlinked\n.Box\n" {
		t.Errorf("%q", out)
	}
}
