package ssh

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// TerminalPrompt asks at the controlling terminal of the process.
func TerminalPrompt(ctx context.Context, question string, echo bool) (string, error) {
	return promptAt(ctx, "/dev/tty", question, echo)
}

// maxAnswer bounds a line, in bytes; the terminal's own limit is 4095.
const maxAnswer = 4096

// promptAt asks at a terminal. term.ReadPassword would do but for ctx: it blocks until the user answers. Here the file
// stays with Go's poller, and its deadline ends the read.
func promptAt(ctx context.Context, device, question string, echo bool) (answer string, err error) {
	tty, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoTerminal, err)
	}
	defer tty.Close()
	if err := tty.SetReadDeadline(time.Time{}); err != nil {
		return "", fmt.Errorf("%w (%s: %w)", ErrNoTerminal, device, err)
	}
	if !echo {
		restore, err := echoOff(tty)
		if err != nil {
			return "", fmt.Errorf("%w (%s: %w)", ErrNoTerminal, device, err)
		}
		defer restore()
	}
	stop := context.AfterFunc(ctx, func() { tty.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := tty.WriteString(question); err != nil {
		return "", fmt.Errorf("ask at %s: %w", device, err)
	}
	line, err := bufio.NewReaderSize(tty, maxAnswer).ReadSlice('\n')
	if !echo {
		tty.WriteString("\n") // the user's own was not shown
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("read the answer from %s: %w", device, err)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// echoOff hides what is typed and returns what shows it again. Signals of the terminal stay on.
func echoOff(tty *os.File) (restore func(), err error) {
	var saved unix.Termios
	err = control(tty, func(fd int) error {
		now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		saved = *now
		now.Lflag = now.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
		return unix.IoctlSetTermios(fd, unix.TCSETSF, now)
	})
	if err != nil {
		return nil, err
	}
	return func() {
		control(tty, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETSF, &saved) })
	}, nil
}

// control runs do with the descriptor of a file, which stays with Go's poller (unlike after File.Fd).
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
