package crash

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"time"

	"dsyncfs/integration/harness"
)

// fact is whether something happened: a program that got an error does not know.
type fact uint8

const (
	no fact = iota
	maybe
	yes
)

// fate is what is known of one mail.
type fate struct {
	owner     string // the side that delivered it; only that one moves or expunges it
	base      string // of its file name
	delivered fact
	syncedAt  time.Time // when its delivery had been synced, if it was
	expunged  fact
	place     string // the mailbox it is in; empty: a move broke off
	flags     string // letters that a program set and got no error for
	since     bool   // it was delivered since the last check
	moved     bool   // since the last check
	history   []string
}

// happened adds to the mail's history, which is shown with a mail that is wrong.
func (f *fate) happened(format string, args ...any) {
	f.history = append(f.history, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

// ledger is what mail programs did and what they were told, from which follows what must be there.
type ledger struct {
	mu     sync.Mutex
	next   int
	mails  map[int]*fate
	hashes map[harness.Hash]int // of the mails' texts, to their numbers
	gone   map[harness.Hash]bool
	uids   map[string]map[uint32]harness.Hash // by mailbox: what a UID once meant
	heads  map[string]harness.Mailbox         // by mailbox: the numbers when it was last seen
}

func newLedger() *ledger {
	return &ledger{
		mails: map[int]*fate{}, hashes: map[harness.Hash]int{}, gone: map[harness.Hash]bool{},
		uids: map[string]map[uint32]harness.Hash{}, heads: map[string]harness.Mailbox{},
	}
}

// newMail makes a mail that is delivered next. Most are small, some take many reads and writes.
func (l *ledger) newMail(owner, mailbox string, r *rand.Rand) (id int, base string, m harness.Mail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	id = l.next
	m = harness.Note(fmt.Sprintf("mail %d of %s", id, owner))
	if size := r.IntN(40); size >= 36 {
		line := fmt.Sprintf("line of mail %d, which is a long one, as mails with pictures are\n", id)
		m.Text = append(m.Text, strings.Repeat(line, 500*(size-35))...)
	}
	m.Date = m.Date.Add(time.Duration(id) * time.Second)
	base = fmt.Sprintf("%d.M%dP1_%d.%s", m.Date.Unix(), r.IntN(1000000), id, owner)
	l.mails[id] = &fate{owner: owner, base: base, delivered: maybe, place: mailbox, since: true}
	l.hashes[harness.HashOf(m.Text)] = id
	return id, base, m
}

// note changes what is known of a mail.
func (l *ledger) note(id int, change func(f *fate)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.mails[id]; f != nil {
		change(f)
	}
}

// size is how many mails there may be. It does not count those that were expunged, so that the load never comes to an end.
func (l *ledger) size() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.mails {
		if f.expunged != yes {
			n++
		}
	}
	return n
}

// verdict is what a check found: a line for each mail that is wrong.
type verdict struct {
	lost, doubled, other []string
	late                 []string // flags that one side set while the other one moved the mail, and that did not follow it
}

func (v verdict) empty() bool { return len(v.lost)+len(v.doubled)+len(v.other) == 0 }

func (v verdict) String() string {
	all := append(append(append([]string{}, v.lost...), v.doubled...), v.other...)
	sort.Strings(all)
	const shown = 15
	return strings.Join(all[:min(len(all), shown)], "\n")
}

// check compares what there is with what must be, and settles what was not known.
func (l *ledger) check(c harness.Contents) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var v verdict
	seen := map[int][]string{}
	flags := map[int]string{}
	for name, box := range c.Mailboxes {
		for _, m := range box.Messages {
			id, ok := l.hashes[m.Hash]
			switch {
			case l.gone[m.Hash]:
				v.other = append(v.other, fmt.Sprintf("%s: came back: %s", name, m.Path))
			case !ok:
				v.other = append(v.other, fmt.Sprintf("%s: nobody delivered %s", name, m.Path))
			default:
				seen[id] = append(seen[id], name)
				flags[id] = m.Flags
			}
		}
		v.other = append(v.other, l.checkNumbers(name, box)...)
	}
	for id, f := range l.mails {
		l.judge(&v, id, f, seen[id], flags[id])
	}
	for h, id := range l.hashes {
		if l.mails[id] == nil {
			l.gone[h] = true
			delete(l.hashes, h)
		}
	}
	return v
}

