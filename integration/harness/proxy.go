package harness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Link is the network between dsyncfs and a [Remote]: a port that can be cut off and joined again.
type Link struct {
	URL        string // of the remote through this link
	KnownHosts string // the remote's host key, under the link's port

	tb     testing.TB
	within *Network // on which the port is
	addr   string
	target string

	delay    time.Duration // one way
	rate     int           // bytes per second in each direction; 0: as many as can
	carried  int64         // bytes so far, in both directions
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	left     int64         // bytes until the connections are cut; 0: no cut is asked for
	fired    chan struct{} // closed by that cut
	wg       sync.WaitGroup
}

// NewLink makes a link to the remote. It is up, and ends with the test.
func (r *Remote) NewLink() *Link {
	tb := r.env.TB
	tb.Helper()
	l := &Link{tb: tb, within: r.env.within, target: r.Addr, conns: map[net.Conn]bool{}, KnownHosts: r.env.Path("link_known_hosts")}
	l.choose()
	_, port, _ := strings.Cut(l.addr, ":")
	l.URL = fmt.Sprintf("ssh://%s@%s", r.User, l.addr)
	line := strings.Replace(r.HostKeyLine, fmt.Sprintf(":%d ", r.Port), ":"+port+" ", 1)
	if err := os.WriteFile(l.KnownHosts, []byte(line+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Cut)
	return l
}

// Slow makes what passes from now on take so long, in each direction. It does not narrow the link.
func (l *Link) Slow(oneWay time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = oneWay
}

// Narrow lets only so many bytes per second through from now on, in each direction; 0: as many as can.
func (l *Link) Narrow(bytesPerSecond int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = bytesPerSecond
}

// Carried is how many bytes have passed, in both directions.
func (l *Link) Carried() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.carried
}

// Options are the settings with which the remote can be reached through the link.
func (l *Link) Options(r *Remote) []string {
	return []string{"-o", "identity=" + r.ClientKeyFile, "-o", "known_hosts=" + filepath.Clean(l.KnownHosts)}
}

// choose opens a port that is free, below those that Linux gives to who connects (ip_local_port_range): one of these could be taken
// while the link is cut, even by who tries to reach it, as a connection with itself.
func (l *Link) choose() {
	l.tb.Helper()
	for {
		l.addr = fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		listener, err := l.within.listen(l.addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		l.join(listener, err)
		return
	}
}

// Join opens the port, the same one each time.
func (l *Link) Join() {
	l.tb.Helper()
	l.join(l.within.listen(l.addr))
}

func (l *Link) join(listener net.Listener, err error) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener = listener
	l.wg.Go(func() { l.accept(listener) })
}

// Cut closes the port and every connection through it, and waits until nothing is left of them.
func (l *Link) Cut() {
	l.mu.Lock()
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// CutAfter has every connection cut once n more bytes have passed, in whichever direction, in the middle of what is being
// sent; the port stays open. The channel is closed when that happened. Another call replaces this one, n = 0 takes it back.
func (l *Link) CutAfter(n int64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.fired = n, make(chan struct{})
	return l.fired
}

// pass says how many of n bytes go through, and whether the connection is cut behind them.
func (l *Link) pass(n int) (passing int, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == 0 {
		return n, false
	}
	if l.left -= int64(n); l.left > 0 {
		return n, false
	}
	passing = n + int(l.left)
	l.left = 0
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseRead() // ends the copying; what was passed on is still delivered
		}
	}
	close(l.fired)
	return passing, true
}

func (l *Link) accept(listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		if l.listener != listener { // cut meanwhile
			near.Close()
			far.Close()
			l.mu.Unlock()
			return
		}
		l.conns[near], l.conns[far] = true, true
		l.wg.Go(func() { l.copy(near, far) })
		l.wg.Go(func() { l.copy(far, near) })
		l.mu.Unlock()
	}
}

// copy passes on one direction; when it ends both do.
func (l *Link) copy(to, from net.Conn) {
	l.carry(to, from)
	to.Close()
	from.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, to)
	delete(l.conns, from)
}

// parcel is some bytes with the time at which they arrive.
type parcel struct {
	bytes []byte
	due   time.Time
}

// width is how much to pass on at once: on a narrow link what takes 10 ms.
func (l *Link) width(most int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return most
	}
	return max(1, min(most, l.rate/100))
}

// carry passes on bytes, each after the delay that was in force when it was sent. Either side may end it.
func (l *Link) carry(to, from net.Conn) {
	way := make(chan parcel, 1<<10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range way {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				from.Close() // so that the reader ends
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf[:l.width(len(buf))])
		l.mu.Lock()
		if l.carried += int64(n); l.rate > 0 {
			pause := time.Duration(n) * time.Second / time.Duration(l.rate)
			l.mu.Unlock()
			time.Sleep(pause) // whoever sends has to wait, too
			l.mu.Lock()
		}
		due := time.Now().Add(l.delay)
		l.mu.Unlock()
		passing, cut := l.pass(n)
		if passing > 0 {
			way <- parcel{bytes.Clone(buf[:passing]), due}
		}
		if err != nil || cut {
			break
		}
	}
	close(way)
	<-done
}
