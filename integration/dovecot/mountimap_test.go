package dovecot

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A Dovecot serves a mount whose other end is another Dovecot, and clients of both work at the same time, all by IMAP. After each
// step a client cannot tell the two apart, and clients that stay connected see nothing that IMAP forbids.
func TestADovecotOnTheMountAndAnotherAtTheRemote(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("allow_other needs root, or user_allow_other in fuse.conf")
	}
	p := newPair(t, "mdbox")
	for i := range 6 {
		p.dove.save("INBOX", note(fmt.Sprint("there from the beginning ", i)))
	}
	p.own()
	m := p.Mount("ours/Maildir", []string{
		"-o", "mail_location=maildir:" + p.Path("backing"), "-o", "poll_interval=1s",
		"-o", fmt.Sprintf("allow_other,uid=%d,gid=%s", nobody(t), strings.TrimSpace(p.Must("id", "-g", "nobody"))),
	}, p.dove.server()...)
	p.Eventually("it serves the INBOX", time.Minute, func() error {
		if r := p.ours.try(nil, "fetch", "uid", "mailbox", "INBOX", "all"); r.status != 0 || strings.Count(r.stdout, "uid:") != 6 {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	here, there := newViewer(p.ours.serve()), newViewer(p.dove.serve())
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"nothing yet", func() {}},
		{"mails are saved on both sides", func() {
			here.Append("INBOX", `\Seen`, note("saved here"))
			there.Append("INBOX", "", note("saved there"))
		}},
		{"flags and keywords of the same mails", func() {
			here.Do("SELECT INBOX")
			here.Do(`UID STORE 1:3 +FLAGS.SILENT (\Flagged todo)`)
			there.Do("SELECT INBOX")
			there.Do(`UID STORE 2:4 +FLAGS.SILENT (\Answered $Forwarded)`)
			here.Do("UNSELECT")
			there.Do("UNSELECT")
		}},
		{"mailboxes are made", func() {
			here.Do("CREATE Work")
			here.Do("SUBSCRIBE Work")
			there.Do("CREATE %s", there.Quote("Entwürfe"))
			there.Do("SUBSCRIBE %s", there.Quote("Entwürfe"))
		}},
		{"mails are copied and moved into them", func() {
			here.Do("SELECT INBOX")
			here.Do("UID COPY 1:2 Work")
			here.Do("UID MOVE 3 Work")
			here.Do("UNSELECT")
			there.Do("SELECT INBOX")
			there.Do("UID MOVE 4 %s", there.Quote("Entwürfe"))
			there.Do("UID COPY 5 %s", there.Quote("Entwürfe"))
			there.Do("UNSELECT")
		}},
		{"what came from the other side is copied and expunged", func() {
			here.Do("SELECT %s", here.Quote("Entwürfe"))
			here.Do("UID COPY 1:* INBOX")
			here.Do("UNSELECT")
			there.Do("SELECT Work")
			there.Do(`UID STORE 1 +FLAGS.SILENT (\Deleted)`)
			there.Do("EXPUNGE")
			there.Do("UNSELECT")
		}},
		{"a mailbox gets another name, another one goes", func() {
			here.Do("RENAME %s %s", here.Quote("Entwürfe"), here.Quote("日本語"))
			there.Do("DELETE Work")
		}},
	} {
		step.do()
		p.Env.Run("sync", m.Path).Want(0)
		ours, theirs := here.look("ALL", true), there.look("ALL", true)
		t.Log(step.what, len(ours))
		alike(t, ours, theirs)
		if t.Failed() {
			t.Fatalf("after: %s", step.what)
		}
	}
}
