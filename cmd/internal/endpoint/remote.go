package endpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/brain"
	"dsyncfs/remote"
	"dsyncfs/remote/command"
	"dsyncfs/remote/dsync"
)

// Remote is the other end of a pair, as a dialer of peers. The connection to a host is kept between rounds.
type Remote struct {
	Location remote.Location
	// Name is how errors and log lines name it.
	Name string

	cfg    *config.Config
	log    *slog.Logger
	local  *Local // a second location on this machine; else nil
	slave  brain.Options
	errout io.Writer // for what the other end has to say
	dir    string    // where its command was given, as a daemon goes elsewhere
	dialer remote.Dialer
	cmd    []string
	stock  stockServer

	starting sync.Mutex // one start at a time; taken before mu

	mu      sync.Mutex
	session remote.Session
	used    bool                        // something was started over it
	views   map[remote.Session]struct{} // of previews
}

// RemoteOptions are what a Remote needs besides its location.
type RemoteOptions struct {
	MayCreate bool          // a local second location may be created
	Slave     brain.Options // of the brain of a local second location
	Ask       bool          // the user may be asked at the terminal
	Stderr    io.Writer     // for what the other end writes to its standard error
	Log       *slog.Logger
}

// NewRemote prepares the other end. Nothing is dialed yet.
func NewRemote(cfg *config.Config, loc remote.Location, o RemoteOptions) (*Remote, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir, err = "", nil // it was removed; absolute paths still work
	}
	r := &Remote{Location: loc, cfg: cfg, log: o.Log, slave: o.Slave, errout: o.Stderr, dir: dir, views: make(map[remote.Session]struct{})}
	switch loc.Kind {
	case remote.KindSSH:
		r.Name = loc.Host
		r.cmd = loc.ServerCommand(strings.Fields(strings.TrimSuffix(cfg.ServerCmd, " dsync-server"))...)
		r.dialer, err = r.sshDialer(o)
		if len(loc.Command) == 0 && cfg.RemoteCmd == "" && cfg.ServerCmd == config.Default().ServerCmd {
			r.stock.offer(loc)
		}
	case remote.KindCommand:
		r.Name = filepath.Base(loc.Command[0])
		r.cmd = loc.Command
		r.dialer = command.New(command.Options{Host: r.Name, Stderr: r.stderr, Dir: dir})
	default:
		r.Name = loc.String()
		r.slave.Side = loc.String()
		r.slave.Spool = nil // a body is handed over as it is
		r.local, err = OpenLocal(cfg, loc, o.MayCreate, o.Log)
	}
	return r, err
}

// stderr shows what the other end has to say, with its name.
func (r *Remote) stderr(line string) {
	if r.stock.hides(line) {
		r.log.Debug("remote", "host", r.Name, "stderr", line)
		return
	}
	fmt.Fprintf(r.errout, "%s: %s\n", r.Name, line)
}

func (r *Remote) sshDialer(o RemoteOptions) (remote.Dialer, error) {
	if r.cfg.RemoteCmd != "" {
		return r.templateDialer(), nil
	}
	if r.cfg.SSHCommand != "" {
		return command.SSH(command.SSHOptions{
			Options: command.Options{Host: r.Location.Host, Stderr: r.stderr, Terminal: o.Ask, Dir: r.dir},
			Program: strings.Fields(r.cfg.SSHCommand), Login: r.Location.Login, Port: r.Location.Port,
		})
	}
	return newSSHDialer(r, o)
}

// templateDialer runs dsync_remote_cmd with its variables filled in (dovecot 2.3 doveadm-dsync.c: parse_ssh_location).
func (r *Remote) templateDialer() remote.Dialer {
	vars := strings.NewReplacer(
		"%{login}", r.Location.Login, "%{host}", r.Location.Host, "%{user}", r.Location.User, "%u", r.Location.User,
	)
	var words []string
	for _, w := range strings.Fields(r.cfg.RemoteCmd) {
		filled := vars.Replace(w)
		if filled != w && (filled == "-l" || filled == "-u" || filled == "") {
			continue // a prefix with nothing to go with it
		}
		words = append(words, filled)
	}
	r.cmd = words
	return command.New(command.Options{Host: r.Location.Host, Stderr: r.stderr, Dir: r.dir})
}

// Dial returns a Peer on which a slave answers.
func (r *Remote) Dial(ctx context.Context) (brain.Peer, error) {
	if r.local != nil {
		return r.dialLocal(ctx)
	}
	peer, err := r.dialStream(ctx)
	if errors.Is(err, remote.ErrNotFound) && r.stock.take(&r.cmd) {
		if peer, err = r.dialStream(ctx); errors.Is(err, remote.ErrNotFound) {
			err = fmt.Errorf("neither dsyncfs nor doveadm is there: %w", err)
		}
	}
	if err != nil {
		return nil, err
	}
	r.stock.withdraw()
	return peer, nil
}

// View returns a preview of the other end, on a connection of its own: on that of the rounds, what it asks for would have to wait
// behind all that is on its way there. If no round has used the kept connection yet, it takes that.
func (r *Remote) View(ctx context.Context) (*brain.Viewer, error) {
	if r.local != nil {
		peer, err := r.dialLocal(ctx)
		return brain.NewViewer(peer), err
	}
	s, err := r.takeSession(ctx)
	if err != nil {
		return nil, err
	}
	end := r.view(s)
	peer, err := r.onStream(ctx, func() (remote.Conn, error) { return startStream(ctx, s, r.cmd) })
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return brain.NewViewer(&viewPeer{peer, end}), nil
}

