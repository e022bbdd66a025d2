package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"dsyncfs/fusefs"
)

func TestIntentsSurvive(t *testing.T) {
	dir := t.TempDir()
	a, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	flag := fusefs.Intent{Base: "a", Was: "new/a", Want: "cur/a:2,S"}
	gone := fusefs.Intent{Base: "b", Was: "cur/b:2,"}
	for _, i := range []fusefs.Intent{{Base: "a", Was: "new/a", Want: "cur/a:2,F"}, gone, flag, {Base: "c", Was: "new/c"}} {
		if err := a.add("INBOX", i); err != nil {
			t.Fatal(err)
		}
	}
	a.settled("INBOX", "c", discard())
	if err := errors.Join(a.add("Wörk", gone), a.sync(), a.close()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, intentsName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, `{"mailbox":"INBOX","base":"torn","wa`...), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.of("INBOX"); !reflect.DeepEqual(got, []fusefs.Intent{flag, gone}) {
		t.Errorf("%+v", got)
	}
	if got := b.mailboxes(); !reflect.DeepEqual(got, []boxKey{"INBOX", "Wörk"}) {
		t.Errorf("%q", got)
	}
	if err := b.add("INBOX", fusefs.Intent{Base: "d", Was: "new/d"}); err != nil { // after what is torn
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	c, err := openIntents(dir)
	if err != nil || len(c.of("INBOX")) != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := c.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file is left")
	}
}

// A mailbox that has one GUID here and another one at the remote gets either of them with the next round. What is wanted of its
// mails is found under both, also by the next mount.
func TestIntentsAboutAMailboxOfTwoNames(t *testing.T) {
	dir := t.TempDir()
	a, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	early, late := fusefs.Intent{Base: "a", Was: "new/a"}, fusefs.Intent{Base: "b", Was: "new/b"}
	if err := a.add("here", early); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]boxKey{{"here", "there"}, {"there", "here"}, {"here", "here"}} {
		if key, err := a.join(names[0], names[1]); key != "here" || err != nil {
			t.Errorf("%q, %v", key, err)
		}
	}
	if err := errors.Join(a.add("there", late), a.close()); err != nil {
		t.Fatal(err)
	}
	b, err := openIntents(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []boxKey{"here", "there"} {
		if got := b.of(name); b.known(name) != "here" || !reflect.DeepEqual(got, []fusefs.Intent{early, late}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	b.settled("there", "a", discard())
	if got := b.mailboxes(); !reflect.DeepEqual(got, []boxKey{"here"}) || len(b.of("here")) != 1 {
		t.Errorf("%q, %+v", got, b.of("here"))
	}
	if err := b.close(); err != nil {
		t.Error(err)
	}
}

// FuzzIntents holds that whatever the file holds, it can be read, and that what is kept after it is found again.
func FuzzIntents(f *testing.F) {
	f.Add([]byte(`{"mailbox":"INBOX","base":"a","was":"new/a"}` + "\n" + `{"mailbox":"INBOX","base":"a","settled":true}` + "\n"))
	f.Add([]byte("\x00\xff{}\n[]\n{\"mailbox\":3}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, intentsName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openIntents(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := fusefs.Intent{Base: "base", Was: "new/base", Want: "cur/base:2,S"}
		if err := errors.Join(a.add("Box", want), a.close()); err != nil {
			t.Fatal(err)
		}
		b, err := openIntents(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range b.of("Box") {
			if i == want {
				return
			}
		}
		t.Errorf("%+v is lost among %+v", want, b.of("Box"))
	})
}
