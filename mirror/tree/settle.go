package tree

import (
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
)

// eachName calls do for every name of both trees, with a node on each side, which is added as absent where it is missing.
// Parents come first, or last with up.
func (s *syncer) eachName(up bool, do func(l, r *node)) {
	var walk func(l, r *node)
	walk = func(l, r *node) {
		for _, c := range l.children {
			r.ensure(c.part)
		}
		for _, c := range r.children {
			l.ensure(c.part)
		}
		for i := range l.children {
			lc, rc := l.children[i], r.children[i]
			if !up {
				do(lc, rc)
			}
			walk(lc, rc)
			if up {
				do(lc, rc)
			}
		}
	}
	walk(&s.local.root, &s.remote.root)
}

// settleGUIDs gives mailboxes of one name one GUID (TwoWay).
//
// After the renames a GUID stands at different names only where a name is fixed: one side renamed its INBOX. Then the fixed
// mailbox gives the GUID up and what it was renamed to keeps it.
func (s *syncer) settleGUIDs() {
	yields := s.yieldingGUIDs()
	s.eachName(false, func(l, r *node) {
		if !l.isMailbox() && !r.isMailbox() {
			return
		}
		guid := s.commonGUID(l, r, yields)
		if l.isMailbox() && r.isMailbox() && l.guid() != r.guid() {
			s.conflicts = append(s.conflicts, Conflict{Name: l.name(), Local: l.guid(), Remote: r.guid(), GUID: guid})
		}
		for _, side := range []struct {
			t *Tree
			n *node
		}{{s.local, l}, {s.remote, r}} {
			if side.n.isMailbox() && side.n.guid() != guid {
				s.setGUID(side.t, side.n, guid)
			}
		}
	})
}

// yieldingGUIDs returns the nodes that have to give up their GUID.
func (s *syncer) yieldingGUIDs() map[*node]bool {
	yields := make(map[*node]bool)
	for guid, l := range s.local.byGUID {
		r := s.remote.byGUID[guid]
		if r == nil || l.name() == r.name() {
			continue
		}
		yields[l], yields[r] = s.fixed(l), s.fixed(r)
		if !yields[l] && !yields[r] {
			yields[l] = l.name() > r.name()
			yields[r] = !yields[l]
		}
	}
	return yields
}

// commonGUID returns the GUID of two nodes of one name, at least one of which is a mailbox.
func (s *syncer) commonGUID(l, r *node, yields map[*node]bool) mail.MailboxGUID {
	keepL, keepR := l.isMailbox() && !yields[l], r.isMailbox() && !yields[r]
	greater := l.guid()
	if r.guid().Compare(greater) > 0 {
		greater = r.guid()
	}
	switch {
	case keepL && keepR && s.o.GUIDs == GreaterGUID:
		return greater
	case keepL && (!keepR || s.o.GUIDs == LocalGUID):
		return l.guid()
	case keepR:
		return r.guid()
	}
	return derivedGUID(greater)
}

// setGUID gives the mailbox n another GUID. Another mailbox of that GUID gets a derived one first; its own turn comes later.
func (s *syncer) setGUID(t *Tree, n *node, guid mail.MailboxGUID) {
	if holder := t.byGUID[guid]; holder != nil {
		s.setGUID(t, holder, derivedGUID(guid))
	}
	s.emit(t, Change{Op: SetGUID, Name: n.name(), Was: n.guid(), GUID: guid})
	status := n.box.Status
	status.GUID = guid
	t.setMailbox(n, status)
}