// demote forgets what programs were told by a side whose power failed since, but for what they had synced.
func (l *ledger) demote(cuts map[string]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	letters := map[string]string{"near": "F", "far": "R"}
	for _, f := range l.mails {
		for side, at := range cuts {
			f.flags = strings.ReplaceAll(f.flags, letters[side], "")
			if f.owner != side {
				continue
			}
			if f.expunged == yes {
				f.expunged = maybe
			}
			if f.moved {
				f.place = ""
			}
			if f.since && (f.syncedAt.IsZero() || f.syncedAt.After(at)) {
				f.delivered = maybe
			}
		}
	}
}

// judge compares one mail with its fate, and forgets it if it is rightly gone.
func (l *ledger) judge(v *verdict, id int, f *fate, in []string, flags string) {
	what := fmt.Sprintf("mail %d of %s (%s)", id, f.owner, strings.Join(f.history, "; "))
	switch {
	case len(in) > 1:
		v.doubled = append(v.doubled, fmt.Sprintf("doubled: %s is in %q", what, in))
	case len(in) == 0 && f.delivered == yes && f.expunged == no:
		v.lost = append(v.lost, fmt.Sprintf("lost: %s, which was in %q", what, f.place))
	case len(in) == 0:
		delete(l.mails, id)
		return
	case f.expunged == yes:
		v.other = append(v.other, fmt.Sprintf("expunged, but there: %s in %q", what, in))
	case f.place != "" && f.place != in[0]:
		v.other = append(v.other, fmt.Sprintf("%s is in %q, not in %q", what, in, f.place))
	}
	for _, letter := range f.flags {
		switch {
		case len(in) != 1 || strings.ContainsRune(flags, letter):
		case f.moved:
			v.late = append(v.late, fmt.Sprintf("%s in %q has flags %q, %c was set", what, in, flags, letter))
		default:
			v.other = append(v.other, fmt.Sprintf("%s in %q has flags %q, %c was set", what, in, flags, letter))
		}
	}
	if len(in) > 0 {
		f.delivered, f.expunged, f.place, f.since, f.moved, f.flags = yes, no, in[0], false, false, flags
	}
}

// checkNumbers demands that UIDVALIDITY stays, UIDNEXT never falls, and a UID never means another mail.
func (l *ledger) checkNumbers(name string, box *harness.Mailbox) (wrong []string) {
	if was, ok := l.heads[name]; ok && (was.UIDValidity != box.UIDValidity || was.UIDNext > box.UIDNext || was.GUID != box.GUID) {
		wrong = append(wrong, fmt.Sprintf("mailbox %s: was G%s V%d N%d, is G%s V%d N%d", name,
			was.GUID, was.UIDValidity, was.UIDNext, box.GUID, box.UIDValidity, box.UIDNext))
	}
	l.heads[name] = harness.Mailbox{GUID: box.GUID, UIDValidity: box.UIDValidity, UIDNext: box.UIDNext}
	if l.uids[name] == nil {
		l.uids[name] = map[uint32]harness.Hash{}
	}
	for _, m := range box.Messages {
		if was, ok := l.uids[name][m.UID]; ok && was != m.Hash {
			wrong = append(wrong, fmt.Sprintf("mailbox %s: UID %d was mail %x and is %x", name, m.UID, was[:6], m.Hash[:6]))
		}
		l.uids[name][m.UID] = m.Hash
	}
	return wrong
}
