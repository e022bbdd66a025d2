package brain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Request is what the user wants of a round: the master's part of the handshake. Hostname, SendMailRequests and the fields
// of the extension that say who we are get filled in by the Master.
type Request = item.Handshake

// Master drives rounds over one connection.
type Master struct {
	o *Options
	c *conversation
	// live says that the other side keeps the connection and watches its store.
	live bool
	link *link
	// pushed is the begin of a push that was heard of and neither accepted nor thrown away yet.
	pushed *item.Mailbox
	// Hurry: the next round decides at once what became of mails that just vanished, as somebody waits for it.
	Hurry bool
	// Here: the next round leaves out mailboxes in which nothing happened here, with a slave that has to be asked about each.
	Here bool

	// Taken, if set, is called when the other side has made a whole push durable, before this side notes that it did: programs may
	// be waiting for the former.
	Taken func()

	begun bool // a round was
	lost  bool // see Lost
}

// NewMaster takes over the Peer.
func NewMaster(p Peer, o Options) *Master {
	c := newConversation(p)
	return &Master{o: &o, c: c, link: newLink(&o, c, true)}
}

// Close ends the connection. To a Dovecot that was not used it says so: else that takes it for an error.
func (m *Master) Close() error {
	if !m.begun && m.c.isStock() {
		_ = m.c.send(&item.Done{})
		_ = m.c.flush()
	}
	defer m.link.drop()
	return m.c.close()
}

// Stock reports whether the other side is no dsyncfs.
func (m *Master) Stock() bool { return m.c.isStock() }

// Lost reports whether the last round failed because the connection was gone before the other side heard of it.
func (m *Master) Lost() bool { return m.lost }

// Live reports whether another round can follow on this connection; known after the first.
func (m *Master) Live() bool { return m.live }

// Idle waits between two rounds until the other side says something: that its store changed (nil), or what changed, which
// Accept takes. Meanwhile it sends large bodies ahead; when one has arrived a Push is due (nil, too; see Woken). The error is
// that of ctx or of a lost connection.
func (m *Master) Idle(ctx context.Context) (*Push, error) {
	if m.c.woken {
		return nil, nil
	}
	m.c.idle(true)
	defer m.c.idle(false)
	for ctx.Err() == nil && !m.link.arrived() {
		if err := m.link.pump(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case got := <-m.c.next():
			m.c.waiting = false
			if got.err != nil {
				return nil, m.c.explain(fmt.Errorf("waiting for the other side: %w", unexpectedEOF(got.err)))
			}
			if taken, err := m.c.takeAside(got.item); err != nil {
				return nil, err
			} else if !taken {
				return m.hear(got.item)
			}
		}
	}
	return nil, context.Cause(ctx)
}

// hear says what an item between two rounds means.
func (m *Master) hear(it item.Item) (*Push, error) {
	switch it := it.(type) {
	case *item.Wake:
		m.c.woken = true
		return nil, nil
	case *item.Mailbox:
		m.pushed = it
		return &Push{}, nil
	case *item.Finish:
		return nil, cmp.Or(finishError(it), unexpected(it))
	default:
		return nil, unexpected(it)
	}
}

// Ahead reports whether a large body is on its way to the other side, between pushes.
func (m *Master) Ahead() bool { return m.link.out != nil }

// Push says that the other side pushes what changed there.
type Push struct{}

// Woken reports whether the other side changed in a way that only a round can tell.
func (m *Master) Woken() bool { return m.c.woken }

// Accept takes what the other side pushed. With NeedRound the other side waits for a round. A push that is not accepted is void
// with the next Push or Round.
func (m *Master) Accept(ctx context.Context, s store.Store) (Verdict, Outcome, error) {
	first := m.pushed
	if m.pushed = nil; first == nil {
		return Settled, Outcome{}, nil
	}
	verdict, out, err := m.link.accept(ctx, s, first)
	return verdict, out, m.c.explain(err)
}

