package dovecot

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// A Dovecot serves the very Maildir that dsyncfs syncs, and its clients stay connected.
func TestSharingTheMaildirWithALiveDovecot(t *testing.T) {
	p := newLive(t, "sdbox")
	harness.Build(t, p.ours.maildir(), "ours", harness.Mails(t, 20), "INBOX", "Work")
	p.ours.own()
	p.pair.clean("mirror")
	c := p.here.login()
	selected := strings.Join(texts(c.Do("SELECT INBOX")), "\n")
	before := identities(c)
	for i := range 6 {
		want := ""
		if i%2 == 0 {
			p.dove.save("INBOX", note(fmt.Sprintf("from there %d", i)))
			p.dove.doveadm("flags", "add", `\Flagged`, "mailbox", "INBOX", "uid", fmt.Sprint(i+1))
			c.Do(`UID STORE %d +FLAGS (\Answered Kw%d)`, i+1, i)
			want = "EXISTS"
		} else {
			c.Append("INBOX", "", note(fmt.Sprintf("by IMAP %d", i)))
			c.Append("Work", "", note(fmt.Sprintf("into Work by IMAP %d", i)))
			p.dove.doveadm("expunge", "mailbox", "INBOX", "uid", fmt.Sprint(i+1))
			want = "EXPUNGE"
		}
		p.pair.clean("mirror")
		p.Eventually("the client sees it: "+want, 10*time.Second, func() error {
			if got := strings.Join(texts(c.Do("NOOP")), "\n"); !strings.Contains(got, want) {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	p.pair.clean("mirror")
	for uid, subject := range identities(c) {
		if was, known := before[uid]; known && was != subject {
			t.Errorf("UID %s was %q and is %q", uid, was, subject)
		}
	}
	again := strings.Join(texts(c.Do("SELECT INBOX")), "\n")
	if a, b := validityOf(selected), validityOf(again); a != b || a == "" {
		t.Errorf("UIDVALIDITY %q, then %q", a, b)
	}
	c.Do("LOGOUT")
	same(t, p.ours, p.dove)
}

// identities returns the subject of each UID in the selected mailbox.
func identities(c *harness.IMAP) map[string]string {
	seen := map[string]string{}
	for _, r := range c.Do("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		if r.Word(1) == "FETCH" {
			seen[r.List(2).Get("UID")] = r.List(2).Get("BODY[HEADER.FIELDS (SUBJECT)]")
		}
	}
	return seen
}

func texts(replies []harness.Reply) []string {
	var out []string
	for _, r := range replies {
		out = append(out, r.Words())
	}
	return out
}

func validityOf(answer string) string {
	_, rest, _ := strings.Cut(answer, "UIDVALIDITY ")
	v, _, _ := strings.Cut(rest, "]")
	return v
}

// Clients learn by STATUS what is new in the mailboxes that they do not have open, and what is gone, be it a mail that nobody
// has seen yet.
func TestStatusOfAMailboxThatIsNotOpen(t *testing.T) {
	p := newLive(t, "sdbox")
	p.dove.doveadm("mailbox", "create", "Work")
	p.dove.save("Work", note("first"))
	p.ours.save("INBOX", note("so that there is a Maildir"))
	p.pair.clean("mirror")
	here, there := p.here.login(), p.there.login()
	for i := range 6 {
		if i%2 == 0 {
			there.Append("Work", "", note(fmt.Sprint("another ", i)))
		} else {
			there.Do("SELECT Work")
			there.Do(`STORE 1 FLAGS.SILENT (\Deleted)`)
			there.Do("EXPUNGE")
			there.Do("UNSELECT")
		}
		p.pair.clean("mirror")
		for _, r := range here.Do("STATUS Work (MESSAGES UIDNEXT)") {
			if r.Word(0) == "STATUS" && (r.List(2).Get("MESSAGES") != fmt.Sprint(2-i%2) || r.List(2).Get("UIDNEXT") != fmt.Sprint(3+i/2)) {
				t.Errorf("after change %d: STATUS %s", i, r.List(2).Words())
			}
		}
	}
}

// The UID of a mail that came to the Dovecot and went between two syncs is used up here too: UIDNEXT is the same.
func TestAMailComesAndGoesBetweenTwoSyncs(t *testing.T) {
	t.Parallel()
	p := newLive(t, "sdbox")
	p.ours.save("INBOX", note("so that there is a Maildir"))
	here, there := newViewer(p.here), newViewer(p.there)
	there.Do("CREATE Work")
	there.Append("Work", "", note("stays"))
	p.pair.clean("mirror")
	for i, command := range []string{`UID STORE %d +FLAGS (\Deleted)`, "UID MOVE %d INBOX"} {
		there.Append("Work", "", note("comes and goes"))
		there.Do("SELECT Work")
		there.Do(command, i+2)
		there.Do("EXPUNGE")
		there.Do("UNSELECT")
		p.pair.clean("mirror")
		alike(t, here.look("ALL", true), there.look("ALL", true))
	}
}
