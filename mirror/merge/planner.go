package merge

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

var (
	// ErrProtocol is wrapped by errors about records that a correct peer does not send.
	ErrProtocol = errors.New("protocol violation")
	// ErrUIDsExhausted means that a mailbox has no UIDs left to give out.
	ErrUIDsExhausted = errors.New("no UIDs left in this UIDVALIDITY")
)

// Mode says what the peer's mails mean for this side.
type Mode uint8

// The modes of an importer.
const (
	TwoWay Mode = iota // both sides import
	OneWay             // the peer does not import, and nothing here is undone (sync -1)
	Backup             // the peer does not import, and this side becomes equal to it
)

// Absence says what it means, without a common state, that one side has a mail and the other knows nothing of it.
type Absence uint8

// The readings of absence.
const (
	// Expunged is Dovecot's: such a mail was expunged if its UID is below the highest one that both sides have or had.
	Expunged Absence = iota
	// Keep: nothing is known, so that both sides have the mail afterwards, under a new UID where UIDNEXT demands one.
	Keep
	// Doubt is for a peer that reads absence as Expunged and cannot be told otherwise. It is believed up to Options.Common
	// and where a log bears witness. Any other mail that only one side has may never have come to the other, say because a
	// connection broke; it is kept here under a new UID, which looks like new mail to the peer in the next exchange.
	Doubt
)

// Side is one of the two sides.
type Side uint8

// The sides.
const (
	Neither Side = iota
	Local
	Remote
)

// Options is everything a [Planner] has to know beforehand.
type Options struct {
	Mode    Mode
	Absence Absence
	Tie     Preference
	Filter  Filter

	// HaveBase: the peer sends what changed since the last common state, which reaches up to the UID Base (0: it was an empty
	// mailbox). Else it sends all messages.
	HaveBase bool
	Base     mail.UID

	// Common is known to have been the last common UID once: mails up to it were on both sides. Only for Doubt.
	Common mail.UID

	// LogsKnown: both sides know a last common state though they compare everything, and what their logs say above these
	// modseqs, of the log here and of the peer's, happened after it. Only for Keep.
	LogsKnown               bool
	LocalSince, RemoteSince mail.ModSeq

	// Past tells of a message here what exchanges since the last common state did that did not end as planned. Only for Keep;
	// nil: nothing.
	Past func(mail.UID) item.Past

	// Aligned names the side that took over the other's UIDVALIDITY in this round by [Align]. Its UIDNEXT is no obstacle to
	// the other's UIDs then.
	Aligned Side

	// ShortGUIDs: one side keeps only GUIDs of 32 hex digits, so that GUIDs are equal if their short forms are.
	ShortGUIDs bool

	// The numbers of both sides as announced at the start of the mailbox.
	LocalStatus, RemoteStatus mail.Status

	// Local yields the messages here with a UID above after, by ascending UID. It is called again to go back or far ahead.
	Local func(after mail.UID) iter.Seq2[mail.Message, error]
	// Log yields what is logged here, by ascending UID; it may be run more than once. Nil: nothing.
	Log iter.Seq2[Logged, error]
}

// Planner makes the plan for one mailbox of what the peer says of its copy. It keeps about 100 bytes for each mail that
// only one side has, and nothing for the others. Not for concurrent use.
type Planner struct {
	o     Options
	local cursor[mail.Message]
	log   cursor[Logged]
	rule  rule
	plan  Plan
	last  mail.UID // of the last record
	err   error

	localNext, remoteNext mail.UID // UIDNEXT, or one above the highest UID seen
	fresh                          // mails of one side only
}

// rule decides on the peer's records one by one, each way of reading them by one rule.
type rule interface {
	record(c *item.Change) error
	finish() error
}

