package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A first mount waits for the list of what the remote has, in bounded time; a later one of the same fill does not, and does not even
// look at its Maildir if programs have left nothing to be done.
func TestALaterMountOfAFillIsReadyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits := func(f *fill) time.Duration {
			start := time.Now()
			f.awaitLook(t.Context(), readyTime)
			return time.Since(start)
		}
		if took := waits(&fill{tried: make(chan struct{})}); took != readyTime {
			t.Errorf("a first mount waits for %s", took)
		}
		tried := make(chan struct{})
		close(tried)
		for what, f := range map[string]*fill{"of which all is here": nil, "with the list": {tried: tried}, "that is a later one": {tried: make(chan struct{}), again: true}} {
			if took := waits(f); took != 0 {
				t.Errorf("a mount %s waits for %s", what, took)
			}
		}
	})
	intents, err := openIntents(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer intents.close()
	f := &fill{again: true, intents: intents} // without a Maildir to look at
	if err := f.renew(context.Background()); err != nil {
		t.Error(err)
	}
}
