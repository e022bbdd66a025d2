package store

import (
	"slices"
	"time"
)

// Lost are the losses of one mailbox that a guard accepted, for [RefreshOptions].Lately: a small value that a store keeps.
type Lost []LostMails

// LostMails is how many mails were lost at about one time.
type LostMails struct {
	At    int64 // seconds since the epoch
	Mails int
}

// lostGrain is how many times are told apart within the time that counts.
const lostGrain = 60

// Since returns how many mails were lost lately. Times in the future, of a clock that was wrong, count as if they were now.
func (l Lost) Since(now time.Time, lately time.Duration) (mails int) {
	for _, m := range l {
		if m.isRecent(now, lately) {
			mails += m.Mails
		}
	}
	return mails
}

// isRecent reports whether a time is less than lately away from now, in either direction.
func (m LostMails) isRecent(now time.Time, lately time.Duration) bool {
	return now.Sub(time.Unix(m.At, 0)).Abs() < lately
}

// With returns the losses with some more, without what does not count any more. It leaves l as it is.
func (l Lost) With(mails int, now time.Time, lately time.Duration) Lost {
	kept := slices.DeleteFunc(slices.Clone(l), func(m LostMails) bool { return !m.isRecent(now, lately) })
	if n := len(kept); n > 0 && kept[n-1].isRecent(now, lately/lostGrain) {
		kept[n-1].Mails += mails
		return kept
	}
	return append(kept, LostMails{now.Unix(), mails})
}
