package tree

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"dsyncfs/mirror/mail"
)

// Lengths in bytes of temporary names while and after they are in use.
const (
	tempPrefixMax = 86
	tempNameMax   = 100
)

// settleNames carries out deletions and renames until every mailbox that both sides have is called the same on both. It
// reports false when that takes more steps than three for each node: some renames of both sides run in circles.
func (s *syncer) settleNames() bool {
	s.markDeletions()
	limit := 3 * (s.local.count() + s.remote.count())
	for steps := 0; steps <= limit; steps++ {
		s.deleteMarked(s.remote)
		s.deleteMarked(s.local)
		inheritTimes(&s.local.root, 0)
		inheritTimes(&s.remote.root, 0)
		for s.renameBelow(&s.local.root, &s.remote.root) {
			if steps++; steps > limit {
				return false
			}
		}
		named := s.nameTemps(s.local, &s.local.root)
		if !s.nameTemps(s.remote, &s.remote.root) && !named {
			return true
		}
	}
	return false
}

// inheritTimes makes a node at least as recently renamed as its parent.
func inheritTimes(n *node, ts int64) {
	n.ts = max(n.ts, ts)
	for _, c := range n.children {
		inheritTimes(c, n.ts)
	}
}

// renameBelow walks below l and r in step until the first pair of equal names needs a rename, carries that out and returns
// true. Absent nodes are added so that each name stands on both sides.
func (s *syncer) renameBelow(l, r *node) bool {
	for i, j := 0, 0; i < len(l.children) || j < len(r.children); i, j = i+1, j+1 {
		switch {
		case i == len(l.children) || j < len(r.children) && r.children[j].part < l.children[i].part:
			l.ensure(r.children[j].part).temp = r.children[j].temp
		case j == len(r.children) || l.children[i].part < r.children[j].part:
			r.ensure(l.children[i].part).temp = l.children[i].temp
		}
		lc, rc := l.children[i], r.children[j]
		if s.renamePair(lc, rc) || s.renameBelow(lc, rc) {
			return true
		}
	}
	return false
}

// renamePair looks at the nodes of one name.
func (s *syncer) renamePair(l1, r2 *node) bool {
	if l1.isDir() && r2.isDir() {
		r1, l2 := counterpart(l1, s.remote), counterpart(r2, s.local)
		if r1 == nil || l2 == nil || r1.name() == l2.name() {
			return false
		}
		return s.renameLater(l1, r1, l2, r2)
	}
	if l1.guid() == r2.guid() {
		return false
	}
	r1, l2 := s.remote.byGUID[l1.guid()], s.local.byGUID[r2.guid()]
	if r1 == nil && l2 == nil {
		return false // created, or merged with the mailbox of that name, later
	}
	return s.renameLater(l1, r1, l2, r2)
}

// counterpart returns the node of the other tree that corresponds to the directory dir: what holds there the first of dir's
// mailboxes that is known there. Directories below dir count one level less (dovecot 2.4).
func counterpart(dir *node, other *Tree) *node {
	for _, c := range dir.children {
		var found *node
		if c.isDir() {
			found = counterpart(c, other)
		} else {
			found = other.byGUID[c.guid()]
		}
		if found != nil {
			return found.parent
		}
	}
	return nil
}

// renameLater applies the timestamp rule: l1 and r2 have the same name, l1 and r1 as well as l2 and r2 are the same mailbox or
// directory, r1 and l2 may be missing. The side with the later rename keeps its names.
func (s *syncer) renameLater(l1, r1, l2, r2 *node) bool {
	if s.fixed(l1) || s.fixed(r1) || s.fixed(l2) || s.fixed(r2) {
		return false
	}
	localWins := s.mode == PreserveLocal
	if s.mode == TwoWay {
		lt, rt := s.renameTime(l1, l2), s.renameTime(r1, r2)
		c := 0
		if lt == rt {
			if c = compareSiblings(l1.fromHere(), r2.fromHere()); c == 0 {
				return false
			}
		}
		localWins = lt > rt || c < 0
	}
	if localWins {
		return s.rename(s.local, s.remote, l1, l2, r1, r2)
	}
	return s.rename(s.remote, s.local, r2, r1, l2, l1)
}

// renameTime returns the time of the last rename. That of a level which holds no mailbox is when it was made, or noticed: a name
// that won by it would go on with the older time of its mailbox, and lose it to a third replica again and again.
func (s *syncer) renameTime(nodes ...*node) (ts int64) {
	for _, n := range nodes {
		if n != nil && n.exists() && !n.temp && (s.o.CountLevels || n.hasMailbox()) {
			ts = max(ts, 1+n.ts)
		}
	}
	return ts
}

func compareSiblings(a, b []*node) int {
	if c := compareGUIDs(a, b); c != 0 {
		return c
	}
	return compareParts(a, b)
}

// rename makes one step towards the names of the tree win. w1 and x2 have the same name in win and lose; w1~x1 and w2~x2
// correspond. (Table of dovecot 2.3 sync_rename_lower_ts.)
func (s *syncer) rename(win, lose *Tree, w1, w2, x1, x2 *node) bool {
	free := !s.preserved(win)
	switch {
	case x1 == x2:
		return false
	case x1 != nil:
		s.move(lose, x1, w1)
	case free && w2 != nil && w2.isAbove(w1):
		s.toTemp(win, w1, w2.parent)
	case free && w2 != nil && w1.isAbove(w2):
		s.toTemp(win, w2, w1.parent)
	case w2 != nil && w1.exists():
		s.toTemp(lose, x2, x2.parent)
	default:
		return false
	}
	return true
}

