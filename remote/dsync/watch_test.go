package dsync

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"dsyncfs/mirror/item"
)

func TestSilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := connect(t, Options{Name: "far"}, Options{Timeout: -1})
		start := time.Now()
		_, err := a.Recv()
		if !errors.Is(err, ErrTimeout) || err.Error() != "dsync far: dsync peer is silent for 10m0s" {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d != DefaultTimeout {
			t.Errorf("after %s", d)
		}
		if err := a.Send(&item.Done{}); !errors.Is(err, ErrTimeout) {
			t.Errorf("send afterwards: %v", err)
		}
	})
}

func TestHandshakeTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left, right := net.Pipe()
		defer right.Close()
		if err := NewPeer(left, Options{Timeout: time.Minute}).Handshake(context.Background()); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v", err)
		}
	})
}

func TestPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := connect(t, Options{Timeout: time.Minute}, Options{Timeout: -1})
		a.Send(&item.EndOfList{})
		if err := a.Flush(); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v", err)
		}
	})
}

// TestProgressInEitherDirectionIsActivity has one side wait for 100 timeouts while the other trickles, first by receiving,
// then by sending.
func TestProgressInEitherDirectionIsActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, Options{Timeout: time.Minute}, Options{Timeout: -1})
		result := make(chan error, 1)
		go func() {
			_, err := a.Recv() // waits all the time while a sends
			result <- err
		}()
		go func() {
			for {
				if _, err := b.Recv(); err != nil {
					return
				}
			}
		}()
		for range 100 {
			time.Sleep(59 * time.Second)
			if err := <-sendAll(a, &item.EndOfList{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(59 * time.Second)
		if err := <-sendAll(b, &item.Done{}); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // nobody waits: own work is not silence of the peer
		if err := <-sendAll(a, &item.EndOfList{}); err != nil {
			t.Errorf("after an hour of own work: %v", err)
		}
	})
}

func TestTimeoutCanBeLiftedBetweenRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := connect(t, Options{Timeout: time.Minute}, Options{Timeout: -1})
		received := make(chan error, 1)
		recv := func() {
			_, err := a.Recv()
			received <- err
		}
		go recv()
		synctest.Wait()
		a.SetTimeout(-1)
		time.Sleep(24 * time.Hour)
		if err := <-sendAll(b, &item.Wake{}); err != nil {
			t.Fatal(err)
		}
		if err := <-received; err != nil {
			t.Fatal(err)
		}
		go recv()
		synctest.Wait()
		a.SetTimeout(time.Second)
		start := time.Now()
		if err := <-received; !errors.Is(err, ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
