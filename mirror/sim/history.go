package sim

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"dsyncfs/mirror/vfs"
)

// History is all that happens in one simulation. The same history gives the same course.
type History struct {
	Replicas []string // the layout of each: "++" or "fs". The first one is the master of the others, or their slave
	Backup   bool     // the second one is a backup of the first
	Steps    []Step
}

// Step is one thing that happens. Seed decides what its op leaves open.
type Step struct {
	Op   string // of users, or "sync", or "live" for a mount that is kept in sync for a while
	Side int    // the replica; for a sync: which of the others the first one is connected with
	Seed uint64

	// Of a sync.
	Type     string `json:",omitempty"` // "f", "c", "s" as in the handshake
	Reversed bool   `json:",omitempty"` // the other one is the master
	Wire     bool   `json:",omitempty"` // through the wire format
	Cut      int    `json:",omitempty"` // the link is cut after so many items; over the wire so many times 40 bytes
	Users    int    `json:",omitempty"` // ops of users during the sync
	Edits    int    `json:",omitempty"` // besides these, mails that users write in the place of others meanwhile
	Fault    *Fault `json:",omitempty"`

	// Of a sync that finds that mails are gone: the user has them restored, instead of confirming.
	Restore bool `json:",omitempty"`
}

// Fault is what goes wrong with one of the two replicas of a sync.
type Fault struct {
	Second bool   `json:",omitempty"` // with the slave
	What   string // crash, eio, enospc, eintr, late (done, but EIO), full (no space from then on), reads
	At     int    `json:",omitempty"` // the operation, counting those that change something
	Loss   int    `json:",omitempty"` // of a crash: a vfs.Loss
	Reads  int    `json:",omitempty"` // one of so many reads fails
	Seed   uint64 `json:",omitempty"`
}

const backupWord = "backup"

// String is one step a line, to be read by [ParseHistory].
func (h History) String() string {
	var b strings.Builder
	b.WriteString(strings.Join(h.Replicas, " "))
	if h.Backup {
		b.WriteString(" " + backupWord)
	}
	b.WriteByte('\n')
	for _, s := range h.Steps {
		line, err := json.Marshal(s)
		if err != nil {
			panic(err) // there is nothing in it that cannot be encoded
		}
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

// ParseHistory reads what String wrote.
func ParseHistory(text string) (h History, err error) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimSpace(line)
		if h.Replicas == nil {
			h.Replicas = strings.Fields(line)
			if n := len(h.Replicas) - 1; n > 0 && h.Replicas[n] == backupWord {
				h.Replicas, h.Backup = h.Replicas[:n], true
			}
			continue
		}
		var s Step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return h, fmt.Errorf("step %q: %w", line, err)
		}
		h.Steps = append(h.Steps, s)
	}
	return h, nil
}

// userOps are the things that users do, as often as they are listed.
var userOps = strings.Fields(`deliver deliver deliver deliver deliver burst see see flag flag flag keyword keyword keyword manykeywords
	expunge expunge expunge move move move copy copy create create rename rename delete recreate subscribe subscribe unsubscribe
	assign assign loselist resetvalidity edit clock wait wait forget crash empty`)

// calmOps are those after which nothing may come back.
var calmOps = strings.Fields(`deliver deliver deliver deliver deliver burst see see flag flag flag keyword keyword keyword manykeywords
	assign assign expunge expunge expunge move move move copy copy create rename subscribe unsubscribe wait`)

// Generate makes a history of a seed.
func Generate(seed uint64) History {
	h, _ := generate(seed)
	return h
}

// GenerateEdits is Generate with users who write in the place of mails during syncs.
func GenerateEdits(seed uint64) History {
	h, faults := generate(seed)
	if faults {
		h.edit(rand.New(rand.NewPCG(seed, 6)))
	}
	return h
}