// NewPlanner starts a plan. Close it, or finish it.
func NewPlanner(o Options) *Planner {
	p := &Planner{o: o, localNext: max(o.LocalStatus.UIDNext, 1), remoteNext: max(o.RemoteStatus.UIDNext, 1)}
	p.local = cursor[mail.Message]{open: o.Local, uidOf: func(m *mail.Message) mail.UID { return m.UID }}
	logUID := func(l *Logged) mail.UID { return l.UID }
	p.log = cursor[Logged]{open: above(o.Log, logUID), uidOf: logUID}
	p.groupOf = make(map[mail.GUID]uint32)
	if o.HaveBase {
		p.after = o.Base
	}
	p.table.init()
	switch {
	case o.Mode == Backup:
		p.rule = &backup{Planner: p}
	case o.HaveBase:
		p.rule = &incremental{Planner: p}
	case o.Absence == Keep:
		p.rule = newUnion(p)
	default:
		p.rule = &search{Planner: p}
	}
	return p
}

// Close lets go of the local sequences of a planner that will not be finished.
func (p *Planner) Close() {
	p.local.close()
	p.log.close()
	p.err = cmp.Or(p.err, errors.New("merge planner is closed"))
}

// Add takes the peer's next record; it keeps nothing of c. An error is final and wraps [ErrProtocol] if the peer is to
// blame.
func (p *Planner) Add(c *item.Change) error {
	if p.err == nil {
		p.err = p.add(c)
	}
	return p.err
}

func (p *Planner) add(c *item.Change) error {
	if err := p.check(c); err != nil {
		return fmt.Errorf("%w: mail change of UID %d: %w", ErrProtocol, c.UID, err)
	}
	p.last, p.remoteNext = c.UID, max(p.remoteNext, c.UID+1)
	if p.plan.Resync {
		return nil
	}
	return p.rule.record(c)
}

// Finish returns the plan once the peer's list has ended.
func (p *Planner) Finish() (Plan, error) {
	defer p.Close()
	if p.err == nil && !p.plan.Resync {
		p.err = p.rule.finish()
	}
	if p.err != nil {
		return Plan{}, p.err
	}
	if p.plan.Resync {
		return Plan{Resync: true}, nil
	}
	out := p.plan
	p.fresh, p.rule, p.plan = fresh{}, nil, Plan{} // a caller may keep p longer than it needs to
	out.sort()
	return out, nil
}

// check refuses what would be an assertion in Dovecot, and what no mailbox can hold.
func (p *Planner) check(c *item.Change) error {
	switch {
	case c.UID == 0 || c.UID > mail.MaxUID:
		return errors.New("UID out of range")
	case c.UID <= p.last:
		return fmt.Errorf("UID not above the one before (%d)", p.last)
	case c.Type == item.ChangeExpunge:
		return nil
	case c.Type != item.ChangeSave && c.Type != item.ChangeFlags:
		return fmt.Errorf("type %q", byte(c.Type))
	case c.GUID == "":
		return errors.New("no GUID (header hashes are not supported)")
	case len(c.GUID) > mail.MaxGUID:
		return fmt.Errorf("GUID of %d bytes", len(c.GUID))
	case c.Add&c.Remove&mail.AllFlags != 0:
		return errors.New("flags both added and removed")
	case (c.Type == item.ChangeFlags) != (p.o.HaveBase && c.UID <= p.o.Base):
		return fmt.Errorf("type %q on the wrong side of the last common UID %d", byte(c.Type), p.o.Base)
	}
	return checkKeywords(c.Keywords)
}

func checkKeywords(changes []item.KeywordChange) error {
	for _, k := range changes {
		switch k.Op {
		case item.KeywordAdded, item.KeywordRemoved, item.KeywordSet, item.KeywordAddedSet:
		default:
			return fmt.Errorf("keyword operation %q", byte(k.Op))
		}
		if k.Name == "" || slices.ContainsFunc([]byte(k.Name), func(b byte) bool { return b <= ' ' || b == 0x7f }) {
			return fmt.Errorf("keyword %q", k.Name)
		}
	}
	return nil
}

// same reports whether a local mail and a record have the same GUID. Only an expunge record may not know it.
func (p *Planner) same(m *mail.Message, c *item.Change) bool {
	if c.Type == item.ChangeExpunge {
		return m.GUID.Hash128() == c.GUID128
	}
	return m.GUID == c.GUID || p.o.ShortGUIDs && m.GUID.Hash128() == c.GUID.Hash128()
}

