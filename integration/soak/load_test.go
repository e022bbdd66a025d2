package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dsyncfs/integration/harness"
)

// load is a delivery agent and a mail program on each side, at a low rate.
type load struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	done atomic.Int64 // operations
}

// keep is how many mails a mailbox has at most: beyond it the oldest are expunged, so that what grows is not the mail.
const keep = 150

func startLoad(s *scene) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	mails := harness.Mails(s.t, 2000)[400:]
	for side, m := range map[string]harness.Maildir{"near": s.mount.Maildir, "far": s.far} {
		r := rand.New(rand.NewPCG(uint64(len(side)), 0))
		l.wg.Go(func() {
			for i := 0; wait(ctx, time.Duration(200+r.IntN(400))*time.Millisecond); i++ {
				box := mailboxes[r.IntN(len(mailboxes))]
				if i%2 == 0 {
					mail := mails[r.IntN(len(mails))]
					// The same mail again is another one: its Message-ID and its name are new.
					mail.Text = append([]byte(fmt.Sprintf("X-Delivery: %d by %s\n", i, side)), mail.Text...)
					_ = deliver(m, box, fmt.Sprintf("%d.M%dP7_%d.%s", mail.Date.Unix(), r.IntN(1e6), i, side), mail)
				} else {
					change(m, box, r)
				}
				if i%10 == 0 {
					folder(m, side, i/10, mails[r.IntN(len(mails))])
				}
				l.done.Add(1)
			}
		})
	}
	return l
}

// deliver gives a mail the mode that Dovecot's user can read.
func deliver(m harness.Maildir, box, base string, mail harness.Mail) error {
	tmp := filepath.Join(m.Dir(box), "tmp", base)
	if err := os.WriteFile(tmp, mail.Text, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chmod(tmp, 0o666), os.Chtimes(tmp, mail.Date, mail.Date), os.Rename(tmp, filepath.Join(m.Dir(box), "new", base)))
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// wait reports whether there is time for more.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// change flags a mail, or removes some if there are too many. Others may have been faster, which is no matter.
func change(m harness.Maildir, box string, r *rand.Rand) {
	dir := filepath.Join(m.Dir(box), "cur")
	fresh, _ := os.ReadDir(filepath.Join(m.Dir(box), "new"))
	for _, e := range fresh[:max(0, len(fresh)-5)] {
		// It may have flags already: a Dovecot that sets some leaves the mail in new/.
		name := e.Name()
		base, info, _ := strings.Cut(name, ":2,")
		_ = os.Rename(filepath.Join(m.Dir(box), "new", name), filepath.Join(dir, base+":2,"+seen(info)))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return
	}
	if len(entries) > keep {
		for range len(entries) - keep + 1 {
			_ = os.Remove(filepath.Join(dir, entries[r.IntN(len(entries))].Name()))
		}
		return
	}
	name := entries[r.IntN(len(entries))].Name()
	base, info, _ := strings.Cut(name, ":2,")
	if strings.Contains(info, "F") {
		info = strings.ReplaceAll(info, "F", "")
	} else if !strings.ContainsAny(info, "ABCDE") {
		info = "F" + info
	}
	_ = os.Rename(filepath.Join(dir, name), filepath.Join(dir, base+":2,"+info))
}

// folder makes a mailbox with a mail in it, renames it, or removes it: each in turn. What somebody delivers while it is removed
// may keep its directory, which is tried again the next time.
func folder(m harness.Maildir, side string, turn int, mail harness.Mail) {
	name := func(turn int) string { return fmt.Sprintf("Project %s %d", side, turn/3) }
	dir := m.Dir(name(turn))
	switch turn % 3 {
	case 0:
		for _, sub := range []string{"", "cur", "new", "tmp"} { // Dovecot's user has to write there
			_ = os.Mkdir(filepath.Join(dir, sub), 0o777)
			_ = os.Chmod(filepath.Join(dir, sub), 0o777)
		}
		_ = deliver(m, name(turn), fmt.Sprintf("%d.M%dP8.%s", mail.Date.Unix(), turn, side), mail)
	case 1:
		_ = os.Rename(dir, dir+" done")
	case 2:
		for i := max(0, turn-9); i <= turn; i += 3 {
			_ = os.RemoveAll(m.Dir(name(i)) + " done")
		}
	}
}

// seen adds S to flags, in its place before the letters of keywords.
func seen(flags string) string {
	if strings.Contains(flags, "S") {
		return flags
	}
	i := strings.IndexFunc(flags, func(r rune) bool { return r > 'S' })
	if i < 0 {
		i = len(flags)
	}
	return flags[:i] + "S" + flags[i:]
}
