package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Memory that was needed in a burst, to list a large mailbox or for a first sync, is given back to the system when the daemon
// has come to rest: the runtime keeps half as much again as what is in use, and mail programs run beside us.
const (
	restTime  = 5 * time.Second
	burst     = 16 << 20 // bytes allocated since the last time
	restBytes = 1 << 20  // and so few of them in the last restTime
)

// giveBack does that until ctx ends.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(restTime)
	defer tick.Stop()
	var r resting
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if r.due(allocated()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// resting notices that a burst is over.
type resting struct {
	last  uint64 // allocated at the last look
	freed uint64 // when memory was given back
}

// due reports whether memory is to be given back now.
func (r *resting) due(now uint64) bool {
	quiet := now-r.last < restBytes
	r.last = now
	if !quiet || now-r.freed < burst {
		return false
	}
	r.freed = now
	return true
}
