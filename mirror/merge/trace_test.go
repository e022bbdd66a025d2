package merge_test

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// conversations are mailboxes that two Dovecot 2.3.19.1 compared, with the mail changes that each sent and what both had in
// the end. A change is written as type, UID, GUID, modseq, added, removed and final flags (hex), keywords.
var conversations = []struct {
	name             string
	haveBase         bool
	base             mail.UID
	master, slave    side
	after            string // on both sides: UID, GUID, flags, keywords
	masterAsks       string // GUIDs requested
	slaveAsks        string
	common           mail.UID
	masterRenumbered string
}{
	{
		name:   "flags and keywords changed on both sides",
		master: side{next: 4, highest: 14, changes: `s 1 M1 11 2 - 2a|s 2 M2 12 - - 2a -NonJunk &$Important|s 3 M3 14 1 - 21 &MasterKw`},
		slave:  side{next: 4, highest: 14, changes: `s 1 M1 11 - 8 20|s 2 M2 14 - - 2a =$Important =NonJunk &$Forwarded|s 3 M3 13 10 - 30 &SlaveKw`},
		after: `1 M1 \Flagged
2 M2 \Flagged \Seen $Forwarded $Important
3 M3 \Answered \Draft MasterKw SlaveKw`,
		common: 3,
	},
	{
		name:   "a mail expunged on the slave",
		master: side{next: 4, highest: 17, changes: `s 1 M1 15 2 - 22|s 2 M2 16 - - 2a -NonJunk &$Important =$Forwarded|s 3 M3 17 1 - 31 &MasterKw =SlaveKw`},
		slave:  side{next: 4, highest: 18, changes: `e 1 M1|s 2 M2 16 - - 2a =$Important &$Forwarded|s 3 M3 17 10 - 31 &SlaveKw =MasterKw`},
		after: `2 M2 \Flagged \Seen $Forwarded $Important
3 M3 \Answered \Draft MasterKw SlaveKw`,
		common: 3,
	},
	{
		name:   "new mails that got the same UID",
		master: side{next: 5, highest: 20, changes: `e 1 M1|s 2 M2 16 - - 2a -NonJunk &$Important =$Forwarded|s 3 M3 17 1 - 31 &MasterKw =SlaveKw|s 4 M5 20 - - 20`},
		slave:  side{next: 6, highest: 20, changes: `e 1 M1|s 2 M2 16 - - 2a =$Important &$Forwarded|s 3 M3 17 10 - 31 &SlaveKw =MasterKw|s 4 M6 19 - - 22|s 5 M7 20 - - 20`},
		after: `2 M2 \Flagged \Seen $Forwarded $Important
3 M3 \Answered \Draft MasterKw SlaveKw
5 M7
6 M5
7 M6 \Flagged`,
		masterAsks: "M7 M6", slaveAsks: "M5", common: 7, masterRenumbered: "4>6",
	},
	{
		name: "changes since a saved state", haveBase: true, base: 3,
		master: side{next: 5, highest: 10, also: `s 2 M2 4 - - 2a|s 3 M3 4 - - 20`, changes: `f 1 M1 9 2 8 22 &Kw1|s 4 M4 10 - - 20`},
		slave:  side{next: 5, highest: 9, also: `s 1 M1 4 - - 28`, changes: `f 2 M2 7 1 - 2b|e 3 M3|s 4 M5 9 - - 20`},
		after: `1 M1 \Flagged Kw1
2 M2 \Answered \Flagged \Seen
5 M4
6 M5`,
		masterAsks: "M5", slaveAsks: "M4", common: 6, masterRenumbered: "4>5",
	},
	{
		name:   "a mail copied within the mailbox keeps its GUID",
		master: side{next: 6, highest: 5, changes: `e 1 S2|s 2 S1 3 - - 20|s 3 S2 3 - - 20|s 4 S3 3 - - 20|s 5 S3 5 - - 20`},
		slave:  side{next: 5, highest: 5, changes: `e 1 S3|s 2 S1 3 - - 20|s 3 S2 4 - - 20|s 4 S3 4 - - 20`},
		after: `2 S1
3 S2
4 S3
5 S3`,
		slaveAsks: "S3", common: 5,
	},
}

// side is what one side sent; all of its mails are in changes or, in an incremental exchange, also in "also".
type side struct {
	next    mail.UID
	highest mail.ModSeq
	changes string
	also    string
}

