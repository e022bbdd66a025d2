package daemon

import (
	"context"
	"time"
)

const (
	// lullTime is how long nobody may have begun or ended to list a mailbox before the first round begins.
	lullTime = 100 * time.Millisecond
	// lullMost bounds how long that round waits for programs that list.
	lullMost = 2 * time.Second
)

// lull lets the programs that wait for the first listing of a mount have it before the first round begins: that keeps all processors of
// both ends busy, and whoever reads the list beside it takes two to four times as long.
type lull struct {
	moves chan int // a listing begins, +1, or ends, -1
}

func newLull() lull { return lull{make(chan int, 64)} }

// move notes that a listing begins or ends. When there are more than anybody hears of, the wait is for its longest time or too short;
// either is harmless.
func (l lull) move(n int) {
	select {
	case l.moves <- n:
	default:
	}
}

// wait returns when no listing is under way and none has been for lullTime.
func (l lull) wait(ctx context.Context) {
	limit := time.NewTimer(lullMost)
	defer limit.Stop()
	pause := time.NewTimer(lullTime)
	defer pause.Stop()
	open := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit.C:
			return
		case n := <-l.moves:
			open += n
			pause.Reset(lullTime)
		case <-pause.C:
			if open <= 0 {
				return
			}
		}
	}
}
