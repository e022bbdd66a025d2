package maildir_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
)

// TestANoteOfAMailThatDidNotComeSaysNothingOfTheOneThatHasItsName: a batch brings a mail whose GUID is the name of a file that
// has another GUID, and is cut short before it is known that the name is taken. Then the uidlist, which says that GUID, is lost,
// and what is known of the mail has to be put back.
func TestANoteOfAMailThatDidNotComeSaysNothingOfTheOneThatHasItsName(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(t *testing.T, a *account, base string)
		full bool
		want mail.GUID // empty: a new one
	}{
		{
			name: "its uidlist is lost", want: "other",
			then: func(t *testing.T, a *account, base string) {
				must(t, os.Remove(filepath.Join(a.dir(t, work), "dovecot-uidlist")))
			},
		},
		{
			name: "another program gives a new UIDVALIDITY", want: "other",
			then: func(t *testing.T, a *account, base string) {
				a.setList(t, work, "3 V2000 N2 G01000000000000000000000000000000\n1 :"+base+"\n")
			},
		},
		{
			name: "another mail is written in its place", full: true,
			then: func(t *testing.T, a *account, base string) {
				must(t, os.WriteFile(a.find(t, work, base), []byte("Subject: y\n\nyyyy\n"), 0o600))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAccount(t, maildir.MaildirPlusPlus)
			s := a.open(t)
			defer func() { must(t, s.Close()) }()
			must(t, s.Create(t.Context(), work, mail.MailboxGUID{1}, 1000))
			base := a.deliver(t, work, "Subject: x\n\nx\n", 1_600_000_000)
			refresh(t, s, store.RefreshOptions{})
			box := openBox(t, s, work)
			apply(t, box, store.Batch{Realign: []store.Realign{{UID: 1, NewGUID: "other"}}})

			add := stageAdd(t, box, mail.Message{UID: 2, GUID: mail.GUID(base), Received: 1_600_000_000}, "Subject: x\n\nx\n")
			cut, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := box.Apply(cut, store.Batch{Peer: "peer", Adds: []store.Add{add}}); err == nil {
				t.Fatal("a batch that is cut short succeeded")
			}
			must(t, box.Close())
			c.then(t, a, base)
			refresh(t, s, store.RefreshOptions{Full: c.full})
			got := known(t, s, work)
			if len(got) != 1 || c.want != "" && got[0].GUID != c.want || got[0].GUID == mail.GUID(base) {
				t.Errorf("messages %+v", got)
			}
			// The uidlist says the same as the catalog.
			if list := a.list(t, work); len(got) == 1 && !strings.Contains(list, " G"+string(got[0].GUID)+" :"+base) {
				t.Errorf("uidlist\n%s", list)
			}
		})
	}
}

func known(t *testing.T, s *maildir.Store, name mail.Name) (out []mail.Message) {
	t.Helper()
	box := openBox(t, s, name)
	defer box.Close()
	for m, err := range box.Messages(0) {
		must(t, err)
		out = append(out, m)
	}
	return out
}
