package fusefs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/vfs"
)

// source is a remote mailbox: it hands out mails until it is away, and can be made to wait.
type source struct {
	cache string
	mails map[string]string

	mu       sync.Mutex
	away     bool
	hold     chan struct{} // if not nil: Fetch waits until it is closed
	fetches  []string
	intended []string
	settled  []string
}

func (s *source) Fetch(ctx context.Context, base string, size int64, next func(int) []fusefs.Following) (*os.File, error) {
	s.mu.Lock()
	s.fetches = append(s.fetches, base)
	away, hold := s.away, s.hold
	text, ok := s.mails[base]
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if away || !ok || int64(len(text)) != size {
		return nil, errors.New("away")
	}
	f, err := os.CreateTemp(s.cache, "")
	if err == nil {
		_, err = io.WriteString(f, text)
	}
	return f, err
}

func (s *source) Intend(i fusefs.Intent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intended = append(s.intended, strings.TrimSpace(i.Was+" -> "+i.Want))
	return nil
}

func (s *source) Settled(base string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, base)
}

func (s *source) setAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func (s *source) fetched() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.fetches)
}

func (s *source) wants(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.intended, want) {
		t.Errorf("intents %q, want %q", s.intended, want)
	}
}

// promising is a mount whose INBOX is still to come: a in new/, b in cur/ (seen), c in cur/ and large.
type promising struct {
	*mounted
	*source
}

func promise(t *testing.T, intents ...fusefs.Intent) *promising {
	m := mountMaildir(t, nil)
	s := &source{cache: t.TempDir(), mails: map[string]string{"a": "mail a\n", "b": "mail b\n", "c": strings.Repeat("0123456789abcdef", 1<<16)}}
	p := &promising{m, s}
	n, err := m.Promise("", s, []fusefs.Promised{
		{Name: "a", Size: 7, Mtime: 1_600_000_000}, {Cur: true, Name: "b:2,S", Size: 7, Mtime: 1_600_000_001},
		{Cur: true, Name: "c:2,F", Size: 1 << 20, Mtime: 1_600_000_002},
	}, intents)
	if err != nil {
		t.Fatal(err)
	}
	if removed := slices.ContainsFunc(intents, func(i fusefs.Intent) bool { return i.Want == "" }); n != 3 && !removed {
		t.Fatalf("%d mails are promised", n)
	}
	return p
}

// The kernel remembers of a name that it is not there, and of an old name what it stands for. A promise takes both back.
func TestAPromiseIsSeenByWhoLookedForItBefore(t *testing.T) {
	m := mountMaildir(t, nil)
	if out, err := m.try(t, `stat $M/cur/b:2,S 2>&1; stat $M/new/a`); err == nil {
		t.Fatalf("it is there already: %s", out)
	}
	_, err := m.Promise("", &source{}, []fusefs.Promised{{Name: "a", Size: 7}, {Cur: true, Name: "b:2,S", Size: 7}, {Cur: true, Name: "c:2,S", Size: 7}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := m.sh(t, `cd $M; stat -c %n cur/b:2,S new/a cur/c:2,S`); out != "cur/b:2,S\nnew/a\ncur/c:2,S\n" {
		t.Errorf("%q", out)
	}
}

// arrives lets the engine put a mail into the INBOX.
func (p *promising) arrives(t *testing.T, base, file string) {
	t.Helper()
	root, err := vfs.Open(p.backing)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ns := p.Through(root)
	sub, name, _ := strings.Cut(file, "/")
	if err := os.WriteFile(p.backing+"/tmp/stage-"+base, []byte(p.mails[base]), 0o600); err != nil {
		t.Fatal(err)
	}
	tmp, err := ns.OpenDir("tmp")
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	to, err := ns.OpenDir(sub)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := tmp.RenameNew("stage-"+base, to, name); err != nil {
		t.Fatal(err)
	}
}

func (p *promising) lists(t *testing.T, want ...string) {
	t.Helper()
	got := strings.Fields(p.sh(t, `cd $M; ls -d new/* cur/* 2>/dev/null || true`))
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed: %q, want %q", got, want)
	}
}

func (p *promising) becomes(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func (p *promising) isThere(path string) func() bool {
	return func() bool {
		_, err := os.Lstat(p.backing + "/" + path)
		return err == nil
	}
}

func TestPromisedMailIsListedAndFetchedWhenItIsRead(t *testing.T) {
	p := promise(t)
	p.lists(t, "new/a", "cur/b:2,S", "cur/c:2,F")
	if out := p.sh(t, `stat -c '%s %Y %F' $M/new/a $M/cur/c:2,F; exec 3<$M/new/a; test -r $M/new/a; test ! -x $M/new/a`); out !=
		"7 1600000000 regular file\n1048576 1600000002 regular file\n" {
		t.Errorf("stat says %q", out)
	}
	if f := p.fetched(); len(f) > 0 {
		t.Errorf("fetched without a read: %q", f)
	}
	if out := p.sh(t, `cat $M/new/a $M/cur/b:2,S $M/new/a; cmp $M/cur/c:2,F $M/cur/c:2,F; md5sum <$M/cur/c:2,F`); !strings.HasPrefix(out, "mail a\nmail b\nmail a\n") {
		t.Errorf("read %q", out)
	}
	if f := p.fetched(); !slices.Equal(f, []string{"a", "b", "c"}) {
		t.Errorf("fetched %q", f)
	}
	p.expect(t) // nothing is journaled for it
	if n := p.Promised(); n != 3 {
		t.Errorf("%d promised", n)
	}
}

func TestAPromisedMailThatCannotBeHadIsAnError(t *testing.T) {
	p := promise(t)
	p.setAway(true)
	out, err := p.try(t, `cat $M/new/a`)
	if err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("%q, %v", out, err)
	}
	p.setAway(false)
	if out := p.sh(t, `cat $M/new/a`); out != "mail a\n" {
		t.Errorf("afterwards %q", out)
	}
	p.mu.Lock()
	p.mails["b"] = "" // not what was promised
	p.mu.Unlock()
	if out, err := p.try(t, `cat $M/cur/b:2,S`); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("an empty file for a mail: %q, %v", out, err)
	}
}

