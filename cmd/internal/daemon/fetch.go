package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"dsyncfs/fusefs"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/remote"
)

const (
	// stallTime bounds how long a mail that is being fetched may make no progress. It comes over a link that the first round
	// fills at the same time.
	stallTime = 30 * time.Second
	// redialTime bounds how long a program waits for a connection.
	redialTime = 5 * time.Second
	// downTime is how long programs are told at once that the remote is away, after that was found out.
	downTime = time.Second
)

var (
	errNoPreview = errors.New("the remote is no dsyncfs, or an older one")
	errAway      = errors.New("the remote is away")
	errGone      = errors.New("the remote does not have it any more")
)

// How much is fetched ahead of a program at most: twice as much each time that it read what had been, else aheadLeast mails again. Who
// wants another mail waits for it.
const (
	aheadLeast = 2
	aheadMails = 32
	aheadBytes = 256 << 10
)

// fetcher brings single mails over connections of their own. While a program has one mail, those that follow it in the listing
// are on their way: readAhead asks for them and keeps them.
type fetcher struct {
	dial    func(context.Context) (*brain.Viewer, error)
	dir     string // for what is fetched
	offline func() bool
	log     *slog.Logger
	kept    *keptMails
	life    context.Context // ends with close
	end     context.CancelFunc
	hints   chan hint     // for readAhead
	ended   chan struct{} // closed when that has ended

	small, large *lane
}

// lane is a connection with what is asked for over it. What is larger than is ever fetched ahead has one of its own, which is made when
// it is needed, so that nobody who wants a small mail waits for a large one.
type lane struct {
	*fetcher
	turn   chan struct{} // guards what follows
	viewer *brain.Viewer // nil: not connected
	asked  []wanted      // of it, and not taken
	down   time.Time     // when the remote was last found to be away
	cause  error         // why
}

// wanted is a mail that is to be fetched.
type wanted struct {
	box  mail.Name
	guid mail.GUID
	size int64
}

// hint is where a program reads.
type hint struct {
	box  mail.Name
	next func(int) []fusefs.Following
	hit  bool // what it read had been fetched ahead
}

func newFetcher(o Options, dir string, offline func() bool) *fetcher {
	f := &fetcher{
		dial: o.View, dir: dir, offline: offline, log: o.Logger, kept: newKeptMails(dir),
		hints: make(chan hint, 1), ended: make(chan struct{}),
	}
	f.small, f.large = &lane{fetcher: f, turn: make(chan struct{}, 1)}, &lane{fetcher: f, turn: make(chan struct{}, 1)}
	f.life, f.end = context.WithCancel(context.Background())
	go f.readAhead()
	return f
}

func (f *fetcher) laneOf(w wanted) *lane {
	if w.size > aheadBytes {
		return f.large
	}
	return f.small
}

