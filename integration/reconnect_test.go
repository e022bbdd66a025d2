package integration

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// awake is a mount in a network of its own and with a bus of its own, of which nobody else changes anything.
type awake struct {
	*mounted
	net *harness.Network
	bus *harness.Bus
	n   int // mails delivered
}

func newAwake(t *testing.T) *awake {
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network of its own")
	}
	p := newPair(t)
	a := &awake{net: p.NewNetwork(), bus: p.NewBus()}
	a.mounted = prepareMountOf(p)
	a.a.Create(t, "INBOX")
	a.start("-D")
	a.bus.Listened()
	a.synced()
	t.Cleanup(func() {
		if t.Failed() {
			log := a.daemonLog()
			t.Logf("the daemon's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return a
}

// waits delivers a mail that cannot be sent yet, and returns its name.
func (a *awake) waits() (name string) {
	a.t.Helper()
	a.n++
	name = fmt.Sprintf("176726160%d.M1.waits", a.n)
	a.mount.Deliver(a.t, "INBOX", name, "", harness.Note(name))
	return name
}

// back waits until a mail that could not be sent is there, and demands that the log said all that in this order.
func (a *awake) back(name string, logged int, said ...string) {
	a.t.Helper()
	a.Eventually(name+" is there", time.Minute, func() error { return exists(a.b, "INBOX", name, "") })
	log := a.daemonLog()[logged:]
	rest := log
	for _, what := range said {
		_, after, ok := strings.Cut(rest, what)
		if !ok {
			a.t.Errorf("%q was not logged, or not then:\n%s", what, log)
			break
		}
		rest = after
	}
	a.synced()
}

const triedAtOnce = "the remote is tried again at once"

// TestTheNetworkComesBack: the network goes, which is noticed, and comes back while an attempt to connect is under way for so long that
// TCP would not repeat it for 7 s (it does 1, 3, 7 and 15 s after the beginning). The attempt is given up for a new one.
func TestTheNetworkComesBack(t *testing.T) {
	t.Parallel()
	a := newAwake(t)
	mail := a.waits()
	a.net.Down()
	a.Eventually("an attempt to connect", 20*time.Second, func() error {
		if log := a.daemonLog(); !strings.Contains(log, triedAtOnce) {
			return errors.New(log)
		}
		return nil
	})
	began := time.Now()
	a.Eventually("it lasts", time.Minute, func() error {
		if now := a.live(); time.Since(began) < 8*time.Second {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	logged := len(a.daemonLog())
	a.net.Up()
	a.back(mail, logged, `because="the network changed"`, "given up when the network changed", triedAtOnce)
	a.link.Cut() // the server of the first connection has not heard of its end
	a.serversEnd()
}

// TestTheMachineWakesUp, with the other side away and the next attempt to reach it far off, and with a connection that died meanwhile,
// of which keepalives would tell after 45 s.
func TestTheMachineWakesUp(t *testing.T) {
	t.Parallel()
	a := newAwake(t)
	a.link.Cut()
	mail := a.waits()
	a.Eventually("a long pause", time.Minute, func() error {
		if now := a.live(); now.State != "offline" || time.Until(now.NextTry) < 6*time.Second {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	due, logged := a.live().NextTry, len(a.daemonLog())
	a.bus.Sleep()
	a.link.Join()
	a.bus.Wake()
	a.back(mail, logged, `because="the machine woke up"`, triedAtOnce)
	if at := a.lastLogged(triedAtOnce); at.After(due) {
		t.Errorf("tried at %s, due at %s", at, due)
	}

	a.remote.Freeze(true)
	frozen := time.Now()
	mail, logged = a.waits(), len(a.daemonLog())
	a.bus.Wake()
	a.back(mail, logged, `because="the machine woke up"`, "connection lost: no answer for")
	if at := a.lastLogged("connection lost: no answer for"); at.Sub(frozen) > 40*time.Second {
		t.Errorf("the connection was given up at %s, and died at %s", at, frozen)
	}
}

// lastLogged is when the daemon last logged something.
func (a *awake) lastLogged(what string) (at time.Time) {
	a.t.Helper()
	for line := range strings.Lines(a.daemonLog()) {
		if !strings.Contains(line, what) {
			continue
		}
		var err error
		at, err = time.Parse("2006-01-02 15:04:05.000", line[:23])
		must(a.t, err)
	}
	return at
}
