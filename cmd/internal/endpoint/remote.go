package endpoint

import (
	"context"
	"errors"
	"fmt"

	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/watch"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/store"
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
	dialer remote.Dialer
	cmd    []string

	mu      sync.Mutex
	session remote.Session
}

// RemoteOptions are what a Remote needs besides its location.
type RemoteOptions struct {
	MayCreate bool          // a local second location may be created
	Slave     brain.Options // of the brain of a local second location
	Ask       bool          // the user may be asked at the terminal
	Log       *slog.Logger
}

// NewRemote prepares the other end. Nothing is dialed yet.
func NewRemote(cfg *config.Config, loc remote.Location, o RemoteOptions) (*Remote, error) {
	r := &Remote{Location: loc, cfg: cfg, log: o.Log, slave: o.Slave}
	var err error
	switch loc.Kind {
	case remote.KindSSH:
		r.Name = loc.Host
		r.cmd = loc.ServerCommand(strings.Fields(strings.TrimSuffix(cfg.ServerCmd, " dsync-server"))...)
		r.dialer, err = r.sshDialer(o)
	case remote.KindCommand:
		r.Name = filepath.Base(loc.Command[0])
		r.cmd = loc.Command
		r.dialer = command.New(command.Options{Host: r.Name, Stderr: r.stderr})
	default:
		r.Name = loc.String()
		r.slave.Side = loc.String()
		r.local, err = OpenLocal(cfg, loc, o.MayCreate, o.Log)
	}
	return r, err
}

// stderr shows what the other end has to say, with its name.
func (r *Remote) stderr(line string) { fmt.Fprintf(os.Stderr, "%s: %s\n", r.Name, line) }

func (r *Remote) sshDialer(o RemoteOptions) (remote.Dialer, error) {
	if r.cfg.RemoteCmd != "" {
		return r.templateDialer(), nil
	}
	if r.cfg.SSHCommand != "" {
		return command.SSH(command.SSHOptions{
			Options: command.Options{Host: r.Location.Host, Stderr: r.stderr, Terminal: o.Ask},
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
	return command.New(command.Options{Host: r.Location.Host, Stderr: r.stderr})
}

// Dial returns a Peer on which a slave answers.
func (r *Remote) Dial(ctx context.Context) (brain.Peer, error) {
	if r.local != nil {
		return r.dialLocal(ctx)
	}
	conn, err := r.start(ctx)
	if err != nil {
		return nil, err
	}
	p := dsync.NewPeer(gentleConn{conn}, dsync.Options{Name: r.Name, Timeout: r.cfg.Timeout, Logger: r.log})
	peer := &streamPeer{Peer: p, conn: conn, name: r.Name, timeout: r.cfg.Timeout}
	if err := p.Handshake(ctx); err != nil {
		err = peer.explain(err)
		return nil, errors.Join(err, peer.Close())
	}
	return peer, nil
}

// start runs the remote command over the kept connection, which is made anew if it was lost.
func (r *Remote) start(ctx context.Context) (remote.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session != nil {
		select {
		case <-r.session.Done():
			r.session.Close()
			r.session = nil
		default:
		}
	}
	if r.session == nil {
		s, err := r.dialer.Dial(ctx)
		if err != nil {
			return nil, err
		}
		r.session = s
	}
	// The stream outlives the call: it ends with the peer's Close.
	return r.session.Start(context.WithoutCancel(ctx), r.cmd)
}

// Close ends the connection.
func (r *Remote) Close() error {
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
	slave := brain.NewSlave(r.slave, r.local.Store, r.local.watchFunc())
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

// watchFunc returns how to watch the store between rounds.
func (l *Local) watchFunc() func(context.Context) (<-chan struct{}, error) {
	return func(ctx context.Context) (<-chan struct{}, error) {
		if l.FS == nil { // a new location
			if err := l.makeDir(); err != nil {
				return nil, err
			}
		}
		return watch.Maildir(ctx, l.Path, l.log, nil)
	}
}

// NewSlave returns a slave for the store, which can be watched between rounds.
func (l *Local) NewSlave(o brain.Options) *brain.Slave {
	return brain.NewSlave(o, func(ctx context.Context) (store.Store, error) { return l.Store(ctx) }, l.watchFunc())
}

// localPeer waits for the slave when it is closed.
type localPeer struct {
	brain.Peer
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
}

// localGrace is how long a slave in this process may take to end by itself.
const localGrace = 10 * time.Second

func (p *localPeer) Close() error {
	err := p.Peer.Close()
	p.once.Do(func() {
		select {
		case <-p.done:
		case <-time.After(localGrace):
			p.cancel()
			<-p.done
		}
		p.cancel()
	})
	return err
}

// farewell is how long a remote program gets to end by itself once its input is closed.
const farewell = 2 * time.Second

// gentleConn lets the remote program end by itself before it is ended.
type gentleConn struct{ remote.Conn }

func (c gentleConn) Close() error {
	if c.CloseWrite() == nil {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = c.Wait()
		}()
		select {
		case <-ended:
		case <-time.After(farewell):
		}
		defer func() { <-ended }() // Close makes both end
	}
	return c.Conn.Close()
}

// streamPeer names the other side in errors and ends its program when closed.
type streamPeer struct {
	*dsync.Peer
	conn    remote.Conn
	name    string
	timeout time.Duration
}

// Idle says that silence is no error now.
func (p *streamPeer) Idle(idle bool) {
	if idle {
		p.SetTimeout(-1)
	} else {
		p.SetTimeout(p.timeout)
	}
}

// explain adds the exit of the remote program to an error of the stream, which often is the real cause.
func (p *streamPeer) explain(err error) error {
	p.conn.CloseWrite()
	ended := make(chan error, 1)
	go func() { ended <- p.conn.Wait() }()
	select {
	case werr := <-ended:
		if werr != nil {
			return werr
		}
	case <-time.After(2 * time.Second):
		p.conn.Close()
		<-ended
	}
	return err
}
