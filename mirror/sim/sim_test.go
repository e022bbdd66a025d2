package sim

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// seeds is how many histories a plain run of the tests tries, also with the race detector; `make sim` tries more.
const seeds = 20

// TestSim runs SIM_SEEDS histories (default 20) from SIM_SEED (default 1) on. SIM_SEEDS=1 SIM_SEED=n replays one; SIM_HISTORY
// names a file with a history to be replayed as it is.
func TestSim(t *testing.T) {
	Verbose = os.Getenv("SIM_VERBOSE") != ""
	if file := os.Getenv("SIM_HISTORY"); file != "" {
		replay(t, file)
		return
	}
	first, n := envInt(t, "SIM_SEED", 1), envInt(t, "SIM_SEEDS", seeds)
	for seed := first; seed < first+n; seed++ {
		if h := Generate(uint64(seed)); Run(t, h) != nil {
			report(t, seed, h)
			return
		}
	}
}

// TestEdits runs histories in which mails are written in place during syncs, which the others leave out: what comes of it together
// with a new UIDVALIDITY or a crash may be there once more.
func TestEdits(t *testing.T) {
	for seed := 1; seed <= 60; seed++ {
		if h := GenerateEdits(uint64(seed)); Run(t, h) != nil {
			report(t, seed, h)
			return
		}
	}
}

func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// report shows what is wrong in the shortest history.
func report(t *testing.T, seed int, h History) {
	t.Helper()
	kind := kindOf(Run(t, h))
	h = Shrink(h, envInt(t, "SIM_SHRINK", 600), func(h History) bool { return kindOf(Run(t, h)) == kind })
	err := Run(t, h)
	var v *Violation
	if !errors.As(err, &v) {
		t.Fatalf("seed %d fails, but its shrunk history does not always; try SIM_SEED=%d SIM_SEEDS=1\n%s", seed, seed, h)
	}
	t.Fatalf("seed %d: %v\n\nhistory (SIM_HISTORY replays it from a file; SIM_SEED=%d SIM_SEEDS=1 the whole):\n%s\ncourse:\n%s",
		seed, err, seed, h, strings.Join(v.Trace, "\n"))
}

var (
	where  = regexp.MustCompile(`^(step \d+ \([^)]*\)|at the end|at rest|a day later|one more sync \(.\)|[A-C]): `)
	detail = regexp.MustCompile(`\d+|"[^"]*"`)
)

// kindOf says what is wrong without where and with what, so that a history is not shrunk to one that fails otherwise.
func kindOf(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	for where.MatchString(text) {
		text = where.ReplaceAllString(text, "")
	}
	text = detail.ReplaceAllString(text, "")
	return text[:min(len(text), 30)]
}

func replay(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ParseHistory(string(text))
	if err != nil {
		t.Fatal(err)
	}
	trace, err := run(t, h)
	t.Log(strings.Join(trace, "\n"))
	if err != nil {
		t.Fatal(err)
	}
}

// tempNames are those of tempName, anywhere in a course.
var tempNames = regexp.MustCompile(`\.\d+\.\d+\.tmp`)

// TestSameSeedSameCourse runs histories twice.
func TestSameSeedSameCourse(t *testing.T) {
	for seed := range envInt(t, "SIM_TWICE", 10) {
		h := Generate(uint64(1000 + seed))
		var courses [2]string
		for i := range courses {
			trace, _ := run(t, h)
			courses[i] = tempNames.ReplaceAllString(strings.Join(trace, "\n"), ".tmp")
		}
		if courses[0] != courses[1] {
			t.Errorf("seed %d went two ways:\n%s\n\n%s", 1000+seed, courses[0], courses[1])
		}
	}
}
