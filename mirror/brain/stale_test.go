package brain

import (
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// What a stock peer tells of under the GUID of a mailbox that was deleted is not that one.
func TestStaleGUIDOfADeletedMailbox(t *testing.T) {
	box := func(name mail.Name, guid byte, validity mail.UIDValidity) mail.Mailbox {
		return mail.Mailbox{Name: name, Existence: mail.Exists, Status: mail.Status{GUID: mail.MailboxGUID{guid}, UIDValidity: validity}}
	}
	deleted, moved := mail.MailboxGUID{1}, mail.MailboxGUID{2}
	for _, c := range []struct {
		name      string
		told, own mail.Mailbox
		want      mail.MailboxGUID // zero: a new one
	}{
		{"created under its name", box("A", 1, 20), box("D", 2, 11), mail.MailboxGUID{}},
		{"renamed to its name", box("A", 1, 11), box("D", 2, 11), moved},
		{"still there, deleted here", box("A", 1, 10), box("D", 2, 11), deleted},
		{"there on both sides with another UIDVALIDITY", box("A", 2, 20), box("A", 2, 11), moved},
		{"never known", box("A", 9, 20), box("D", 2, 11), mail.MailboxGUID{9}},
	} {
		r := &round{stock: &stock{}, master: true, bases: map[mail.MailboxGUID]store.State{
			deleted: {UIDValidity: 10}, moved: {UIDValidity: 11},
		}}
		told := []mail.Mailbox{c.told}
		r.trueGUIDs(told, []mail.Mailbox{c.own})
		got := told[0].Status.GUID
		if c.want.IsZero() && (got == deleted || got == moved || got.IsZero()) || !c.want.IsZero() && got != c.want {
			t.Errorf("%s: GUID %s, want %s", c.name, got, c.want)
		}
		if r.guidFor(got) != c.told.Status.GUID {
			t.Errorf("%s: %s is not told as it was heard", c.name, got)
		}
	}
}
