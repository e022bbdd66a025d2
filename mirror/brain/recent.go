package brain

import (
	"sync"

	"dsyncfs/mirror/mail"
)

// RecentLosses are the losses that the deletion guard accepted lately. Many small ones in a row amount to a large one. Safe for
// concurrent use; nil remembers nothing.
type RecentLosses struct {
	mu  sync.Mutex
	all map[mail.Name][]recentLoss
}

type recentLoss struct {
	at    int64 // seconds since the epoch
	mails int
}

// lately is how long a loss counts, in seconds.
const lately = 3600

// lost returns how many mails of a mailbox were lost lately.
func (r *RecentLosses) lost(name mail.Name, now int64) (n int) {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.all[name] {
		if now-l.at < lately {
			n += l.mails
		}
	}
	return n
}

func (r *RecentLosses) forget(name mail.Name) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, name)
}

func (r *RecentLosses) add(name mail.Name, mails int, now int64) {
	if r == nil || mails == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[mail.Name][]recentLoss)
	}
	var kept []recentLoss
	for _, l := range r.all[name] {
		if now-l.at < lately {
			kept = append(kept, l)
		}
	}
	r.all[name] = append(kept, recentLoss{now, mails})
}