func TestThePromisedMailComes(t *testing.T) {
	p := promise(t)
	before := p.sh(t, `stat -c %i $M/new/a`)
	p.sh(t, `ls $M/new $M/cur; cat $M/new/a`)
	p.arrives(t, "a", "new/a")
	p.arrives(t, "b", "cur/b:2,S")
	p.lists(t, "new/a", "cur/b:2,S", "cur/c:2,F")
	out := p.sh(t, `cat $M/new/a $M/cur/b:2,S; stat -c %i $M/new/a; stat -c %i $B/new/a`)
	lines := strings.Split(out, "\n")
	if lines[0] != "mail a" || lines[1] != "mail b" || lines[2] != lines[3] || lines[2]+"\n" == before {
		t.Errorf("%q; the number before was %q", out, before)
	}
	if f := p.fetched(); !slices.Equal(f, []string{"a"}) {
		t.Errorf("fetched %q", f)
	}
	p.setAway(true)
	p.sh(t, `mv $M/new/a $M/cur/a:2,S; rm $M/cur/b:2,S; test "$(cat $M/cur/a:2,S)" = "mail a"`)
	p.expect(t, "flags INBOX a -> a:2,S", "expunge INBOX b:2,S")
	if n := p.Promised(); n != 1 {
		t.Errorf("%d promised", n)
	}
	p.EndPromises()
	p.lists(t, "cur/a:2,S")
	if out, err := p.try(t, `cat $M/cur/c:2,F`); err == nil || !strings.Contains(out, "No such file") {
		t.Errorf("what never came: %q, %v", out, err)
	}
}

// holding runs a shell that opens files, and goes on with the rest of its script when go is called, which returns what it printed.
func (p *promising) holding(t *testing.T, opens, rest string) (goOn func() string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", opens+"; echo ready; read line; "+rest)
	cmd.Env = append(os.Environ(), "M="+p.dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); line != "ready\n" {
		t.Fatalf("the shell said %q, %v", line, err)
	}
	return func() string {
		t.Helper()
		if _, err := io.WriteString(in, "go\n"); err != nil {
			t.Error(err)
		}
		text, err := io.ReadAll(said)
		if err := errors.Join(err, cmd.Wait()); err != nil {
			t.Errorf("%s: %v", rest, err)
		}
		return string(text)
	}
}

