package tree

import "dsyncfs/mirror/mail"

// markDeletions enters what each side remembers to have deleted into that side's own tree, as far as the other side still has
// it (dovecot 2.3 dsync_brain_mailbox_tree_add_delete).
func (s *syncer) markDeletions() {
	s.markDeletionsOf(s.remote, s.local)
	s.markDeletionsOf(s.local, s.remote)
}

// markDeletionsOf looks the records of owner up in the other tree.
func (s *syncer) markDeletionsOf(owner, other *Tree) {
	if len(owner.deletions) == 0 {
		return
	}
	byHash := make(map[mail.GUID128]*node)
	other.root.walk(func(n *node) { byHash[owner.hashName(n.name())] = n })
	for _, d := range owner.deletions {
		switch d.Kind {
		case mail.DeletedMailbox:
			if n := other.byGUID[mail.MailboxGUID(d.ID)]; n != nil {
				s.markMailbox(owner, n)
			}
		case mail.DeletedDirectory:
			if n := byHash[d.ID]; n != nil && d.Time > n.box.Renamed {
				if mine := owner.ensure(n.name()); !mine.exists() {
					mine.box.Existence = mail.Deleted
				}
			}
		case mail.Unsubscribed:
			if n := byHash[d.ID]; n != nil && d.Time > n.box.SubscriptionChanged {
				// A subscription that is there is newer than the record of its end.
				if mine := owner.ensure(n.name()); !mine.exists() && !mine.box.Subscribed {
					mine.box.SubscriptionChanged = d.Time
				}
			}
		}
	}
}

// markMailbox notes that owner deleted the mailbox that the other side still has as n.
func (s *syncer) markMailbox(owner *Tree, n *node) {
	name, guid := n.name(), n.guid()
	if name == mail.Inbox || owner.byGUID[guid] != nil {
		return // a record of the past: the mailbox is there again
	}
	if s.mode == TwoWay && s.o.Keep != nil && s.o.Keep(n.mailbox()) {
		return
	}
	mine := owner.ensure(name)
	if mine.isMailbox() {
		return
	}
	mine.dead = guid
	if !mine.exists() { // else a directory took its place
		mine.box.Existence = mail.Deleted
	}
}

// deleteMarked deletes in both trees what one side deleted, in TwoWay. In the other modes the mark is all that is needed:
// the mailbox is created again or deleted as foreign, depending on whose word counts.
func (s *syncer) deleteMarked(owner *Tree) {
	owner.root.walk(func(n *node) {
		guid := n.dead
		n.dead = mail.MailboxGUID{}
		other := s.other(owner)
		victim := other.byGUID[guid]
		if guid.IsZero() || s.mode != TwoWay || victim == nil {
			return
		}
		s.emit(other, Change{Op: Delete, Name: victim.name(), GUID: guid, Witnessed: true})
		other.clearMailbox(victim, n.goneExistence())
	})
}

// goneExistence says what becomes of the other side's node of a mailbox that n's side deleted.
func (n *node) goneExistence() mail.Existence {
	if n.exists() {
		return mail.Absent
	}
	return mail.Deleted
}

// witnessed reports whether t's side remembers to have deleted the mailbox.
func (t *Tree) witnessed(guid mail.MailboxGUID) bool {
	for _, d := range t.deletions {
		if d.Kind == mail.DeletedMailbox && mail.MailboxGUID(d.ID) == guid {
			return true
		}
	}
	return false
}
