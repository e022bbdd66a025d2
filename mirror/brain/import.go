package brain

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
	"dsyncfs/mirror/store"
)

// receiveChanges hears what the other side has, plans what to do about it and finds out which bodies are here already.
func (x *exchange) receiveChanges(ctx context.Context) error {
	if x.r.h.Verify {
		return x.compare(ctx)
	}
	if err := x.planChanges(ctx); err != nil {
		return err
	}
	return x.incoming.findElsewhere(ctx)
}

// planChanges hears what the other side has and plans what to do about it.
func (x *exchange) planChanges(ctx context.Context) error {
	var records iter.Seq2[*item.Change, error] = x.incomingChanges(ctx)
	if x.alignment == alignOwn {
		kept, err := x.align(ctx, records)
		if err != nil {
			return err
		}
		close(x.alignedNow)
		records = kept
	}
	if x.alike != nil && !x.alike.fill {
		// Only the GUIDs were to be adopted: UIDs that were given out here cannot be given to other mails.
		for _, err := range records {
			if err != nil {
				return err
			}
		}
		return x.incoming.begin(x, merge.Plan{})
	}
	planner := merge.NewPlanner(x.planOptions())
	defer planner.Close()
	for c, err := range records {
		if err != nil {
			return err
		}
		if err := planner.Add(c); err != nil {
			return err
		}
	}
	plan, err := planner.Finish()
	if err != nil {
		return err
	}
	if plan.Resync {
		x.incoming.x, x.incoming.resync = x, true
		x.incoming.noteDesync("the last common state does not fit any more")
		x.r.forget(x.own.GUID)
		plan = merge.Plan{LastCommon: x.base.LastCommonUID}
	}
	if plan.Again && !x.r.h.DryRun {
		x.incoming.again = true
		x.r.desync(fmt.Sprintf("%s: mailbox %s: mails that only one side has are told in the next round", x.r.Side, x.mb.Name()))
	}
	if plan.Unmerged && x.r.stock != nil && x.r.dir == twoWay && !x.r.h.DryRun {
		x.incoming.x, x.incoming.resync = x, true
		x.incoming.noteDesync("flags of mails that both sides got by another way are compared in the next round")
	}
	if x.r.h.DryRun {
		x.describePlan(plan)
		if x.r.stock != nil {
			x.countNewThere(plan)
		}
		plan = merge.Plan{LastCommon: plan.LastCommon}
	}
	return x.incoming.begin(x, plan)
}

