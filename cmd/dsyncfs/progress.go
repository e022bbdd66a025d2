package main

import (
	"os"
	"sync"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/mail"
)

// progress shows how far a sync is, on a terminal only.
type progress struct {
	mu  sync.Mutex
	bar *progressbar.ProgressBar
}

func (a *app) progress() brain.Progress {
	f, ok := a.stderr.(*os.File)
	if !ok || a.flags.noProgress || a.flags.debug || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return &progress{bar: progressbar.NewOptions64(-1, progressbar.OptionSetWriter(f), progressbar.OptionShowBytes(true),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription("syncing"))}
}

func (p *progress) Mailbox(name mail.Name, _ mail.MailboxGUID, _, _ int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar.Describe(string(name))
}

func (p *progress) Mails(_ int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.bar.Add64(bytes) // a display that fails is no reason to stop
}

func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.bar.Finish() // likewise
}
