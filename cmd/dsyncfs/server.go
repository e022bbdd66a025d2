package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/remote"
	"dsyncfs/remote/dsync"
)

func (a *app) serverCommand() *cobra.Command {
	var restrict bool
	var rawLog string
	c := &cobra.Command{
		Use:     "dsync-server",
		Aliases: []string{"server"},
		Short:   "the remote end, on standard input and output",
		// A stray argument is ignored, as doveadm does.
		RunE: func(c *cobra.Command, _ []string) error {
			if restrict {
				if err := checkRestricted(os.LookupEnv); err != nil {
					return err
				}
			}
			return a.serve(c.Context(), rawLog)
		},
	}
	f := c.Flags()
	f.BoolVar(&restrict, "restrict", false, "for forced commands in authorized_keys: serve only the location given here")
	f.StringVarP(&rawLog, "rawlog", "r", "", "log the raw stream to `FILE`.in and FILE.out")
	var ignored bool
	f.BoolVarP(&ignored, "notify", "U", false, "ignored, as stock Dovecot passes it")
	f.BoolVarP(&ignored, "legacy", "E", false, "ignored, as stock Dovecot passes it")
	return c
}

// serve answers rounds on standard input and output. Nothing else may be written there.
func (a *app) serve(ctx context.Context, rawLog string) (err error) {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	loc, err := serverLocation(cfg)
	if err != nil {
		return usage(err)
	}
	log := a.logger()
	local, err := endpoint.OpenLocal(cfg, loc, true, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	opts := dsync.Options{Name: "master", Timeout: cfg.Timeout, Logger: log, Compress: endpoint.Compression(cfg)}
	if rawLog != "" {
		in, out, err := openRawLogs(rawLog)
		if err != nil {
			return err
		}
		defer in.Close()
		defer out.Close()
		opts.RawIn, opts.RawOut = in, out
	}
	streams, err := newStdio(a.stdin, a.stdout)
	if err != nil {
		return err
	}
	peer := dsync.NewPeer(streams, opts)
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
func serverLocation(cfg *config.Config) (remote.Location, error) {
	if cfg.MailLocation != "" {
		return remote.ParseLocation([]string{cfg.MailLocation})
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return remote.Location{}, err
	}
	return remote.ParseLocation([]string{"maildir:" + strings.ReplaceAll(mailDirOf(home), ":", "::")})
}

// checkRestricted lets a client with a forced command ask for nothing but a dsync server. What it asked for is otherwise
// without effect: location and options are those of the forced command (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
func checkRestricted(environ func(string) (string, bool)) error {
	asked, ok := environ("SSH_ORIGINAL_COMMAND")
	if !ok {
		if _, ssh := environ("SSH_CONNECTION"); !ssh {
			return nil // not by ssh: whoever starts us here may do as they like
		}
		return errors.New("dsync-server --restrict: this key gives no shell; it serves mail only")
	}
	for _, word := range strings.Fields(asked) {
		if strings.Trim(word, `'"`) == "dsync-server" {
			return nil
		}
	}
	return fmt.Errorf("dsync-server --restrict: this key serves mail only and does not run %q", asked)
}
