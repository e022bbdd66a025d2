package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stdio joins the standard streams. Close makes a waiting Read return, also where the runtime does not poll the stream, as it
// does not for the pipes of sshd and inetd: Read itself waits for input or for Close.
type stdio struct {
	in   *os.File
	out  io.Writer
	once sync.Once
	// The read end becomes readable when the write end is closed.
	wakeRead, wakeWrite *os.File
}

func newStdio(in io.Reader, out io.Writer) (*stdio, error) {
	f, ok := in.(*os.File)
	if !ok {
		return nil, errors.New("standard input is no file")
	}
	s := &stdio{in: f, out: out}
	var err error
	if s.wakeRead, s.wakeWrite, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return s, nil
}

// Read returns os.ErrClosed after Close.
func (s *stdio) Read(p []byte) (int, error) {
	fds := []unix.PollFd{{Fd: int32(s.in.Fd()), Events: unix.POLLIN}, {Fd: int32(s.wakeRead.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("standard input: %w", err)
		case fds[1].Revents != 0:
			return 0, os.ErrClosed
		case fds[0].Revents != 0:
			return s.in.Read(p)
		}
	}
}

func (s *stdio) Write(p []byte) (int, error) { return s.out.Write(p) }

// Close ends Read, and standard output for the other side to see.
func (s *stdio) Close() (err error) {
	s.once.Do(func() {
		err = s.wakeWrite.Close()
		if c, ok := s.out.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	})
	return err
}