func TestAPromisedMailComesUnderAnotherName(t *testing.T) {
	p := promise(t)
	read := p.holding(t, `exec 3<$M/new/a 4<$M/cur/b:2,S 5<$M/new/a; ls $M/new $M/cur >/dev/null`, `cat <&3; cat <&4; rm $M/new/a; cat <&5`)
	p.arrives(t, "a", "cur/a:2,F")
	p.arrives(t, "b", "cur/b:2,FS")
	p.lists(t, "cur/a:2,F", "cur/b:2,FS", "cur/c:2,F")
	if out := p.sh(t, `cat $M/new/a $M/cur/b:2,S`); out != "mail a\nmail b\n" {
		t.Errorf("by the names that were promised: %q", out)
	}
	if out := read(); out != "mail a\nmail b\nmail a\n" {
		t.Errorf("what was open: %q", out)
	}
	if f := p.fetched(); len(f) > 0 {
		t.Errorf("fetched %q", f)
	}
	p.expect(t, "expunge INBOX a:2,F")
	p.lists(t, "cur/b:2,FS", "cur/c:2,F")
}

// A mail comes while somebody waits for its bytes, which are then not to be had.
func TestAPromisedMailComesWhileItIsFetched(t *testing.T) {
	p := promise(t)
	hold := make(chan struct{})
	p.mu.Lock()
	p.hold = hold
	p.mu.Unlock()
	read := p.holding(t, `cat $M/new/a >$M/copy & exec 3<$M/cur/b:2,S`, `wait $!; cat $M/copy`)
	p.becomes(t, "a fetch", func() bool { return len(p.fetched()) == 1 })
	p.setAway(true)
	p.arrives(t, "a", "new/a")
	close(hold)
	if out := read(); out != "mail a\n" {
		t.Errorf("%q", out)
	}
}

func TestFlagsOfAPromisedMail(t *testing.T) {
	p := promise(t)
	p.setAway(true)
	p.sh(t, `mv $M/new/a $M/cur/a:2,S; mv $M/cur/a:2,S $M/cur/a:2,RS; test ! -e $M/cur/b:2,RS; mv $M/cur/b:2,S $M/cur/b:2,; test -e $M/cur/b:2,`)
	p.lists(t, "cur/a:2,RS", "cur/b:2,", "cur/c:2,F")
	p.wants(t, "new/a -> cur/a:2,S", "new/a -> cur/a:2,RS", "cur/b:2,S -> cur/b:2,")
	p.expect(t)
	p.arrives(t, "a", "new/a")
	p.arrives(t, "b", "cur/b:2,FSa") // with what others did meanwhile
	p.becomes(t, "the flags of a", p.isThere("cur/a:2,RS"))
	p.becomes(t, "the flags of b", p.isThere("cur/b:2,Fa"))
	p.becomes(t, "an end of the intents", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.settled) == 2 })
	p.lists(t, "cur/a:2,RS", "cur/b:2,Fa", "cur/c:2,F")
	p.expect(t, "flags INBOX a -> a:2,RS", "flags INBOX b:2,FSa -> b:2,Fa")
	p.sh(t, `test "$(cat $M/cur/a:2,RS)" = "mail a"; mv $M/cur/a:2,RS $M/cur/a:2,S; test -e $B/cur/a:2,S`)
}

// Two programs that know a promised mail by different names.
func TestAStaleNameOfAPromisedMail(t *testing.T) {
	p := promise(t)
	p.sh(t, `mv $M/new/a $M/cur/a:2,F; mv $M/cur/a:2,F $M/cur/a:2,FR`)
	p.sh(t, `test "$(cat $M/new/a)" = "mail a"; mv $M/cur/a:2,F $M/cur/a:2,FS`)
	p.lists(t, "cur/a:2,FRS", "cur/b:2,S", "cur/c:2,F")
	p.arrives(t, "a", "new/a")
	p.becomes(t, "the flags of both", p.isThere("cur/a:2,FRS"))
	p.sh(t, `rm $M/new/a`)
	p.lists(t, "cur/b:2,S", "cur/c:2,F")
}

func TestAPromisedMailIsRemoved(t *testing.T) {
	p := promise(t)
	out := p.holding(t, `exec 3<$M/new/a; cat $M/new/a >/dev/null; rm $M/new/a`, `cat <&3`)()
	if out != "mail a\n" {
		t.Errorf("what was open: %q", out)
	}
	p.setAway(true)
	p.sh(t, `rm $M/cur/b:2,S; test ! -e $M/cur/b:2,S`)
	p.lists(t, "cur/c:2,F")
	p.wants(t, "new/a ->", "cur/b:2,S ->")
	p.expect(t)
	p.arrives(t, "a", "new/a")
	p.arrives(t, "b", "cur/b:2,")
	p.becomes(t, "an end of the intents", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.settled) == 2 })
	p.lists(t, "cur/c:2,F")
	p.expect(t, "expunge INBOX a", "expunge INBOX b:2,")
}

