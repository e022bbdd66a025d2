package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// The first round begins when those who list have done so, soon if nobody does, and does not wait for ever.
func TestTheFirstRoundLetsListingsGoFirst(t *testing.T) {
	for what, c := range map[string]struct {
		programs func(l lull, sleep func(time.Duration))
		want     time.Duration
	}{
		"nobody lists":      {func(lull, func(time.Duration)) {}, lullTime},
		"one waited for it": {func(l lull, sleep func(time.Duration)) { l.move(1); sleep(time.Second); l.move(-1) }, time.Second + lullTime},
		"one comes a bit later": {func(l lull, sleep func(time.Duration)) {
			sleep(lullTime / 2)
			l.move(1)
			sleep(time.Second)
			l.move(-1)
		}, time.Second + lullTime*3/2},
		"one after the other": {func(l lull, sleep func(time.Duration)) {
			l.move(1)
			l.move(-1)
			sleep(lullTime / 2)
			l.move(1)
			l.move(-1)
		}, lullTime * 3 / 2},
		"one never ends":          {func(l lull, sleep func(time.Duration)) { l.move(1) }, lullMost},
		"one was there all along": {func(l lull, sleep func(time.Duration)) { l.move(-1) }, lullTime},
		"more than are heard of": {func(l lull, sleep func(time.Duration)) {
			for range 1000 {
				l.move(1)
			}
		}, lullMost},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLull()
				start := time.Now()
				go c.programs(l, time.Sleep)
				l.wait(context.Background())
				if took := time.Since(start); took != c.want {
					t.Errorf("it waited for %s, want %s", took, c.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		start := time.Now()
		newLull().wait(ctx)
		if time.Since(start) != 0 {
			t.Error("it waits though the mount ends")
		}
	})
}
