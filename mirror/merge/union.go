package merge

import (
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// union reads a full list without taking absence for anything. The same GUID under the same UID is the same mail, a logged
// expunge is one, and all else is new on both sides, but for strays.
type union struct {
	*Planner
	strays *strays // nil: without a common state nobody can tell
}

func newUnion(p *Planner) *union {
	if !p.o.LogsKnown {
		return &union{Planner: p}
	}
	return &union{Planner: p, strays: newStrays(p, 0)}
}

func (r *union) record(c *item.Change) error {
	if err := r.alone(c.UID - 1); err != nil {
		return err
	}
	m, err := r.local.at(c.UID)
	if err != nil {
		return err
	}
	if m != nil {
		defer r.local.advance()
		if r.same(m, c) {
			if c.Type == item.ChangeExpunge && c.Past == item.PastTold {
				// It was told by this side, which has the mail again: its user moved it back, or a power cut undid the expunge.
				r.strays.theyExpunged(c)
				return r.keepLocal(m)
			}
			if c.Type == item.ChangeExpunge {
				r.strays.meets(c.UID, m.GUID.Hash128(), c.Past, 1)
				return r.expungeLogged(m)
			}
			_, err := r.settle(m, MarksOf(c))
			return err
		}
		if err := r.keepLocal(m); err != nil {
			return err
		}
	}
	if c.Type == item.ChangeExpunge {
		r.strays.theyExpunged(c)
		return nil
	}
	_, expunged, err := r.loggedExpunge(c)
	if err != nil {
		return err
	}
	if expunged {
		l, err := r.log.at(c.UID)
		if err != nil {
			return err
		}
		if l.Past != item.PastTold {
			r.strays.meets(c.UID, l.GUID128, l.Past, -1)
			return nil
		}
	}
	h := r.ofRecord(c)
	r.remotes = append(r.remotes, h)
	return nil
}

// alone keeps the mails up to a UID of which the peer said nothing.
func (r *union) alone(upTo mail.UID) error {
	for {
		m, err := r.local.peek()
		if err != nil || m == nil || m.UID > upTo {
			return err
		}
		if err := r.keepLocal(m); err != nil {
			return err
		}
		r.local.advance()
	}
}

func (r *union) keepLocal(m *mail.Message) error {
	h, err := r.ofMessage(m)
	r.locals = append(r.locals, h)
	return err
}

func (r *union) finish() error {
	if err := r.alone(mail.MaxUID); err != nil {
		return err
	}
	if err := r.strays.remove(); err != nil {
		return err
	}
	r.interleave()
	return r.assign()
}
