package store_test

import (
	"slices"
	"testing"
	"time"

	"dsyncfs/mirror/store"
)

// Losses add up until they are too old. They take no more room however many there are, and a clock that jumps makes none of
// them count for ever.
func TestLostLately(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	var l store.Lost
	for i := range 3600 {
		before := slices.Clone(l)
		now := start.Add(time.Duration(i) * time.Second)
		next := l.With(1, now, time.Hour)
		if !slices.Equal(l, before) {
			t.Fatalf("%v was changed to %v", before, l)
		}
		l = next
		if n := l.Since(now, time.Hour); n != i+1 {
			t.Fatalf("after %d losses %d count", i+1, n)
		}
	}
	if len(l) != 60 {
		t.Errorf("%d entries", len(l))
	}
	for after, want := range map[time.Duration]int{
		time.Hour - time.Second: 3600, time.Hour: 3540, 90 * time.Minute: 1740, 2 * time.Hour: 0, -time.Minute: 3540, -48 * time.Hour: 0,
	} {
		if n := l.Since(start.Add(after), time.Hour); n != want {
			t.Errorf("%s after the first, %d count and not %d", after, n, want)
		}
	}
	if l = l.With(2, start.Add(24*time.Hour), time.Hour); len(l) != 1 || l[0].Mails != 2 {
		t.Errorf("a day later there is %v", l)
	}
	if n := l.Since(start.Add(24*time.Hour), 0); n != 0 {
		t.Errorf("%d count for who stands alone", n)
	}
}
