package crash

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// table is what a run prints at its end.
type table struct {
	seed                   uint64
	start                  time.Time
	events                 map[string]int
	checks                 int
	lost, doubled, repairs int
	late                   int
}

func newTable(seed uint64) *table {
	return &table{seed: seed, start: time.Now(), events: map[string]int{}}
}

func (b *table) count(e event) { b.events[fmt.Sprintf("%-28s %-5s", e.name, e.end)]++ }

func (b *table) note(v verdict) {
	b.checks++
	b.lost += len(v.lost)
	b.doubled += len(v.doubled)
	b.repairs += len(v.other)
	b.late += len(v.late)
	if b.checks%20 == 0 {
		fmt.Println(b.summary())
	}
}

// summary is the table in a line.
func (b *table) summary() string {
	total := 0
	for _, n := range b.events {
		total += n
	}
	return fmt.Sprintf("%d events and %d checks in %s: %d mails lost, %d doubled, %d other faults, %d flags behind moves (seed %d)",
		total, b.checks, time.Since(b.start).Round(time.Second), b.lost, b.doubled, b.repairs, b.late, b.seed)
}

func (b *table) print(t *testing.T) {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.events)) {
		fmt.Fprintf(&out, "%s %5d\n", name, b.events[name])
	}
	t.Logf("\n%s%s", out.String(), b.summary())
}
