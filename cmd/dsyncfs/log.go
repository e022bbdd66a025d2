package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/daemon"
)

func (a *app) logCommand() *cobra.Command {
	var conflicts bool
	c := mountpoints(&cobra.Command{
		Use:   "log MOUNTPOINT",
		Short: "the journal: what was changed through the mount, when, sent or not",
		RunE: func(c *cobra.Command, args []string) error {
			if conflicts {
				return usage(errors.New("log --conflicts is not supported yet"))
			}
			return a.showLog(c.Context(), args[0])
		},
	}, 1)
	c.Flags().BoolVar(&conflicts, "conflicts", false, "only what was decided between both sides (not supported yet)")
	return c
}

func (a *app) showLog(ctx context.Context, arg string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(a.stdout)
	return daemon.Log(ctx, cfg, mountpointOf(cfg, arg), func(l daemon.LogLine) error {
		if a.flags.json {
			return output(enc.Encode(l))
		}
		_, err := fmt.Fprintln(a.stdout, printable(logLine(l)))
		return output(err)
	})
}

// logLine is what people read of a change.
func logLine(l daemon.LogLine) string {
	mark := "queued"
	if l.Sent {
		mark = "sent"
	}
	s := fmt.Sprintf("%6d %s %-6s %-13s %s", l.Seq, l.Time.Format("2006-01-02 15:04:05.000"), mark, l.Op, l.Mailbox)
	if l.To != "" {
		s += " -> " + string(l.To)
	}
	if l.File != "" {
		s += " " + l.File
	}
	if l.NewFile != "" {
		s += " -> " + l.NewFile
	}
	return s
}
