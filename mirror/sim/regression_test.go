package sim

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestRegressions runs the histories of testdata/regressions.txt: "== WHAT WENT WRONG", then the history.
func TestRegressions(t *testing.T) {
	text, err := os.ReadFile("testdata/regressions.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split("\n"+string(text), "\n== ")[1:] {
		name, history, _ := strings.Cut(block, "\n")
		t.Run(name, func(t *testing.T) {
			h, err := ParseHistory(history)
			if err != nil {
				t.Fatal(err)
			}
			var v *Violation
			if err := Run(t, h); errors.As(err, &v) {
				t.Fatalf("%v\ncourse:\n%s", err, strings.Join(v.Trace, "\n"))
			}
		})
	}
}
