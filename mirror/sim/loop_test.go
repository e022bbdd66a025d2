package sim

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// before are steps after which both replicas have much to tell each other.
const before = `
	++ fs
	{"Op":"create","Side":0,"Seed":1}
	{"Op":"deliver","Side":0,"Seed":2}
	{"Op":"deliver","Side":0,"Seed":3}
	{"Op":"deliver","Side":1,"Seed":4}
	{"Op":"subscribe","Side":1,"Seed":5}
	{"Op":"sync","Side":1,"Seed":6,"Type":"s"}
	{"Op":"deliver","Side":0,"Seed":7}
	{"Op":"burst","Side":1,"Seed":8}
	{"Op":"keyword","Side":0,"Seed":9}
	{"Op":"flag","Side":1,"Seed":10}
	{"Op":"expunge","Side":1,"Seed":11}
	{"Op":"create","Side":1,"Seed":12}
	{"Op":"move","Side":1,"Seed":13}
	{"Op":"copy","Side":0,"Seed":14}
	{"Op":"rename","Side":0,"Seed":15}
	{"Op":"manykeywords","Side":1,"Seed":16}
	{"Op":"deliver","Side":0,"Seed":17}
	{"Op":"deliver","Side":1,"Seed":18}`

// TestEveryOperationFails lets the first operation of a sync that changes something fail, then the second, and so on, until
// a sync gets through unhurt: with each error, and with crashes that lose nothing to as much as they may. SIM_STRIDE=1 tries
// every operation, and not every 43rd.
func TestEveryOperationFails(t *testing.T) {
	for _, f := range []Fault{
		{What: "enospc"}, {What: "eio"}, {What: "full"}, {What: "late"},
		{What: "crash", Loss: 0}, {What: "crash", Loss: 1}, {What: "crash", Loss: 2}, {What: "crash", Loss: 3},
	} {
		for _, second := range []bool{false, true} {
			f.Second = second
			t.Run(fmt.Sprintf("%s %d of the slave %v", f.What, f.Loss, second), func(t *testing.T) { failEach(t, f) })
		}
	}
}

func failEach(t *testing.T, f Fault) {
	stride := envInt(t, "SIM_STRIDE", 43)
	f.Seed = 1
	for f.At = 1; ; f.At += stride {
		h, err := ParseHistory(before)
		if err != nil {
			t.Fatal(err)
		}
		fault := f
		h.Steps = append(h.Steps, Step{Op: "sync", Side: 1, Seed: 19, Type: "f", Fault: &fault})
		trace, err := run(t, h)
		var v *Violation
		if errors.As(err, &v) {
			t.Fatalf("%s at operation %d: %v\nhistory:\n%s\ncourse:\n%s", f.What, f.At, err, h, strings.Join(v.Trace, "\n"))
		}
		if !strings.Contains(strings.Join(trace, "\n"), fmt.Sprintf("%s at operation %d:", f.What, f.At)) {
			if f.At < 50 {
				t.Fatalf("the sync has only %d operations", f.At)
			}
			t.Logf("%d operations", f.At-1)
			return
		}
	}
}
