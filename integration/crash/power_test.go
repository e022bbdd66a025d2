package crash

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// blockSize has room for the mail and the state of one end, in bytes.
const blockSize = 48 << 20

// newPowerWorld makes one on ext4, on disks that lose what was not flushed.
func newPowerWorld(t testing.TB, seed uint64) *world {
	w := &world{Env: harness.New(t), t: t, ledger: newLedger(), rand: rand.New(rand.NewPCG(seed, 0)), synced: true}
	near, far := w.NewBlock("near", blockSize), w.NewBlock("remote", blockSize)
	w.near = &side{name: "near", letter: "F", medium: near.Path, block: near}
	w.far = &side{name: "far", letter: "R", medium: far.Path, block: far}
	w.start()
	return w
}

// What a program synced, and what had arrived from the other side, is there after the power failed at either end or at both;
// a plain restart does, and the sides are equal again.
func TestWhatWasSyncedSurvivesPowerCuts(t *testing.T) {
	if why := harness.LoopDevices(); why != "" {
		t.Skip(why)
	}
	seed := theSeed(t)
	w := newPowerWorld(t, seed)
	table := newTable(seed)
	defer table.print(t)
	for i := range number(t, "POWER", 3) {
		e := event{name: "power cut", end: []string{"near", "far", "both"}[i%3]}
		running := w.startLoad()
		w.await(time.Duration(w.between(200, 1500)) * time.Millisecond)
		cuts := w.powerCut(e.end, running)
		table.count(e)
		v := w.settleAfter(cuts)
		table.note(v)
		if !v.empty() {
			w.showLog()
			t.Fatalf("after a power cut of %s:\n%s", e.end, v)
		}
	}
}

// powerCut has the power fail at an end, or both, and come back. It returns when it failed where.
func (w *world) powerCut(end string, running *load) map[string]time.Time {
	w.t.Helper()
	cuts := map[string]time.Time{}
	images := map[*side][]byte{}
	choice := w.newRand()
	for _, s := range []*side{w.near, w.far} {
		if end == s.name || end == "both" {
			cuts[s.name] = time.Now()
			images[s] = s.block.Cut(choice)
		}
	}
	if images[w.near] != nil {
		pid := w.mount.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			w.t.Fatal(err)
		}
		w.Run("umount", w.mount.Path).Want(0) // no process survives a power cut, not even one that hangs in the mount
		w.mount.WaitGone(pid)
	}
	if images[w.far] != nil {
		w.link.Cut() // or the daemon would start another server there
		w.killServers()
	}
	running.end()
	for s, image := range images {
		s.block.Restart(image)
	}
	if images[w.far] != nil {
		w.link.Join()
	}
	if images[w.near] != nil {
		w.mount.Again()
	}
	return cuts
}

// killServers ends the servers of the far side and waits until none is left.
func (w *world) killServers() {
	w.t.Helper()
	w.Eventually("the servers are gone", recovery, func() error {
		pids := w.Servers()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		if len(pids) > 0 {
			return fmt.Errorf("still there: %v", pids)
		}
		return nil
	})
}