// Push tells the other side what changed in s since the last common states, if that can be told without a round.
func (m *Master) Push(ctx context.Context, s store.Store) (Verdict, Outcome, error) {
	if m.pushed != nil {
		return NeedRound, Outcome{}, nil
	}
	m.link.taken = m.Taken
	verdict, out, _, err := m.link.push(ctx, s, m.Hurry)
	return verdict, out, m.c.explain(err)
}

// Round carries out one round with s as the local store. The Outcome counts also when there is an error: what was done
// before it stays done.
func (m *Master) Round(ctx context.Context, s store.Store, req Request) (Outcome, error) {
	m.begun = true
	req.Hostname = m.o.Hostname
	req.SendMailRequests = true
	req.Dsyncfs, req.Live, req.Hurry, req.Epoch = m.o.version(), m.o.Live, m.Hurry, s.Epoch()
	if len(req.HashedHeaders) == 0 {
		req.HashedHeaders = []string{"Date", "Message-ID"}
	}
	r := &round{
		Options: m.o, h: &req, master: true, dir: directionOf(&req, true), store: s, c: m.c, link: m.link,
		newBases: make(map[mail.MailboxGUID]store.State), agreed: make(map[mail.MailboxGUID]mail.ModSeq), hurry: m.Hurry, here: m.Here, thorough: req.Type == item.SyncFull,
	}
	err := m.run(ctx, r)
	m.c.woken = false // a wake that came in was sent before the slave heard of this round, which looks at everything anyway
	if err != nil {
		var sending *sendError
		m.lost = r.peer == nil && (errors.As(err, &sending) || errors.Is(err, io.ErrUnexpectedEOF))
		err = m.c.explain(r.reason(ctx, err))
		return r.out, r.saveBases(context.WithoutCancel(ctx), err)
	}
	m.link.remember(r)
	return r.out, nil
}

func (m *Master) run(ctx context.Context, r *round) error {
	if m.c.isStock() {
		r.stock = &stock{}
		if err := r.fitToStock(ctx); err != nil {
			return err
		}
	}
	unlock, err := m.meet(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	m.live = r.ours() && r.h.Live && r.peer.Live
	r.out.Peer = r.baseKey()
	if err := r.loadBases(ctx); err != nil {
		return r.abort(err)
	}
	if r.tellsStates() {
		if r.stock != nil {
			if err := r.chooseStates(ctx); err != nil {
				return r.abort(err)
			}
		}
		if err := r.sendStates(); err != nil {
			return err
		}
	}
	if err := r.exchangeTrees(ctx); err != nil {
		return r.abort(r.lockedThere(err))
	}
	if err := r.announceMailboxes(ctx); err != nil {
		return r.abort(err)
	}
	return r.finish(ctx, m.live)
}

// meet exchanges handshakes and brings what is known of the own store up to date, under the lock of the user's syncs if
// that was asked for.
func (m *Master) meet(ctx context.Context, r *round) (unlock func(), err error) {
	if err := m.dropPush(ctx, r); err != nil {
		return nil, err
	}
	if err := r.sendNow(r.h); err != nil {
		return nil, err
	}
	if r.h.LockTimeout == 0 { // the slave refreshes its store while we refresh ours
		if err := r.refresh(ctx); err != nil {
			return nil, r.abort(err)
		}
	}
	if r.peer, err = r.peerHandshake(ctx); err != nil {
		return nil, err
	}
	if unlock, err = r.lock(ctx); err != nil {
		return nil, r.abort(err)
	}
	if r.h.LockTimeout > 0 {
		if err := r.refresh(ctx); err != nil {
			unlock()
			return nil, r.abort(err)
		}
	}
	return unlock, nil
}

// dropPush reads to its end a push that was not accepted. The slave hears of the round instead of an answer.
func (m *Master) dropPush(ctx context.Context, r *round) error {
	first := m.pushed
	if m.pushed = nil; first == nil {
		return nil
	}
	return r.drainPush(ctx, first)
}

// sendNow sends items and flushes.
func (r *round) sendNow(items ...item.Item) error {
	if err := r.c.send(items...); err != nil {
		return err
	}
	return r.c.flush()
}

// reason returns what the other side said when it went away, if err is that it did not listen to us any more.
func (r *round) reason(ctx context.Context, err error) error {
	var sending *sendError
	if !errors.As(err, &sending) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, lastWordTime)
	defer cancel()
	for {
		it, rerr := r.c.recv(ctx)
		if rerr != nil {
			return err
		}
		if f, last := it.(*item.Finish); last {
			return cmp.Or(finishError(f), err)
		}
	}
}

