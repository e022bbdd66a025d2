package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/mail"
)

// LogLine is one change that was made through a mount.
type LogLine struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Sent    bool      `json:"sent"` // the remote has it
	Op      string    `json:"op"`
	Mailbox mail.Name `json:"mailbox"`
	To      mail.Name `json:"to,omitempty"`
	File    string    `json:"file,omitempty"`
	NewFile string    `json:"new_file,omitempty"`
}

// Log calls f with every change that the journal of a mount still holds, oldest first. A running daemon is asked, as it
// holds the journal.
func Log(ctx context.Context, cfg *config.Config, mountpoint string, f func(LogLine) error) error {
	dir, err := Dir(cfg, mountpoint)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "journal")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was never mounted from here", mountpoint)
	}
	c, err := ask(ctx, dir, Request{Op: OpLog})
	if errors.Is(err, ErrNotRunning) {
		return readLog(path, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", mountpoint, err)
	}
	defer c.Close()
	for dec := json.NewDecoder(c); ; {
		var line logReply
		if err := dec.Decode(&line); err != nil {
			return lost(ctx, mountpoint, err)
		}
		switch {
		case line.Error != "":
			return fmt.Errorf("journal of %s: %s", mountpoint, line.Error)
		case line.End:
			return nil
		}
		if err := f(line.LogLine); err != nil {
			return err
		}
	}
}

// logReply is a line of the answer to a request for the log. The last one says how it ended.
type logReply struct {
	LogLine
	End   bool   `json:"end,omitempty"`
	Error string `json:"error,omitempty"`
}

// readLog reads a journal that no daemon holds.
func readLog(path string, f func(LogLine) error) (err error) {
	j, err := journal.Open(path, journal.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return eachLine(j, f)
}

// writeLog answers a client, which may take its time but not for ever: each line has a deadline.
func writeLog(ctx context.Context, c net.Conn, j *journal.Journal) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	enc := json.NewEncoder(c)
	send := func(l logReply) error {
		if err := c.SetWriteDeadline(time.Now().Add(logTime)); err != nil {
			return err
		}
		return enc.Encode(l)
	}
	last := logReply{End: true}
	if err := eachLine(j, func(l LogLine) error { return send(logReply{LogLine: l}) }); err != nil {
		last.Error = err.Error()
	}
	return send(last)
}

// logTime is how long a reader of the log may pause: it may be a person with a pager.
const logTime = 10 * time.Minute

func eachLine(j *journal.Journal, f func(LogLine) error) error {
	sent := j.Mark(journal.Sent)
	for rec, err := range j.Read(0) {
		if err != nil {
			return err
		}
		ev := rec.Event
		if err := f(LogLine{rec.Seq, rec.Time, rec.Seq <= sent, ev.Op.String(), ev.Mailbox, ev.To, ev.File, ev.NewFile}); err != nil {
			return err
		}
	}
	return nil
}
