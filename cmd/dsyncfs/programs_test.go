package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the programs of a script wait for what has to come.
const patience = 30 * time.Second

// fail ends a program of a script.
func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func check(err error) {
	if err != nil {
		fail("%s: %v", os.Args[0], err)
	}
}

// runProgram runs the rest of the command line and returns its exit status.
func runProgram(args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fail("%v", err)
	}
	return cmd.ProcessState.ExitCode()
}

// codeProgram is "code STATUS PROGRAM...": the program must end with that status.
func codeProgram() {
	want, err := strconv.Atoi(os.Args[1])
	check(err)
	if got := runProgram(os.Args[2:]); got != want {
		fail("%s: exit status %d, want %d", strings.Join(os.Args[2:], " "), got, want)
	}
}

// eventuallyProgram is "eventually PROGRAM...": runs it until it succeeds.
func eventuallyProgram() {
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		cmd := exec.Command(os.Args[1], os.Args[2:]...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			_, err = os.Stdout.Write(out)
			check(err)
			return
		}
		if time.Now().After(limit) {
			fail("%s: still: %v: %s", strings.Join(os.Args[1:], " "), err, out)
		}
	}
}

// xattrProgram is "xattr get|set|list FILE [NAME [VALUE]]".
func xattrProgram() {
	file := os.Args[2]
	buf := make([]byte, 4096)
	switch os.Args[1] {
	case "get":
		n, err := unix.Getxattr(file, os.Args[3], buf)
		check(err)
		fmt.Println(string(buf[:n]))
	case "set":
		check(unix.Setxattr(file, os.Args[3], []byte(os.Args[4]), 0))
	case "list":
		n, err := unix.Listxattr(file, buf)
		check(err)
		fmt.Print(strings.ReplaceAll(string(buf[:n]), "\x00", "\n"))
	}
}

// deliverProgram is "deliver MAILBOX NAME": delivers a mail as an MDA does, with an fsync.
func deliverProgram() {
	box, name := os.Args[1], os.Args[2]
	tmp := filepath.Join(box, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	check(err)
	_, err = fmt.Fprintf(f, "Subject: %s\n\nbody\n", name)
	check(err)
	check(f.Sync())
	check(f.Close())
	check(os.Rename(tmp, filepath.Join(box, "new", name)))
}

// holdProgram is "hold DIR UNTIL": keeps a directory open, says so, and ends when the file UNTIL is there.
func holdProgram() {
	f, err := os.Open(os.Args[1])
	check(err)
	defer f.Close()
	check(os.WriteFile(os.Args[2]+".held", nil, 0o600))
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(os.Args[2]); err == nil {
			return
		}
	}
	fail("hold: nobody said to let go")
}

// signalProgram is "signal NAME MOUNTPOINT": sends a signal to the daemon of a mount and, if that ends it, waits for the end.
func signalProgram() {
	cmd := exec.Command("dsyncfs", "status", os.Args[2], "--json")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	check(err)
	_, rest, _ := strings.Cut(string(out), `"pid": `)
	digits, _, _ := strings.Cut(rest, ",")
	pid, err := strconv.Atoi(digits)
	check(err)
	fd, err := unix.PidfdOpen(pid, 0)
	check(err)
	sig := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[os.Args[1]]
	check(syscall.Kill(pid, sig))
	if sig == syscall.SIGHUP {
		return
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	check(err)
	if n == 0 {
		fail("process %d does not end", pid)
	}
}

// notifiedProgram is "notified SOCKET COMMAND MOUNTPOINT PROGRAM...": the program, a service of a manager that listens on the
// socket, says READY=1; then the command unmounts it, and it must say STOPPING=1 and end with 0.
func notifiedProgram() {
	socket, point := os.Args[1], os.Args[2]
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(err)
	check(os.Setenv("NOTIFY_SOCKET", socket))
	cmd := exec.Command(os.Args[3], os.Args[4:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	check(cmd.Start())
	expect := func(want string) {
		check(l.SetReadDeadline(time.Now().Add(patience)))
		buf := make([]byte, 256)
		n, err := l.Read(buf)
		if err != nil || string(buf[:n]) != want {
			_ = cmd.Process.Kill()
			fail("notified: %q, %v; want %q", buf[:n], err, want)
		}
	}
	expect("READY=1")
	if status := runProgram([]string{"dsyncfs", "umount", point}); status != 0 {
		fail("umount: exit status %d", status)
	}
	expect("STOPPING=1")
	check(cmd.Wait())
}

// mtimeProgram is "mtime FILE": prints the modification time in seconds.
func mtimeProgram() {
	info, err := os.Stat(os.Args[1])
	check(err)
	fmt.Println(info.ModTime().Unix())
}

// ownerProgram is "owner PATH...": prints the owner's number of each.
func ownerProgram() {
	for _, path := range os.Args[1:] {
		var st unix.Stat_t
		check(unix.Lstat(path, &st))
		_, err := io.WriteString(os.Stdout, strconv.Itoa(int(st.Uid))+"\n")
		check(err)
	}
}

// churnProgram is "churn MAILBOX OTHER N": at the same time delivers N mails to each, flags mails, sets keywords and reads
// attributes in the first. Names change under each other's hands; only an error that says otherwise is one.
func churnProgram() {
	box, other := os.Args[1], os.Args[2]
	n, err := strconv.Atoi(os.Args[3])
	check(err)
	// EOPNOTSUPP is the attribute of a file that lost its name since it was looked up.
	tolerable := func(err error) bool {
		return err == nil || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENODATA) ||
			errors.Is(err, syscall.EOPNOTSUPP)
	}
	// each calls f with a mail in cur, again and again.
	each := func(f func(dir, name string, i int) error) {
		for i := range n {
			names, err := os.ReadDir(filepath.Join(box, "cur"))
			check(err)
			if len(names) == 0 {
				continue
			}
			if err := f(filepath.Join(box, "cur"), names[i%len(names)].Name(), i); !tolerable(err) {
				fail("churn: %v", err)
			}
		}
	}
	deliver := func(dir, host string) {
		for i := range n {
			name := fmt.Sprintf("%d.M%dP9.%s", 1700000000+i, i, host)
			tmp := filepath.Join(dir, "tmp", name)
			check(os.WriteFile(tmp, fmt.Appendf(nil, "Subject: %s\n\nx\n", name), 0o600))
			check(os.Rename(tmp, filepath.Join(dir, "new", name)))
		}
	}
	var all sync.WaitGroup
	all.Go(func() { deliver(box, "here") })
	all.Go(func() { deliver(other, "there") })
	all.Go(func() {
		each(func(dir, name string, i int) error {
			base, _, _ := strings.Cut(name, ":2,")
			return os.Rename(filepath.Join(dir, name), filepath.Join(dir, base+":2,"+[]string{"S", "FS", "RS"}[i%3]))
		})
	})
	all.Go(func() {
		each(func(dir, name string, i int) error {
			return unix.Setxattr(filepath.Join(dir, name), "user.keywords", fmt.Appendf(nil, "k%d", i%5), 0)
		})
	})
	all.Go(func() {
		each(func(dir, name string, _ int) error {
			_, err := unix.Getxattr(filepath.Join(dir, name), "user.dsyncfs.uid", make([]byte, 32))
			return err
		})
	})
	all.Wait()
}
