package fusefs

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"dsyncfs/mirror/mail"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// requestContext is the context of a request whose answer may be EINTR. The kernel interrupts on any signal (the runtime
// of a Go program sends them all the time), so it is used only where a program expects EINTR: fsync.
func requestContext(cancel <-chan struct{}, header *fuse.InHeader) context.Context {
	return &fuse.Context{Caller: header.Caller, Cancel: cancel}
}

// change makes a change of mail: it takes the uidlist locks of the mailboxes in lock, journals what is about to happen,
// does it and journals what happened. op is the system call's name. The error is an errno.
func (f *fileSystem) change(op string, m meaning, lock []string, do func() error) error {
	ctx := context.Background()
	unlock, err := f.lockBoxes(ctx, lock)
	if err != nil {
		return f.engineErrno(op, err)
	}
	defer unlock()
	if err := f.record(ctx, op, m.before); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return f.record(ctx, op, m.after)
}

func (f *fileSystem) record(ctx context.Context, op string, events []mail.Event) error {
	for _, ev := range events {
		if err := f.engine.Record(ctx, ev); err != nil {
			return f.engineErrno(op, err)
		}
	}
	return nil
}

// delivered waits for the remote if the mount promises that a delivery returns only then.
func (f *fileSystem) delivered(m meaning) error {
	if !f.opts.CommitDeliveries {
		return nil
	}
	if !slices.ContainsFunc(m.after, func(ev mail.Event) bool { return ev.Op == mail.EventAppend || ev.Op == mail.EventReplace }) {
		return nil
	}
	if err := f.awaitDurable(context.Background()); err != nil {
		return f.engineErrno("delivery", err)
	}
	return nil
}

// lockBoxes takes the uidlist locks of mailbox directories, in the order of their paths. A mailbox whose lock is held
// through the mount (by a Dovecot that works on it) is left out: waiting for that would wait for a program that may be
// waiting for this very directory.
func (f *fileSystem) lockBoxes(ctx context.Context, paths []string) (unlock func(), err error) {
	var held []func()
	release := func() {
		for _, u := range slices.Backward(held) {
			u()
		}
	}
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		u, err := f.lockBox(ctx, path)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, u)
	}
	return release, nil
}

func (f *fileSystem) lockBox(ctx context.Context, path string) (unlock func(), err error) {
	if done, ok := f.uidLock.join(path); ok {
		return done, nil
	}
	wait, done, skip := f.uidLock.enter(ctx, path, func() bool { return f.lockFileExists(path) })
	if skip {
		return func() {}, nil
	}
	defer done()
	unlock, err = f.engine.Lock(wait, path)
	if err != nil && wait.Err() != nil && errors.Is(context.Cause(wait), errHeldThroughMount) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return f.uidLock.keep(path, unlock), nil
}

// lockFileExists looks whether a lock that was made through the mount is still there.
func (f *fileSystem) lockFileExists(box string) bool {
	root, err := f.dirFD(1)
	if err != nil {
		return false
	}
	defer f.dirFDs.release(root)
	var st unix.Stat_t
	return unix.Fstatat(root.fd, join(box, lockName), &st, statFlags) == nil
}

// spotOf describes a name for its meaning.
func (f *fileSystem) spotOf(d *directory, name string, exists bool) spot {
	s := spot{kind: d.kind, name: name, exists: exists}
	if d.box != nil {
		s.mailbox = d.box.name
	}
	return s
}

// boxName returns the mailbox that a directory of that place is, the empty name if it is none.
func (f *fileSystem) boxName(d *directory, name string) mail.Name {
	if d.isMail() || kindOf(name) != plainDir {
		return ""
	}
	box, ok := f.engine.Mailbox(join(d.path, name))
	if !ok || box == mail.Inbox {
		return ""
	}
	return box
}

// controlEvent returns the event of writing a file beside a mailbox.
func (f *fileSystem) controlEvent(d *directory, name string) (mail.Event, bool) {
	op, ok := controlFiles[name]
	if !ok || d.kind != plainDir || op == mail.EventSubscriptions && d.path != "" {
		return mail.Event{}, false
	}
	box, ok := f.engine.Mailbox(d.path)
	return mail.Event{Op: op, Mailbox: box}, ok
}

// refused tells whether no change may be made at all.
func (f *fileSystem) refused() bool { return f.opts.ReadOnly }

// processUmask returns the mask that open and mkdir of this process apply. It is read without changing it.
func processUmask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777 // correct every mode
	}
	_, rest, _ := strings.Cut(string(status), "\nUmask:\t")
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(line, 8, 32)
	if err != nil {
		return 0o777
	}
	return uint32(mask)
}
