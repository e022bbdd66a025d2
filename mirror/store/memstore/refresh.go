package memstore

import (
	"context"
	"maps"
	"slices"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// survey is what a Refresh found; nothing of it is recorded yet.
type survey struct {
	a       *Account
	o       store.RefreshOptions
	arrived map[string]struct{} // base names that turned up where they were not known
	finds   []finding           // by name of the mailbox
	losses  []store.Loss
}

// finding is what became of one mailbox.
type finding struct {
	name    mail.Name // as it is now, or was
	known   *box      // nil: a new one
	missing int       // without a witness
	disk    *diskBox  // nil: gone
	forget  bool      // gone, but not deleted
	added   []string
	changed []*message
	expunge []*message
	lost    []*message // to be forgotten
}

// Refresh implements [store.Store].
func (s *Store) Refresh(ctx context.Context, o store.RefreshOptions) (store.Report, error) {
	if err := ctx.Err(); err != nil {
		return store.Report{}, err
	}
	a := s.a
	a.mu.Lock()
	defer a.mu.Unlock()
	v := &survey{a: a, o: o, arrived: map[string]struct{}{}}
	if err := v.look(); err != nil {
		return store.Report{}, err
	}
	if len(v.losses) > 0 && o.Guard != nil {
		if err := o.Guard(v.losses); err != nil {
			return store.Report{}, err
		}
	}
	return v.record(), nil
}

func (v *survey) inScope(name mail.Name) bool {
	return v.o.Mailboxes == nil || slices.Contains(v.o.Mailboxes, name)
}

// look compares disk and memory, mailbox by mailbox.
func (v *survey) look() error {
	for _, name := range slices.Sorted(maps.Keys(v.a.disk.boxes)) {
		d := v.a.disk.boxes[name]
		known := v.a.memory.boxes[d.guid]
		if !v.inScope(name) && (known == nil || !v.inScope(known.name)) {
			continue
		}
		if err := d.check(name); err != nil {
			return err
		}
		v.finds = append(v.finds, finding{name: name, known: known, disk: d})
	}
	for _, b := range v.a.memory.sorted() {
		if _, d := v.a.disk.find(b.status.GUID); d == nil && v.inScope(b.name) {
			v.finds = append(v.finds, finding{name: b.name, known: b})
		}
	}
	for i := range v.finds {
		v.arrivals(&v.finds[i])
	}
	for i := range v.finds {
		v.departures(&v.finds[i])
	}
	return nil
}

// arrivals lists new mails and changed flags.
func (v *survey) arrivals(f *finding) {
	if f.disk == nil {
		return
	}
	known := map[string]*message{}
	if f.known != nil {
		for _, m := range f.known.messages {
			known[m.base] = m
		}
	}
	for _, base := range slices.SortedFunc(maps.Keys(f.disk.files), mail.CompareDelivery) {
		now, was := f.disk.files[base], known[base]
		switch {
		case was == nil:
			f.added = append(f.added, base)
			v.arrived[base] = struct{}{}
		case was.Flags != now.flags || !was.Keywords.Equal(now.keywords):
			f.changed = append(f.changed, was)
		}
	}
}

// departures sorts what is gone: witnessed, moved, to be restored, or lost.
func (v *survey) departures(f *finding) {
	if f.known == nil {
		return
	}
	restore := v.o.Restore != nil && v.o.Restore(f.known.name)
	loss := store.Loss{Mailbox: f.known.name, Known: len(f.known.messages)}
	if f.disk == nil {
		seen := v.seen(f.known.name, "")
		f.forget = restore && !seen
		loss.Gone = !seen && !restore
	}
	for _, m := range f.known.messages {
		if f.disk != nil && f.disk.files[m.base] != nil {
			continue
		}
		_, moved := v.arrived[m.base]
		switch {
		case moved || v.seen(f.known.name, m.base) || v.seen(f.name, m.base):
			f.expunge = append(f.expunge, m)
		case restore:
			f.lost = append(f.lost, m)
		default:
			f.expunge = append(f.expunge, m)
			loss.Missing++
		}
	}
	if f.disk == nil && !loss.Gone {
		loss.Missing = 0 // they went with the mailbox, which is accounted for
	}
	if loss.Gone || loss.Missing > 0 {
		f.missing = loss.Missing
		lately := f.known.lost.Since(v.a.now(), v.o.Lately)
		loss.Known += lately
		loss.Missing += lately
		v.losses = append(v.losses, loss)
	}
}

func (v *survey) seen(name mail.Name, base string) bool {
	if _, ok := v.a.witnessed[place{name, base}]; ok {
		return true
	}
	return v.o.Witness != nil && v.o.Witness(name, base)
}

// record writes everything down.
func (v *survey) record() store.Report {
	var r store.Report
	now := v.a.now().Unix()
	for _, f := range v.finds {
		var changed bool
		if f.disk == nil {
			v.recordGone(f, now, &r)
			changed = true
		} else {
			changed = v.recordBox(f, now, &r)
		}
		if changed {
			r.Changed = append(r.Changed, f.name)
		}
	}
	v.a.memory.dirs = maps.Clone(v.a.disk.dirs)
	v.a.memory.subs = maps.Clone(v.a.disk.subs)
	slices.Sort(r.Changed)
	r.Changed = slices.Compact(r.Changed)
	return r
}

func (v *survey) recordGone(f finding, now int64, r *store.Report) {
	guid := f.known.status.GUID
	delete(v.a.memory.boxes, guid)
	delete(v.a.witnessed, place{f.known.name, ""})
	if !f.forget {
		v.a.memory.addDeletion(mail.DeletedMailbox, mail.GUID128(guid), now)
		r.Expunged += len(f.known.messages)
	}
}

func (v *survey) recordBox(f finding, now int64, r *store.Report) (changed bool) {
	b := f.known
	if b == nil {
		b = newBox(f.name, f.disk)
		v.a.memory.boxes[f.disk.guid] = b
		v.a.memory.forgetBases(f.disk.guid)
		v.a.memory.dropDeletion(mail.DeletedMailbox, mail.GUID128(f.disk.guid))
		changed = true
	}
	if b.name != f.name {
		b.name, b.renamed = f.name, f.disk.renamed
		changed = true
	}
	for _, base := range f.added {
		m := messageOf(base, f.disk.files[base], max(b.status.UIDNext, b.reserved))
		m.ModSeq = b.record(store.LogEntry{Kind: store.LogAppend, UID: m.UID, Time: now}, 0)
		b.put(m)
	}
	for _, was := range f.changed {
		on := f.disk.files[was.base]
		m := *was
		m.Flags, m.Keywords = on.flags, on.keywords
		delta := mail.DeltaBetween(was.Flags, was.Keywords, on.flags, on.keywords)
		m.ModSeq = b.record(store.LogEntry{Kind: store.LogFlags, UID: m.UID, Delta: delta, Time: now}, 0)
		b.put(&m)
	}
	for _, m := range f.expunge {
		b.record(store.LogEntry{Kind: store.LogExpunge, UID: m.UID, GUID128: m.GUID.Hash128(), Time: now}, 0)
		b.drop(m.UID)
		delete(v.a.witnessed, place{f.name, m.base})
		delete(v.a.witnessed, place{f.known.name, m.base})
	}
	for _, m := range f.lost {
		b.drop(m.UID)
	}
	v.remember(b, f.missing)
	if len(f.lost) > 0 {
		b.tick(0)
		b.dropLog() // whoever asks for changes must look at everything, or the loss would stay
	}
	r.Added += len(f.added)
	r.Flags += len(f.changed)
	r.Expunged += len(f.expunge)
	return changed || len(f.added)+len(f.changed)+len(f.expunge)+len(f.lost) > 0
}

// remember keeps what the guard accepted, for refreshes to come.
func (v *survey) remember(b *box, lost int) {
	switch {
	case lost == 0 || v.o.Guard == nil:
	case v.o.Confirmed != nil && v.o.Confirmed(b.name):
		b.lost = nil
	case v.o.Lately > 0:
		b.lost = b.lost.With(lost, v.a.now(), v.o.Lately)
	}
}

func (m *memory) sorted() []*box {
	return slices.SortedFunc(maps.Values(m.boxes), func(x, y *box) int { return x.status.GUID.Compare(y.status.GUID) })
}
