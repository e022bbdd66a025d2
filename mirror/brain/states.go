package brain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// refresh takes notice of what happened to the own store.
func (r *round) refresh(ctx context.Context) error {
	report, err := r.store.Refresh(ctx, store.RefreshOptions{
		Full:     r.thorough,
		DryRun:   r.h.DryRun,
		Guard:    r.refreshGuard(),
		Witness:  r.Witness,
		Patience: r.patience(),
		Restore:  r.restores,

		Lately:    r.lately(),
		Confirmed: r.allows,
	})
	r.out.Undecided = report.Undecided
	r.out.Notes = append(r.out.Notes, report.Notes...)
	for _, note := range report.Notes {
		r.Logger.Warn("mail store", "note", note)
	}
	return err
}

// quietTime is how long nothing more may vanish before a continuous mirror believes that it is gone.
const quietTime = 600 * time.Millisecond

// patience is what a continuous mirror has: it may look at the store in the middle of somebody's rm. A single run decides.
func (r *round) patience() time.Duration {
	if r.h.Live && !r.hurry {
		return quietTime
	}
	return 0
}

// lately is for how long losses add up in a continuous mirror. A single run stands alone.
func (r *round) lately() time.Duration {
	if r.h.Live {
		return time.Hour
	}
	return 0
}

// refreshGuard is asked about what vanished from the own store. What the destination of a backup lost threatens nobody: it
// is put back.
func (r *round) refreshGuard() func([]store.Loss) error {
	if r.dir == importOnly && !r.h.NoBackupOverwrite {
		return nil
	}
	return r.judge
}

// judge asks the deletion guard about what vanished.
func (r *round) judge(losses []store.Loss) error {
	p := r.Guard
	p.Allow = r.allows
	return guard.Judge(losses, p)
}

// allows reports whether the user confirmed for this round what a mailbox lost.
func (r *round) allows(name mail.Name) bool { return matches(r.h.AllowExpunge, name) }

// restores reports whether the user wants the vanished mails of a mailbox back.
func (r *round) restores(name mail.Name) bool { return matches(r.h.Restore, name) }

// matches reports whether a list of names, or "*" for all, has name.
func matches(names []string, name mail.Name) bool {
	for _, n := range names {
		if n == "*" || mail.Name(n).FoldInbox() == name {
			return true
		}
	}
	return false
}

// baseKey names the other side in the own store. A dsyncfs is known by the epoch of its index, so that both sides keep the
// common state and find it whoever starts the next round; a Dovecot by its location.
func (r *round) baseKey() string {
	switch {
	case r.stock == nil && r.ours():
		return indexName(r.peer.Epoch)
	case !r.master:
		return "dovecot " + r.peer.Hostname
	}
	return r.PeerName
}

// indexName names a dsyncfs by the epoch of its index.
func indexName(epoch uint64) string { return fmt.Sprintf("index %016x", epoch) }

// loadBases reads the last common states with this peer.
func (r *round) loadBases(ctx context.Context) (err error) {
	r.bases, err = r.store.Base(ctx, r.baseKey())
	return err
}

// saveBases remembers the new common states of the mailboxes that were finished, also when a later one failed.
func (r *round) saveBases(ctx context.Context, cause error) error {
	if len(r.newBases) == 0 || r.h.DryRun || r.peer == nil {
		return cause
	}
	err := r.store.SetBase(ctx, r.baseKey(), r.newBases)
	r.newBases = make(map[mail.MailboxGUID]store.State)
	return errors.Join(cause, err)
}

// tellsStates reports whether the slave hears the last common states. A stock peer expects them in a state sync only; ours
// needs them in every sync, so that both sides judge alike whether a mailbox that one of them deleted may go.
func (r *round) tellsStates() bool { return r.h.Type == item.SyncState || r.ours() }

// sendStates tells the slave the last common states in the slave's own numbers.
func (r *round) sendStates() error {
	for _, box := range sortedGUIDs(r.bases) {
		s := r.bases[box]
		if r.stock != nil && !r.stock.told[box] {
			continue
		}
		if err := r.c.send(&item.State{
			GUID: box, UIDValidity: s.UIDValidity, LastCommonUID: s.LastCommonUID,
			LastCommonModSeq: s.Remote.HighestModSeq, Messages: s.Remote.Messages, Epoch: s.RemoteEpoch,
		}); err != nil {
			return err
		}
	}
	return r.sendNow(&item.EndOfList{})
}

// receiveStates hears them, as the slave. One of ours must know them, too: it saves them first, and has forgotten those of a
// mailbox that was deleted and made anew since.
func (r *round) receiveStates(ctx context.Context) error {
	r.bases = make(map[mail.MailboxGUID]store.State)
	told := make(map[mail.MailboxGUID]struct{})
	var own map[mail.MailboxGUID]store.State
	if r.stock == nil {
		var err error
		if own, err = r.store.Base(ctx, r.baseKey()); err != nil {
			return err
		}
	}
	err := list(ctx, r.c, "states", func(s *item.State) error {
		told[s.GUID] = struct{}{}
		if r.ours() && s.Epoch != r.store.Epoch() {
			return nil // the modseq belongs to an index that was lost
		}
		if r.stock != nil {
			if s.LastCommonUID == 0 && s.LastCommonModSeq == 0 {
				return nil // Dovecot's word for "none"
			}
			r.stock.told[s.GUID] = true
		}
		mine, known := own[s.GUID]
		if r.stock == nil && !known {
			r.refused[s.GUID] = struct{}{}
			return nil
		}
		if s.LastCommonUID == 0 && mine.LastCommonUID == 0 && mine.UIDValidity == s.UIDValidity {
			r.bases[s.GUID] = mine // they met, and the master does not know what the own log said then
			return nil
		}
		base := store.State{
			UIDValidity: s.UIDValidity, LastCommonUID: s.LastCommonUID,
			Local: store.Numbers{HighestModSeq: s.LastCommonModSeq, Messages: s.Messages}, Unsettled: mine.Unsettled,
		}
		r.bases[s.GUID] = base
		return nil
	})
	for guid, mine := range own {
		if _, known := told[guid]; !known {
			r.agreed[guid] = mine.Local.HighestModSeq
		}
	}
	return err
}
