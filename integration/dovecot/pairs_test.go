package dovecot

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// pairsCount is how many pairs of mailboxes are merged at once: in two states and in two roles, more than 500 merges.
// DSYNCFS_DOVECOT_PAIRS is another number.
const pairsCount = 130

// pairs are two accounts whose mailboxes differ at random in UIDs, flags, keywords and mails. All their mailboxes are synced in
// one run, by two Dovecots and by dsyncfs in either role, from the same state.
type pairs struct {
	*served
	rand  *rand.Rand
	boxes []*pairBox

	// What two Dovecots, and a Dovecot with us as its slave, know of their last sync; empty: nothing.
	stockState, slaveState string
}

// pairBox is one pair of mailboxes.
type pairBox struct {
	name   string
	sides  [2][]pairMail
	absent map[string]bool      // GUIDs of mails that two Dovecots take for expunged: the other side lacks them below what both have
	flags  map[string][2]string // by GUID: flags of a common mail that differ, and no log tells why
}

// pairMail is a mail of one side.
type pairMail struct {
	uid   uint32
	guid  string
	flags string // of the file name
}

func newPairs(t *testing.T) *pairs {
	const quick = "mail_fsync = never\n"
	e := harness.New(t)
	pair := pairOf(e, t, newAccountWith(e, "ours", "maildir", "/", quick), newAccountWith(e, "dove", "maildir", "/", quick))
	seed := uint64(number("DSYNCFS_DOVECOT_SEED", 1))
	t.Logf("DSYNCFS_DOVECOT_SEED=%d", seed)
	p := &pairs{served: &served{pair}, rand: rand.New(rand.NewPCG(seed, 7))}
	for _, a := range []*account{p.ours, p.dove} {
		a.maildir().Create(t, "INBOX") // with one GUID: two stock Maildirs would exchange two for ever
		must(t, os.WriteFile(filepath.Join(a.maildir().Path, "dovecot-uidlist"), []byte(fmt.Sprintf("3 V1700000000 N1 G%032x\n", 1)), 0o600))
	}
	for i := range number("DSYNCFS_DOVECOT_PAIRS", pairsCount) {
		p.boxes = append(p.boxes, p.makeBox(i))
	}
	p.own()
	for _, a := range []*account{p.ours, p.dove} {
		a.mailLines() // a Dovecot that never opened a mailbox does not know which mails it expunged itself
	}
	return p
}

func (p *pairs) own() {
	p.t.Helper()
	p.ours.own()
	p.dove.own()
}

// letters returns flags of a file name: some of DFRST, and of the keywords a and b.
func (p *pairs) letters() string {
	var s string
	for _, l := range "DFRSTab" {
		if p.rand.IntN(3) == 0 {
			s += string(l)
		}
	}
	return s
}

// makeBox writes one pair of mailboxes: some mails in common, then on each side some that are only there, or on the other side
// too, under the same UID or another one.
func (p *pairs) makeBox(i int) *pairBox {
	p.t.Helper()
	b := &pairBox{name: fmt.Sprintf("r%03d", i)}
	mails := 0
	guid := func() string {
		mails++
		return fmt.Sprintf("17672616%02d.m%d.%s", p.rand.IntN(100), mails, b.name)
	}
	add := func(side int, uid uint32, guid, flags string) {
		b.sides[side] = append(b.sides[side], pairMail{uid, guid, flags})
	}
	uid := uint32(1 + p.rand.IntN(3))
	for range p.rand.IntN(5) {
		g, flags := guid(), p.letters()
		lacks := p.rand.IntN(24) // 0 and 1 are sides
		for side := range 2 {
			if side != lacks {
				add(side, uid, g, flags)
			}
			if p.rand.IntN(8) == 0 {
				flags = p.letters()
			}
		}
		uid += 1 + uint32(p.rand.IntN(3))/2
	}
	next := [2]uint32{uid, uid}
	for range p.rand.IntN(5) {
		g, flags := guid(), p.letters()
		for side := range next {
			next[side] += uint32(p.rand.IntN(4)) / 3
		}
		k := p.rand.IntN(10)
		if k == 7 { // on both sides under the same UID
			next[0] = max(next[0], next[1])
			next[1] = next[0]
		}
		for side := range next {
			if k >= 7 || k%2 == side {
				add(side, next[side], g, flags)
				next[side]++
			}
		}
	}
	b.judge()
	for side, a := range []*account{p.ours, p.dove} {
		p.writeBox(a.maildir(), b.name, b.sides[side], 1700000000+i, next[side]+uint32(p.rand.IntN(3))/2)
	}
	return b
}

// judge finds what two Dovecots decide without a log: up to the highest UID under which both have the same mail, before the
// first under which they have different ones, a mail of one side only counts as expunged (dovecot 2.3 dsync-mailbox-import.c).
func (b *pairBox) judge() {
	b.absent, b.flags = map[string]bool{}, map[string][2]string{}
	var at [2]map[uint32]pairMail
	for side, mails := range b.sides {
		at[side] = map[uint32]pairMail{}
		for _, m := range mails {
			at[side][m.uid] = m
		}
	}
	var alone []string
	for uid := range uint32(100) {
		x, here := at[0][uid]
		y, there := at[1][uid]
		switch {
		case here && there && x.guid != y.guid:
			return
		case here && there:
			for _, guid := range alone {
				b.absent[guid] = true
			}
			if x.flags != y.flags {
				b.flags[x.guid] = [2]string{flagNames(x.flags), flagNames(y.flags)}
			}
		case here:
			alone = append(alone, x.guid)
		case there:
			alone = append(alone, y.guid)
		}
	}
}