func TestAPromisedMailIsMovedAndLinked(t *testing.T) {
	p := promise(t)
	p.sh(t, `mv $M/new/a $M/.Work/cur/a:2,S; ln $M/cur/b:2,S $M/.Work/new/other; ln $M/cur/b:2,S $M/plain`)
	p.lists(t, "cur/b:2,S", "cur/c:2,F")
	if out := p.sh(t, `cd $M; cat .Work/cur/a:2,S .Work/new/other plain; stat -c %Y .Work/cur/a:2,S; cmp .Work/cur/a:2,S $B/.Work/cur/a:2,S`); out !=
		"mail a\nmail b\nmail b\n1600000000\n" {
		t.Errorf("%q", out)
	}
	p.wants(t, "new/a ->")
	p.expect(t, "append Work a:2,S", "append Work other")
	p.sh(t, `mv $M/.Work/cur/a:2,S $M/.Work/cur/a:2,FS; rm $M/.Work/new/other`)
	p.arrives(t, "a", "new/a")
	p.becomes(t, "an end of the intent", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.settled) == 1 })
	p.lists(t, "cur/b:2,S", "cur/c:2,F")
	p.expect(t, "flags Work a:2,S -> a:2,FS", "expunge Work other", "expunge INBOX a")
	p.setAway(true)
	out, err := p.try(t, `mv $M/cur/c:2,F $M/.Work/cur/c:2,F`)
	if err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("a move without its bytes: %q, %v", out, err)
	}
	p.lists(t, "cur/b:2,S", "cur/c:2,F")
}

