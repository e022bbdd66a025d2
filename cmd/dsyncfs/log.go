package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"dsyncfs/cmd/internal/daemon"
)

func (a *app) logCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log MOUNTPOINT",
		Short: "the journal: what was changed through the mount, when, sent or not",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return a.showLog(c.Context(), args[0]) },
	}
}

func (a *app) showLog(ctx context.Context, mountpoint string) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	enc := json.NewEncoder(a.stdout)
	return daemon.Log(ctx, cfg, mountpoint, func(l daemon.LogLine) error {
		if a.flags.json {
			return enc.Encode(l)
		}
		_, err := fmt.Fprintln(a.stdout, logLine(l))
		return err
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