// deleteForeign removes from the destination of a backup the mailboxes that the source does not have or that cannot be
// brought in line with the source's mailbox of the same name. Children go before their parents.
func (s *syncer) deleteForeign() {
	source, dest := s.local, s.remote
	if s.mode == PreserveRemote {
		source, dest = s.remote, s.local
	}
	s.eachName(true, func(l, r *node) {
		from, to := l, r
		if dest == s.local {
			from, to = r, l
		}
		if !to.isMailbox() || to.name() == mail.Inbox || from.isMailbox() && (s.o.Adopt || alike(from.box.Status, to.box.Status)) {
			return
		}
		s.emit(dest, Change{
			Op: Delete, Name: to.name(), GUID: to.guid(),
			Witnessed: source.witnessed(to.guid()), Replaced: from.isMailbox(),
		})
		dest.clearMailbox(to, mail.Absent)
	})
	s.eachName(false, func(l, r *node) {
		from, to := l, r
		if dest == s.local {
			from, to = r, l
		}
		if from.isMailbox() && to.isMailbox() && from.guid() != to.guid() {
			s.conflicts = append(s.conflicts, Conflict{Name: l.name(), Local: l.guid(), Remote: r.guid(), GUID: from.guid()})
			s.setGUID(dest, to, from.guid())
		}
	})
}

// alike reports whether the mailbox to of a backup's destination can be made equal to from by changing its messages: a UIDNEXT
// cannot be lowered.
func alike(from, to mail.Status) bool {
	return from.GUID == to.GUID && from.UIDValidity == to.UIDValidity && to.UIDNext <= from.UIDNext
}

// createMailboxes makes each side's mailboxes exist on the other one. When both sides have a mailbox of one name, it has one
// GUID by now.
func (s *syncer) createMailboxes() {
	s.eachName(false, func(l, r *node) {
		s.createMailbox(s.local, l, r)
		s.createMailbox(s.remote, r, l)
	})
}

func (s *syncer) createMailbox(t *Tree, n, from *node) {
	if s.preserved(t) || n.isMailbox() || !from.isMailbox() {
		return
	}
	if holder := t.byGUID[from.guid()]; holder != nil {
		s.setGUID(t, holder, derivedGUID(from.guid())) // an INBOX that the source does not have
	}
	status := mail.Status{GUID: from.guid(), UIDValidity: from.box.Status.UIDValidity}
	s.emit(t, Change{Op: Create, Name: n.name(), GUID: status.GUID, UIDValidity: status.UIDValidity, UIDNext: from.box.Status.UIDNext})
	t.setMailbox(n, status)
}

// settleDirectories creates and deletes levels of hierarchy that hold nothing, children first. One that holds something is
// there anyway, and many stores do not tell whether it is there of its own.
func (s *syncer) settleDirectories() {
	s.eachName(true, func(l, r *node) {
		if l.isMailbox() || r.isMailbox() || l.exists() == r.exists() {
			return
		}
		if l.exists() {
			s.settleDirectory(s.local, s.remote, l, r)
		} else {
			s.settleDirectory(s.remote, s.local, r, l)
		}
	})
}

// settleDirectory settles a directory n of t that does not exist as the node o of the other tree.
func (s *syncer) settleDirectory(t, other *Tree, n, o *node) {
	if n.hasExistingChild() || o.hasExistingChild() {
		return
	}
	deleted := o.box.Existence == mail.Deleted && s.mode == TwoWay || s.preserved(other)
	if deleted {
		n.box.Existence = mail.Absent
		s.emit(t, Change{Op: DeleteDirectory, Name: n.name()})
	} else {
		o.box.Existence = mail.Exists
		s.emit(other, Change{Op: CreateDirectory, Name: o.name()})
	}
}

// settleSubscriptions makes both sides subscribe the same names and plans what that changes in the local store, where
// subscriptions did not follow renames. before is the local tree as it was.
func (s *syncer) settleSubscriptions(before *Tree) {
	s.eachName(false, func(l, r *node) {
		switch s.mode {
		case TwoWay:
			mergeSubscription(&l.box, &r.box)
		case PreserveLocal:
			r.box.Subscribed, r.box.SubscriptionChanged = l.box.Subscribed, l.box.SubscriptionChanged
		case PreserveRemote:
			l.box.Subscribed, l.box.SubscriptionChanged = r.box.Subscribed, r.box.SubscriptionChanged
		}
	})
	was, is := before.subscriptions(), s.local.subscriptions()
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if !is[name] {
			s.emit(s.local, Change{Op: Unsubscribe, Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if !was[name] {
			s.emit(s.local, Change{Op: Subscribe, Name: name})
		}
	}
}