func TestWhatHasToWaitForAPromisedMail(t *testing.T) {
	p := promise(t)
	for _, script := range []string{
		`echo more | dd of=$M/new/a oflag=append conv=notrunc`, `truncate -s 0 $M/new/a`, `chmod 644 $M/new/a`, `touch $M/new/a`, `echo x >$M/tmp/x; mv $M/tmp/x $M/cur/a:2,T`,
	} {
		if out, err := p.try(t, script); err == nil || !strings.Contains(out, "Resource temporarily unavailable") {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	for script, says := range map[string]string{
		`rmdir $M/new`: "not empty", `ln $M/tmp/x $M/cur/b:2,S`: "File exists", `set -C; echo x >$M/new/a`: "new/a",
	} {
		if out, err := p.try(t, script); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %q, %v", script, out, err)
		}
	}
	p.lists(t, "new/a", "cur/b:2,S", "cur/c:2,F")
	p.sh(t, `echo y >$M/tmp/y; mv $M/tmp/y $M/new/y`)
	p.lists(t, "new/a", "new/y", "cur/b:2,S", "cur/c:2,F")
	p.expect(t, "append INBOX y")
	p.Invalidate("new")
	p.Invalidate("cur")
	p.lists(t, "new/a", "new/y", "cur/b:2,S", "cur/c:2,F")
}

// What was wanted before the daemon was killed is still wanted.
func TestIntentsOfAnEarlierMount(t *testing.T) {
	p := promise(t, fusefs.Intent{Base: "a", Was: "new/a"}, fusefs.Intent{Base: "b", Was: "cur/b:2,S", Want: "cur/b:2,FS"})
	p.lists(t, "cur/b:2,FS", "cur/c:2,F")
	p.arrives(t, "a", "new/a")
	p.arrives(t, "b", "cur/b:2,S")
	p.becomes(t, "the flags of b", p.isThere("cur/b:2,FS"))
	p.becomes(t, "an end of the intents", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.settled) == 2 })
	p.lists(t, "cur/b:2,FS", "cur/c:2,F")

	m := mountMaildir(t, nil) // and one that came before the kill
	if err := os.WriteFile(m.backing+"/cur/a:2,", []byte("mail a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &source{}
	if _, err := m.Promise("", s, nil, []fusefs.Intent{{Base: "a", Was: "new/a", Want: "cur/a:2,S"}}); err != nil {
		t.Fatal(err)
	}
	q := &promising{m, s}
	q.becomes(t, "the flags", q.isThere("cur/a:2,S"))
}

// An intent that cannot be carried out when its mail comes is not forgotten.
func TestAnIntentIsTriedAgain(t *testing.T) {
	p := &promising{mountMaildir(t, func(o *fusefs.Options) { o.Logger = nil }), &source{mails: map[string]string{"a": "mail a\n"}}}
	if _, err := p.Promise("", p.source, []fusefs.Promised{{Name: "a", Size: 7}}, nil); err != nil {
		t.Fatal(err)
	}
	p.sh(t, `rm $M/new/a`)
	fail := func(err error) {
		p.engine.mu.Lock()
		defer p.engine.mu.Unlock()
		p.engine.fail = err
	}
	fail(errors.New("the journal's disk is away"))
	p.arrives(t, "a", "new/a")
	if left := p.EndPromises(); left != 1 {
		t.Errorf("%d left", left)
	}
	p.lists(t, "new/a")
	fail(nil)
	if _, err := p.Promise("", p.source, nil, []fusefs.Intent{{Base: "a", Was: "new/a"}}); err != nil {
		t.Fatal(err)
	}
	if left := p.EndPromises(); left != 0 {
		t.Errorf("%d left", left)
	}
	p.lists(t)
	p.expect(t, "expunge INBOX a")
}

// A mailbox that is renamed takes along what is still to come.
func TestAMailboxWithPromisedMailIsRenamed(t *testing.T) {
	m := mountMaildir(t, nil)
	s := &source{cache: t.TempDir(), mails: map[string]string{"a": "mail a\n"}}
	if _, err := m.Promise(".Work", s, []fusefs.Promised{{Name: "a", Size: 7}}, nil); err != nil {
		t.Fatal(err)
	}
	if out := m.sh(t, `mv $M/.Work $M/.Play; ls $M/.Play/new; cat $M/.Play/new/a; mv $M/.Play/new/a $M/.Play/cur/a:2,S; ls $M/.Play/cur`); out != "a\nmail a\na:2,S\n" {
		t.Errorf("%q", out)
	}
	if _, err := m.Promise(".None", s, nil, nil); err == nil {
		t.Error("a mailbox that is not there")
	}
}

func TestManyPromisesAreListedOnce(t *testing.T) {
	m := mountMaildir(t, nil)
	const mails = 2000
	s := &source{mails: map[string]string{}}
	var all []fusefs.Promised
	for i := range mails {
		all = append(all, fusefs.Promised{Cur: true, Name: fmt.Sprintf("%d:2,", i), Size: 1})
	}
	if n, err := m.Promise("", s, all, nil); n != mails || err != nil {
		t.Fatal(n, err)
	}
	if n, err := m.Promise("", s, all, nil); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	p := &promising{m, s}
	list := helperCommand(t, "list-exactly", m.dir+"/cur", fmt.Sprint(mails), "8")
	var out bytes.Buffer
	list.Stdout, list.Stderr = &out, &out
	if err := list.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range mails {
		base := fmt.Sprint(i)
		p.mails[base] = "x"
		p.arrives(t, base, "cur/"+base+":2,"+[]string{"", "S"}[i%2])
	}
	if err := list.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.Bytes())
	}
	if n := m.Promised(); n != 0 {
		t.Errorf("%d are still promised", n)
	}
}

// Names of the past of a mail that was promised under another one are let go of when it goes.
func TestStaleNamesOfAPromisedMailThatComesAndGoes(t *testing.T) {
	p := promise(t)
	read := p.holding(t, `mv $M/new/a $M/cur/a:2,F; exec 3<$M/new/a 4<$M/cur/a:2,F; mv $M/cur/a:2,F $M/cur/a:2,FR; ls $M/cur >/dev/null`, `cat <&3; cat <&4`)
	p.sh(t, `test "$(cat $M/new/a)" = "mail a"; test "$(cat $M/cur/a:2,F)" = "mail a"`)
	p.arrives(t, "a", "cur/a:2,S")
	p.becomes(t, "the flags", p.isThere("cur/a:2,FRS"))
	p.sh(t, `test "$(cat $M/new/a)" = "mail a"; rm $M/cur/a:2,FRS; test ! -e $M/cur/a:2,FRS`)
	if out := read(); out != "mail a\nmail a\n" {
		t.Errorf("what was open: %q", out)
	}
	p.sh(t, `test ! -e $M/new/a; test ! -e $M/cur/a:2,F; test ! -e $M/cur/a:2,FR`)
	p.lists(t, "cur/b:2,S", "cur/c:2,F")
}