// abort tells the other side that this one gives up, unless it is the connection that failed.
func (r *round) abort(err error) error {
	var sending *sendError
	if errors.As(err, &sending) {
		return err // see reason
	}
	if !errors.Is(err, ErrPeer) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrProtocol) {
		r.lastWord(&item.Done{})
	}
	return err
}

// lastWordTime bounds how long a side that gave up tries to say so.
const lastWordTime = 5 * time.Second

// lastWord sends an item and meanwhile throws away what comes in, as the other side may wait for us to read. That it could
// not be sent is no error: the one that led here counts.
func (r *round) lastWord(it item.Item) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_ = r.sendNow(it)
	}()
	timer := time.NewTimer(lastWordTime)
	defer timer.Stop()
	for {
		select {
		case <-sent:
			return
		case <-timer.C:
			r.c.peer.Close()
			<-sent
			return
		case got := <-r.c.next():
			r.c.waiting = false
			if got.err != nil {
				<-sent // an ended connection does not keep a writer waiting
				return
			}
		}
	}
}

// finish ends the last list, makes everything durable here and hears how the slave fared.
func (r *round) finish(ctx context.Context, live bool) error {
	if !r.ended {
		if err := r.sendNow(&item.EndOfList{}); err != nil {
			return err
		}
	}
	if err := r.carryFlags(ctx); err != nil {
		return err
	}
	if err := r.store.EndRound(ctx); err != nil {
		return err
	}
	f, err := expect[*item.Finish](ctx, r.c, "the result")
	if err != nil {
		return err
	}
	if err := finishError(f); err != nil {
		return err
	}
	if f.RequireFullResync && r.stock == nil { // a Dovecot said already for which mailbox
		clear(r.newBases)
	}
	if f.Desync || f.RequireFullResync {
		r.out.Desync = true
	}
	r.out.Changed = r.out.Changed || f.Changed
	r.out.Undecided = r.out.Undecided || f.Undecided
	r.out.NewThere += int(f.New)
	r.out.Matched += int(f.Matched)
	if f.Plan != "" {
		r.out.Plan = append(r.out.Plan, strings.Split(f.Plan, "\n")...)
	}
	if !live {
		r.awaitEnd(ctx)
	}
	return r.saveBases(ctx, nil)
}

// awaitEnd hears the slave's last word. It waits for us to close then.
func (r *round) awaitEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		it, err := r.c.recv(ctx)
		if _, done := it.(*item.Done); done || err != nil {
			return
		}
	}
}

// GuardError is an error of the other side's deletion guard.
type GuardError struct{ Text string }

func (e *GuardError) Error() string { return e.Text }

// Unwrap makes it an error of the peer.
func (e *GuardError) Unwrap() error { return ErrPeer }

func finishError(f *item.Finish) error {
	switch {
	case f.Error == "":
		return nil
	case f.Guard:
		return &GuardError{f.Error}
	}
	return &PeerError{f.Error, f.MailError == mailErrorInUse}
}

// PeerError is any other error that the other side reported, in its own words. Those of a dsyncfs name it.
type PeerError struct {
	Text   string
	Locked bool // it wraps ErrLocked
}

func (e *PeerError) Error() string { return e.Text }

