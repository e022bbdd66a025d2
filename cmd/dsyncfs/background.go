package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"dsyncfs/cmd/internal/config"
	"dsyncfs/cmd/internal/daemon"
)

// daemonEnv tells the second process what it is: the number of the descriptor on which the first one waits.
const daemonEnv = "DSYNCFS_READY_FD"

// readyWord is what the second process writes there.
const readyWord = "ready"

// startDaemon runs this program again in the background and waits until it says that the mount is ready, or why not.
func (a *app) startDaemon(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self)
	cmd.Args = a.args
	cmd.Env = append(os.Environ(), daemonEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("going to the background: %w", err), w.Close())
	}
	w.Close()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	if word, _ := io.ReadAll(io.LimitReader(r, 16)); string(word) == readyWord {
		return cmd.Process.Release()
	}
	// It told the user why on standard error.
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return errors.New("the background process ended without a word")
	case errors.As(err, &exit) && exit.Exited():
		return &statusError{exit.ExitCode(), nil}
	}
	return fmt.Errorf("the background process ended: %w", err)
}

// daemonProcess is the process in the background. It stays at the terminal until the mount is ready, so that a passphrase can
// be asked for, and lets go of it then.
func (a *app) daemonProcess(ctx context.Context, cfg *config.Config, mount mountRequest, fd string) error {
	n, err := strconv.Atoi(fd)
	if err != nil || n <= 2 {
		return fmt.Errorf("%s=%s: not a descriptor to wait on", daemonEnv, fd)
	}
	os.Unsetenv(daemonEnv)
	unix.CloseOnExec(n)
	pipe := os.NewFile(uintptr(n), "ready")
	dir, err := daemon.Dir(cfg, mount.point)
	if err != nil {
		return err
	}
	return a.runDaemon(ctx, cfg, mount, func() {
		if err := a.detach(dir); err != nil {
			a.logger().Warn("leaving the terminal", "err", err)
		}
		_, _ = pipe.WriteString(readyWord)
		pipe.Close()
	})
}

// maxLog is the size in bytes above which a log file is put aside when a mount starts.
const maxLog = 4 << 20

// detach leaves the terminal: a session of its own, and the log file instead of standard output and error. The terminal's end
// is then nobody's business.
func (a *app) detach(dir string) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("setsid: %w", err)
	}
	signal.Ignore(syscall.SIGHUP)
	log, err := openLog(filepath.Join(dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	a.stamp.Store(true)
	return errors.Join(unix.Dup3(int(null.Fd()), 0, 0), unix.Dup3(int(log.Fd()), 1, 0), unix.Dup3(int(log.Fd()), 2, 0), os.Chdir("/"))
}

// openLog opens the log file of a mount to append to. One that has grown large becomes log.old.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// notifyReady tells a service manager, if there is one, that the mount can be used; see sd_notify(3).
func notifyReady() { _, _ = systemd.SdNotify(false, systemd.SdNotifyReady) }

// notifyStopping tells it that what is queued is being sent.
func notifyStopping() { _, _ = systemd.SdNotify(false, systemd.SdNotifyStopping) }
