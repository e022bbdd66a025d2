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

// Where the GUID is one that both sides have, only the other side can say whether its mailbox is another one. It is asked once.
func TestUnclearGUID(t *testing.T) {
	a, d := mail.MailboxGUID{1}, mail.MailboxGUID{2}
	own := []mail.Mailbox{
		{Name: "A", Existence: mail.Exists, Status: mail.Status{GUID: a, UIDValidity: 10}},
		{Name: "D", Existence: mail.Exists, Status: mail.Status{GUID: d, UIDValidity: 11}},
	}
	for _, c := range []struct {
		name     string
		validity mail.UIDValidity
		epoch    uint64
		want     int
	}{
		{"the UIDVALIDITY of one that is gone there", 11, 0, 1},
		{"its own", 10, 0, 0},
		{"a new one", 20, 0, 0},
		{"asked before", 11, doubtful, 0},
	} {
		r := &round{stock: &stock{}, master: true, bases: map[mail.MailboxGUID]store.State{
			a: {UIDValidity: 10, RemoteEpoch: c.epoch}, d: {UIDValidity: 11},
		}}
		r.trueGUIDs([]mail.Mailbox{{Name: "A", Existence: mail.Exists, Status: mail.Status{GUID: a, UIDValidity: c.validity}}}, own)
		if len(r.stock.unclear) != c.want {
			t.Errorf("%s: unclear %v", c.name, r.stock.unclear)
		}
	}
}
