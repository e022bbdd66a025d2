package sim

import (
	"fmt"
	"log/slog"

	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// journaled is a record of the journal, as it was given to it.
type journaled struct {
	event   mail.Event
	content string // of the mail, for one that appeared
}

// openJournal opens the journal of a replica after however its last process ended, and checks that it has what it has to.
func (r *replica) openJournal() (err error) {
	j, err := journal.OpenFS(vfs.NewFault(r.state, r.decideState), journal.Options{Clock: r.now, SegmentSize: 2048, Retain: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	r.journal = j
	last := j.Last()
	if d := j.Recovery(); d.Damaged() {
		return fmt.Errorf("the journal is damaged: %v was set aside", d.SetAside)
	}
	if last < r.durable {
		return fmt.Errorf("the journal ends with record %d, and %d was synced", last, r.durable)
	}
	if sent := j.Mark(journal.Sent); sent > last {
		return fmt.Errorf("the journal ends with record %d, and %d counts as sent", last, sent)
	}
	for rec, err := range j.Read(0) {
		if err != nil {
			return err
		}
		if want := r.journaled[rec.Seq]; rec.Event != want.event {
			return fmt.Errorf("record %d of the journal is %+v and was %+v", rec.Seq, rec.Event, want.event)
		}
	}
	for seq := range r.journaled {
		if seq > last {
			if r.intact {
				return fmt.Errorf("record %d of the journal is gone, without a power cut", seq)
			}
			delete(r.journaled, seq)
		}
	}
	r.intact = true
	return nil
}

// closeJournal closes it, unless its process has crashed.
func (r *replica) closeJournal(crashed bool) error {
	j := r.journal
	r.journal = nil
	if crashed {
		return nil
	}
	if err := j.Close(); err != nil {
		return err
	}
	r.durable = max(r.durable, j.Last())
	return nil
}
