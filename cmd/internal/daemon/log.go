package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	if _, err := os.Stat(filepath.Join(dir, "journal")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s was never mounted from here", mountpoint)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketPath(d))
	if err != nil {
		return readLog(filepath.Join(dir, "journal"), f)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := json.NewEncoder(c).Encode(Request{Op: "log"}); err != nil {
		return fmt.Errorf("asking the daemon of %s: %w", mountpoint, err)
	}
	for dec := json.NewDecoder(c); ; {
		var line LogLine
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("asking the daemon of %s: %w", mountpoint, err)
		}
		if err := f(line); err != nil {
			return err
		}
	}
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

func writeLog(enc *json.Encoder, j *journal.Journal) error {
	return eachLine(j, func(l LogLine) error { return enc.Encode(l) })
}

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
