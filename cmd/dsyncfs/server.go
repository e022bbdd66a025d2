package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/remote"
	"dsyncfs/remote/dsync"
)

func (a *app) serverCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "dsync-server",
		Aliases: []string{"server"},
		Short:   "the remote end, on standard input and output",
		// A stray argument is ignored, as doveadm does.
		RunE: func(c *cobra.Command, _ []string) error { return a.serve(c.Context()) },
	}
	f := c.Flags()
	f.BoolVar(&a.flags.restrict, "restrict", false, "for forced commands in authorized_keys: serve only the location given here")
	f.StringVarP(&a.flags.rawLog, "rawlog", "r", "", "log the raw stream to `FILE`.in and FILE.out")
	var ignored bool
	f.BoolVarP(&ignored, "notify", "U", false, "ignored, as stock Dovecot passes it")
	f.BoolVarP(&ignored, "legacy", "E", false, "ignored, as stock Dovecot passes it")
	return c
}

// serve answers rounds on standard input and output. Nothing else may be written there.
func (a *app) serve(ctx context.Context) error {
	// A master that is done closes both pipes at once; writing to it then is an error like any other.
	signal.Ignore(syscall.SIGPIPE)
	cfg, err := a.load()
	if err != nil {
		return err
	}
	loc, err := serverLocation(cfg, a.flags.user)
	if err != nil {
		return err
	}
	log := a.logger()
	local, err := endpoint.OpenLocal(cfg, loc, true, log)
	if err != nil {
		return err
	}
	defer local.Close()
	opts := dsync.Options{Name: "master", Timeout: cfg.Timeout, Logger: log}
	if a.flags.rawLog != "" {
		in, out, err := openRawLogs(a.flags.rawLog)
		if err != nil {
			return err
		}
		defer in.Close()
		defer out.Close()
		opts.RawIn, opts.RawOut = in, out
	}
	peer := &serverPeer{Peer: dsync.NewPeer(newStdio(a.stdin, a.stdout), opts), timeout: cfg.Timeout}
	stop := context.AfterFunc(ctx, func() { peer.Close() })
	defer stop()
	if err := peer.Handshake(ctx); err != nil {
		return errors.Join(err, peer.Close())
	}
	o := a.brainOptions(cfg, log)
	o.Side = "remote " + o.Hostname
	return local.NewSlave(o).Serve(ctx, peer)
}

func openRawLogs(base string) (in, out *os.File, err error) {
	if in, err = os.OpenFile(base+".in", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
		return nil, nil, fmt.Errorf("raw log: %w", err)
	}
	if out, err = os.OpenFile(base+".out", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("raw log: %w", err), in.Close())
	}
	return in, out, nil
}

// serverLocation is what to serve: the setting, else the user's ~/Maildir or ~/Mail, whichever is there.
func serverLocation(cfg *config.Config, name string) (remote.Location, error) {
	if cfg.MailLocation != "" {
		return remote.ParseLocation([]string{cfg.MailLocation})
	}
	home, err := homeOf(name)
	if err != nil {
		return remote.Location{}, err
	}
	dir := filepath.Join(home, "Maildir")
	if mail := filepath.Join(home, "Mail"); !isDir(dir) && isDir(mail) {
		dir = mail
	}
	return remote.ParseLocation([]string{"maildir:" + dir})
}

func homeOf(name string) (string, error) {
	if name == "" {
		return os.UserHomeDir()
	}
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("user %s: %w", name, err)
	}
	if me := os.Geteuid(); me != 0 && u.Uid != fmt.Sprint(me) {
		return "", fmt.Errorf("user %s: only root can serve another user's mail", name)
	}
	return u.HomeDir, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// serverPeer is the master on our standard streams.
type serverPeer struct {
	*dsync.Peer
	timeout time.Duration
}

// Idle says that silence is no error now.
func (p *serverPeer) Idle(idle bool) {
	if idle {
		p.SetTimeout(-1)
	} else {
		p.SetTimeout(p.timeout)
	}
}

// stdio joins the standard streams. Close makes a waiting Read return also where the stream is a terminal or a regular
// pipe that the runtime does not poll: a goroutine reads ahead into an in-process pipe.
type stdio struct {
	in  *io.PipeReader
	out io.Writer
}

func newStdio(in io.Reader, out io.Writer) *stdio {
	r, w := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{in}, make([]byte, 64<<10))
		w.CloseWithError(err)
	}()
	return &stdio{r, out}
}

func (s *stdio) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *stdio) Write(p []byte) (int, error) { return s.out.Write(p) }

func (s *stdio) Close() error {
	s.in.CloseWithError(os.ErrClosed)
	if c, ok := s.out.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
