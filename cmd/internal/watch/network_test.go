package watch_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/watch"
)

// network watches until the end of the test.
func network(t *testing.T) (changes <-chan watch.Change) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes, wait, err := watch.Network(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); wait() })
	return changes
}

func mustTell(t *testing.T, changes <-chan watch.Change) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(10 * time.Second):
		t.Error("nothing was told")
	}
}

func TestAnAddressThatComesIsNoticed(t *testing.T) {
	needRoot(t)
	changes := network(t)
	alias(t, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{127, 77, 0, 1}) })
	defer alias(t, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(0); return nil }) // down: it goes
	mustTell(t, changes)
}

// alias changes a second address of the loopback interface (netdevice(7)).
func alias(t *testing.T, request uint, set func(*unix.Ifreq) error) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo:77")
	if err != nil {
		t.Fatal(err)
	}
	if err := set(r); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		t.Fatalf("loopback alias: %v", err)
	}
}

// TestASetClockIsNoticed: a resume does to the timer what setting the clock does.
func TestASetClockIsNoticed(t *testing.T) {
	needRoot(t)
	changes := network(t)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatal(err)
	}
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatal(err)
	}
	mustTell(t, changes)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may change the network and the clock")
	}
}
