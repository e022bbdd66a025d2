package ssh

import (
	"net"
	"sync/atomic"
	"time"
)

// wire is the connection below ssh; it remembers when the peer was last heard.
type wire struct {
	net.Conn
	start time.Time
	heard atomic.Int64 // nanoseconds after start
}

func newWire(conn net.Conn) *wire { return &wire{Conn: conn, start: time.Now()} }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.heard.Store(int64(time.Since(w.start)))
	}
	return n, err
}

// silence is how long the peer has said nothing. A byte of any kind counts: on a slow line the answer to a keepalive
// may have to wait behind what is being sent.
func (w *wire) silence() time.Duration {
	return time.Since(w.start) - time.Duration(w.heard.Load())
}