// incomingChanges yields the list as it comes in.
func (x *exchange) incomingChanges(ctx context.Context) iter.Seq2[*item.Change, error] {
	return func(yield func(*item.Change, error) bool) {
		err := list(ctx, x.r.c, "mail changes", func(c *item.Change) error {
			if !yield(c, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && err != errStop {
			yield(nil, err)
		}
	}
}

var errStop = fmt.Errorf("%w: list not read to its end", ErrProtocol)

// forget drops the last common state of a mailbox.
func (r *round) forget(guid mail.MailboxGUID) {
	r.doubt(guid)
	delete(r.bases, guid)
}

// planOptions says how the other side's mails are to be merged with the own ones.
func (x *exchange) planOptions() merge.Options {
	r := x.r
	o := merge.Options{
		HaveBase: x.hasBase, Base: x.base.LastCommonUID,
		LocalStatus: x.own.Status, RemoteStatus: x.theirs.Status,
		Local: x.messages(), Log: x.ownLog,
		ShortGUIDs: x.own.HaveOnlyGUID128 || x.theirs.HaveOnlyGUID128,
		Filter:     r.filter(),
	}
	switch {
	case r.dir == importOnly && !r.h.NoBackupOverwrite:
		o.Mode = merge.Backup
	case r.dir == importOnly:
		o.Mode = merge.OneWay
	}
	switch {
	case r.stock != nil && r.restores(x.mb.Name()), x.alike != nil:
		// What is missing here comes back under the UIDs that it had.
		o.Absence, o.Tie, o.Aligned = merge.Keep, merge.PreferRemote, merge.Local
	case r.ours():
		o.Absence, o.Tie = merge.Keep, merge.Union
		o.Past = x.past.message
		if x.commonKnown && !x.hasBase {
			o.LogsKnown, o.LocalSince, o.RemoteSince = true, x.own.Since, x.theirs.Since
		}
		if x.own.UIDValidity != x.theirs.UIDValidity {
			o.Aligned = map[alignment]merge.Side{alignOwn: merge.Local, alignOther: merge.Remote}[x.alignment]
		}
	default:
		o.Absence, o.Common, o.Tie = merge.Doubt, x.knownCommon(), merge.PreferRemote
		if r.master {
			o.Tie = merge.PreferLocal
		}
	}
	return o
}

// ownLog yields what the own log holds and what is told to the other side.
func (x *exchange) ownLog(yield func(merge.Logged, error) bool) {
	for c, err := range x.logged() {
		l := merge.Logged{UID: c.UID, Expunged: c.Expunged, GUID128: c.GUID128, ModSeq: c.ModSeq, Delta: c.Delta}
		if c.Expunged {
			l.Past = x.pastOf(c)
		}
		if !yield(l, err) || err != nil {
			return
		}
	}
}

func (r *round) filter() merge.Filter {
	f := merge.Filter{Since: r.h.Since, Until: r.h.Until, MaxSize: r.h.MaxSize}
	if r.h.Flag != "" {
		f.ParseFlagFilter(r.h.Flag)
	}
	return f
}

// align gives the own messages the identities of the other side's where they are the same mails: first by GUID, then by
// content. It returns the records for the planner. The alignment is carried out at once: it changes no content, so a round
// that breaks off after it leaves a mailbox that the next one finds aligned.
func (x *exchange) align(ctx context.Context, records iter.Seq2[*item.Change, error]) (iter.Seq2[*item.Change, error], error) {
	var kept []*item.Change
	for c, err := range records {
		if err != nil {
			return nil, err
		}
		kept = append(kept, c)
	}
	x.alike.tell(kept)
	if err := await(ctx, x.attributesSent); err != nil { // the sender reads the mailbox that is to be reopened
		return nil, err
	}
	a, err := x.pair(ctx, kept)
	if err != nil {
		return nil, err
	}
	x.r.out.Matched += a.Matched
	if a.UIDValidity != 0 {
		x.logVoid = true // it speaks of UIDs that mean other messages from now on
	}
	if x.r.h.DryRun {
		if len(a.Realign) > 0 || a.UIDValidity != 0 {
			x.plan("%d messages would be matched with the other side's, %d would get another identity", a.Matched, len(a.Realign))
		}
		x.aligned = a.View(x.mb.Messages)
		return sequence(kept), nil
	}
	b := store.Batch{Origin: x.r.origin(), UIDValidity: a.UIDValidity, Restart: a.UIDValidity != 0}
	if b.Restart {
		b.UIDNext = a.UIDNext
	}
	if b.Realign, err = x.realignments(a, kept); err != nil {
		return nil, err
	}
	if emptyBatch(b) {
		return sequence(kept), nil
	}
	res, err := x.mb.Apply(ctx, b)
	if err != nil {
		return nil, err
	}
	x.r.out.Changed = x.r.out.Changed || res.Changed
	x.incoming.status = res.Status
	if len(res.Vanished) > 0 {
		x.incoming.x = x
		x.incoming.noteDesync("messages went away meanwhile")
	}
	if err := x.reopen(ctx); err != nil {
		return nil, err
	}
	x.aligned = x.mb.Messages
	return sequence(kept), nil
}

// realignments are the steps of an alignment, with the other side's INTERNALDATE for what is the same mail.
func (x *exchange) realignments(a merge.Alignment, theirs []*item.Change) ([]store.Realign, error) {
	out := make([]store.Realign, len(a.Realign))
	step := make(map[mail.UID]int, len(a.Realign)) // by new UID
	for i, r := range a.Realign {
		out[i] = store.Realign{UID: r.UID, NewUID: r.NewUID, NewGUID: r.NewGUID}
		step[r.NewUID] = i
	}
	dates := make(map[mail.GUID]int64, len(theirs))
	for _, c := range theirs {
		if c.Type == item.ChangeSave && c.Received != 0 {
			dates[c.GUID] = c.Received
		}
	}
	for m, err := range a.View(x.mb.Messages)(0) {
		if err != nil {
			return nil, err
		}
		date, known := dates[m.GUID]
		if !known || date == m.Received {
			continue
		}
		i, known := step[m.UID]
		if !known {
			i = len(out)
			out = append(out, store.Realign{UID: a.Original(m.UID), NewUID: m.UID})
		}
		out[i].Received = date
	}
	return out, nil
}

// pair finds out which own messages are which of the other side's.
func (x *exchange) pair(ctx context.Context, theirs []*item.Change) (merge.Alignment, error) {
	var local, remote []merge.Entry
	for _, c := range theirs {
		if c.Type == item.ChangeSave {
			remote = append(remote, merge.Entry{UID: c.UID, GUID: c.GUID, Content: c.Content})
		}
	}
	for m, err := range x.mb.Messages(0) {
		if err == nil {
			err = context.Cause(ctx)
		}
		e := merge.Entry{UID: m.UID, GUID: m.GUID}
		switch {
		case err != nil:
		case x.alike != nil:
			e.Content = x.alike.local[m.UID]
		case x.withContent:
			e.Content, err = x.contentHash(ctx, m.UID)
		}
		if err != nil {
			return merge.Alignment{}, err
		}
		local = append(local, e)
	}
	return merge.Align(local, remote, x.own.Status, x.theirs.Status)
}

// sequence yields what was kept and lets go of it.
func sequence(kept []*item.Change) iter.Seq2[*item.Change, error] {
	return func(yield func(*item.Change, error) bool) {
		for i, c := range kept {
			kept[i] = nil
			if !yield(c, nil) {
				return
			}
		}
	}
}

// sendRequests asks for the bodies that are missing here.
func (x *exchange) sendRequests() error {
	for q := range x.incoming.requests {
		if err := x.r.c.send(q); err != nil {
			return err
		}
	}
	return x.r.sendNow(&item.EndOfList{})
}

// receiveMails takes the bodies and carries out the plan.
func (x *exchange) receiveMails(ctx context.Context) error {
	if err := list(ctx, x.r.c, "mails", func(m *item.Mail) error { return x.incoming.receive(ctx, m) }); err != nil {
		return err
	}
	if x.r.h.DryRun || x.r.h.Verify {
		return nil
	}
	// The other side reads what is sent to it whatever this side does, so waiting for the own sender is safe here.
	if err := x.r.c.awaitAside(ctx, x.sentAll); err != nil {
		return err
	}
	return x.incoming.complete(ctx)
}

// describePlan says what a dry run would do here.
func (x *exchange) describePlan(p merge.Plan) {
	if n := len(p.Adds); n > 0 {
		x.plan("%d messages would be added", n)
		x.r.out.NewHere += n
	}
	flags := 0
	for _, d := range p.Deltas {
		if !d.Delta.IsZero() {
			flags++
		}
	}
	if flags > 0 {
		x.plan("flags of %d messages would change", flags)
	}
	if n := len(p.Expunges); n > 0 {
		x.plan("%d messages would be expunged", n)
	}
	if n := len(p.Realign); n > 0 {
		x.plan("%d messages would get other UIDs", n)
	}
}

func (x *exchange) plan(format string, args ...any) {
	x.r.out.Plan = append(x.r.out.Plan, fmt.Sprintf("%s: %q: ", x.r.Side, string(x.mb.Name()))+fmt.Sprintf(format, args...))
}

// messages are the own ones, as they are after the alignment.
func (x *exchange) messages() func(mail.UID) iter.Seq2[mail.Message, error] {
	switch {
	case x.aligned != nil:
		return x.aligned
	case x.withheld != 0:
		return x.older
	}
	return x.mb.Messages
}

// older yields the own messages that are not withheld.
func (x *exchange) older(after mail.UID) iter.Seq2[mail.Message, error] {
	return func(yield func(mail.Message, error) bool) {
		for m, err := range x.mb.Messages(after) {
			if err == nil && m.UID >= x.withheld || !yield(m, err) {
				return
			}
		}
	}
}

func sortAdds(adds []add) {
	slices.SortStableFunc(adds, func(a, b add) int { return cmp.Compare(a.uid(), b.uid()) })
}

// countingReader counts what is read, unless the body can say its size itself and be copied by the kernel.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// unwrap returns the body itself if it knows its size.
func (c *countingReader) unwrap() io.Reader {
	if _, sized := c.r.(store.Body); sized {
		return c.r
	}
	return c
}

func (c *countingReader) size() int64 {
	if b, sized := c.r.(store.Body); sized {
		return b.Size()
	}
	return c.n
}
