package harness

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Network is a network of its own for all that an environment runs: a namespace that has nothing but a loopback interface, which
// can be taken down. Nobody else's changes of the network are seen there. Only root can make one.
type Network struct {
	env *Env
	ns  *os.File
}

// NewNetwork makes one, which is up. What the environment starts from now on runs in it.
func (e *Env) NewNetwork() *Network {
	e.TB.Helper()
	n := &Network{env: e}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		n.ns, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		e.TB.Fatalf("a network namespace: %v", err)
	}
	e.TB.Cleanup(func() { n.ns.Close() })
	e.within = n
	n.Up()
	return n
}

// Up brings the interface up.
func (n *Network) Up() { n.flags(unix.IFF_UP) }

// Down takes it down: what was connected through it hears nothing any more, and nothing can be connected.
func (n *Network) Down() { n.flags(0) }

func (n *Network) flags(flags uint16) {
	n.env.TB.Helper()
	err := n.do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		r.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
	})
	if err != nil {
		n.env.TB.Fatalf("loopback of a network namespace: %v", err)
	}
}

// listen opens a port in the network. What is accepted there belongs to it.
func (n *Network) listen(addr string) (l net.Listener, err error) {
	if n == nil {
		return net.Listen("tcp", addr)
	}
	err = n.do(func() error {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// command is a command line that runs another in the network.
func (n *Network) command(program string, args []string) (string, []string) {
	if n == nil {
		return program, args
	}
	return "nsenter", append([]string{fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), n.ns.Fd()), program}, args...)
}

// do runs f in the network.
func (n *Network) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) (err error) {
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // for good: the runtime ends the thread, which is not as others are any more
		err = f()
	})
	done.Wait()
	return err
}
