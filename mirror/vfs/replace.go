package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// tempCount makes temporary names differ within the process, the process id between processes.
var tempCount atomic.Uint64

// WriteFile makes data the content of the file name, which is replaced as a whole if it is there. See [Replace].
func WriteFile(d Dir, name string, perm uint32, data []byte) error {
	return Replace(d, name, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Replace gives the file name the content that write writes, atomically and durably: after a crash at any point the file
// has its old content or the new one, and the new one once Replace has returned. perm is subject to the umask, and the mode
// of the old file is not kept. On any error the old file is there unchanged, unless the error is that of the last step, the
// sync of the directory: then it is not known which of the two survives a crash.
func Replace(d Dir, name string, perm uint32, write func(io.Writer) error) (err error) {
	temp, f, err := createTemp(d, name, perm)
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			f.Close()
		}
		if temp != "" {
			d.Remove(temp) // a leftover of a crash here is a file that nobody reads
		}
	}()
	w := &countWriter{w: f}
	if err := write(w); err != nil {
		return err
	}
	// A file system that lied about a write shows it in the length.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size != w.n {
		return fmt.Errorf("write %s: %d bytes on disk, %d written: %w", temp, info.Size, w.n, io.ErrShortWrite)
	}
	// The bytes must be down before the name leads to them, or a crash leaves an empty file in place of the old one.
	if err := f.Sync(); err != nil {
		return err
	}
	err = f.Close()
	f = nil
	if err != nil {
		return err
	}
	if err := d.Rename(temp, d, name); err != nil {
		return err
	}
	temp = ""
	return d.Sync()
}

// createTemp makes a file beside name. The leading dot hides it from programs that list mail.
func createTemp(d Dir, name string, perm uint32) (string, File, error) {
	if err := checkName(name); err != nil {
		return "", nil, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	for try := 0; ; try++ {
		temp := "." + name + "." + strconv.Itoa(os.Getpid()) + "." + strconv.FormatUint(tempCount.Add(1), 10) + ".tmp"
		f, err := d.Create(temp, perm)
		// A crashed process may have had our id.
		if err == nil || !errors.Is(err, fs.ErrExist) || try == 1000 {
			return temp, f, err
		}
	}
}

// TempOwner returns the id of the process that made a file of that name to replace another one with it; false: it is no such name.
func TempOwner(name string) (pid int, ok bool) {
	parts := strings.Split(name, ".")
	n := len(parts)
	if n < 5 || parts[0] != "" || parts[n-1] != "tmp" {
		return 0, false
	}
	if _, err := strconv.ParseUint(parts[n-2], 10, 64); err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(parts[n-3])
	return pid, err == nil && pid > 0
}

// countWriter counts what has been written.
type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// ErrTooLarge is returned by [ReadFile] for a file beyond the limit.
var ErrTooLarge = fmt.Errorf("file too large: %w", syscall.EFBIG)

// ReadFile returns the content of a file of at most limit bytes, ErrTooLarge for a longer one.
func ReadFile(d Dir, name string, limit int64) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if info.Size < limit {
		buf.Grow(int(info.Size) + bytes.MinRead) // room for the read that finds the end
	}
	n, err := buf.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = ErrTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", d.Path(), name, err)
	}
	return buf.Bytes(), nil
}
