package ssh

import (
	"errors"
	"fmt"
	"time"
)

// errSilent ends a login that a probe found dead.
var errSilent = errors.New("given up when the network changed")

// Probe implements [remote.Prober] for the logins under way. One that began before the network was there waits for answers that never
// come: to a question about the name, or to a packet that TCP repeats after ever longer pauses.
func (d *Dialer) Probe(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.logins {
		l.probe(limit)
	}
}

// under notes a login as under way, until done is called.
func (d *Dialer) under(l *login) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logins[l] = struct{}{}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.logins, l)
	}
}

// probe gives the login up once the peer has said nothing for limit, at once if that is so already. A peer that speaks is left alone.
func (l *login) probe(limit time.Duration) {
	silence, waits := l.silence()
	if waits && silence < limit {
		time.AfterFunc(limit-silence, func() { l.giveUp(limit) })
		return
	}
	l.giveUp(limit)
}

func (l *login) giveUp(limit time.Duration) {
	if silence, waits := l.silence(); waits && silence >= limit {
		l.cancel(fmt.Errorf("no answer for %v: %w", silence.Round(time.Millisecond), errSilent))
	}
}

// silence is how long the peer has said nothing. Not waits: it is the user's turn to say something.
func (l *login) silence() (silence time.Duration, waits bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	silence = time.Since(l.began)
	if l.wire != nil {
		silence = min(silence, l.wire.silence())
	}
	return silence, !l.asking
}

func (l *login) connected(w *wire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wire = w
}

// turn says whose it is. The peer's silence counts from the beginning of its turn.
func (l *login) turn(user bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asking, l.began = user, time.Now()
}