// key is what GUIDs are compared by.
func (p *Planner) key(g mail.GUID) mail.GUID {
	if p.o.ShortGUIDs {
		return mail.GUID(g.Hash128().String())
	}
	return g
}

// loggedExpunge says what the own log knows of a UID that the peer speaks of.
func (p *Planner) loggedExpunge(c *item.Change) (known, same bool, err error) {
	l, err := p.log.at(c.UID)
	if err != nil || l == nil || !l.Expunged || l.GUID128.IsZero() {
		return false, false, err
	}
	want := c.GUID128
	if c.Type != item.ChangeExpunge {
		want = c.GUID.Hash128()
	}
	return true, l.GUID128 == want, nil
}

// localMarks returns the marks of a mail that is here, with what the log says of it.
func (p *Planner) localMarks(m *mail.Message) (Marks, error) {
	marks := Marks{Flags: m.Flags, Keywords: m.Keywords, ModSeq: m.ModSeq}
	l, err := p.log.at(m.UID)
	if err == nil && l != nil && !l.Expunged {
		marks.Logged = l.Delta
	}
	return marks, err
}

// settle merges the flags of a mail that both sides have under the same UID, and returns what both get.
func (p *Planner) settle(m *mail.Message, remote Marks) (to Marks, err error) {
	if m.Flags == remote.Flags && m.Keywords.Equal(remote.Keywords) {
		return remote, nil // a log only explains differences
	}
	local, err := p.localMarks(m)
	if err != nil {
		return to, err
	}
	to = Merge(local, remote, p.o.Tie)
	p.mark(m.UID, local, to, remote)
	return to, nil
}

// mark plans the way of a mail's flags from what they are to what they shall be. Where it is the peer that has to change,
// the modseq is raised to what the peer's will be, so that the numbers of both sides meet.
func (p *Planner) mark(uid mail.UID, from, to, remote Marks) {
	modSeq := remote.ModSeq
	if p.o.Mode == TwoWay && !to.equal(remote) {
		modSeq = max(modSeq, p.o.RemoteStatus.HighestModSeq+1)
	}
	delta := mail.DeltaBetween(from.Flags, from.Keywords, to.Flags, to.Keywords)
	if delta.IsZero() && (p.o.Mode != TwoWay || to.equal(remote) || modSeq <= from.ModSeq) {
		return
	}
	p.plan.Deltas = append(p.plan.Deltas, FlagChange{UID: uid, Delta: delta, MinModSeq: modSeq})
}

// expunge plans to remove a mail.
func (p *Planner) expunge(m *mail.Message, witnessed bool) {
	p.plan.Expunges = append(p.plan.Expunges, Expunge{UID: m.UID, GUID: m.GUID, Witnessed: witnessed})
}

// expungeLogged plans to remove a mail that the peer saw being expunged. What was changed here meanwhile is told with it.
func (p *Planner) expungeLogged(m *mail.Message) error {
	marks, err := p.localMarks(m)
	p.expunge(m, true)
	p.plan.Expunges[len(p.plan.Expunges)-1].Logged = marks.Logged
	return err
}

// conclude fills in the numbers of the mailbox as a whole, for a plan that gives out UIDs below next.
func (p *Planner) conclude(next mail.UID) error {
	if next > mail.MaxUID {
		return fmt.Errorf("mailbox %s: %w", p.o.LocalStatus.GUID, ErrUIDsExhausted)
	}
	p.plan.LastCommon, p.plan.UIDNext = next-1, next
	p.plan.FirstRecent = min(next, p.o.RemoteStatus.FirstRecent)
	p.plan.HighestModSeq = p.o.RemoteStatus.HighestModSeq
	return nil
}

func (p *Plan) sort() {
	slices.SortFunc(p.Realign, func(a, b Realign) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(p.Deltas, func(a, b FlagChange) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(p.Expunges, func(a, b Expunge) int { return cmp.Compare(a.UID, b.UID) })
	slices.SortFunc(p.Adds, func(a, b Add) int { return cmp.Compare(a.Instances[0].UID, b.Instances[0].UID) })
}