func parseChanges(t *testing.T, s string) []*item.Change {
	t.Helper()
	var out []*item.Change
	for _, line := range strings.FieldsFunc(s, func(r rune) bool { return r == '|' }) {
		f := strings.Fields(line)
		uid, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		c := &item.Change{Type: item.ChangeType(f[0][0]), UID: mail.UID(uid)}
		if len(f[0]) > 1 {
			c.Past = item.Past(f[0][1])
		}
		out = append(out, c)
		if c.Type == item.ChangeExpunge {
			if f[2] != "?" {
				c.GUID128 = mail.GUID(f[2]).Hash128()
			}
			if len(f) > 3 {
				c.ModSeq = parseModSeq(t, f[3])
			}
			continue
		}
		c.GUID = mail.GUID(f[2])
		c.ModSeq = parseModSeq(t, f[3])
		for i, to := range []*mail.Flags{&c.Add, &c.Remove, &c.Final} {
			bits, _ := strconv.ParseUint(strings.TrimPrefix(f[4+i], "-"), 16, 8)
			*to = mail.Flags(bits)
		}
		for _, k := range f[7:] {
			c.Keywords = append(c.Keywords, item.KeywordChange{Op: item.KeywordOp(k[0]), Name: k[1:]})
		}
	}
	return out
}

func parseModSeq(t *testing.T, s string) mail.ModSeq {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return mail.ModSeq(n)
}

// box makes the mailbox that the changes of a side describe.
func (s side) box(t *testing.T, name string) *box {
	b := newBox(name)
	all := append(parseChanges(t, s.changes), parseChanges(t, s.also)...)
	slices.SortFunc(all, func(x, y *item.Change) int { return int(x.UID) - int(y.UID) })
	for _, c := range all {
		m := merge.MarksOf(c)
		if c.Type == item.ChangeExpunge {
			b.log = append(b.log, logEntry{1, false, merge.Logged{UID: c.UID, Expunged: true, GUID128: c.GUID128, ModSeq: c.ModSeq, Past: c.Past}})
			continue
		}
		b.insert(mail.Message{UID: c.UID, GUID: c.GUID, Flags: m.Flags, Keywords: m.Keywords, ModSeq: c.ModSeq}, "body of "+string(c.GUID))
		b.past[c.UID] = c.Past
		if !m.Logged.IsZero() {
			b.log = append(b.log, logEntry{1, false, merge.Logged{UID: c.UID, Delta: m.Logged}})
		}
	}
	b.next, b.highest = s.next, s.highest
	return b
}

func TestRecordedConversations(t *testing.T) {
	for _, c := range conversations {
		t.Run(c.name, func(t *testing.T) {
			p := pair{a: c.master.box(t, "master"), b: c.slave.box(t, "slave")}
			options := func(own, other *box, tie merge.Preference) merge.Options {
				return merge.Options{
					HaveBase: c.haveBase, Base: c.base, Tie: tie, LocalStatus: own.status(), RemoteStatus: other.status(),
					Local: own.messages, Log: own.logged(0),
				}
			}
			planA, err := plan(options(p.a, p.b, merge.PreferLocal), parseChanges(t, c.slave.changes))
			if err != nil {
				t.Fatal(err)
			}
			planB, err := plan(options(p.b, p.a, merge.PreferRemote), parseChanges(t, c.master.changes))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "requests of the master", requests(planA), c.masterAsks)
			equal(t, "requests of the slave", requests(planB), c.slaveAsks)
			equal(t, "renumbered at the master", renumbered(planA), c.masterRenumbered)
			equal(t, "last common UIDs", fmt.Sprint(planA.LastCommon, planB.LastCommon), fmt.Sprint(c.common, c.common))
			p.apply(planA, planB)
			for _, b := range []*box{p.a, p.b} {
				equal(t, "mails of the "+b.name, mails(b), c.after)
				equal(t, "problems of the "+b.name, strings.Join(b.problems, "\n"), "")
			}
		})
	}
}

func equal(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// requests lists the GUIDs that a side has to ask for, as a Dovecot does: it looks for copies only among its new mails.
func requests(p merge.Plan) string {
	var out []string
	for a := range p.Requests {
		out = append(out, string(a.GUID))
	}
	return strings.Join(out, " ")
}

func renumbered(p merge.Plan) string {
	var out []string
	for _, r := range p.Realign {
		out = append(out, fmt.Sprintf("%d>%d", r.UID, r.NewUID))
	}
	return strings.Join(out, " ")
}

func mails(b *box) string {
	var out []string
	for _, m := range b.mails {
		out = append(out, strings.Join(strings.Fields(fmt.Sprint(m.UID, " ", m.GUID, " ", m.Flags, " ", strings.Join(m.Keywords, " "))), " "))
	}
	return strings.Join(out, "\n")
}

// list makes a sequence of messages.
func list(messages ...mail.Message) func(mail.UID) iter.Seq2[mail.Message, error] {
	return func(after mail.UID) iter.Seq2[mail.Message, error] {
		return func(yield func(mail.Message, error) bool) {
			for _, m := range messages {
				if m.UID > after && !yield(m, nil) {
					return
				}
			}
		}
	}
}
