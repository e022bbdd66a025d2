package merge

import (
	"fmt"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// incremental reads records since a common state. At and below the base a UID means the same mail on both sides; above it
// everything is new.
//
// With Keep, "new" is not taken for granted: a base can be older than the last exchange, if that one was the other side's to
// start. What is above the base is then read as a union, which knows a mail that both have by now and one that was expunged
// after both had it.
type incremental struct {
	*Planner
	newer *union // reads what is above the base; nil: not begun, or not with Keep
}

func (r *incremental) record(c *item.Change) error {
	switch {
	case c.UID <= r.o.Base:
		return r.known(c)
	case r.o.Absence == Keep:
		if err := r.begin(); err != nil {
			return err
		}
		return r.newer.record(c)
	case c.Type == item.ChangeSave:
		return r.remoteMail(c)
	}
	return nil // came and went at the peer since the base
}

// begin leaves the known part behind.
func (r *incremental) begin() error {
	if r.newer != nil {
		return nil
	}
	r.newer = &union{Planner: r.Planner, strays: newStrays(r.Planner, r.o.Base)}
	_, err := r.local.seek(r.o.Base)
	return err
}

// known applies a change of a mail that both sides had. If it is not here, the expunge here wins.
func (r *incremental) known(c *item.Change) error {
	m, err := r.local.at(c.UID)
	if err != nil || m == nil {
		return err
	}
	expunge := c.Type == item.ChangeExpunge
	if !r.same(m, c) && !(expunge && c.GUID128.IsZero()) {
		r.plan.Resync = true
		return nil
	}
	if expunge {
		return r.expungeLogged(m)
	}
	_, err = r.settle(m, MarksOf(c))
	return err
}

func (r *incremental) finish() error {
	if r.o.Absence != Keep {
		return r.localMails()
	}
	if err := r.begin(); err != nil {
		return err
	}
	return r.newer.finish()
}

// search reads a full list as Dovecot does: up to the last UID under which both sides have, or had, the same mail lies the
// common part, in which a mail that only one side has was expunged by the other. Above it everything is new.
type search struct {
	*Planner
	common    mail.UID
	found     bool      // the common part has ended
	missing   []Expunge // mails that the peer did not list, while the end of the common part is unknown
	unmatched []fresher // records without a mail here, likewise

	doubted []mail.UID // mails here that the peer takes for expunged by itself, and that it may never have had
	late    []fresher  // mails of the peer that it will take for expunged here, and that may never have come here
}

// verdict is what a record tells about the common part.
type verdict uint8

const (
	open   verdict = iota // nothing
	common                // it reaches up to this record
	ended                 // it ended before
	skip                  // the record does not count
)

func (r *search) record(c *item.Change) error {
	if r.found {
		return r.beyond(c)
	}
	head, err := r.missed(c.UID)
	if err != nil {
		return err
	}
	v, err := r.judge(c, head)
	if err != nil {
		return err
	}
	switch v {
	case skip:
		return nil
	case ended:
		if err := r.end(); err != nil {
			return err
		}
		return r.beyond(c)
	case common:
		r.common = c.UID
	}
	if head != nil && head.UID == c.UID {
		defer r.local.advance()
		return r.both(c, head, v)
	}
	if c.Type == item.ChangeSave && v == open {
		r.unmatched = append(r.unmatched, r.ofRecord(c))
	}
	return nil
}

// missed passes the mails below uid, of which the peer said nothing.
func (r *search) missed(uid mail.UID) (*mail.Message, error) {
	for {
		head, err := r.local.peek()
		if err != nil || head == nil || head.UID >= uid {
			return head, err
		}
		if r.o.Filter.wantsMessage(head) {
			r.missing = append(r.missing, Expunge{UID: head.UID, GUID: head.GUID})
		}
		r.local.advance()
	}
}

// judge compares a record with the first mail here that is not below it.
func (r *search) judge(c *item.Change, head *mail.Message) (verdict, error) {
	expunge := c.Type == item.ChangeExpunge
	if head != nil && head.UID == c.UID {
		switch {
		case expunge && c.GUID128.IsZero():
			return open, nil
		case r.same(head, c):
			return common, nil
		}
		return ended, nil
	}
	if !expunge && !r.o.Filter.wantsRecord(c) || expunge && head == nil {
		return skip, nil
	}
	known, same, err := r.loggedExpunge(c)
	switch {
	case err != nil:
		return open, err
	case same:
		return common, nil
	case known && !expunge, !known && head == nil:
		return ended, nil
	}
	return open, nil
}

// both applies a record to the mail of its UID.
func (r *search) both(c *item.Change, m *mail.Message, v verdict) error {
	switch {
	case c.Type == item.ChangeSave:
		_, err := r.settle(m, MarksOf(c))
		return err
	case v == common:
		r.expunge(m, true)
	default:
		r.missing = append(r.missing, Expunge{UID: m.UID, GUID: m.GUID, Witnessed: true})
	}
	return nil
}

// end is called when the common part is known.
func (r *search) end() error {
	r.found = true
	for _, e := range r.missing {
		switch {
		case e.UID > r.common:
		case e.Witnessed || !r.doubts(e.UID):
			r.plan.Expunges = append(r.plan.Expunges, e)
		default:
			r.doubted = append(r.doubted, e.UID)
		}
	}
	r.missing = nil
	if _, err := r.local.seek(r.common); err != nil {
		return err
	}
	for i := range r.unmatched {
		switch h := &r.unmatched[i]; {
		case h.uid > r.common:
			if err := r.remoteHead(h); err != nil {
				return err
			}
		case r.doubts(h.uid) && !h.unwanted:
			r.late = append(r.late, *h)
		} // the others were expunged here
	}
	r.unmatched = nil
	return nil
}

func (r *search) beyond(c *item.Change) error {
	if c.Type != item.ChangeSave {
		return nil
	}
	return r.remoteMail(c)
}

func (r *search) finish() error {
	if !r.found {
		if err := r.end(); err != nil {
			return err
		}
	}
	if err := r.localMails(); err != nil || len(r.doubted)+len(r.late) == 0 {
		return err
	}
	return r.keepDoubted()
}

// doubts reports whether the absence of a mail of that UID may mean anything.
func (r *search) doubts(uid mail.UID) bool { return r.o.Absence == Doubt && uid > r.o.Common }

// keepDoubted gives the mails in doubt UIDs above all others. A mail that both sides have under different UIDs is one.
func (r *search) keepDoubted() error {
	next := r.plan.UIDNext
	for _, uid := range r.doubted {
		if r.o.Mode == TwoWay { // else the peer imports nothing
			r.plan.Realign = append(r.plan.Realign, Realign{UID: uid, NewUID: next})
			next++
		}
		r.plan.Again = true
	}
	here, err := r.localKeys()
	if err != nil {
		return err
	}
	for i := range r.late {
		h := &r.late[i]
		guid := r.groups[h.group]
		if _, known := here[r.key(guid)]; known {
			continue
		}
		m := r.marksOf(h)
		r.plan.Adds = append(r.plan.Adds, Add{
			GUID: guid, RemoteUID: h.uid,
			Instances: []Instance{{UID: next, Flags: m.Flags, Keywords: m.Keywords, ModSeq: h.modSeq}},
		})
		here[r.key(guid)] = struct{}{}
		next++
		r.plan.Again = true
	}
	if next > mail.MaxUID {
		return fmt.Errorf("mailbox %s: %w", r.o.LocalStatus.GUID, ErrUIDsExhausted)
	}
	r.plan.UIDNext = next
	return nil
}

// localKeys returns the GUIDs of all mails here, if there are late ones to compare with.
func (r *search) localKeys() (map[mail.GUID]struct{}, error) {
	here := make(map[mail.GUID]struct{})
	if len(r.late) == 0 || r.o.Local == nil {
		return here, nil
	}
	for m, err := range r.o.Local(0) {
		if err != nil {
			return nil, err
		}
		here[r.key(m.GUID)] = struct{}{}
	}
	return here, nil
}