// Unwrap makes it an error of the peer.
func (e *PeerError) Unwrap() []error {
	if e.Locked {
		return []error{ErrPeer, ErrLocked}
	}
	return []error{ErrPeer}
}

// announceMailboxes goes through the own tree and compares what may differ.
func (r *round) announceMailboxes(ctx context.Context) error {
	if r.h.NoMailSync {
		return nil
	}
	var todo []mail.Mailbox
	for _, box := range r.local {
		if box.Existence == mail.Exists && !box.Status.GUID.IsZero() && !r.settled(box) {
			todo = append(todo, box)
		}
	}
	if i := slices.IndexFunc(todo, func(b mail.Mailbox) bool { return b.Name == mail.Inbox }); i > 0 {
		inbox := todo[i] // comes first: somebody may be waiting for it
		copy(todo[1:], todo[:i])
		todo[0] = inbox
	}
	r.boxesTotal = len(todo)
	for _, box := range todo {
		if err := r.visit(ctx, box); err != nil {
			return fmt.Errorf("mailbox %s: %w", box.Name, err)
		}
		if r.ended {
			break
		}
	}
	return nil
}

// settled reports whether both sides' numbers are those of the last common state: nothing can differ then. A Dovecot does
// not tell its numbers in the tree, so with it every mailbox is announced.
func (r *round) settled(box mail.Mailbox) bool {
	base, known := r.bases[box.Status.GUID]
	node, there := r.remote[box.Status.GUID]
	return r.ours() && r.h.Type == item.SyncState && known && there && !r.restores(box.Name) &&
		base.RemoteEpoch == r.peer.Epoch &&
		base.UIDValidity == box.Status.UIDValidity && base.UIDValidity == node.uidValidity &&
		base.Local == store.NumbersOf(box.Status) && base.Remote == node.numbers
}

// visit compares a mailbox, or hears that there is no need to.
func (r *round) visit(ctx context.Context, box mail.Mailbox) error {
	if r.untouched(box) {
		if r.here {
			return nil
		}
		if quiet, err := r.glance(ctx, box); err != nil || quiet {
			return err
		}
	}
	if r.mayBeCopy(box) {
		var err error
		if box, err = r.adopt(ctx, box); err != nil {
			return err
		}
	}
	return r.announce(ctx, box)
}

func (r *round) announce(ctx context.Context, box mail.Mailbox) error {
	mb, err := r.store.Open(ctx, box.Status.GUID)
	if errors.Is(err, store.ErrNotFound) {
		r.desync(fmt.Sprintf("%s: mailbox %s went away meanwhile", r.Side, box.Name))
		return nil
	}
	if err != nil {
		return err
	}
	x := r.newExchange(mb)
	defer x.close()
	if err := x.prepare(ctx); err != nil {
		return err
	}
	if r.unusable(x) {
		r.desync(fmt.Sprintf("%s: the last common state of mailbox %s does not fit any more", r.Side, box.Name))
		r.doubt(box.Status.GUID)
		return nil
	}
	theirs, err := x.announce(ctx)
	if err != nil {
		return err
	}
	if theirs.Lost || theirs.Ignore {
		if theirs.Lost && !r.h.DryRun {
			r.desync(fmt.Sprintf("%s: the other side does not have mailbox %s as expected", r.Side, box.Name))
			r.doubt(box.Status.GUID)
		}
		if r.h.DryRun {
			r.out.NewThere += int(box.Status.Messages)
		}
		return nil
	}
	if err := x.checkInboxWhole(theirs); err != nil {
		return err
	}
	return x.run(ctx, theirs)
}

// announce tells the slave of the mailbox and returns its answer.
func (x *exchange) announce(ctx context.Context) (*item.Mailbox, error) {
	if x.r.stock != nil {
		return x.announceTo(ctx)
	}
	if err := x.r.sendNow(x.own); err != nil {
		return nil, err
	}
	return expect[*item.Mailbox](ctx, x.r.c, "the answer to a mailbox")
}
