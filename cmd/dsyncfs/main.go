// Command dsyncfs mirrors mailboxes two ways, backs them up, and mounts them as a Maildir. This package is the command line
// and the wiring of everything behind it; it holds the only os.Exit.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// gcPercent keeps memory near what a mailbox really needs; mail programs run beside us.
const gcPercent = 50

// run is main without the process: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	app := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := app.rootCommand(args[0])
	root.SetArgs(normalize(args[1:]))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	code := exitStatus(err)
	if err != nil && ctx.Err() != nil {
		code, err = exitInterrupt, errInterrupted
	}
	if msg := message(err); msg != "" {
		fmt.Fprintf(stderr, "dsyncfs: %s\n", msg)
	}
	return code
}
