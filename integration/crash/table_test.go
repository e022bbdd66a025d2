package crash

import (
	"fmt"
	"sort"
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
	late, back             int
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
	b.back += len(v.back)
}

func (b *table) print(t *testing.T) {
	var names []string
	total := 0
	for name, n := range b.events {
		names = append(names, name)
		total += n
	}
	sort.Strings(names)
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, "%s %5d\n", name, b.events[name])
	}
	took := time.Since(b.start)
	fmt.Fprintf(&out, "%d events and %d checks in %s: %d mails lost, %d doubled, %d other faults, %d flags behind moves, %d expunged mails back (seed %d)", total, b.checks,
		took.Round(time.Second), b.lost, b.doubled, b.repairs, b.late, b.back, b.seed)
	t.Logf("\n%s", out.String())
}
