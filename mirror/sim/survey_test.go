package sim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSurvey runs SIM_SURVEY histories from SIM_SEED on, for no longer than SIM_TIME seconds, and lists those that fail,
// without making them shorter. SIM_FIRST=1 ends it at the first of these. Each processor gets a process of its own, which knows only one: goroutines that take turns
// are slowed down by a second one.
func TestSurvey(t *testing.T) {
	n := envInt(t, "SIM_SURVEY", 0)
	if n == 0 {
		return // it is a tool: see make sim
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &survey{start: time.Now(), wanted: n, enough: cancel}
	if os.Getenv("SIM_WORKER") != "" {
		s.work(t)
		return
	}
	var workers sync.WaitGroup
	count := runtime.NumCPU()
	for i := range count {
		workers.Go(func() { s.watch(ctx, t, i, count) })
	}
	workers.Wait()
	t.Logf("%d histories in %.0f s, %.1f a second, %d violations", s.done, s.seconds(), float64(s.done)/s.seconds(), s.failed)
}

type survey struct {
	start  time.Time
	wanted int
	enough func() // ends it

	mu           sync.Mutex
	done, failed int
	said         time.Time // when progress was last shown
}

func (s *survey) seconds() float64 { return time.Since(s.start).Seconds() }

// work runs the share of one process: every count-th seed. It tells of each history on standard output.
func (s *survey) work(t *testing.T) {
	first, limit := envInt(t, "SIM_SEED", 1), float64(envInt(t, "SIM_TIME", 1<<30))
	count := envInt(t, "SIM_WORKERS", 1)
	for i := envInt(t, "SIM_WORKER", 0); i < s.wanted && s.seconds() < limit; i += count {
		err := Run(t, Generate(uint64(first+i)))
		if err == nil {
			fmt.Println("survey ok")
			continue
		}
		line, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Printf("survey seed %d: %.300s\n", first+i, line)
	}
}

// watch starts one of count processes and hears what it says.
func (s *survey) watch(ctx context.Context, t *testing.T, i, count int) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSurvey$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=400", fmt.Sprintf("SIM_WORKER=%d", i), fmt.Sprintf("SIM_WORKERS=%d", count))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	var rest strings.Builder
	for in := bufio.NewScanner(out); in.Scan(); {
		if line, ok := strings.CutPrefix(in.Text(), "survey "); ok {
			s.hear(t, line)
		} else {
			fmt.Fprintln(&rest, in.Text())
		}
	}
	if err := cmd.Wait(); err != nil && ctx.Err() == nil {
		t.Errorf("process %d: %v\n%s", i, err, rest.String())
	}
}

// hear counts a history.
func (s *survey) hear(t *testing.T, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if line != "ok" {
		s.failed++
		t.Error(line)
		if os.Getenv("SIM_FIRST") != "" {
			s.enough()
		}
		s.progress(line)
	}
	if time.Since(s.said) > 10*time.Second {
		s.said = time.Now()
		s.progress(fmt.Sprintf("%d of %d histories, %.1f a second, %d violations", s.done, s.wanted, float64(s.done)/s.seconds(), s.failed))
	}
}

// progress shows a line now; what a test logs is shown when it is over.
func (s *survey) progress(line string) { io.WriteString(os.Stderr, line+"\n") }
