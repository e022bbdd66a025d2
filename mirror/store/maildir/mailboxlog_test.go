package maildir_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/store/maildir/dovecotlog"
)

// TestADeletionOfBeforeIsNoWitness: the log has two deletions of a mailbox, at 1000 and 2000 seconds, after which it came back,
// as from a copy.
func TestADeletionOfBeforeIsNoWitness(t *testing.T) {
	deletions := func(seconds ...int64) (log []byte) {
		for _, at := range seconds {
			log = dovecotlog.MailboxEvent{Kind: dovecotlog.DeleteMailbox, ID: mail.GUID128{1}, Time: time.Unix(at, 0)}.AppendTo(log)
		}
		return log
	}
	for _, c := range []struct {
		name          string
		log, log2     []byte // when the mailbox is gone
		wantWitnessed bool
	}{
		{name: "nothing new", log: deletions(1000, 2000)},
		{name: "a new deletion", log: deletions(1000, 2000, 3000), wantWitnessed: true},
		{name: "a new deletion, and the clock was set back", log: deletions(1000, 2000, 1500), wantWitnessed: true},
		{name: "a new file", log2: deletions(1000, 2000)},
		{name: "a new deletion in a new file", log: deletions(3000), log2: deletions(1000, 2000), wantWitnessed: true},
		{name: "a new deletion before a new file", log2: deletions(1000, 2000, 3000), wantWitnessed: true},
		{name: "a new deletion and two new files", log: deletions(3000), wantWitnessed: true},
		{name: "a power cut took the end", log: deletions(1000)},
		{name: "a power cut took all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAccount(t, maildir.MaildirPlusPlus)
			s := a.open(t)
			defer func() { must(t, s.Close()) }()
			path := filepath.Join(a.root, "dovecot.mailbox.log")
			must(t, s.Create(t.Context(), "Work", mail.MailboxGUID{1}, 1000))
			a.deliver(t, "Work", "Subject: x\n\nx\n", 1_600_000_000)
			must(t, os.WriteFile(path, deletions(1000, 2000), 0o600))
			refresh(t, s, store.RefreshOptions{})

			must(t, os.RemoveAll(a.dir(t, "Work")))
			must(t, os.WriteFile(path, c.log, 0o600))
			must(t, os.WriteFile(path+".2", c.log2, 0o600))
			var losses []store.Loss
			refresh(t, s, store.RefreshOptions{Guard: func(l []store.Loss) error { losses = l; return nil }})
			if witnessed := len(losses) == 0; witnessed != c.wantWitnessed {
				t.Errorf("witnessed %v, want %v", witnessed, c.wantWitnessed)
			}
		})
	}
}

// TestADeletionIsAWitnessUntilItIsRecorded: a guard that refuses another mailbox leaves both to the next refresh.
func TestADeletionIsAWitnessUntilItIsRecorded(t *testing.T) {
	a := newAccount(t, maildir.MaildirPlusPlus)
	s := a.open(t)
	defer func() { must(t, s.Close()) }()
	for i, name := range []mail.Name{"Other", "Work"} {
		must(t, s.Create(t.Context(), name, mail.MailboxGUID{byte(i + 1)}, 1000))
		a.deliver(t, name, "Subject: x\n\nx\n", 1_600_000_000)
	}
	refresh(t, s, store.RefreshOptions{})
	must(t, os.RemoveAll(a.dir(t, "Other")))
	must(t, os.RemoveAll(a.dir(t, "Work")))
	deletion := dovecotlog.MailboxEvent{Kind: dovecotlog.DeleteMailbox, ID: mail.GUID128{2}, Time: time.Unix(1000, 0)}
	must(t, os.WriteFile(filepath.Join(a.root, "dovecot.mailbox.log"), deletion.AppendTo(nil), 0o600))
	for range 2 {
		var lost []mail.Name
		_, err := s.Refresh(t.Context(), store.RefreshOptions{Guard: func(losses []store.Loss) error {
			for _, l := range losses {
				lost = append(lost, l.Mailbox)
			}
			return os.ErrPermission
		}})
		if err != os.ErrPermission || len(lost) != 1 || lost[0] != "Other" {
			t.Errorf("error %v, lost %q", err, lost)
		}
	}
}

// TestAMailboxThatIsThereAgainIsNotDeleted: a mailbox that was deleted and put back from a copy is not among the deletions that the
// other side is told, and still not when the user wants it back after it was lost.
func TestAMailboxThatIsThereAgainIsNotDeleted(t *testing.T) {
	a := newAccount(t, maildir.MaildirPlusPlus)
	s := a.open(t)
	defer func() { must(t, s.Close()) }()
	must(t, s.Create(t.Context(), work, mail.MailboxGUID{1}, 1000))
	a.deliver(t, work, "Subject: x\n\nx\n", 1_600_000_000)
	refresh(t, s, store.RefreshOptions{})
	deletions := func(want int) {
		t.Helper()
		_, got, err := s.Tree(t.Context())
		must(t, err)
		if len(got) != want {
			t.Errorf("deletions %+v, want %d", got, want)
		}
	}
	aside := filepath.Join(t.TempDir(), "aside")
	must(t, os.CopyFS(aside, os.DirFS(a.dir(t, work))))
	must(t, os.RemoveAll(a.dir(t, work)))
	refresh(t, s, store.RefreshOptions{})
	deletions(1)
	must(t, os.CopyFS(a.dir(t, work), os.DirFS(aside)))
	refresh(t, s, store.RefreshOptions{})
	deletions(0)
	must(t, os.RemoveAll(a.dir(t, work)))
	refresh(t, s, store.RefreshOptions{Restore: func(mail.Name) bool { return true }})
	deletions(0)
}
