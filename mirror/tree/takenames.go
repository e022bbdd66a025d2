package tree

// takeNames is the way out when renames of both sides run in circles: all mailboxes that both sides have get the names of one
// side, that of the preserved tree or of the latest rename. It comes to its end in two steps for each mailbox.
func (s *syncer) takeNames() {
	s.settled = true
	s.markDeletions()
	s.deleteMarked(s.remote)
	s.deleteMarked(s.local)
	win, lose := s.local, s.remote
	if s.mode == PreserveRemote || s.mode == TwoWay && !s.later(s.local, s.remote) {
		win, lose = lose, win
	}
	for _, box := range lose.Mailboxes() {
		if w, n := win.byGUID[box.Status.GUID], lose.byGUID[box.Status.GUID]; s.misnamed(w, n) {
			s.toRoot(win, lose, n)
		}
	}
	// What is called wrong is below a temporary name of the root now, so that nothing comes to lie below it.
	for _, box := range win.Mailboxes() {
		w, n := win.byGUID[box.Status.GUID], lose.byGUID[box.Status.GUID]
		if !s.misnamed(w, n) {
			continue
		}
		if occupant := lose.lookup(box.Name); occupant != nil && occupant.onDisk() {
			s.toRoot(win, lose, occupant)
		}
		s.move(lose, n, w)
	}
	s.nameTemps(lose, &lose.root)
}

// misnamed reports whether n, the mailbox that the winning side has as w, has to be renamed.
func (s *syncer) misnamed(w, n *node) bool {
	return w != nil && n != nil && !s.fixed(w) && !s.fixed(n) && w.name() != n.name()
}

// toRoot gives n a temporary name at top level that neither tree has.
func (s *syncer) toRoot(win, lose *Tree, n *node) {
	part := n.tempPart(func(part string) bool { return win.root.child(part) != nil || lose.root.child(part) != nil })
	s.relocate(lose, n, &lose.root, part, 0)
	n.temp, n.ts = true, 0
}

// later reports whether the latest rename is in a and not in b; then the order of the GUIDs and names decides.
func (s *syncer) later(a, b *Tree) bool {
	latest := func(t *Tree) (ts int64) {
		t.root.walk(func(n *node) { ts = max(ts, n.box.Renamed) })
		return ts
	}
	if ta, tb := latest(a), latest(b); ta != tb {
		return ta > tb
	}
	return compareSiblings(a.root.children, b.root.children) < 0
}
