package brain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dsyncfs/mirror/guard"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Slave answers the rounds of a master over one connection.
type Slave struct {
	o    *Options
	open func(context.Context) (store.Store, error)
	// changed tells between rounds that something changed. It is asked for when the master wants to keep the connection; nil
	// if the store cannot be watched.
	changed func(context.Context) (<-chan struct{}, error)
	// undecided: mails vanished before the last look, and it was too early to tell whether that was all.
	undecided bool
	link      *link

	// Shelf opens what a preview shows; nil if there is none. With look, the store is looked at first.
	Shelf func(ctx context.Context, look bool) (Shelf, error)
}

// NewSlave returns a slave that opens its store anew for each round, so that others can use it in between. watch may be nil.
func NewSlave(o Options, open func(context.Context) (store.Store, error), watch func(context.Context) (<-chan struct{}, error)) *Slave {
	return &Slave{o: &o, open: open, changed: watch}
}

// Serve answers rounds until the master is done. It closes the Peer. A failed round ends it with the round's error, which
// the master has been told.
func (s *Slave) Serve(ctx context.Context, p Peer) error {
	c := newConversation(p)
	defer c.close()
	s.link = newLink(s.o, c, false)
	defer s.link.drop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var changes <-chan struct{}
	first, err := s.begin(ctx, c)
	if first == nil && err == nil {
		return nil
	}
	for err == nil {
		if changes == nil && first.Live && first.Dsyncfs > 0 && s.changed != nil {
			// Before the store is looked at: what changes after that look is not missed.
			if changes, err = s.changed(ctx); err != nil {
				s.o.Logger.Warn("the store cannot be watched", "err", err)
			}
		}
		drain(changes)
		var live bool
		if live, err = s.round(ctx, c, first, changes != nil); err != nil || !live {
			break
		}
		first, err = s.idle(ctx, c, changes)
		if first == nil && err == nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	return s.awaitEOF(ctx, c)
}

// begin waits for the master's handshake. Nil and no error: it wanted a preview, and has left.
func (s *Slave) begin(ctx context.Context, c *conversation) (*item.Handshake, error) {
	it, err := c.recv(ctx)
	if err != nil {
		return nil, fmt.Errorf("waiting for the handshake: %w", unexpectedEOF(err))
	}
	switch it := it.(type) {
	case *item.Handshake:
		return it, nil
	case *item.Preview:
		return nil, s.preview(ctx, c, it)
	}
	return nil, fmt.Errorf("waiting for the handshake: %w", unexpected(it))
}

// drain forgets a change that the next look at the store will see anyway.
func drain(changes <-chan struct{}) {
	select {
	case <-changes:
	default:
	}
}

// awaitEOF keeps the process alive until the master closed: a stock master whose slave exits before its last word was read
// fails with 75 and without a message (dovecot 2.3 doveadm-dsync.c).
func (s *Slave) awaitEOF(ctx context.Context, c *conversation) error {
	if !c.isStock() { // it may have closed already
		if err := c.send(&item.Done{}); err != nil {
			return nil
		}
		if err := c.flush(); err != nil {
			return nil
		}
	}
	for {
		if _, err := c.recv(ctx); err != nil {
			return nil
		}
	}
}

// idle waits for the next round. Meanwhile it takes what the master pushes, and tells it what changes here. Nil and no error: the
// master left.
func (s *Slave) idle(ctx context.Context, c *conversation, changes <-chan struct{}) (*item.Handshake, error) {
	c.idle(true)
	defer c.idle(false)
	later := time.NewTimer(quietTime)
	defer later.Stop()
	for {
		if !s.undecided {
			later.Stop()
		}
		if err := s.link.pump(); err != nil {
			return nil, s.link.fail(err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changes:
			if h, err := s.tell(ctx, c); h != nil || err != nil {
				return h, err
			}
			later.Reset(quietTime)
		case <-later.C:
			if err := wake(c); err != nil {
				return nil, err
			}
		case got := <-c.next():
			c.waiting = false
			if errors.Is(got.err, io.EOF) {
				return nil, nil
			}
			if got.err != nil {
				return nil, got.err
			}
			if taken, err := c.takeAside(got.item); err != nil {
				return nil, s.link.fail(err)
			} else if taken {
				if h, err := s.tellArrived(ctx, c); h != nil || err != nil {
					return h, err
				}
				continue
			}
			switch it := got.item.(type) {
			case *item.Handshake:
				return it, nil
			case *item.Wake:
			case *item.Mailbox:
				if h, err := s.accept(ctx, c, it); h != nil || err != nil {
					return h, err
				}
				later.Reset(quietTime)
			case *item.Done:
				return nil, nil
			default:
				return nil, unexpected(it)
			}
		}
	}
}

// tellArrived pushes if the master has all of a body now.
func (s *Slave) tellArrived(ctx context.Context, c *conversation) (*item.Handshake, error) {
	if !s.link.arrived() {
		return nil, nil
	}
	return s.tell(ctx, c)
}

// tell pushes what changed here, or asks the master for a round if that cannot be pushed. A Handshake is returned if the master
// started one meanwhile.
func (s *Slave) tell(ctx context.Context, c *conversation) (*item.Handshake, error) {
	if s.link.h == nil {
		return nil, wake(c)
	}
	c.idle(false)
	defer c.idle(true)
	st, err := s.open(ctx)
	if err != nil {
		return nil, s.link.fail(err)
	}
	verdict, out, crossed, err := s.link.push(ctx, st, false)
	if err = errors.Join(err, st.Close()); err != nil {
		return nil, s.link.fail(err)
	}
	s.undecided = out.Undecided
	if verdict == NeedRound && !crossed.happened {
		return nil, wake(c)
	}
	return crossed.handshake, nil
}

// accept takes what the master pushed, and tells it what it found here when it looked. A Handshake is returned as by tell.
func (s *Slave) accept(ctx context.Context, c *conversation, first *item.Mailbox) (*item.Handshake, error) {
	out, err := s.take(ctx, c, first)
	if err != nil || !out.Untold {
		return nil, err
	}
	return s.tell(ctx, c)
}

func (s *Slave) take(ctx context.Context, c *conversation, first *item.Mailbox) (Outcome, error) {
	c.idle(false)
	defer c.idle(true)
	if s.link.h == nil {
		return Outcome{}, errNoPush
	}
	st, err := s.open(ctx)
	if err != nil {
		return Outcome{}, s.link.fail(err)
	}
	verdict, out, err := s.link.accept(ctx, st, first)
	s.undecided = s.undecided || out.Undecided  // a push is taken without a look at what vanished before
	out.Untold = out.Untold && verdict == Taken // else the master makes a round
	return out, errors.Join(err, st.Close())
}

// wake asks the master for a round.
func wake(c *conversation) error {
	if err := c.send(&item.Wake{}); err != nil {
		return err
	}
	return c.flush()
}

// round answers one round. live says that another may follow.
func (s *Slave) round(ctx context.Context, c *conversation, h *item.Handshake, watched bool) (live bool, err error) {
	r := &round{Options: s.o, h: h, peer: h, dir: directionOf(h, false), c: c, hurry: h.Hurry, link: s.link, thorough: h.Type == item.SyncFull}
	if c.isStock() {
		r.stock = &stock{told: make(map[mail.MailboxGUID]bool)}
	}
	live = r.ours() && h.Live && watched
	if err := r.serve(ctx, s.open, live); err != nil {
		return false, r.fail(err)
	}
	s.undecided = r.out.Undecided
	s.link.remember(r)
	f := &item.Finish{Desync: r.out.Desync, Changed: r.out.Changed, Matched: uint32(r.out.Matched), Undecided: r.out.Undecided, RequireFullResync: r.stock != nil && r.stock.needsFull}
	if h.DryRun && !h.Verify {
		f.Plan, f.New = strings.Join(r.out.Plan, "\n"), uint32(r.out.NewHere)
	}
	return live, r.sendNow(f)
}

func (r *round) serve(ctx context.Context, open func(context.Context) (store.Store, error), live bool) (err error) {
	if r.store, err = open(ctx); err != nil {
		return err
	}
	r.newBases = make(map[mail.MailboxGUID]store.State)
	r.agreed = make(map[mail.MailboxGUID]mail.ModSeq)
	r.refused = make(map[mail.MailboxGUID]struct{})
	defer func() {
		err = r.saveBases(context.WithoutCancel(ctx), err)
		err = errors.Join(err, r.store.Close())
	}()
	own := &item.Handshake{Hostname: r.Hostname, HashedHeaders: []string{}, Dsyncfs: r.version(), Live: live, Epoch: r.store.Epoch()}
	if err := r.sendNow(own); err != nil {
		return err
	}
	if err := r.checkRequest(); err != nil {
		return err
	}
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := r.refresh(ctx); err != nil {
		return err
	}
	if r.stock != nil {
		if r.stock.seen, err = r.store.Base(ctx, r.baseKey()); err != nil {
			return err
		}
	}
	if r.tellsStates() {
		if err := r.receiveStates(ctx); err != nil {
			return err
		}
	}
	if err := r.exchangeTrees(ctx); err != nil {
		return err
	}
	if err := list(ctx, r.c, "mailboxes", func(theirs *item.Mailbox) error { return r.answer(ctx, theirs) }); err != nil {
		return err
	}
	if err := r.carryFlags(ctx); err != nil {
		return err
	}
	return r.store.EndRound(ctx)
}

// checkRequest refuses what this side cannot do.
func (r *round) checkRequest() error {
	switch r.h.Type {
	case item.SyncFull, item.SyncChanged, item.SyncState:
	case 0:
		r.h.Type = item.SyncFull
	default:
		return fmt.Errorf("%w: sync type %q", ErrProtocol, r.h.Type)
	}
	if !r.h.SendMailRequests {
		return fmt.Errorf("%w: a master that does not ask for mails is not supported", ErrProtocol)
	}
	return nil
}

// fail tells the master why this side gives up. A stock master understands Done only, where a line may start.
func (r *round) fail(err error) error {
	if errors.Is(err, ErrPeer) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the master went away: %w", err)
	}
	if r.ours() {
		text := err.Error()
		if !strings.HasPrefix(text, r.Side) {
			text = r.Side + ": " + text
		}
		f := &item.Finish{Error: text, MailError: 1, Guard: errors.Is(err, guard.ErrMassExpunge)}
		if errors.Is(err, ErrLocked) {
			f.MailError = mailErrorInUse
		}
		r.lastWord(f)
	} else {
		r.lastWord(&item.Done{})
	}
	return err
}

// answer compares the mailbox that the master announced.
func (r *round) answer(ctx context.Context, theirs *item.Mailbox) error {
	guid, conflict := r.conflicting(theirs.GUID)
	if !conflict {
		guid = theirs.GUID
	}
	alias, renamed := r.aliases[guid]
	if renamed {
		guid = alias
	}
	mb, err := r.store.Open(ctx, guid)
	if errors.Is(err, store.ErrNotFound) {
		lost := &item.Mailbox{Status: mail.Status{GUID: theirs.GUID}, Lost: true}
		if r.dir == exportOnly && r.h.NoBackupOverwrite {
			lost.Lost, lost.Ignore = false, true
		}
		return r.sendNow(lost)
	}
	if err != nil {
		return err
	}
	x := r.newExchange(mb)
	defer x.close()
	if err := x.prepare(ctx); err != nil {
		return err
	}
	if renamed {
		x.own.GUID = theirs.GUID
	}
	if err := x.answerBase(theirs); err != nil {
		return err
	}
	if r.stock != nil {
		if err := x.takeGUID(ctx, theirs.GUID); err != nil {
			return err
		}
		if x.own.NoBase && r.stock.told[theirs.GUID] {
			r.stock.needsFull = true
			return r.sendNow(&item.Mailbox{Status: mail.Status{GUID: theirs.GUID}, Lost: true})
		}
		if err := x.insist(ctx, theirs); err != nil {
			return err
		}
	}
	if err := r.sendNow(x.own); err != nil {
		return err
	}
	if err := x.run(ctx, theirs); err != nil {
		return fmt.Errorf("mailbox %s: %w", mb.Name(), err)
	}
	return nil
}
