package main

import (
	"context"
	"errors"
	"strings"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/guard"
	"dsyncfs/remote"
)

// Exit statuses, as in dsync(1) and doveadm-sync(1) where those have one.
const (
	exitOK        = 0
	exitFailed    = 1
	exitAgain     = 2 // done, but something changed meanwhile; verify: different
	exitGuard     = 3 // stopped by the deletion guard
	exitUsage     = 64
	exitReach     = 75 // the remote could not be reached
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

func usage(err error) error { return &statusError{exitUsage, err} }

// exitStatus turns the error of a run into its exit status.
func exitStatus(err error) int {
	var s *statusError
	var theirGuard *brain.GuardError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &s):
		return s.status
	case errors.Is(err, guard.ErrMassExpunge), errors.As(err, &theirGuard):
		return exitGuard
	case errors.Is(err, context.Canceled):
		return exitInterrupt
	case remote.Classify(err) == remote.ErrTransient:
		return exitReach
	}
	return exitFailed
}

// message is what the user is told, one line for each part of a joined error.
func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\ndsyncfs: ")
}
