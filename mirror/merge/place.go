package merge

import (
	"slices"

	"dsyncfs/mirror/mail"
)

// placer turns the future mails of one group, which all have the same content, into steps of the plan. Which file becomes
// which instance is free; a mail whose UID is wanted stays where it is, since no UID is ever used twice.
type placer struct {
	*Planner
	units     []unit     // of one group, by final UID
	at        []int32    // per unit: the local mail that becomes it; none
	spare     []int32    // local mails whose UID is not wanted
	instances []Instance // room for all that will be added
}

func (p *Planner) place(units []unit) {
	added := 0
	for _, u := range units {
		if u.local == none {
			added++
		}
	}
	pl := placer{Planner: p, instances: make([]Instance, 0, added)}
	for len(units) > 0 {
		n := 1
		for n < len(units) && units[n].group == units[0].group {
			n++
		}
		pl.group(units[:n])
		units = units[n:]
	}
}

func (pl *placer) group(units []unit) {
	pl.units, pl.at, pl.spare = units, pl.at[:0], pl.spare[:0]
	for range units {
		pl.at = append(pl.at, none)
	}
	pl.stay()
	pl.move()
	pl.marks()
	pl.add()
}

// stay leaves the local mails in place whose UIDs are wanted.
func (pl *placer) stay() {
	for _, u := range pl.units {
		if u.local == none {
			continue
		}
		i, wanted := slices.BinarySearchFunc(pl.units, pl.locals[u.local].uid, func(u unit, uid mail.UID) int {
			return int(u.final) - int(uid)
		})
		if wanted {
			pl.at[i] = u.local
		} else {
			pl.spare = append(pl.spare, u.local)
		}
	}
}

// move gives the others the UIDs that are still open, those of their own side's mails first.
func (pl *placer) move() {
	for _, own := range []bool{true, false} {
		for i, u := range pl.units {
			if len(pl.spare) == 0 {
				return
			}
			if pl.at[i] == none && (u.local != none) == own {
				pl.at[i] = pl.spare[0]
				pl.spare = pl.spare[1:]
				pl.plan.Realign = append(pl.plan.Realign, Realign{UID: pl.locals[pl.at[i]].uid, NewUID: u.final})
			}
		}
	}
}

// marks gives each mail that is here the flags of the mail that it becomes.
func (pl *placer) marks() {
	for i, u := range pl.units {
		if pl.at[i] == none {
			continue
		}
		from := pl.marksOf(&pl.locals[pl.at[i]])
		to, remote := pl.wanted(u)
		if from.equal(to) && u.remote == none {
			continue
		}
		if u.local != none && u.remote != none && !to.equal(remote) {
			pl.plan.Unmerged = true
		}
		pl.mark(u.final, from, to, remote)
	}
}

// wanted returns the marks that a future mail gets on both sides, and those that the peer's mail has before (the same if it
// has none).
func (pl *placer) wanted(u unit) (to, remote Marks) {
	switch {
	case u.local == none:
		to = pl.marksOf(&pl.remotes[u.remote])
		return to, to
	case u.remote == none:
		to = pl.marksOf(&pl.locals[u.local])
		return to, to
	}
	remote = pl.marksOf(&pl.remotes[u.remote])
	return Merge(pl.marksOf(&pl.locals[u.local]), remote, pl.o.Tie), remote
}

// add makes the mails that no local mail becomes.
func (pl *placer) add() {
	a := Add{GUID: pl.groups[pl.units[0].group]}
	first := len(pl.instances)
	for i, u := range pl.units {
		if u.remote != none && a.RemoteUID == 0 {
			a.RemoteUID = pl.remotes[u.remote].uid
		}
		if pl.at[i] != none {
			if a.Copy == 0 {
				a.Copy = u.final
			}
			continue
		}
		if u.local == none && pl.remotes[u.remote].unwanted {
			continue
		}
		to, _ := pl.wanted(u)
		pl.instances = append(pl.instances, Instance{UID: u.final, Flags: to.Flags, Keywords: to.Keywords, ModSeq: to.ModSeq})
	}
	if added := pl.instances[first:len(pl.instances):len(pl.instances)]; len(added) > 0 {
		a.Instances = added
		pl.plan.Adds = append(pl.plan.Adds, a)
	}
}
