package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrInUse is what an [*InUseError] wraps.
var ErrInUse = errors.New("index is in use")

// InUseError says who has the index open.
type InUseError struct {
	Path string
	PID  int    // 0: it did not say
	Name string // of its program
}

// Error names the owner.
func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("index %s is in use by another process", e.Path)
	}
	return fmt.Sprintf("index %s is in use by pid %d (%s)", e.Path, e.PID, e.Name)
}

// Unwrap returns [ErrInUse].
func (e *InUseError) Unwrap() error { return ErrInUse }

// ownerLock is the lock file beside the index: locked with flock by its owner, whose pid and program it holds. Only the
// lock decides; the text is for people. The file is never removed, as removing one that others wait for would let two in.
// The index cannot be locked itself, since it is replaced when it is set aside.
type ownerLock struct {
	file    *os.File
	crashed bool // the owner before did not release it
}

// retryEvery is how often a waiting process looks again.
const retryEvery = 20 * time.Millisecond

func lockOwner(path string, timeout time.Duration) (*ownerLock, error) {
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock index: %w", err)
	}
	if err := flock(file, timeout); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = readOwner(path, file)
		} else {
			err = fmt.Errorf("lock index %s: %w", path, err)
		}
		return nil, errors.Join(err, file.Close())
	}
	l := &ownerLock{file: file}
	if info, err := file.Stat(); err == nil {
		l.crashed = info.Size() > 0
	}
	if err := l.sign(); err != nil {
		return nil, errors.Join(fmt.Errorf("lock index %s: %w", path, err), file.Close())
	}
	return l, nil
}

// flock takes the lock or returns EWOULDBLOCK after the timeout.
func flock(file *os.File, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		left := time.Until(deadline)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK) || left <= 0:
			return err
		default:
			time.Sleep(min(left, retryEvery))
		}
	}
}

func (l *ownerLock) sign() error {
	text := fmt.Sprintf("%d %s\n", os.Getpid(), filepath.Base(os.Args[0]))
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(text), 0)
	return err
}

// readOwner describes who holds the lock, as far as the file tells.
func readOwner(path string, file *os.File) error {
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 256))
	if err != nil {
		return fmt.Errorf("lock index %s: %w", path, err)
	}
	e := &InUseError{Path: path}
	pid, name, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if n, err := strconv.Atoi(pid); err == nil && n > 0 {
		e.PID, e.Name = n, name
	}
	return e
}

// release gives the lock up. The text goes first, so that nobody reads a former owner's.
func (l *ownerLock) release() error {
	return errors.Join(l.file.Truncate(0), l.file.Close())
}
