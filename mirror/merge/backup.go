package merge

import (
	"cmp"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// backup makes this side equal to the peer. Where a stock Dovecot deletes the whole mailbox, because a UID that the source
// wants is below UIDNEXT here or UIDNEXT is too high, this one restarts the UIDs (Plan.Restart): mails that are here take
// the source's UIDs, and only what is missing is fetched. A destination in which somebody delivered mail may then show
// another mail under a UID that it had given away; there is no other way to have the source's UIDs and UIDVALIDITY.
type backup struct {
	*Planner
	surplus []surplus // mails here that are not the source's of that UID
}

// surplus is a mail that has to go away or to become another one.
type surplus struct {
	Expunge
	modSeq  mail.ModSeq
	group   uint32
	marks   uint32
	waiting int32 // the next of its group
	foreign bool  // the filter does not want it: the source may have it and not tell
	used    bool
}

func (r *backup) record(c *item.Change) error {
	if r.o.HaveBase && c.UID <= r.o.Base {
		return r.known(c)
	}
	if err := r.passed(c.UID - 1); err != nil {
		return err
	}
	m, err := r.nextLocal()
	if err != nil {
		return err
	}
	if m != nil && m.UID == c.UID {
		defer r.local.advance()
		same := r.same(m, c)
		if same && c.Type == item.ChangeSave {
			r.follow(m, c)
			return nil
		}
		if err := r.drop(m, same); err != nil {
			return err
		}
	}
	if c.Type == item.ChangeSave {
		if h := r.ofRecord(c); !h.unwanted {
			r.remotes = append(r.remotes, h)
		}
	}
	return nil
}

// known applies a change since the base. What does not fit it was changed here.
func (r *backup) known(c *item.Change) error {
	m, err := r.local.at(c.UID)
	switch {
	case err != nil:
		return err
	case m == nil && c.Type == item.ChangeExpunge:
	case m == nil, !r.same(m, c) && !(c.Type == item.ChangeExpunge && c.GUID128.IsZero()):
		r.plan.Resync = true
	case c.Type == item.ChangeExpunge:
		r.expunge(m, true)
	default:
		r.follow(m, c)
	}
	return nil
}

// follow gives a mail the source's flags.
func (r *backup) follow(m *mail.Message, c *item.Change) {
	want := MarksOf(c)
	r.mark(m.UID, Marks{Flags: m.Flags, Keywords: m.Keywords, ModSeq: m.ModSeq}, want, want)
}

// passed drops the mails up to a UID that the source did not list.
func (r *backup) passed(upTo mail.UID) error {
	for {
		m, err := r.nextLocal()
		if err != nil || m == nil || m.UID > upTo {
			return err
		}
		if err := r.drop(m, false); err != nil {
			return err
		}
		r.local.advance()
	}
}

func (r *backup) drop(m *mail.Message, witnessed bool) error {
	h, err := r.ofMessage(m)
	r.surplus = append(r.surplus, surplus{
		Expunge: Expunge{UID: m.UID, GUID: m.GUID, Witnessed: witnessed},
		modSeq:  m.ModSeq, group: h.group, marks: h.marks, waiting: none, foreign: !witnessed && !r.o.Filter.wantsMessage(m),
	})
	return err
}

func (r *backup) finish() error {
	if changed, err := r.changedHere(); err != nil || changed {
		r.plan.Resync = changed
		return err
	}
	if err := r.passed(mail.MaxUID); err != nil {
		return err
	}
	r.groupOf = nil
	r.reuse()
	next := r.clear()
	r.restart(next)
	return r.conclude(next)
}

// changedHere reports whether someone changed a mail of the base here: the source's records do not say how it was.
func (r *backup) changedHere() (bool, error) {
	if !r.o.HaveBase {
		return false, nil
	}
	for after := mail.UID(0); ; {
		l, err := r.log.seek(after)
		if err != nil || l == nil || l.UID > r.o.Base {
			return false, err
		}
		if l.Expunged || !l.Delta.IsZero() {
			return true, nil
		}
		after = l.UID
	}
}

// reuse gives the wanted mails UIDs out of the surplus of equal mails, and plans to save the rest.
func (r *backup) reuse() {
	first, last := make([]int32, len(r.groups)), make([]int32, len(r.groups))
	for g := range first {
		first[g] = none
	}
	for i := range r.surplus {
		g := r.surplus[i].group
		if first[g] == none {
			first[g] = int32(i)
		} else {
			r.surplus[last[g]].waiting = int32(i)
		}
		last[g] = int32(i)
	}
	copies := make([]mail.UID, len(r.groups))
	var missing []int32
	for j := range r.remotes {
		w := &r.remotes[j]
		i := first[w.group]
		if i == none {
			missing = append(missing, int32(j))
			continue
		}
		s := &r.surplus[i]
		first[w.group], s.used, copies[w.group] = s.waiting, true, w.uid
		r.plan.Realign = append(r.plan.Realign, Realign{UID: s.UID, NewUID: w.uid})
		want := r.marksOf(w)
		from := r.table.get(s.marks)
		from.ModSeq = s.modSeq
		r.mark(w.uid, from, want, want)
	}
	r.add(missing, copies)
}

// add plans to save the missing mails, those of one GUID together.
func (r *backup) add(missing []int32, copies []mail.UID) {
	slices.SortFunc(missing, func(a, b int32) int {
		return cmp.Or(cmp.Compare(r.remotes[a].group, r.remotes[b].group), cmp.Compare(a, b))
	})
	instances := make([]Instance, 0, len(missing))
	for len(missing) > 0 {
		w := &r.remotes[missing[0]]
		a := Add{GUID: r.groups[w.group], RemoteUID: w.uid, Copy: copies[w.group]}
		from := len(instances)
		for len(missing) > 0 && r.remotes[missing[0]].group == w.group {
			h := &r.remotes[missing[0]]
			m := r.marksOf(h)
			instances = append(instances, Instance{UID: h.uid, Flags: m.Flags, Keywords: m.Keywords, ModSeq: h.modSeq})
			missing = missing[1:]
		}
		a.Instances = instances[from:len(instances):len(instances)]
		r.plan.Adds = append(r.plan.Adds, a)
	}
}

// clear expunges the rest of the surplus and returns the UIDNEXT to have. A mail that stands in the way of another one is
// moved aside first, since expunges come after all renaming.
func (r *backup) clear() mail.UID {
	next, aside := r.remoteNext, max(r.localNext, r.remoteNext)
	for i := range r.surplus {
		s := &r.surplus[i]
		if s.used {
			continue
		}
		_, inTheWay := slices.BinarySearchFunc(r.remotes, s.UID, func(h fresher, uid mail.UID) int { return cmp.Compare(h.uid, uid) })
		if s.foreign && !inTheWay {
			next = max(next, s.UID+1)
			continue
		}
		e := s.Expunge
		if inTheWay {
			r.plan.Realign = append(r.plan.Realign, Realign{UID: s.UID, NewUID: aside})
			e.UID = aside
			aside++
		}
		r.plan.Expunges = append(r.plan.Expunges, e)
	}
	return next
}

// restart decides whether the UIDs have to start anew.
func (r *backup) restart(next mail.UID) {
	theirs, ours := r.o.RemoteStatus.UIDValidity, r.o.LocalStatus.UIDValidity
	blocked := len(r.remotes) > 0 && r.remotes[0].uid < r.o.LocalStatus.UIDNext
	if blocked || r.localNext > next || theirs != ours {
		r.plan.Restart, r.plan.UIDValidity = true, theirs
	}
}
