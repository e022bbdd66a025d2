package remotetest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// marker is the first argument of a test binary that plays a remote program.
const marker = "remotetest-helper"

// Main runs the tests, or one of the remote programs if the binary was started as one. Call it from TestMain.
func Main(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == marker {
		syscall.Exit(helper(os.Args[2], os.Args[3:])) // os.Exit takes a second longer with the race detector
	}
	os.Exit(m.Run())
}

// Helper is the command that runs one of the remote programs: echo, source, sink, exit, stderr, args, die, hold,
// deaf and halfopen. Their comments are below.
func Helper(program string, args ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // no such failure on Linux while the binary runs
	}
	return append([]string{self, marker, program}, args...)
}

func helper(program string, args []string) int {
	run, ok := helpers[program]
	if !ok {
		fmt.Fprintf(os.Stderr, "no helper %q\n", program)
		return 64
	}
	status, err := run(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

var helpers = map[string]func(args []string) (status int, err error){
	// echo copies its input to its output until the input ends.
	"echo": func([]string) (int, error) {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return 0, err
	},
	// source SEED N writes N bytes made from SEED.
	"source": func(args []string) (int, error) {
		_, err := io.Copy(os.Stdout, data(number(args, 0), int64(number(args, 1))))
		return 0, err
	},
	// sink SEED N reads its input and says "same" if it is what source would have written.
	"sink": func(args []string) (int, error) {
		if err := equal(os.Stdin, data(number(args, 0), int64(number(args, 1)))); err != nil {
			return 0, err
		}
		_, err := fmt.Println("same")
		return 0, err
	},
	// exit N ends with status N.
	"exit": func(args []string) (int, error) { return int(number(args, 0)), nil },
	// stderr LINE... writes the lines to its standard error and ends with status 3.
	"stderr": func(args []string) (int, error) {
		fmt.Fprint(os.Stderr, strings.Join(args, "\n"))
		return 3, nil
	},
	// args ARG... writes its arguments, each with a NUL after it.
	"args": func(args []string) (int, error) {
		for _, arg := range args {
			fmt.Print(arg, "\x00")
		}
		return 0, nil
	},
	// die N writes N bytes and then kills itself with SIGKILL.
	"die": func(args []string) (int, error) {
		if _, err := io.Copy(os.Stdout, data(0, int64(number(args, 0)))); err != nil {
			return 0, err
		}
		return 0, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	},
	// hold FIFO says "ready" and reads its input for ever. Its death shows as the end of the FIFO.
	"hold": func(args []string) (int, error) {
		return hold(args[0])
	},
	// deaf FIFO is hold, but ignores TERM, HUP and the end of its input.
	"deaf": func(args []string) (int, error) {
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
		if _, err := hold(args[0]); err != nil {
			return 0, err
		}
		for {
			syscall.Pause()
		}
	},
	// halfopen closes its output and standard error, then reads a line and ends with the status written there.
	"halfopen": func([]string) (int, error) {
		if err := errors.Join(os.Stdout.Close(), os.Stderr.Close()); err != nil {
			return 0, err
		}
		line, err := bufio.NewReader(os.Stdin).ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line))
	},
}

func hold(fifo string) (int, error) {
	// The FIFO stays open until the process ends.
	if _, err := syscall.Open(fifo, syscall.O_WRONLY, 0); err != nil {
		return 0, err
	}
	if _, err := fmt.Println("ready"); err != nil {
		return 0, err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return 0, err
}

func number(args []string, i int) uint64 {
	if i >= len(args) {
		return 0
	}
	n, err := strconv.ParseUint(args[i], 10, 63)
	if err != nil {
		panic(err)
	}
	return n
}

// data is a reader of n bytes that are the same for the same seed, and that differ at every place for another.
func data(seed uint64, n int64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(key), n)
}

// equal compares two streams to their ends in constant memory.
func equal(got, want io.Reader) error {
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(got, a)
		m, _ := io.ReadFull(want, b)
		switch {
		case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
			return fmt.Errorf("after %d bytes: %w", at+int64(n), err)
		case n != m:
			return fmt.Errorf("length differs: %d bytes, want %d or more", at+int64(n), at+int64(m))
		case string(a[:n]) != string(b[:m]):
			return fmt.Errorf("bytes from %d on differ", at)
		case n < len(a):
			return nil
		}
		at += int64(n)
	}
}
