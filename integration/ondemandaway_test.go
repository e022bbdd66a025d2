package integration

import (
	"errors"
	"fmt"
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

// The remote is away at the very first mount: nothing is there, and everything works. When it comes it is all listed, and what was
// done meanwhile counts. The mailboxes that a program has made under the names of the remote's get one identity with them; what is
// then wanted of their mails survives that, and a kill.
func TestAFirstMountWithoutTheRemote(t *testing.T) {
	t.Parallel()
	f := prepareFilling(t, fillMails/2)
	f.link.Cut()
	f.start()
	f.Eventually("status says that the first fill waits", time.Minute, func() error {
		out := f.Run("status", f.mount.Path).Want(0).Stdout
		if !strings.Contains(out, "first fill waits for the remote") || !strings.Contains(out, ": offline") {
			return errors.New(out)
		}
		return nil
	})
	if here := listed(t, f.mount.Maildir); len(here) != 0 {
		t.Errorf("%d mails are listed", len(here))
	}
	names := slices.Sorted(maps.Keys(f.there.Mailboxes))
	f.mount.Create(t, append(names, "Mine")...)
	for i, name := range []string{"INBOX", names[1], "Mine"} {
		note := harness.Note("delivered into " + name + " before the remote was there")
		f.mount.Deliver(t, name, harness.UniqueName("early", i, note), "", note)
		f.want.Add(name, harness.HashOf(note.Text))
	}
	f.link.Narrow(fillRate)
	f.link.Join()
	f.shown()
	here, there := listed(t, f.mount.Maildir), listed(t, f.b)
	for file, size := range there {
		if here[file] != size {
			t.Errorf("%s has %d bytes and is listed with %d", file, size, here[file])
		}
	}
	f.changes(0)
	f.underWay()
	f.killed()
	f.filled()
	f.flagged(1)
}

// The daemon is killed in the middle of a first fill and mounts again while the remote is away: a mailbox that was whole before can be
// opened by a Dovecot on the mount, under the UIDs of the remote. Those of which mails are missing cannot.
func TestWhatWasWholeBeforeARestartIsServed(t *testing.T) {
	t.Parallel()
	f := newFilling(t, fillMails/2, fillRate)
	uidlist := func(mailbox string) error {
		_, err := os.ReadFile(filepath.Join(f.mount.Dir(mailbox), "dovecot-uidlist"))
		return err
	}
	const last = "日本語/メール"
	if err := uidlist("INBOX"); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("the list of UIDs can be read before it is complete: %v", err)
	}
	f.Eventually("the INBOX is whole", time.Minute, func() error { return uidlist("INBOX") })
	f.underWay()
	f.mount.Kill()
	f.link.Cut()
	f.mount.Again()
	if err := uidlist(last); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("%s: %v", last, err)
	}
	client := f.IMAP(f.mount.Maildir)
	client.Type("a SELECT INBOX\r\nb UID FETCH 1:* (UID)\r\nc LOGOUT\r\n")
	client.End()
	uids := make([]int, 0, fillMails)
	for _, msg := range f.b.Read(t).Mailboxes["INBOX"].Messages {
		uids = append(uids, int(msg.UID))
	}
	slices.Sort(uids)
	for i, uid := range uids {
		if err := client.Says(fmt.Sprintf("* %d FETCH (UID %d)", i+1, uid)); err != nil {
			t.Fatal(err)
		}
	}
	f.link.Join()
	f.filled()
	if err := uidlist(last); err != nil {
		t.Error(err)
	}
}
