package fusefs_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestAStaleNameReachesItsMail(t *testing.T) {
	m := mountMaildir(t, nil)
	for _, step := range []struct {
		name, script string
		output       string
		want         []string
	}{
		{"setup", `for i in a b c d e f g h; do echo mail-$i > $M/tmp/$i; mv $M/tmp/$i $M/new/$i; done`, "",
			[]string{"append INBOX a", "append INBOX b", "append INBOX c", "append INBOX d", "append INBOX e", "append INBOX f", "append INBOX g", "append INBOX h"}},
		{"open by its place in new after it moved", `mv $M/new/a $M/cur/a:2,S; cat $M/new/a`, "mail-a", []string{"flags INBOX a -> a:2,S"}},
		{"open by old flags", `mv $M/cur/a:2,S $M/cur/a:2,RS; cat $M/cur/a:2,S`, "mail-a", []string{"flags INBOX a:2,S -> a:2,RS"}},
		{"a name that never was is not there", `test ! -e $M/cur/a:2,F && test ! -e $M/cur/zzz && test ! -e $M/new/zzz`, "", nil},
		{"two flag changes merge", `mv $M/new/b $M/cur/b:2,; mv $M/cur/b:2, $M/cur/b:2,S; mv $M/cur/b:2, $M/cur/b:2,F; ls $M/cur | grep ^b`, "b:2,FS",
			[]string{"flags INBOX b -> b:2,", "flags INBOX b:2, -> b:2,S", "flags INBOX b:2,S -> b:2,FS"}},
		{"both programs still reach it", `cat $M/cur/b:2,F $M/cur/b:2,S`, "mail-b\nmail-b", nil},
		{"a removed flag merges too", `mv $M/cur/b:2,S $M/cur/b:2,; ls $M/cur | grep ^b`, "b:2,F", []string{"flags INBOX b:2,FS -> b:2,F"}},
		{"flags from new while it moved", `mv $M/new/c $M/cur/c:2,S; mv $M/new/c $M/cur/c:2,F; ls $M/cur | grep ^c`, "c:2,FS",
			[]string{"flags INBOX c -> c:2,S", "flags INBOX c:2,S -> c:2,FS"}},
		{"unlink by an old name", `mv $M/new/d $M/cur/d:2,; mv $M/cur/d:2, $M/cur/d:2,T; cat $M/cur/d:2,T; rm $M/cur/d:2,; ls $M/cur | grep -c ^d || true`, "mail-d\n0",
			[]string{"flags INBOX d -> d:2,", "flags INBOX d:2, -> d:2,T", "expunge INBOX d:2,T"}},
		{"and it is gone", `test ! -e $M/cur/d:2,T; test ! -e $M/cur/d:2,; test ! -e $M/new/d`, "", nil},
		{"moved to another mailbox by an old name", `mv $M/new/e $M/cur/e:2,F; mv $M/new/e $M/.Work/cur/e:2,S; ls $M/.Work/cur`, "e:2,FS",
			[]string{"flags INBOX e -> e:2,F", "move INBOX e:2,F -> Work e:2,FS"}},
		{"flags set and taken back", `mv $M/new/f $M/cur/f:2,; mv $M/cur/f:2, $M/cur/f:2,S; mv $M/cur/f:2,S $M/cur/f:2,; ls $M/cur | grep ^f`, "f:2,",
			[]string{"flags INBOX f -> f:2,", "flags INBOX f:2, -> f:2,S", "flags INBOX f:2,S -> f:2,"}},
		{"keyword letters merge", `mv $M/new/g $M/cur/g:2,; mv $M/cur/g:2, $M/cur/g:2,a; mv $M/cur/g:2, $M/cur/g:2,Sb; ls $M/cur | grep ^g`, "g:2,Sab",
			[]string{"flags INBOX g -> g:2,", "flags INBOX g:2, -> g:2,a", "flags INBOX g:2,a -> g:2,Sab"}},
	} {
		out := m.sh(t, step.script)
		m.Invalidate("none") // returns when the kernel has been told of the step before
		t.Run(step.name, func(t *testing.T) {
			if got := strings.TrimSpace(out); got != step.output {
				t.Errorf("output %q, want %q", got, step.output)
			}
			m.expect(t, step.want...)
		})
	}
}

// The program that renamed a mail must see the old name gone: mu and others check, and a defensive unlink of the old name
// after a rename must not expunge the mail.
func TestTheRenamingProgramSeesTheOldNameGone(t *testing.T) {
	m := mountMaildir(t, nil)
	m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a`)
	m.helper(t, "rename-and-check", m.dir+"/new/a", m.dir+"/cur/a:2,S")
	if out := m.sh(t, `cat $M/cur/a:2,S`); out != "x\n" {
		t.Errorf("the mail says %q", out)
	}
	m.expect(t, "append INBOX a", "flags INBOX a -> a:2,S")
}

// An open file stays readable whatever happens to its names.
func TestAnAliasOutlivesItsMail(t *testing.T) {
	m := mountMaildir(t, nil)
	out := m.sh(t, `echo x > $M/tmp/a; mv $M/tmp/a $M/new/a; mv $M/new/a $M/cur/a:2,
		exec 3< $M/new/a; rm $M/cur/a:2,; cat <&3; test ! -e $M/new/a`)
	if out != "x\n" {
		t.Errorf("read %q", out)
	}
}

// deleted counts the descriptors of this process whose file has no name any more.
func deleted(t *testing.T) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if file, _ := os.Readlink(link); strings.HasSuffix(file, " (deleted)") {
			n++
		}
	}
	return n
}

// closed waits until there are no more of these than before. The kernel says in its own time that it forgot a node.
func closed(t *testing.T, before int) {
	t.Helper()
	limit := time.Now().Add(10 * time.Second)
	for deleted(t) > before && time.Now().Before(limit) {
		runtime.Gosched()
	}
	if after := deleted(t); after > before {
		t.Errorf("%d files or directories without a name are open", after-before)
	}
}

// A mail that is gone is not kept open for a name that it used to have: the kernel remembers such a name until its memory gets
// short, and asks each time, so nothing would ever end it.
func TestAStaleNameDoesNotKeepItsMailOpen(t *testing.T) {
	for how, remove := range map[string]string{
		"through the mount": `rm $M/cur/$i:2,S`, "by an old name": `rm $M/cur/$i:2,`, "behind the mount": `rm $B/cur/$i:2,S`, "moved": `mv $M/cur/$i:2,S $M/x; rm $M/x`,
	} {
		t.Run(how, func(t *testing.T) {
			m := mountMaildir(t, nil)
			before := deleted(t)
			m.sh(t, `for i in 1 2 3 4 5; do echo x > $M/tmp/$i; mv $M/tmp/$i $M/new/$i; mv $M/new/$i $M/cur/$i:2,; done`)
			m.sh(t, `for i in 1 2 3 4 5; do mv $M/cur/$i:2, $M/cur/$i:2,S; cat $M/new/$i; done`)
			m.sh(t, `for i in 1 2 3 4 5; do cat $M/new/$i $M/cur/$i:2,; `+remove+`; done`)
			m.Invalidate("cur")
			m.Invalidate("none") // returns when the kernel has been told
			closed(t, before)
		})
	}
}
