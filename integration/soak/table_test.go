package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// columns are the figures of a sample, and how much more the last quarter may have than the first: a share of it and an
// allowance on top. Growth of what has no allowance is not judged. Quarters are compared by their medians, or by what they had at
// least: a store that is open while the sample is taken has a dozen files open, and a leak raises the floor.
var columns = []struct {
	name      string
	share     float64
	allowance float64
	of        func(sorted []float64) float64
}{
	{"lag ms", 0, 0, median},
	{"daemon MiB", 0.25, 4, median}, {"daemon fds", 0, 6, least}, {"goroutines", 0, 6, least}, {"heap MiB", 0.5, 4, median},
	{"server MiB", 0.25, 4, median}, {"server fds", 0, 6, least},
	{"journal KiB", 1, 64 << 10, median}, {"index KiB", 0.5, 2 << 10, median}, {"state files", 0, 10, median},
	{"mails", 0, 0, median},
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

func least(sorted []float64) float64 { return sorted[0] }

// table collects samples.
type table struct {
	s     *scene
	total time.Duration
	start time.Time
	rows  [][]float64
}

func newTable(s *scene, total time.Duration) *table {
	t := &table{s: s, total: total, start: time.Now()}
	line := fmt.Sprintf("%8s", "time")
	for _, c := range columns {
		line += fmt.Sprintf(" %11s", c.name)
	}
	fmt.Println(line)
	return t
}

// sample takes the figures now.
func (b *table) sample() {
	s := b.s
	s.t.Helper()
	servers := s.Servers()
	if len(servers) == 0 {
		s.t.Log("no server is running at the other end")
		return
	}
	daemon, server := s.mount.PID(), servers[0]
	process := s.process()
	state := s.StateDir()
	row := []float64{
		millis(s.lag), resident(daemon), openFiles(daemon), process.Goroutines, process.Heap / (1 << 20),
		resident(server), openFiles(server),
		size(filepath.Join(state, "mounts")) / 1024, size(filepath.Join(state, "stores")) / 1024, files(state),
		files(filepath.Join(s.near.Path)),
	}
	s.lag = nil
	b.rows = append(b.rows, row)
	line := fmt.Sprintf("%8s", time.Since(b.start).Round(time.Second))
	for i, v := range row {
		format := " %11.0f"
		if strings.HasSuffix(columns[i].name, "MiB") {
			format = " %11.1f"
		}
		line += fmt.Sprintf(format, v)
	}
	fmt.Println(line)
}

// verdict compares the last quarter with the first. What runs for less than minutes is still warming up.
func (b *table) verdict(t *testing.T) {
	quarter := len(b.rows) / 4
	fmt.Printf("%d changes by programs and %d runs of programs in %s\n", b.s.load.done.Load(), b.s.programs, time.Since(b.start).Round(time.Second))
	if quarter < 2 || b.total < 5*time.Minute {
		fmt.Println("too short for a verdict on growth")
		return
	}
	for i, c := range columns {
		first, last := b.figure(i, b.rows[:quarter]), b.figure(i, b.rows[len(b.rows)-quarter:])
		verdict := "not judged"
		if c.allowance > 0 {
			verdict = "ok"
			if last > first*(1+c.share)+c.allowance {
				verdict = "GROWS"
				t.Errorf("%s grows from %.1f to %.1f", c.name, first, last)
			}
		}
		fmt.Printf("%-12s first quarter %10.1f, last quarter %10.1f   %s\n", c.name, first, last, verdict)
	}
}

// figure is what stands for a column of some rows.
func (b *table) figure(column int, rows [][]float64) float64 {
	var all []float64
	for _, r := range rows {
		all = append(all, r[column])
	}
	slices.Sort(all)
	return columns[column].of(all)
}

func millis(all []time.Duration) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[len(all)/2].Microseconds()) / 1000
}

// process is what the daemon says of itself.
func (s *scene) process() (p struct {
	Goroutines float64 `json:"goroutines"`
	Heap       float64 `json:"heap_bytes"`
}) {
	s.t.Helper()
	r := s.Run("--json", "status", s.mount.Path).Want(0)
	var all []map[string]json.RawMessage
	err := json.Unmarshal([]byte(r.Stdout), &all)
	if err == nil && len(all) == 1 {
		err = json.Unmarshal(all[0]["process"], &p)
	}
	if err != nil {
		s.t.Fatalf("status --json: %v: %s", err, r.Stdout)
	}
	return p
}

// resident is the RSS of a process in MiB, 0 if it is gone.
func resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kib / 1024
		}
	}
	return 0
}

func openFiles(pid int) float64 {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0
	}
	return float64(len(entries))
}

// size adds up the files below a directory, in bytes. What goes away meanwhile does not count.
func size(dir string) (sum float64) {
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += float64(info.Size())
			}
		}
		return nil
	})
	return sum
}

func files(dir string) (n float64) {
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}
