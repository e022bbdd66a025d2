package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// figures are how many events of each kind there are. Those of `make crash` come from its variables.
type figures struct{ kills, cuts, full, readOnly, clock, nothing int }

func theFigures(t *testing.T) figures {
	f := figures{kills: number(t, "KILLS", 4), cuts: number(t, "CUTS", 2), full: number(t, "FULL", 2), clock: number(t, "CLOCK", 2), nothing: number(t, "NOTHING", 0)}
	f.readOnly = (f.full + 4) / 5
	return f
}

// number is a figure that the environment may change.
func number(t *testing.T, name string, normally int) int {
	t.Helper()
	s := os.Getenv("DSYNCFS_CRASH_" + name)
	if s == "" {
		return normally
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// theSeed decides what happens when, as far as the scheduler lets it.
func theSeed(t *testing.T) uint64 {
	t.Helper()
	return uint64(number(t, "SEED", int(time.Now().UnixNano())))
}

// event is one way in which things break.
type event struct {
	name string
	end  string
	do   func(w *world)
}

// perCheck is how many events there are between two checks.
const perCheck = 4

// Promises 1, 2, 4 and 6 while everything breaks: kills at random moments and in the middle of chosen changes of files, on
// either end, connections cut, disks full and read-only, and clocks set, under load from both sides.
func TestNothingIsLostWhateverBreaks(t *testing.T) {
	f := theFigures(t)
	seed := theSeed(t)
	w := newWorld(t, seed)
	table := newTable(seed)
	defer table.print(t)
	events := w.plan(f)
	w.checkClock()
	for len(events) > 0 {
		some := events[:min(perCheck, len(events))]
		events = events[len(some):]
		running := w.startLoad()
		for _, e := range some {
			e.do(w)
			table.count(e)
		}
		w.await(100 * time.Millisecond) // of work after the last one
		running.end()
		v := w.settle()
		table.note(v)
		if !v.empty() {
			var names []string
			for _, e := range some {
				names = append(names, e.name+" of "+e.end)
			}
			w.showLog()
			t.Fatalf("after %s:\n%s", strings.Join(names, ", "), v)
		}
	}
}

// await lets the load work on for a while.
func (w *world) await(d time.Duration) { <-time.After(d) }

// plan spreads the events over both ends and over time.
func (w *world) plan(f figures) []event {
	var all []event
	add := func(n int, kinds ...event) {
		for i := range n {
			all = append(all, kinds[i%len(kinds)])
		}
	}
	add(f.kills, event{"kill at a random time", "near", killNear}, event{"kill at a random time", "far", killFar},
		event{"kill in a change of a file", "near", killNearInChange}, event{"kill in a change of a file", "far", killFarInChange})
	add(f.nothing, event{"nothing", "", (*world).moment})
	add(f.cuts, event{"connection cut", "", cut})
	add(f.full, event{"disk full", "near", func(w *world) { w.fill(w.near) }}, event{"disk full", "far", func(w *world) { w.fill(w.far) }})
	add(f.readOnly, event{"disk read-only", "far", readOnly})
	add(f.clock, event{"clock step", "near", func(w *world) { w.step(w.near) }}, event{"clock step", "far", func(w *world) { w.step(w.far) }})
	w.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func (w *world) moment() { w.await(time.Duration(w.between(0, 400)) * time.Millisecond) }

func killNear(w *world) {
	w.moment()
	pid := w.mount.PID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	w.restart(pid)
}

// restart mounts again at once after a daemon was killed: it is all that anybody has to do, even if a thread of the dead one
// hangs in a call on the mount.
func (w *world) restart(killed int) {
	w.t.Helper()
	w.mount.Again()
	w.mount.WaitGone(killed)
}

func killFar(w *world) {
	w.moment()
	w.Eventually("a server is there to be killed", recovery, func() error {
		for _, pid := range w.Servers() {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				return nil
			}
		}
		return fmt.Errorf("no server: %+v", w.status())
	})
}

// changes is up to which change of a file a kill waits.
const changes = 80

func killNearInChange(w *world) {
	pid := w.mount.PID()
	w.fired("the daemon changes a file", w.near.disk.KillAt(w.between(1, changes)))
	w.restart(pid)
}

func killFarInChange(w *world) {
	w.fired("a server changes a file", w.far.disk.KillAt(w.between(1, changes)))
}

func cut(w *world) { w.fired("so much is sent", w.link.CutAfter(int64(w.between(1, 150_000)))) }

func (w *world) fired(what string, done <-chan struct{}) {
	w.t.Helper()
	select {
	case <-done:
	case <-time.After(recovery):
		w.t.Fatalf("%s: not after %s: %+v", what, recovery, w.status())
	}
}

// fill fills the disk of an end, all of it or up to a rest of some files, and has it full for a while.
func (w *world) fill(s *side) {
	path := filepath.Join(s.disk.Under, "ballast")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if rest := w.between(-40, 60); rest > 0 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(s.disk.Under, &st); err != nil {
			w.t.Fatal(err)
		}
		size := int64(st.Bavail)*st.Bsize - int64(rest)<<12
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil && err != syscall.ENOSPC {
			w.t.Fatal(err)
		}
	} else {
		fillUp(f)
	}
	w.await(time.Duration(w.between(300, 900)) * time.Millisecond)
	if err := os.Remove(path); err != nil {
		w.t.Fatal(err)
	}
}

// fillUp writes until nothing goes any more.
func fillUp(f *os.File) {
	for size := 1 << 20; size >= 1<<12; size /= 2 {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); err != nil {
				break
			}
		}
	}
}

func readOnly(w *world) {
	w.moment()
	w.far.disk.SetReadOnly(true)
	w.await(time.Duration(w.between(300, 900)) * time.Millisecond)
	w.far.disk.SetReadOnly(false)
}

// step sets the clock of an end, by up to a day from the right time: not so far that what is being delivered looks forgotten.
func (w *world) step(s *side) {
	w.moment()
	s.clock.Set(time.Duration(w.between(-86_400, 86_400)) * time.Second)
}

// checkClock holds that a clock can be set.
func (w *world) checkClock() {
	w.t.Helper()
	w.near.clock.Set(10 * time.Hour)
	w.sync()
	if last := w.status().LastFull; time.Until(last) < 9*time.Hour {
		w.t.Fatalf("the clock is ten hours ahead, and the last sync was at %v", last)
	}
	w.near.clock.Set(0)
}