// view has a connection probed until end, which closes it.
func (r *Remote) view(s remote.Session) (end func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views[s] = struct{}{}
	return func() error {
		r.mu.Lock()
		delete(r.views, s)
		r.mu.Unlock()
		return s.Close()
	}
}

// takeSession returns the kept connection, which is kept no more, or makes one.
func (r *Remote) takeSession(ctx context.Context) (remote.Session, error) {
	var s remote.Session
	r.mu.Lock()
	if !r.used {
		s, r.session = r.session, nil
	}
	r.mu.Unlock()
	if s != nil {
		select {
		case <-s.Done():
			s.Close()
		default:
			return s, nil
		}
	}
	return r.dialer.Dial(ctx)
}

// viewPeer ends its connection when it is closed.
type viewPeer struct {
	*streamPeer
	end func() error
}

func (p *viewPeer) Close() error { return errors.Join(p.streamPeer.Close(), p.end()) }

// dialStream starts the remote program and exchanges greetings with it.
func (r *Remote) dialStream(ctx context.Context) (*streamPeer, error) {
	return r.onStream(ctx, func() (remote.Conn, error) { return r.start(ctx) })
}

// onStream is dialStream for a program that start starts.
func (r *Remote) onStream(ctx context.Context, start func() (remote.Conn, error)) (*streamPeer, error) {
	conn, err := start()
	if err != nil {
		return nil, err
	}
	p := dsync.NewPeer(gentleConn{conn}, dsync.Options{Name: r.Name, Timeout: r.cfg.Timeout, Logger: r.log, Compress: Compression(r.cfg)})
	peer := &streamPeer{Peer: p, name: r.Name, conn: conn}
	if err := p.Handshake(ctx); err != nil {
		err = peer.explain(err)
		return nil, errors.Join(err, peer.Close())
	}
	return peer, nil
}

// Compression is the setting of that name. A Dovecot never hears of it.
func Compression(cfg *config.Config) dsync.Compression {
	switch cfg.Compress {
	case "yes":
		return dsync.CompressAlways
	case "no":
		return dsync.CompressNever
	}
	return dsync.CompressSlow
}

// start runs the remote command over the kept connection, which is made anew if it was lost.
func (r *Remote) start(ctx context.Context) (remote.Conn, error) {
	r.starting.Lock()
	defer r.starting.Unlock()
	s := r.keptSession()
	if s == nil {
		var err error
		if s, err = r.dialer.Dial(ctx); err != nil {
			return nil, err
		}
		r.keep(s)
	}
	return startStream(ctx, s, r.cmd)
}

// keptSession returns the kept connection, which is used from now on; nil if there is none.
func (r *Remote) keptSession() remote.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil {
		return nil
	}
	select {
	case <-r.session.Done():
		r.session.Close()
		r.session = nil
	default:
		r.used = true
	}
	return r.session
}

func (r *Remote) keep(s remote.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.session, r.used = s, true
}

// startStream runs a command whose stream outlives the call, which ctx bounds: it ends with its Close.
func startStream(ctx context.Context, s remote.Session, cmd []string) (remote.Conn, error) {
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	conn, err := s.Start(life, cmd)
	if err != nil {
		stop()
		end(nil)
		return nil, err
	}
	c := &stream{conn, end}
	if !stop() {
		return nil, errors.Join(context.Cause(ctx), c.Close())
	}
	return c, nil
}

// stream is a Conn whose context ends with it.
type stream struct {
	remote.Conn
	end context.CancelCauseFunc
}

func (s *stream) Close() error {
	defer s.end(nil)
	return s.Conn.Close()
}

// probeTime is how long a peer may take to answer after the network changed.
const probeTime = 3 * time.Second

// Probe finds out, without waiting, whether the connections there are and those being made still get answers, if that can be asked.
// One that does not ends.
func (r *Remote) Probe() {
	probe := func(what any) {
		if p, ok := what.(remote.Prober); ok {
			p.Probe(probeTime)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	probe(r.dialer)
	probe(r.session)
	for s := range r.views {
		probe(s)
	}
}

// Close ends the connection.
func (r *Remote) Close() error {
	r.starting.Lock()
	defer r.starting.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.local != nil {
		return r.local.Close()
	}
	if r.session == nil {
		return nil
	}
	err := r.session.Close()
	r.session = nil
	return err
}

// dialLocal starts a slave for the second location in this process.
func (r *Remote) dialLocal(ctx context.Context) (brain.Peer, error) {
	ours, theirs := brain.Pipe()
	slave := r.local.NewSlave(r.slave)
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &localPeer{Peer: ours, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if err := slave.Serve(sctx, theirs); err != nil {
			r.log.Debug("second location", "err", err)
		}
	}()
	return p, nil
}

// Rehearse is Local.Rehearse for a second location on this machine.
func (r *Remote) Rehearse() (func() error, error) {
	if r.local == nil {
		return func() error { return nil }, nil
	}
	return r.local.Rehearse()
}
