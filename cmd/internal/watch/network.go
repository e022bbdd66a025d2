package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// networkSettle is how long nothing more may happen before a change of the network is told: an interface that comes up gets
// addresses and routes one by one.
const networkSettle = 300 * time.Millisecond

// networkGroups are what rtnetlink(7) is asked to tell: interfaces, addresses and routes.
const networkGroups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Change says what may have made connections dead, or hosts that were away reachable.
type Change string

// The changes.
const (
	NetworkChanged Change = "the network changed"
	ClockSet       Change = "the clock was set, as a resume does"
	Woke           Change = "the machine woke up"
)

// Network tells, until ctx ends, when this machine's network changed or the machine came back from sleep: connections may be
// dead then, and hosts that were away may be there. One value that nobody took yet stands for all. wait returns when nothing of
// it is left.
//
// Sleep is noticed twice: by a timer that the kernel cancels when the clock was set, which a resume does (timerfd_create(2),
// TFD_TIMER_CANCEL_ON_SET), and where logind runs, by its word that all is up again.
func Network(ctx context.Context, log *slog.Logger) (changes <-chan Change, wait func(), err error) {
	netlink, err := openNetlink()
	if err != nil {
		return nil, nil, fmt.Errorf("watching the network: %w", err)
	}
	clock, err := openClock()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("watching the clock: %w", err), netlink.Close())
	}
	events := make(chan Change, 1)
	out := make(chan Change, 1)
	var work sync.WaitGroup
	work.Go(func() { readNetlink(netlink, events, log) })
	work.Go(func() { readClock(clock, events, log) })
	work.Go(func() { readLogind(ctx, events, log) })
	work.Go(func() {
		settled(ctx, events, out)
		if err := errors.Join(netlink.Close(), clock.Close()); err != nil {
			log.Debug("watching the network", "err", err)
		}
	})
	return out, work.Wait, nil
}

// settled passes on each burst of events once it is over, by its last.
func settled(ctx context.Context, events <-chan Change, out chan<- Change) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var last Change
	for {
		select {
		case <-ctx.Done():
			return
		case last = <-events:
			timer.Reset(networkSettle)
		case <-timer.C:
			tell(out, last)
		}
	}
}

// tell leaves a value in a channel that holds one.
func tell[T any](c chan<- T, what T) {
	select {
	case c <- what:
	default:
	}
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: networkGroups}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// readNetlink tells of each message, whatever it says, until the socket is closed.
func readNetlink(f *os.File, events chan<- Change, log *slog.Logger) {
	buf := make([]byte, 16<<10)
	for {
		_, err := f.Read(buf)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // more happened than the socket could hold
			tell(events, NetworkChanged)
		case errors.Is(err, os.ErrClosed):
			return
		default:
			log.Warn("changes of the network are not noticed any more", "err", err)
			return
		}
	}
}

func openClock() (*os.File, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err := armClock(fd); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "timerfd"), nil
}

// armClock sets the timer to a time that does not come.
func armClock(fd int) error {
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt64 / int64(time.Second)}}
	return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
}

// readClock tells each time the clock was set, until the timer is closed.
func readClock(f *os.File, events chan<- Change, log *slog.Logger) {
	buf := make([]byte, 8)
	for {
		_, err := f.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil && !errors.Is(err, unix.ECANCELED) {
			log.Warn("sleep of the machine is not noticed any more", "err", err)
			return
		}
		tell(events, ClockSet)
	}
}
