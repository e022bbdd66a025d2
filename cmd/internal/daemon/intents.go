package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"dsyncfs/fusefs"
)

// intentsName is the file of what programs want of mails that are still to come.
const intentsName = "intents"

// intents are kept in a file that is only appended to, one JSON value a line: an intent, or that it was carried out. Like the
// journal it survives the end of the process at once, and a power failure after sync.
type intents struct {
	dir string

	mu   sync.Mutex
	file *os.File // nil: none was kept yet, or closed
	all  map[boxKey]map[string]fusefs.Intent
	same map[boxKey]boxKey // mailboxes that intents are kept of under another key
}

// intentLine is one line of the file.
type intentLine struct {
	Mailbox boxKey `json:"mailbox"`
	Base    string `json:"base"`
	Was     string `json:"was,omitempty"`
	Want    string `json:"want,omitempty"`
	Settled bool   `json:"settled,omitempty"`
	Same    boxKey `json:"same,omitempty"` // names the same mailbox as Mailbox; there is nothing else then
}

// openIntents reads what an earlier mount left. A last line that is not whole was never acknowledged.
func openIntents(dir string) (*intents, error) {
	t := &intents{dir: dir, all: make(map[boxKey]map[string]fusefs.Intent), same: make(map[boxKey]boxKey)}
	text, err := os.ReadFile(filepath.Join(dir, intentsName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for line := range bytes.SplitSeq(text, []byte{'\n'}) {
		var l intentLine
		if json.Unmarshal(line, &l) == nil {
			t.note(l)
		}
	}
	return t, nil
}

// note takes a line into account. The caller holds mu, or is alone.
func (t *intents) note(l intentLine) {
	key := t.key(l.Mailbox)
	if l.Same != "" {
		t.unite(key, t.key(l.Same))
		return
	}
	box := t.all[key]
	if l.Settled {
		delete(box, l.Base)
		return
	}
	if box == nil {
		box = make(map[string]fusefs.Intent)
		t.all[key] = box
	}
	box[l.Base] = fusefs.Intent{Base: l.Base, Was: l.Was, Want: l.Want}
}

// key is under which intents about a mailbox are kept. The caller holds mu, or is alone.
func (t *intents) key(box boxKey) boxKey {
	for {
		other, known := t.same[box]
		if !known {
			return box
		}
		box = other
	}
}

// unite has the intents of two keys under the first one. The caller holds mu, or is alone.
func (t *intents) unite(key, other boxKey) {
	if key == other {
		return
	}
	t.same[other] = key
	if all := t.all[other]; t.all[key] == nil {
		t.all[key] = all
	} else {
		maps.Copy(t.all[key], all)
	}
	delete(t.all, other)
}

// known returns under which key intents about a mailbox are kept.
func (t *intents) known(box boxKey) boxKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.key(box)
}

// join keeps that a mailbox has two names, of which either may be the one that it has after the next round, and returns under
// which key the intents about it are kept.
func (t *intents) join(a, b boxKey) (boxKey, error) {
	if key := t.known(a); key == t.known(b) {
		return key, nil
	}
	err := t.write(intentLine{Mailbox: a, Same: b})
	return t.known(a), err
}

func (t *intents) write(l intentLine) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		var err error
		if t.file, err = os.OpenFile(filepath.Join(t.dir, intentsName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return err
		}
		if _, err := t.file.WriteString("\n"); err != nil { // ends what a crash may have left half
			return err
		}
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := t.file.Write(append(text, '\n')); err != nil {
		return err
	}
	t.note(l)
	return nil
}

// add keeps an intent.
func (t *intents) add(box boxKey, i fusefs.Intent) error {
	return t.write(intentLine{Mailbox: box, Base: i.Base, Was: i.Was, Want: i.Want})
}

// settled says that an intent was carried out. If that is not kept, it is carried out again, which changes nothing.
func (t *intents) settled(box boxKey, base string, log *slog.Logger) {
	if err := t.write(intentLine{Mailbox: box, Base: base, Settled: true}); err != nil {
		log.Warn("state directory", "err", err)
	}
}

// of returns the intents about mails of a mailbox, by base name.
func (t *intents) of(box boxKey) []fusefs.Intent {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []fusefs.Intent
	for _, i := range t.all[t.key(box)] {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b fusefs.Intent) int { return strings.Compare(a.Base, b.Base) })
	return out
}

// mailboxes returns the keys of those that there are intents about.
func (t *intents) mailboxes() []boxKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []boxKey
	for box, all := range t.all {
		if len(all) > 0 {
			out = append(out, box)
		}
	}
	slices.Sort(out)
	return out
}

// sync makes what was kept survive a power failure.
func (t *intents) sync() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	return t.file.Sync()
}

func (t *intents) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// remove ends the first fill: what was wanted of mails that never came is forgotten.
func (t *intents) remove() error {
	err := t.close()
	for _, name := range []string{intentsName, fillName} {
		if rerr := os.Remove(filepath.Join(t.dir, name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
