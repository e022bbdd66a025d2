package fusefs_test

import (
	"os"
	"strings"
	"sync"
	"testing"

	"dsyncfs/fusefs"
)

// filling is a first fill of which a test says how far it is.
type filling struct {
	asked chan string
	open  chan struct{}

	mu    sync.Mutex
	whole bool
}

func (f *filling) Await(dir string) {
	select {
	case f.asked <- dir:
	case <-f.open:
	}
	<-f.open
}

func (f *filling) Listing(bool) {}

func (f *filling) Whole(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whole || dir != ""
}

// Who lists a mailbox, or looks for one, waits until it is known what there is. Who delivers does not.
func TestNobodyTakesForEmptyWhatIsNotListedYet(t *testing.T) {
	for what, c := range map[string]struct{ script, dir, want string }{
		"a listing of mail":      {`ls $M/cur`, "cur", "b:2,S\n"},
		"a listing of mailboxes": {`ls -a $M | grep Late`, "", ".Late\n"},
		"a mailbox by its name":  {`ls -d $M/.Late/cur | grep -c cur`, "", "1\n"},
	} {
		t.Run(what, func(t *testing.T) {
			f := &filling{asked: make(chan string), open: make(chan struct{}), whole: true}
			m := mountMaildir(t, func(o *fusefs.Options) { o.Filling = f })
			m.sh(t, `echo x > $M/tmp/x; mv $M/tmp/x $M/new/x; rm $M/new/x`)
			done := make(chan string)
			go func() {
				out, err := m.try(t, c.script)
				if err != nil {
					t.Error(err)
				}
				done <- out
			}()
			select {
			case dir := <-f.asked:
				if dir != c.dir {
					t.Errorf("waits for %q", dir)
				}
			case out := <-done:
				t.Fatalf("it did not wait: %q", out)
			}
			if err := os.MkdirAll(m.backing+"/.Late/cur", 0o700); err != nil { // behind the mount, as the engine does
				t.Fatal(err)
			}
			if _, err := m.Promise("", &source{}, []fusefs.Promised{{Cur: true, Name: "b:2,S", Size: 7}}, nil); err != nil {
				t.Fatal(err)
			}
			close(f.open)
			if out := <-done; out != c.want {
				t.Errorf("%q, want %q", out, c.want)
			}
		})
	}
}

// A uidlist that is not complete is not to be had, nor to be made, and all is well when it is.
func TestAnIncompleteUIDListIsWithheld(t *testing.T) {
	f := &filling{open: make(chan struct{})}
	close(f.open)
	m := mountMaildir(t, func(o *fusefs.Options) { o.Filling = f })
	m.sh(t, `echo 3 V1 N1 > $B/dovecot-uidlist; echo 3 V1 N1 > $B/.Work/dovecot-uidlist; cat $M/.Work/dovecot-uidlist`)
	if out := m.sh(t, `ls $M`); strings.Contains(out, "dovecot-uidlist") {
		t.Errorf("it is listed, and who reads what is listed finds an error: %s", out)
	}
	for _, script := range []string{
		`cat $M/dovecot-uidlist`, `ls -l $M; cat $M/dovecot-uidlist`, `echo mine > $M/dovecot-uidlist`,
		`echo mine > $M/a; mv $M/a $M/dovecot-uidlist`, `ln $M/a $M/dovecot-uidlist`,
	} {
		if out, err := m.try(t, script); err == nil {
			t.Errorf("%s: %s", script, out)
		}
	}
	f.mu.Lock()
	f.whole = true
	f.mu.Unlock()
	if out := m.sh(t, `ls $M`); !strings.Contains(out, "dovecot-uidlist") {
		t.Errorf("it is not listed: %s", out)
	}
	if out := m.sh(t, `cat $M/dovecot-uidlist; mv $M/a $M/dovecot-uidlist; cat $M/dovecot-uidlist`); out != "3 V1 N1\nmine\n" {
		t.Errorf("%q", out)
	}
}