// take waits for the turn.
func (l *lane) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look connects and hands out what the remote has; see brain.Viewer.Look. A Dovecot, which does not tell that, is left to stock.
// The error is errNoPreview if nothing is to be had, errAway if there is no connection.
func (f *fetcher) look(ctx context.Context, tree func(peer string, nodes []*item.Node) error, mails func(mail.Status, []mail.Message) error, stock func(*brain.Viewer) error) error {
	if err := f.small.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.small.turn }()
	v, err := f.dial(ctx)
	if errors.Is(err, remote.ErrNotFound) {
		return fmt.Errorf("%w: %w", errNoPreview, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	stop := context.AfterFunc(ctx, v.Abort)
	defer stop()
	if v.Stock() {
		return errors.Join(stock(v), v.Close())
	}
	err = v.Look(ctx, func(nodes []*item.Node) error { return tree(v.PeerName(), nodes) }, mails)
	if err != nil {
		return errors.Join(err, v.Close())
	}
	f.small.viewer = v
	return nil
}

// fetch returns a mail in a file without a name. The error has been logged.
func (f *fetcher) fetch(ctx context.Context, w wanted, next func(int) []fusefs.Following) (*os.File, error) {
	file, err := f.kept.open(w.box, w.guid, w.size)
	hit := file != nil
	if !hit && err == nil {
		l := f.laneOf(w)
		if err := l.take(ctx); err != nil {
			return nil, err
		}
		if err = l.bring(ctx, w); err != nil {
			l.complain(w, err)
		}
		<-l.turn
		if err == nil {
			file, err = f.kept.open(w.box, w.guid, w.size)
		}
	}
	if err != nil {
		return nil, err
	}
	if file == nil {
		return nil, errors.New("what was fetched is gone again")
	}
	select {
	case f.hints <- hint{w.box, next, hit}:
	default: // there is enough to do
	}
	return file, nil
}

// complain logs why a mail cannot be had, once for all that cannot be had for the same reason.
func (l *lane) complain(w wanted, err error) {
	level := slog.LevelDebug
	if l.cause == nil || err.Error() != l.cause.Error() {
		level = slog.LevelWarn
	}
	l.cause = err
	l.log.Log(context.Background(), level, "a mail that is not here yet cannot be read", "mailbox", w.box, "mail", w.guid, "err", err)
}

// bring sees to it that a mail is kept. The caller has the turn.
func (l *lane) bring(ctx context.Context, w wanted) error {
	if l.has(w) {
		return nil // it was fetched ahead meanwhile
	}
	if err := l.connect(); err != nil {
		return err
	}
	if !slices.Contains(l.asked, w) {
		if err := l.ask(w); err != nil {
			return err
		}
	}
	for {
		got, err := l.takeNext(ctx)
		if got == w || l.viewer == nil {
			return err
		}
	}
}

func (f *fetcher) has(w wanted) bool {
	file, s := f.kept.find(w.box, w.guid)
	return file != nil && s.size == w.size
}

// ask asks for a mail. The caller has the turn, and there is a connection.
func (l *lane) ask(w wanted) error {
	if err := l.viewer.Ask(w.box, w.guid); err != nil {
		l.lose(err)
		return err
	}
	l.asked = append(l.asked, w)
	return nil
}

// takeNext keeps the next mail that was asked for. The connection is lost with an error that is about more than that mail. The
// caller has the turn.
func (l *lane) takeNext(ctx context.Context) (w wanted, err error) {
	w, l.asked = l.asked[0], l.asked[1:]
	v := l.viewer
	stalled := make(chan struct{})
	timer := time.AfterFunc(stallTime, func() { close(stalled); v.Abort() })
	defer timer.Stop()
	stop := context.AfterFunc(l.life, v.Abort)
	defer stop()
	there := false
	err = v.Take(ctx, w.guid, func(r io.Reader) error {
		there = true
		return l.keep(w, &progressReader{r, timer})
	})
	switch {
	case err != nil:
		select {
		case <-stalled:
			err = fmt.Errorf("the remote says nothing for %s: %w", stallTime, errAway)
		default:
		}
		l.lose(err)
		return w, err
	case !there:
		return w, errGone
	}
	l.cause = nil
	return w, nil
}

// keep keeps a mail that comes. A large one is received first: mails are kept one after the other.
func (l *lane) keep(w wanted, r io.Reader) error {
	if l == l.large {
		file, err := nameless(l.dir)
		if err != nil {
			return err
		}
		defer file.Close()
		n, err := io.Copy(file, io.LimitReader(r, w.size+1))
		if err != nil {
			return err
		}
		r = io.NewSectionReader(file, 0, n)
	}
	return l.kept.add(w.box, w.guid, w.size, r)
}

// readAhead fetches what follows the mails that programs read, until the end of f.
func (f *fetcher) readAhead() {
	defer close(f.ended)
	mails := aheadLeast
	for {
		select {
		case <-f.life.Done():
			return
		case h := <-f.hints:
			if mails = min(2*mails, aheadMails); !h.hit {
				mails = aheadLeast
			}
			if err := f.small.take(f.life); err != nil {
				return
			}
			if err := f.small.follow(h, mails); err != nil {
				f.log.Debug("reading ahead", "mailbox", h.box, "err", err)
			}
			<-f.small.turn
		}
	}
}

// follow asks for so many mails after a place in a listing and keeps them. The caller has the turn.
func (l *lane) follow(h hint, mails int) error {
	if l.viewer == nil {
		return nil // a program that wants something finds out why
	}
	bytes := int64(0)
	for _, m := range h.next(mails) {
		w := wanted{h.box, mail.GUID(m.Base), m.Size}
		if bytes += w.size; bytes > aheadBytes {
			break
		}
		if l.has(w) || slices.Contains(l.asked, w) {
			continue
		}
		if err := l.ask(w); err != nil {
			return err
		}
	}
	for len(l.asked) > 0 {
		if _, err := l.takeNext(l.life); err != nil && l.viewer == nil {
			return err
		}
	}
	return nil
}

// progressReader postpones the end of patience with everything that comes.
type progressReader struct {
	r     io.Reader
	timer *time.Timer
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.timer.Reset(stallTime)
	}
	return n, err
}

// connect makes a connection unless there is one. A remote that was just found to be away is not asked again.
func (l *lane) connect() error {
	switch {
	case l.viewer != nil:
		return nil
	case l.life.Err() != nil:
		return errEnding
	case l.offline():
		return errAway
	case time.Since(l.down) < downTime:
		return fmt.Errorf("%w: %w", errAway, l.cause)
	}
	ctx, cancel := context.WithTimeout(l.life, redialTime)
	defer cancel()
	v, err := l.dial(ctx)
	if err == nil && v.Stock() {
		err = errors.Join(errNoPreview, v.Close())
	}
	if err == nil {
		stop := context.AfterFunc(ctx, v.Abort)
		if err = v.Meet(ctx); err != nil {
			err = errors.Join(err, v.Close())
		}
		stop()
	}
	if err != nil {
		l.down = time.Now()
		return err
	}
	l.viewer = v
	return nil
}

// lose gives up the connection.
func (l *lane) lose(err error) {
	l.down = time.Now()
	if cerr := l.viewer.Close(); cerr != nil {
		l.log.Debug("closing the connection for single mails", "err", cerr)
	}
	l.viewer, l.asked = nil, nil
	l.log.Debug("the connection for single mails is lost", "err", err)
}

// close ends the connections. Who waits for a mail gets an error.
func (f *fetcher) close() {
	f.end()
	<-f.ended
	for _, l := range []*lane{f.small, f.large} {
		l.turn <- struct{}{}
		if l.viewer != nil {
			l.lose(errors.New("not needed any more"))
		}
		<-l.turn
	}
	f.kept.clear()
}