// move brings n to the place that o has in the other tree. What is there gives way.
func (s *syncer) move(t *Tree, n, o *node) {
	parent := t.ensure(o.parent.name())
	if parent == n || n.isAbove(parent) {
		s.toTemp(t, n, &t.root)
		return
	}
	occupant := parent.child(o.part)
	if occupant != nil {
		s.toTemp(t, occupant, parent)
	}
	s.relocate(t, n, parent, o.part, o.ts)
	if occupant != nil {
		inheritSubscriptions(n, occupant)
	}
	n.temp, n.ts = o.temp, o.ts
}

// toTemp gives n a temporary name below parent.
func (s *syncer) toTemp(t *Tree, n, parent *node) {
	s.relocate(t, n, parent, n.tempPart(func(part string) bool { return parent.child(part) != nil }), 0)
	n.temp, n.ts = true, 0
}

// tempPart returns a temporary name for n that is not taken.
func (n *node) tempPart(taken func(part string) bool) string {
	prefix := n.part
	if n.temp {
		prefix = prefix[:strings.LastIndexByte(prefix, '-')]
	}
	prefix = cutRunes(prefix, tempPrefixMax) + "-temp-"
	for i := 1; ; i++ {
		if part := fmt.Sprintf("%s%x", prefix, i); !taken(part) {
			return part
		}
	}
}

// relocate moves n below parent under a part that is free there, as was done at a time.
func (s *syncer) relocate(t *Tree, n, parent *node, part string, at int64) {
	change := Change{Op: Rename, Name: n.name(), GUID: n.guid(), Time: at}
	n.detach()
	n.part = part
	parent.place(n)
	change.To = n.name()
	if n.onDisk() && t == s.local {
		s.planRename(change)
	}
}

// planRename adds a rename to the plan. One that goes on where the last one ended becomes one with it.
func (s *syncer) planRename(c Change) {
	if i := len(s.changes) - 1; i >= 0 && s.changes[i].Op == Rename && s.changes[i].To == c.Name {
		switch first := &s.changes[i]; {
		case first.Name == c.To:
			s.changes = s.changes[:i]
			return
		case !c.To.IsBelow(first.Name) && !first.Name.IsBelow(c.To):
			first.To, first.Time = c.To, c.Time
			return
		}
	}
	s.changes = append(s.changes, c)
}

// inheritSubscriptions gives to n the subscriptions of names that n's move took the place of. What is a mailbox keeps its
// own.
func inheritSubscriptions(n, old *node) {
	if old.isMailbox() {
		return
	}
	mergeSubscription(&n.box, &old.box)
	old.box.Subscribed, old.box.SubscriptionChanged = false, 0
	for _, c := range old.children {
		if !c.hasMailbox() && c.any(func(n *node) bool { return n.box.Subscribed || n.box.SubscriptionChanged != 0 }) {
			inheritSubscriptions(n.ensure(c.part), c)
		}
	}
}

// mergeSubscription sets both to the later state; at the same time subscribed wins.
func mergeSubscription(a, b *mail.Mailbox) {
	switch {
	case a.SubscriptionChanged > b.SubscriptionChanged:
		b.Subscribed = a.Subscribed
	case a.SubscriptionChanged < b.SubscriptionChanged:
		a.Subscribed = b.Subscribed
	default:
		a.Subscribed = a.Subscribed || b.Subscribed
		b.Subscribed = a.Subscribed
	}
	a.SubscriptionChanged = max(a.SubscriptionChanged, b.SubscriptionChanged)
	b.SubscriptionChanged = a.SubscriptionChanged
}

// nameTemps ends the use of temporary names at and below n: directories without mailboxes go, the others get a name that is
// the same on both sides. It reports whether any did.
func (s *syncer) nameTemps(t *Tree, top *node) (named bool) {
	top.walkUp(func(n *node) {
		switch {
		case !n.temp:
		case !n.hasMailbox():
			s.dropDirectory(t, n)
		default:
			s.nameTemp(t, n)
			named = true
		}
	})
	return named
}

// dropDirectory removes n and all below it, which holds no mailbox.
func (s *syncer) dropDirectory(t *Tree, n *node) {
	n.walkUp(func(c *node) { s.dropDirectory(t, c) })
	if n.exists() {
		s.emit(t, Change{Op: DeleteDirectory, Name: n.name()})
	}
	n.detach()
}

func (s *syncer) nameTemp(t *Tree, n *node) {
	prefix := n.part[:strings.LastIndexByte(n.part, '-')]
	id := n.guid().String()
	if n.isDir() {
		first := n.firstExisting()
		guid := first.guid()
		sum := md5.Sum(append(guid[:], first.part...))
		id = hex.EncodeToString(sum[:])
	}
	part := cutRunes(prefix+"-"+id, tempNameMax)
	for n.parent.child(part) != nil {
		part = nextHex(part)
	}
	s.relocate(t, n, n.parent, part, 0)
	n.temp = false
}

func (n *node) firstExisting() *node {
	for _, c := range n.children {
		if c.exists() {
			return c
		}
		if found := c.firstExisting(); found != nil {
			return found
		}
	}
	return nil
}

// nextHex increments the number in the last hex digits of s.
func nextHex(s string) string {
	b := []byte(s)
	for i := len(b) - 1; i >= 0; i-- {
		switch {
		case b[i] == '9':
			b[i] = 'a'
			return string(b)
		case b[i] >= '0' && b[i] < '9' || b[i] >= 'a' && b[i] < 'f':
			b[i]++
			return string(b)
		case b[i] == 'f':
			b[i] = '0'
		default:
			return s + "1"
		}
	}
	return s + "1"
}

// cutRunes shortens s to at most n bytes without cutting a character.
func cutRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
