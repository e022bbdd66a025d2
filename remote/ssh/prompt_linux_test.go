package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal returns the two ends of a pseudo terminal: the user's, and the name of the program's.
func terminal(t *testing.T) (user *os.File, device string) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	var number uint32
	err = control(user, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	device = fmt.Sprintf("/dev/pts/%d", number)
	// A terminal that nobody has open hangs up.
	keep, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keep.Close() })
	return user, device
}

type answer struct {
	text string
	err  error
}

func ask(ctx context.Context, device string, echo bool) <-chan answer {
	answers := make(chan answer, 1)
	go func() {
		text, err := promptAt(ctx, device, "who? ", echo)
		answers <- answer{text, err}
	}()
	return answers
}

func TestPromptAtATerminal(t *testing.T) {
	for _, echo := range []bool{true, false} {
		t.Run(fmt.Sprintf("echo %v", echo), func(t *testing.T) {
			user, device := terminal(t)
			screen := bufio.NewReader(user)
			answers := ask(t.Context(), device, echo)
			if shown, err := screen.ReadString('?'); err != nil || shown != "who?" {
				t.Fatalf("shown %q, %v", shown, err)
			}
			user.WriteString("it's me \n")
			if got := <-answers; got.err != nil || got.text != "it's me " {
				t.Errorf("answer %q, %v", got.text, got.err)
			}
			shown, err := screen.ReadString('\n')
			if err != nil || strings.Contains(shown, "me") != echo {
				t.Errorf("shown %q, %v", shown, err)
			}
			if !echoes(t, device) {
				t.Error("the terminal no longer echoes")
			}
		})
	}
}

func TestPromptEndsWithItsContext(t *testing.T) {
	user, device := terminal(t)
	changed := errors.New("changed his mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	answers := ask(ctx, device, false)
	if _, err := bufio.NewReader(user).ReadString('?'); err != nil {
		t.Fatal(err)
	}
	cancel(changed)
	if got := <-answers; !errors.Is(got.err, changed) {
		t.Errorf("answer %q, %v", got.text, got.err)
	}
	if !echoes(t, device) {
		t.Error("the terminal no longer echoes")
	}
}

func TestPromptWithoutATerminal(t *testing.T) {
	for _, device := range []string{"/nonexistent/tty", "/dev/null"} {
		if _, err := promptAt(t.Context(), device, "who? ", false); !errors.Is(err, ErrNoTerminal) {
			t.Errorf("%s: %v", device, err)
		}
	}
}

func echoes(t *testing.T, device string) (on bool) {
	t.Helper()
	tty, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	err = control(tty, func(fd int) error {
		state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			on = state.Lflag&unix.ECHO != 0
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return on
}
