package daemon

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/endpoint"
	"dsyncfs/mirror"
	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/journal"
	"dsyncfs/mirror/vfs"
	"dsyncfs/remote"
)

// FuzzRequest holds that whatever is said to the control socket, the daemon lives on and the client gets an answer or the end
// of the connection.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"op":"status"}`, `{"op":"log"}`, `{"op":"x","allow_expunge":["a"]}`, `{"op":1}`, `{`, `[]`, `{"op":"status"}{"op":"log"}`, `"`, `{"op":"\u0000"}`,
	} {
		f.Add([]byte(s))
	}
	j, err := journal.OpenFS(vfs.NewMem(time.Now), journal.Options{})
	if err != nil {
		f.Fatal(err)
	}
	cfg := config.Default()
	cfg.StateDir = f.TempDir()
	local, err := endpoint.OpenLocal(&cfg, remote.Location{Kind: remote.KindMaildir, Path: f.TempDir()}, true, discard())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { local.Close(); j.Close() })
	m := &mounted{
		o: Options{Config: &cfg, Local: local, Mountpoint: "/m", Remote: "host", Logger: discard()}, journal: j, started: time.Now(),
		engine: mirror.NewEngine(mirror.Pair{Logger: discard(), Options: brain.Options{Logger: discard()}}, brain.Request{}, mirror.Timing{}, j),
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		var req Request
		if json.NewDecoder(bytes.NewReader(said)).Decode(&req) == nil && (req.Op == OpSync || req.Op == OpUnmount) {
			return // they need a mount and an engine that runs
		}
		ours, theirs := connected(t)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			defer theirs.Close()
			m.answer(t.Context(), theirs)
		}()
		if err := ours.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = ours.Write(said) // it may have heard enough
		_ = ours.CloseWrite()
		if _, err := io.Copy(io.Discard, ours); os.IsTimeout(err) {
			t.Fatalf("no end of the answer to %q", said)
		}
		<-answered
	})
}

// connected returns both ends of a connection.
func connected(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}