// flagNames are the flags that letters stand for, as mailLines has them.
func flagNames(letters string) string {
	names := map[rune]string{'D': `\Draft`, 'F': `\Flagged`, 'R': `\Answered`, 'S': `\Seen`, 'T': `\Deleted`, 'a': "Kw0", 'b': "Kw1"}
	var flags []string
	for _, l := range letters {
		flags = append(flags, names[l])
	}
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// writeBox makes a mailbox as a Dovecot would have left it.
func (p *pairs) writeBox(m harness.Maildir, name string, mails []pairMail, validity int, next uint32) {
	p.t.Helper()
	m.Create(p.t, name)
	m.Keywords(p.t, name, "Kw0", "Kw1")
	list := fmt.Sprintf("3 V%d N%d G%x\n", validity, next, md5.Sum([]byte(name)))
	for _, mail := range mails {
		list += fmt.Sprintf("%d :%s\n", mail.uid, mail.guid)
		p.writeMail(m, name, mail.guid, ":2,"+mail.flags)
	}
	must(p.t, os.WriteFile(filepath.Join(m.Dir(name), "dovecot-uidlist"), []byte(list), 0o600))
}

// changes are what users do between two syncs to the mails that a header names, on the side it names.
var changes = [][]string{
	{"flags", "add", `\Flagged`}, {"flags", "remove", `\Seen`}, {"flags", "add", "Kw9"}, {"flags", "remove", "Kw0"}, {"expunge"},
}

// writeMail writes a mail whose header says what will happen to it; that depends on the GUID alone.
func (p *pairs) writeMail(m harness.Maildir, box, guid, suffix string) {
	p.t.Helper()
	hash := harness.HashOf([]byte(guid))
	ops := ""
	for side := range 2 {
		for k := range changes {
			if hash[side*8+k]%6 == 0 {
				ops += fmt.Sprintf(" side%ddoes%d.", side, k)
			}
		}
	}
	path := filepath.Join(m.Dir(box), "cur", guid+suffix)
	must(p.t, os.WriteFile(path, []byte("Subject: "+guid+"\nX-Changes:"+ops+"\n\nText\n"), 0o600))
	date := time.Unix(1767261600, 0)
	must(p.t, os.Chtimes(path, date, date))
}

// outcome is what a mailbox holds in the end, a line for each mail.
type pairOutcome map[string][]string

// outcome returns what both sides hold, which has to be the same.
func (p *pairs) outcome(how string) pairOutcome {
	p.t.Helper()
	ours, theirs := p.ours.mailLines(), p.dove.mailLines()
	for _, b := range p.boxes {
		if !slices.Equal(ours[b.name], theirs[b.name]) {
			p.t.Errorf("%s: %s differs:\n%s\n\n%s", how, b.name, strings.Join(ours[b.name], "\n"), strings.Join(theirs[b.name], "\n"))
		}
	}
	return ours
}

// mailLines describes all mails: UID, GUID and flags.
func (a *account) mailLines() pairOutcome {
	a.t.Helper()
	var mails []mailView
	must(a.t, json.Unmarshal([]byte(a.doveadm("-f", "json", "fetch", "mailbox uid guid flags", "mailbox", "r*", "all")), &mails))
	lines := pairOutcome{}
	for _, m := range mails {
		flags := strings.Fields(strings.ReplaceAll(m.Flags, `\Recent`, ""))
		slices.Sort(flags)
		lines[m.Mailbox] = append(lines[m.Mailbox], fmt.Sprintf("%s %s %s", m.UID, m.GUID, strings.Join(flags, " ")))
	}
	return lines
}

func (p *pairs) keep(name string) {
	p.Must("sh", "-c", "cd "+p.Dir+" && tar cf "+name+".tar ours dove state")
}

func (p *pairs) back(name string) {
	p.Must("sh", "-c", "cd "+p.Dir+" && rm -rf ours dove state && tar xf "+name+".tar")
}

// options are those of doveadm sync with a state.
func options(state string) []string {
	if state == "" {
		return []string{"sync", "-f"}
	}
	return []string{"sync", "-s", state}
}

// again runs doveadm until it does not ask for another run.
func (p *pairs) again(how string, sync func() result) {
	p.t.Helper()
	for range 3 {
		r := sync()
		if r.status == 0 {
			return
		}
		p.t.Logf("%s: exit status %d: %.300s", how, r.status, r.stderr)
	}
	p.t.Fatalf("%s: three runs are not enough", how)
}

// stock syncs the two with one Dovecot as master and one as slave.
func (p *pairs) stock() {
	p.t.Helper()
	p.again("two Dovecots", func() result { return p.ours.try(nil, append(options(p.stockState), p.dove.server()...)...) })
}

// rest has the Dovecots remember that both sides are equal.
func (p *pairs) rest() {
	p.t.Helper()
	r := p.ours.try(nil, append([]string{"sync", "-f", "-s", ""}, p.dove.server()...)...)
	p.stockState = strings.TrimSpace(r.stdout)
	p.slaveState = strings.TrimSpace(p.sync("sync", "-f", "-s", "").stdout)
	if p.stockState == "" || p.slaveState == "" {
		p.t.Fatalf("no state: %s", r.stderr)
	}
}

// way is how the pairs can be synced with dsyncfs at one end.
type way struct {
	name string
	sync func()
}

func (p *pairs) ways() []way {
	return []way{
		{"slave", func() { p.again("slave", func() result { return p.sync(options(p.slaveState)...) }) }},
		{"master", func() { p.run("mirror").Want(0) }},
	}
}

// compare holds the outcome against that of two Dovecots. It differs on purpose in this: what no log tells to be expunged stays,
// under a new UID, and which of two flags that no log explains wins is for modseqs to say, which are not the same numbers.
func (p *pairs) compare(how string, got, stock pairOutcome) {
	p.t.Helper()
	equal, kept, flags := 0, 0, 0
	for _, b := range p.boxes {
		var lines []string
		for _, line := range got[b.name] {
			fields := strings.SplitN(line, " ", 3)
			if b.absent[fields[1]] {
				kept++
				continue
			}
			if of, differ := b.flags[fields[1]]; differ && !mergedFrom(fields[2], of) {
				p.t.Errorf("%s: %s: %s, the flags were %q and %q", how, b.name, line, of[0], of[1])
			}
			lines = append(lines, line)
		}
		want := slices.Clone(stock[b.name])
		if len(b.flags) > 0 {
			flags++
			lines, want = withoutFlags(lines, b.flags), withoutFlags(want, b.flags)
		}
		if slices.Equal(lines, want) {
			equal++
			continue
		}
		p.t.Errorf("%s: %s:\n%s\ntwo Dovecots:\n%s", how, b.name, strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	for _, b := range p.boxes {
		for guid := range b.absent {
			if !strings.Contains(strings.Join(got[b.name], "\n"), guid) {
				p.t.Errorf("%s: %s: mail %s is lost", how, b.name, guid)
			}
		}
	}
	p.t.Logf("%s: %d of %d mailboxes as two Dovecots make them, %d mails more, %d with flags that nothing explains", how, equal, len(p.boxes), kept, flags)
}

// mergedFrom reports whether flags can come of those of two sides: the system flags are one side's, and of keywords, which a
// Dovecot logs when it first sees a Maildir, any may win.
func mergedFrom(flags string, sides [2]string) bool {
	system := func(s string) string {
		return strings.Join(slices.DeleteFunc(strings.Fields(s), func(f string) bool { return f[0] != '\\' }), " ")
	}
	for _, f := range strings.Fields(flags) {
		if !strings.Contains(sides[0]+sides[1], f) {
			return false
		}
	}
	return system(flags) == system(sides[0]) || system(flags) == system(sides[1])
}

// withoutFlags leaves out the flags of some mails.
func withoutFlags(lines []string, guids map[string][2]string) []string {
	lines = slices.Clone(lines)
	for i, line := range lines {
		fields := strings.SplitN(line, " ", 3)
		if _, found := guids[fields[1]]; found {
			lines[i] = fields[0] + " " + fields[1]
		}
	}
	return lines
}

// use makes the changes of users on both sides, all in the logs of their Dovecots, and delivers mails.
func (p *pairs) use() {
	p.t.Helper()
	for side, a := range []*account{p.ours, p.dove} {
		for k, change := range changes {
			a.doveadm(append(slices.Clone(change), "mailbox", "r*", "header", "X-Changes", fmt.Sprintf("side%ddoes%d.", side, k))...)
		}
		for _, b := range p.boxes {
			for k := range 1 + p.rand.IntN(2) { // one at least: a state sync does not see what changed at the slave only
				p.writeMail(a.maildir(), b.name, fmt.Sprintf("17672617%02d.new%d.side%d.%s", p.rand.IntN(100), k, side, b.name), ":2,"+p.letters())
			}
		}
		a.own()
		a.mailLines() // the Dovecot gives the new mails UIDs
	}
	for _, b := range p.boxes {
		b.absent, b.flags = nil, nil
	}
}

// The UID plan and the merge of flags are those of a Dovecot: at first contact, where all that is known is what is there, and
// again after changes on both sides that are in the logs.
func TestPairsOfMailboxes(t *testing.T) {
	t.Parallel()
	p := newPairs(t)
	for _, state := range []string{"at first contact", "after changes"} {
		if state == "after changes" {
			p.rest() // on what the last way left
			p.use()
		}
		p.keep("before")
		p.stock()
		want := p.outcome("two Dovecots")
		for _, way := range p.ways() {
			p.back("before")
			way.sync()
			p.compare(state+", "+way.name, p.outcome(way.name), want)
		}
	}
}
