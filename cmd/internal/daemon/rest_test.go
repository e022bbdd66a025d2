package daemon

import "testing"

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	var r resting
	for i, step := range []struct {
		allocated uint64 // MiB
		want      bool
	}{
		{40, false}, // the burst goes on
		{80, false},
		{80, true}, // it is over
		{80, false},
		{90, false}, // too little to care
		{90, false},
		{97, false},
		{97, true},
	} {
		if got := r.due(step.allocated << 20); got != step.want {
			t.Errorf("look %d: %v", i, got)
		}
	}
}
