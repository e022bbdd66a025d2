package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"

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
)

// fetcher brings single mails over a connection of its own, one after the other.
type fetcher struct {
	dial    func(context.Context) (*brain.Viewer, error)
	dir     string // for what is fetched
	offline func() bool
	log     *slog.Logger
	life    context.Context // ends with close
	end     context.CancelFunc

	turn   chan struct{} // guards what follows
	viewer *brain.Viewer // nil: not connected
	down   time.Time     // when the remote was last found to be away
	cause  error         // why
}

func newFetcher(o Options, dir string, offline func() bool) *fetcher {
	f := &fetcher{dial: o.View, dir: dir, offline: offline, log: o.Logger, turn: make(chan struct{}, 1)}
	f.life, f.end = context.WithCancel(context.Background())
	return f
}

// take waits for the turn.
func (f *fetcher) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// look connects and hands out what the remote has; see brain.Viewer.Look. The error is errNoPreview if it does not tell that.
func (f *fetcher) look(ctx context.Context, tree func(peer string, nodes []*item.Node) error, mails func(mail.Status, []mail.Message) error) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer func() { <-f.turn }()
	v, err := f.dial(ctx)
	if errors.Is(err, remote.ErrNotFound) {
		return fmt.Errorf("%w: %w", errNoPreview, err)
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, v.Abort)
	defer stop()
	if v.Stock() {
		return errors.Join(errNoPreview, v.Close())
	}
	err = v.Look(ctx, func(nodes []*item.Node) error { return tree(v.PeerName(), nodes) }, mails)
	if err != nil {
		return errors.Join(err, v.Close())
	}
	f.viewer = v
	return nil
}

// fetch returns a mail in a file without a name. The error has been logged.
func (f *fetcher) fetch(ctx context.Context, box mail.Name, guid mail.GUID, size int64) (_ *os.File, err error) {
	if err := f.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-f.turn }()
	file, err := f.fetchNow(ctx, box, guid, size)
	if err != nil {
		f.complain(box, guid, err)
	}
	return file, err
}

// complain logs why a mail cannot be had, once for all that cannot be had for the same reason.
func (f *fetcher) complain(box mail.Name, guid mail.GUID, err error) {
	level := slog.LevelDebug
	if f.cause == nil || err.Error() != f.cause.Error() {
		level = slog.LevelWarn
	}
	f.cause = err
	f.log.Log(context.Background(), level, "a mail that is not here yet cannot be read", "mailbox", box, "mail", guid, "err", err)
}

func (f *fetcher) fetchNow(ctx context.Context, box mail.Name, guid mail.GUID, size int64) (_ *os.File, err error) {
	if err := f.connect(); err != nil {
		return nil, err
	}
	file, err := nameless(f.dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	v := f.viewer
	stalled := make(chan struct{})
	timer := time.AfterFunc(stallTime, func() { close(stalled); v.Abort() })
	defer timer.Stop()
	stop := context.AfterFunc(f.life, v.Abort)
	defer stop()
	got := int64(-1)
	err = v.Body(ctx, box, guid, func(r io.Reader) (err error) {
		got, err = io.Copy(file, io.LimitReader(&progressReader{r, timer}, size+1))
		return err
	})
	switch {
	case err != nil:
		select {
		case <-stalled:
			err = fmt.Errorf("the remote says nothing for %s: %w", stallTime, errAway)
		default:
		}
		f.lose(err)
		return nil, err
	case got < 0:
		return nil, errors.New("the remote does not have it any more")
	case got != size:
		return nil, fmt.Errorf("the remote sent %d bytes, and had said that it has %d", got, size)
	}
	f.cause = nil
	return file, nil
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
func (f *fetcher) connect() error {
	switch {
	case f.viewer != nil:
		return nil
	case f.life.Err() != nil:
		return errEnding
	case f.offline():
		return errAway
	case time.Since(f.down) < downTime:
		return fmt.Errorf("%w: %w", errAway, f.cause)
	}
	ctx, cancel := context.WithTimeout(f.life, redialTime)
	defer cancel()
	v, err := f.dial(ctx)
	if err == nil {
		stop := context.AfterFunc(ctx, v.Abort)
		if err = v.Meet(ctx); err != nil {
			err = errors.Join(err, v.Close())
		}
		stop()
	}
	if err != nil {
		f.down = time.Now()
		return err
	}
	f.viewer = v
	return nil
}

// lose gives up the connection.
func (f *fetcher) lose(err error) {
	f.down = time.Now()
	if cerr := f.viewer.Close(); cerr != nil {
		f.log.Debug("closing the connection for single mails", "err", cerr)
	}
	f.viewer = nil
	f.log.Debug("the connection for single mails is lost", "err", err)
}

// close ends the connection. Who waits for a mail gets an error.
func (f *fetcher) close() {
	f.end()
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	if f.viewer != nil {
		f.lose(errors.New("not needed any more"))
	}
}

// nameless makes a file that goes away with its last descriptor.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, "fetched-"); err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
