package sim

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mutant is a deliberate mistake in the code that the simulation tests.
type mutant struct {
	name, file string
	old, new   string
}

// readMutants reads testdata/mutants.txt: "== NAME", the file, what is there, "--", what takes its place.
func readMutants(t *testing.T) (out []mutant) {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split("\n"+string(text), "\n== ")[1:] {
		head, rest, _ := strings.Cut(block, "\n")
		file, rest, _ := strings.Cut(rest, "\n")
		old, replacement, ok := strings.Cut(rest, "\n--\n")
		if !ok {
			t.Fatalf("mutant %q: no --", head)
		}
		out = append(out, mutant{name: head, file: file, old: old, new: strings.TrimRight(replacement, "\n")})
	}
	return out
}

// TestMutantsApply holds that the list of mistakes is one of this code.
func TestMutantsApply(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range readMutants(t) {
		if _, err := m.apply(root); err != nil {
			t.Error(err)
		}
	}
}

// apply returns the file with the mistake.
func (m mutant) apply(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", fmt.Errorf("mutant %q: what it replaces is %d times in %s", m.name, n, m.file)
	}
	return strings.Replace(string(text), m.old, m.new, 1), nil
}

// TestMutants makes each mistake in a copy of the code and requires that the simulation sees it within SIM_MUTANTS histories,
// or in those that its tests run besides. Of others it says which test sees them, if any does. SIM_MUTANT picks some by a regular expression of their names.
func TestMutants(t *testing.T) {
	histories := envInt(t, "SIM_MUTANTS", 0)
	if histories == 0 {
		return // it is a tool: see make mutants
	}
	chosen := regexp.MustCompile(os.Getenv("SIM_MUTANT"))
	root := copyCode(t)
	var table strings.Builder
	for _, m := range readMutants(t) {
		if !chosen.MatchString(m.name) {
			continue
		}
		start := time.Now()
		by, simulated := m.caughtBy(t, root, histories)
		if !simulated {
			t.Errorf("the simulation does not see that %s: %s", m.name, by)
		}
		line := fmt.Sprintf("| %s | %s |\n", m.name, by)
		fmt.Fprintf(os.Stderr, "%5.0f s %s", time.Since(start).Seconds(), line)
		table.WriteString(line)
	}
	t.Logf("| mistake | seen by |\n| --- | --- |\n%s", table.String())
}

// copyCode copies what the simulation is built of.
func copyCode(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, part := range []string{"mirror", "remote"} {
		if err := os.CopyFS(filepath.Join(root, part), os.DirFS(filepath.Join("../..", part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		data, err := fs.ReadFile(os.DirFS("../.."), file)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, file), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// caughtBy returns what fails with the mistake, and whether that is the simulation.
func (m mutant) caughtBy(t *testing.T, root string, histories int) (by string, simulated bool) {
	t.Helper()
	text, err := m.apply(root)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, m.file)
	original, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(file, original, 0o600)
	out, err := goCommand(root, "test", "-count=1", "-timeout=0", "-run", "^TestSurvey$", "-v", "./mirror/sim",
		fmt.Sprintf("SIM_SURVEY=%d", histories), "SIM_FIRST=1")
	if strings.Contains(out, "[build failed]") {
		return "does not compile: " + out, false
	}
	if err != nil {
		return firstViolation(out), true
	}
	// That the mistakes fit the code is no matter of what the code does.
	out, err = goCommand(root, "test", "-count=1", "-timeout=10m", "-skip", "^TestMutants", "./mirror/sim")
	if err != nil {
		return firstFailure(out), true
	}
	out, err = goCommand(root, "test", "-count=1", "-timeout=10m", "-skip", "^TestMutants", "./mirror/...")
	if err != nil {
		return "only by " + firstFailure(out), false
	}
	return "NOT CAUGHT", false
}

// goCommand runs the go tool; arguments NAME=VALUE are for its environment.
func goCommand(dir string, args ...string) (string, error) {
	var words []string
	env := append(os.Environ(), "SIM_MUTANTS=")
	for _, a := range args {
		if strings.HasPrefix(a, "SIM_") {
			env = append(env, a)
		} else {
			words = append(words, a)
		}
	}
	cmd := exec.Command("go", words...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

var (
	violation = regexp.MustCompile(`(?m)^seed (\d+): (.*)$`)
	counted   = regexp.MustCompile(`(\d+) histories in`)
	failure   = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
)

func firstViolation(out string) string {
	v, n := violation.FindStringSubmatch(out), counted.FindStringSubmatch(out)
	if v == nil || n == nil {
		return strings.TrimSpace(out[:min(len(out), 300)])
	}
	what := v[2]
	for where.MatchString(what) {
		what = where.ReplaceAllString(what, "")
	}
	return fmt.Sprintf("history %s: %.90s", n[1], strings.ReplaceAll(what, "|", "/"))
}

func firstFailure(out string) string {
	if f := failure.FindStringSubmatch(out); f != nil {
		return f[1]
	}
	return strings.TrimSpace(out[:min(len(out), 300)])
}
