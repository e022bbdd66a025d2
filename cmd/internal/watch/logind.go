package watch

import (
	"context"
	"log/slog"
	"time"

	"github.com/godbus/dbus/v5"
)

// busPause is between attempts to reach a system bus that is not there: a mount of fstab may begin before it does.
const busPause = time.Minute

// Where logind says that it puts the machine to sleep (true) and that the machine woke up (false); see org.freedesktop.login1(5).
const (
	logindName      = "org.freedesktop.login1"
	logindPath      = dbus.ObjectPath("/org/freedesktop/login1")
	logindInterface = "org.freedesktop.login1.Manager"
	prepareForSleep = "PrepareForSleep"
)

// readLogind tells each time the machine woke up, until ctx ends. The bus is that of $DBUS_SYSTEM_BUS_ADDRESS, or the usual one.
func readLogind(ctx context.Context, events chan<- Change, log *slog.Logger) {
	for ctx.Err() == nil {
		if err := onBus(ctx, events); err != nil && ctx.Err() == nil {
			log.Debug("logind does not tell of sleep", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(busPause):
		}
	}
}

// onBus listens on one connection to the bus, until it or ctx ends.
func onBus(ctx context.Context, events chan<- Change) error {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer conn.Close()
	signals := make(chan *dbus.Signal, 8)
	conn.Signal(signals)
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(logindName), dbus.WithMatchObjectPath(logindPath),
		dbus.WithMatchInterface(logindInterface), dbus.WithMatchMember(prepareForSleep))
	if err != nil {
		return err
	}
	for {
		select {
		case <-conn.Context().Done():
			return context.Cause(conn.Context())
		case s, open := <-signals:
			if !open {
				return dbus.ErrClosed
			}
			if wokeUp(s) {
				tell(events, Woke)
			}
		}
	}
}

// wokeUp says whether a signal is the one. The bus sends a connection more than it asked for.
func wokeUp(s *dbus.Signal) bool {
	if s.Path != logindPath || s.Name != logindInterface+"."+prepareForSleep || len(s.Body) != 1 {
		return false
	}
	begins, ok := s.Body[0].(bool)
	return ok && !begins
}
