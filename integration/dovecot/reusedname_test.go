package dovecot

import (
	"testing"
)

// A Dovecot tells of a mailbox that comes to a name between others under the GUID of the mailbox that it deleted there.
func TestAMailboxComesToTheNameOfADeletedOne(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"created", "renamed", "replaced"} {
		for _, role := range []string{"master", "slave"} {
			t.Run(how+", "+role, func(t *testing.T) {
				t.Parallel()
				reusedName(t, how, (map[string]func(*history){"master": (*history).asMaster, "slave": (*history).asSlave})[role])
			})
		}
	}
}

// reusedName has a mailbox deleted, and another one created or renamed to its name after a sync, or renamed before it.
func reusedName(t *testing.T, how string, role func(*history)) {
	h := newHistory(t, "maildir", 1)
	sync := func() { role(h) }
	there := h.sides[1]
	h.save(h.sides[0], "INBOX", "") // so that there is a Maildir
	there.Do("CREATE A/B")
	there.Do("CREATE A/B/C")
	there.Do("SUBSCRIBE A/B") // which stays; then no temporary name must be left
	there.Do("CREATE D")
	h.save(there, "A/B/C", "")
	h.save(there, "D", "")
	h.check(sync, true)
	there.Do("DELETE A/B")
	if how != "replaced" {
		h.check(sync, true)
	}
	if how != "created" {
		there.Do("RENAME D A/B")
		h.renamed = true
	} else {
		there.Do("CREATE A/B")
	}
	h.check(sync, true)
	h.save(there, "A/B", `\Flagged`)
	h.check(sync, true)
	if mails := len(h.dove.mails("A/B")); (mails == 2) != (how != "created") {
		t.Errorf("%d mails", mails)
	}
}
