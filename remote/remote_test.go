package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func TestQuoteKeepsArgumentsWhole(t *testing.T) {
	// sh is what a remote login shell is held to; printf ends each argument with a NUL.
	rapid.Check(t, func(t *rapid.T) {
		args := rapid.SliceOfN(rapid.OneOf(
			rapid.StringMatching(`[ -~\n]{0,12}`),
			rapid.SampledFrom([]string{"", "~", "~/x", "=ls", "A=1", "-n", "'", `\`, "!", "$HOME", "`id`", "*", "é"}),
		), 1, 5).Draw(t, "args")
		line := Quote(append([]string{"printf", `%s\0`}, args...))
		out, err := exec.Command("sh", "-c", line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if want := strings.Join(args, "\x00") + "\x00"; string(out) != want {
			t.Fatalf("%s printed %q, want %q", line, out, want)
		}
	})
}

func TestQuoteOfPrograms(t *testing.T) {
	for word, want := range map[string]string{
		"dsyncfs":    "dsyncfs",
		"~/bin/x y":  "~/'bin/x y'",
		"~bob/bin/x": "~bob/bin/x",
		"~$(id)/x":   `'~$(id)/x'`,
		"A=b":        "'A=b'",
		"a;b":        "'a;b'",
	} {
		if got := Quote([]string{word}); got != want {
			t.Errorf("program %q is quoted %s, want %s", word, got, want)
		}
	}
	if got := Quote([]string{"x", "~/y"}); got != "x '~/y'" {
		t.Errorf("an argument's ~ is left to the shell: %s", got)
	}
}

func TestClassify(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, row := range []struct {
		name string
		err  error
		want error
	}{
		{"a typed error keeps its class through wrapping", fmt.Errorf("round: %w", &Error{Host: "h", Class: ErrHostKey, Err: io.EOF}), ErrHostKey},
		{"status 127", &ExitError{Status: 127}, ErrNotFound},
		{"a shell that says so with another status", &ExitError{Status: 1, Stderr: "csh: dsyncfs: command not found"}, ErrNotFound},
		{"another status", &ExitError{Status: 2}, nil},
		{"a class set by the transport wins", &ExitError{Status: 255, Class: ErrAuth}, ErrAuth},
		{"nothing listens", dial, ErrTransient},
		{"connection reset", fmt.Errorf("read: %w", syscall.ECONNRESET), ErrTransient},
		{"cancelled", context.Canceled, nil},
		{"deadline of the caller", context.DeadlineExceeded, nil},
		{"an errno of a file", syscall.EACCES, nil},
		{"nothing known", io.ErrUnexpectedEOF, nil},
		{"no error", nil, nil},
	} {
		if got := Classify(row.err); got != row.want {
			t.Errorf("%s: class %v, want %v", row.name, got, row.want)
		}
	}
	err := &Error{Host: "mail", Op: "connect to", Class: ErrTransient, Err: dial}
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "connect to mail: ") {
		t.Errorf("cause or host lost: %v", err)
	}
}

func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([a-z\n]|\r\n){0,60}`).Draw(t, "text")
		var got []string
		lines := NewLines(func(line string) { got = append(got, line) })
		for rest := []byte(text); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			lines.Write(rest[:n])
			rest = rest[n:]
		}
		lines.Flush()
		var want []string
		if text != "" {
			want = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		}
		for i := range want {
			want[i] = strings.TrimSuffix(want[i], "\r")
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q gave %q", text, got)
		}
	})
}

func TestLinesAreBoundedAndHarmless(t *testing.T) {
	var got []string
	lines := NewLines(func(line string) { got = append(got, line) })
	lines.Write(bytes.Repeat([]byte("x"), 1<<20))
	lines.Write([]byte("\nred \x1b[31m \xff \u009b ende \u00e9\n"))
	if len(got) != 2 || len(got[0]) != maxLine+len("...") || !strings.HasSuffix(got[0], "x...") {
		t.Fatalf("%d lines, first of %d bytes", len(got), len(got[0]))
	}
	if want := "red ?[31m ? ? ende \u00e9"; got[1] != want {
		t.Errorf("line %q, want %q", got[1], want)
	}
	if tail := lines.Tail(); len(tail) > maxTail || !strings.HasSuffix(tail, "ende \u00e9") {
		t.Errorf("tail of %d bytes: %q", len(tail), tail)
	}
}
