package brain

import (
	"errors"
	"fmt"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// pasts says what exchanges since the last common state that did not end as planned had to do with the messages of a mailbox.
type pasts struct{ met, brought, renumbered mail.UIDs }

func pastsOf(u store.Unsettled) (p pasts, err error) {
	var merr, berr, rerr error
	p.met, merr = u.Met.Parse()
	p.brought, berr = u.Brought.Parse()
	p.renumbered, rerr = u.Renumbered.Parse()
	if err := errors.Join(merr, berr, rerr); err != nil {
		return pasts{}, fmt.Errorf("unsettled messages: %w: %w", store.ErrCorrupt, err)
	}
	return p, nil
}

func (p *pasts) message(uid mail.UID) item.Past {
	switch {
	case p.brought.Has(uid):
		return item.PastBrought
	case p.met.Has(uid):
		return item.PastMet
	}
	return item.PastNone
}

// pastOf is about a logged expunge.
func (x *exchange) pastOf(e store.Change) item.Past {
	switch {
	case x.past.renumbered.Has(e.UID):
		return item.PastRenumbered
	case e.Origin != "" && e.Origin == x.r.origin():
		return item.PastTold
	}
	return x.past.message(e.UID)
}

// noted names the last common state in which a batch is to be noted: of a round that may leave messages which only this side
// knows the past of. None of ours is the other side of a backup, and a Dovecot does not ask.
func (r *round) noted() string {
	if r.stock != nil || r.dir != twoWay {
		return ""
	}
	return r.baseKey()
}
