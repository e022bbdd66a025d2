package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"dsyncfs/cmd/internal/daemon"
	"dsyncfs/mirror/brain"
)

// Exit statuses, as in dsync(1) and doveadm-sync(1) where those have one.
const (
	exitOK        = 0
	exitFailed    = 1
	exitAgain     = 2 // done, but something changed meanwhile; verify: different
	exitGuard     = 3 // stopped by the deletion guard
	exitUsage     = 64
	exitReach     = 75 // the remote could not be reached, or another sync has the lock of -l
	exitInterrupt = 130
)

// errInterrupted is what a run ends with that a signal stopped; what went wrong because of it is of no interest.
var errInterrupted = errors.New("interrupted")

// statusError is an error with an exit status of its own. A nil cause prints nothing.
type statusError struct {
	status int
	cause  error
}

func (e *statusError) Error() string {
	if e.cause == nil {
		return ""
	}
	return e.cause.Error()
}

func (e *statusError) Unwrap() error { return e.cause }

// usage makes an error one of wrong usage.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{exitUsage, err}
}

// silently ends with a status that needs no words.
func silently(status int) error {
	if status == exitOK {
		return nil
	}
	return &statusError{status, nil}
}

// errOutput is wrapped by what goes wrong with our own standard output, which says nothing of the other side.
var errOutput = errors.New("writing the output")

// output marks an error as one of standard output.
func output(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errOutput, err)
}

// exitStatus turns the error of a run into its exit status.
func exitStatus(err error) int {
	var s *statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &s):
		return s.status
	case errors.Is(err, context.Canceled):
		return exitInterrupt
	case errors.Is(err, errOutput):
		return exitFailed
	case errors.Is(err, brain.ErrLocked):
		return exitReach
	}
	return classStatus(daemon.Classify(err))
}

// classStatus is the exit status for an error of a class, here or in a daemon.
func classStatus(c daemon.Class) int {
	switch c {
	case daemon.ClassNone:
		return exitOK
	case daemon.ClassGuard:
		return exitGuard
	case daemon.ClassAway:
		return exitReach
	}
	return exitFailed
}

// messages are what the user is told: one line for each error of a joined one, without repetition. A reader of our output who
// went away (as head(1) does) is told nothing.
func messages(err error) []string {
	var lines []string
	for _, e := range flatten(err) {
		if errors.Is(e, errOutput) && errors.Is(e, syscall.EPIPE) {
			continue
		}
		for line := range strings.SplitSeq(e.Error(), "\n") {
			if line = printable(strings.TrimSpace(line)); line != "" && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	var s *statusError
	if errors.As(err, &s) && err == error(s) {
		return flatten(s.cause)
	}
	// fmt.Errorf with several %w has an Unwrap of this kind too, but a text of its own.
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// printable writes what a terminal would act on, such as a mailbox name of somebody else may hold, as escapes.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			q := fmt.Sprintf("%+q", r)
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsGraphic(r) }
