package bench

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dsyncfs/integration/harness"
)

// What mail programs do to a Maildir, with the system calls that they make: os.Rename and os.Remove of Go make further ones,
// which cost nothing on the bare file system.

func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func listAndStat(m harness.Maildir) error {
	cur := m.Path + "/cur"
	names, err := namesIn(cur)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	for _, name := range names {
		if err := unix.Lstat(cur+"/"+name, &st); err != nil {
			return err
		}
	}
	return nil
}

// readMails reads so many bytes of every mail, 0 for all.
func readMails(m harness.Maildir, limit int) error {
	cur := m.Path + "/cur"
	names, err := namesIn(cur)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	if limit > 0 {
		buf = buf[:limit]
	}
	for _, name := range names {
		fd, err := unix.Open(cur+"/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		for {
			n, err := unix.Read(fd, buf)
			if err != nil {
				unix.Close(fd)
				return err
			}
			if n == 0 || limit > 0 {
				break
			}
		}
		unix.Close(fd)
	}
	return nil
}

// deliverBatch delivers n mails of 8,000 bytes by several writers at once. The serial number makes their names new.
func deliverBatch(m harness.Maildir, serial, n, writers int, durable bool) error {
	text := bytes.Repeat([]byte("a line of a mail of usual size \n"), 250)
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for i := range n / writers {
				name := fmt.Sprintf("%d.M%dP%d.bench", 1_900_000_000+serial, i, w)
				if err := deliverOne(m, name, text, durable); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func deliverOne(m harness.Maildir, name string, text []byte, durable bool) error {
	tmp := m.Path + "/tmp/" + name
	fd, err := unix.Open(tmp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, text)
	if err == nil && durable {
		err = unix.Fsync(fd)
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	return unix.Rename(tmp, m.Path+"/new/"+name)
}

// changeFlags gives n mails another flag.
func changeFlags(m harness.Maildir, n int) error {
	cur := m.Path + "/cur"
	names, err := namesIn(cur)
	if err != nil {
		return err
	}
	for _, name := range names[:n] {
		base, flags, _ := strings.Cut(name, ":2,")
		to := "FS"
		if strings.Contains(flags, "F") {
			to = "S"
		}
		if err := unix.Rename(cur+"/"+name, cur+"/"+base+":2,"+to); err != nil {
			return err
		}
	}
	return nil
}

func unlinkMails(m harness.Maildir, n int) error {
	cur := m.Path + "/cur"
	names, err := namesIn(cur)
	if err != nil {
		return err
	}
	for _, name := range names[:n] {
		if err := unix.Unlink(cur + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// roundTrip is how long a request takes that the daemon answers at once: for a name that is not there.
func (s *sides) roundTrip() float64 {
	const n = 5000
	var st unix.Stat_t
	start := time.Now()
	for range n {
		if err := unix.Lstat(s.mount.Path+"/tmp/none", &st); err != unix.ENOENT {
			s.b.Fatal(err)
		}
	}
	return time.Since(start).Seconds() / n
}

// Requests of the kernel that nobody waits for (fuse_kernel.h): FORGET, RELEASE, RELEASEDIR, INTERRUPT, BATCH_FORGET.
var asynchronous = map[uint32]bool{2: true, 18: true, 29: true, 36: true, 42: true}

// requests counts what the writer waits for, by looking over the daemon's shoulder.
func (s *sides) requests() {
	s.b.Helper()
	const n = 200
	trace := s.Path("trace")
	strace := s.StartProgram("strace", "-f", "-p", strconv.Itoa(s.mounted.PID()), "-e", "trace=read", "-P", "/dev/fuse", "-xx", "-s", "16", "-o", trace)
	s.Eventually("strace is attached", 20*time.Second, func() error {
		if out := strace.Output(); !strings.Contains(out, "attached") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if err := deliverBatch(s.mount, 1_000_000, n, 1, false); err != nil {
		s.b.Fatal(err)
	}
	strace.Signal(unix.SIGINT)
	strace.Wait()
	each := float64(s.waited(trace)) / n
	atMost("requests that the writer waits for, each delivery", each, 5.05) // now and then one for an aged attribute
}

// line is what strace prints of a request that was read: length, number and unique of the header.
var line = regexp.MustCompile(`(?:read\(\d+, |resumed>)"((?:\\x[0-9a-f]{2}){8,})"`)

func (s *sides) waited(trace string) int {
	s.b.Helper()
	f, err := os.Open(trace)
	if err != nil {
		s.b.Fatal(err)
	}
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		header, err := hex.DecodeString(strings.ReplaceAll(m[1], `\x`, ""))
		if err != nil {
			s.b.Fatal(err)
		}
		if !asynchronous[binary.NativeEndian.Uint32(header[4:])] {
			n++
		}
	}
	return n
}
