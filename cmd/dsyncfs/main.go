// Command dsyncfs mirrors mailboxes two ways, backs them up, and mounts them as a Maildir. This package is the command line
// and the wiring of everything behind it; it holds the only os.Exit.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// gcPercent keeps memory near what a mailbox really needs; mail programs run beside us.
const gcPercent = 50

// ballast is the size in bytes of memory that is never touched and so takes none, but counts for the collector: a heap of a megabyte or
// two, as most runs and servers have, would else be collected for each megabyte that is allocated, which took a tenth of the processor
// time of both ends while mail is delivered. It allows garbage of gcPercent of its size, 4 MiB.
const ballast = 8 << 20

// run is main without the process: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	debug.SetGCPercent(gcPercent)
	defer runtime.KeepAlive(make([]byte, ballast))
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	// A closed output is an error like others and no sudden end, which would leave locks behind: a stock master that is done
	// closes both pipes at once. Not ignored, as programs that we start would inherit that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)

	app := &app{args: args, stdin: stdin, stdout: stdout, stderr: stderr}
	root := app.rootCommand(args[0])
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	code := exitStatus(err)
	if err != nil && ctx.Err() != nil {
		code, err = exitInterrupt, errInterrupted
	}
	for _, line := range messages(err) {
		fmt.Fprintf(stderr, "dsyncfs: %s\n", line)
	}
	return code
}

// endings are the signals that end a run in order. SIGHUP is left alone where nohup(1) said so.
func endings() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}