// generate also tells whether anything goes wrong in the history.
func generate(seed uint64) (h History, faults bool) {
	rng := rand.New(rand.NewPCG(seed, 1))
	layout := func() string {
		if rng.IntN(4) == 0 {
			return "fs"
		}
		return "++"
	}
	h = History{Replicas: []string{layout(), layout()}}
	switch rng.IntN(10) {
	case 0, 1:
		h.Replicas = append(h.Replicas, layout())
	case 2:
		h.Backup = true
	}
	ops := userOps
	faults = true
	if rng.IntN(4) == 0 {
		ops, faults = calmOps, false
	}
	renames, live := rng.IntN(4) > 0, rng.IntN(2) == 0 && !h.Backup
	n := 50 + rng.IntN(40)
	for len(h.Steps) < n {
		if live && rng.IntN(24) == 0 {
			h.Steps = append(h.Steps, generateSession(rng, faults))
			continue
		}
		if rng.IntN(6) == 0 {
			h.Steps = append(h.Steps, generateSync(rng, len(h.Replicas), faults))
			continue
		}
		op := ops[rng.IntN(len(ops))]
		if op == "rename" && !renames {
			op = "resetguid"
			if !faults {
				op = "see"
			}
		}
		if op == "clock" && len(h.Replicas) > 2 {
			// A subscription carries the time at which a replica heard of it. With three of them and a clock that is behind, on
			// and off chase each other round.
			op = "wait"
		}
		side := rng.IntN(len(h.Replicas))
		if renames && len(h.Replicas) > 2 {
			// Two mailboxes of one name become one with one GUID. A third replica that has the other one still knows it by the
			// name, and not by a new one.
			switch op {
			case "create":
				side = 0
			case "delete", "recreate":
				op = "deliver"
			}
		}
		h.Steps = append(h.Steps, Step{Op: op, Side: side, Seed: rng.Uint64()})
	}
	if faults && len(h.Replicas) == 2 && !h.Backup {
		h.restore(rand.New(rand.NewPCG(seed, 9)))
	}
	return h, faults
}

// restore lets, in one of four histories, a user lose a mailbox and put back what there was of it some time before, while the other
// side may not have heard of the loss, and somebody there deletes it as well; and later perhaps lose it again, and want it back. It draws
// from numbers of its own.
func (h *History) restore(rng *rand.Rand) {
	if rng.IntN(4) > 0 {
		return
	}
	side := rng.IntN(2)
	do := func(op string, side int) Step { return Step{Op: op, Side: side, Seed: rng.Uint64()} }
	broken := generateSync(rng, 2, false)
	broken.Cut = 1 + rng.IntN(30)
	steps := []Step{
		do("keep", side), do("fillkept", rng.IntN(2)), generateSync(rng, 2, false), do("dropkept", side), broken,
		do("putback", side), do("fillkept", side), do("dropkept", 1-side), generateSync(rng, 2, false),
	}
	for _, left := range []int{7, 4, 1} { // each with a chance to be left out
		if rng.IntN(4) == 0 {
			steps = slices.Delete(steps, left, left+1)
		}
	}
	at := rng.IntN(len(h.Steps))
	h.Steps = slices.Insert(h.Steps, at, steps...)
	if rng.IntN(2) == 0 {
		at += len(steps)
		again := generateSync(rng, 2, false)
		again.Restore = true
		h.Steps = slices.Insert(h.Steps, at+rng.IntN(len(h.Steps)+1-at), do("fillkept", side), do("fillkept", side), generateSync(rng, 2, false), do("dropkept", side), again)
	}
}

// edit lets users write in the place of mails during some syncs. It draws from numbers of its own.
func (h *History) edit(rng *rand.Rand) {
	for i := range h.Steps {
		if s := &h.Steps[i]; s.Op == "sync" && rng.IntN(4) == 0 {
			s.Edits = 1 + rng.IntN(3)
		}
	}
}

func generateSync(rng *rand.Rand, replicas int, faults bool) Step {
	s := Step{Op: "sync", Side: 1 + rng.IntN(replicas-1), Seed: rng.Uint64()}
	s.Type = []string{"s", "s", "s", "f", "c"}[rng.IntN(5)]
	s.Reversed = rng.IntN(4) == 0
	s.Wire = rng.IntN(4) == 0
	s.Restore = rng.IntN(4) == 0
	if rng.IntN(4) == 0 {
		s.Users = 1 + rng.IntN(6)
	}
	if !faults {
		return s
	}
	if rng.IntN(6) == 0 {
		s.Cut = 1 + rng.IntN(90)
	}
	if rng.IntN(2) == 0 {
		s.Fault = generateFault(rng)
	}
	return s
}

func generateSession(rng *rand.Rand, faults bool) Step {
	s := Step{Op: "live", Seed: rng.Uint64(), Users: rng.IntN(30), Reversed: rng.IntN(4) == 0, Wire: rng.IntN(4) == 0}
	if faults && rng.IntN(2) == 0 {
		s.Cut = 1 + rng.IntN(150)
	}
	if faults && rng.IntN(2) == 0 {
		s.Fault = generateFault(rng)
	}
	return s
}

func generateFault(rng *rand.Rand) *Fault {
	f := &Fault{Second: rng.IntN(2) == 0, Seed: rng.Uint64()}
	f.What = []string{"crash", "crash", "crash", "crash", "eio", "enospc", "eintr", "late", "full", "reads"}[rng.IntN(10)]
	if f.What == "reads" {
		f.Reads = 1 << (3 + rng.IntN(6))
		return f
	}
	f.At = 1 + rng.IntN(1<<(2+rng.IntN(7)))
	if f.What == "crash" {
		f.Loss = rng.IntN(int(vfs.LoseAny) + 1)
	}
	return f
}
