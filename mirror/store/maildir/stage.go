package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// stagedMail is what is known of a mail in tmp/.
type stagedMail struct {
	size, virtual int64
}

const copyBuffer = 128 << 10

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// Stage implements [store.Mailbox]: the mail goes to tmp/ with its date, not yet durable.
func (m *mailbox) Stage(ctx context.Context, msg mail.Message, r io.Reader) (store.Staged, error) {
	if err := m.prepareTmp(); err != nil {
		return "", fmt.Errorf("%s: %w", describe(m.rec.Name), err)
	}
	name := m.s.tempName("stage")
	st, err := m.write(ctx, name, msg.Received, r)
	if err != nil {
		if rerr := ignoreGone(m.d.tmp.Remove(name)); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return "", fmt.Errorf("%s: stage a mail: %w", describe(m.rec.Name), noSpace(err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.staged[store.Staged(name)] = st
	return store.Staged(name), nil
}

// prepareTmp makes missing directories and removes, once, what crashes of ours left in tmp/.
func (m *mailbox) prepareTmp() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.swept {
		return nil
	}
	if err := m.openMissing(); err != nil {
		return err
	}
	err := m.s.sweepTmp(m.d.tmp)
	if err == nil {
		m.chmod, err = m.needsChmod()
	}
	m.swept = err == nil
	return err
}

// sweepTmp removes what crashes of ours left in the tmp directory of a mailbox. Held mails are witnesses and have a life of
// their own.
func (s *Store) sweepTmp(tmp vfs.Dir) error {
	return s.sweep(tmp, func(name string) bool {
		_, held := parseHeldName(name)
		return s.isOurTemp(name) && !held
	})
}

// sweepBox removes what crashes left of files that were to replace others of a mailbox.
func (s *Store) sweepBox(box vfs.Dir) error { return s.sweep(box, isReplacement) }

// isReplacement reports whether a name is that of a file that is to replace one of ours (vfs.Replace, replaceAt).
func isReplacement(name string) bool {
	return (strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".dsyncfs")) && (strings.HasPrefix(name, ".dovecot-") || strings.HasPrefix(name, "."+subscriptionsName+"."))
}

// orphaned reports whether a replacement is of a process that is gone: it is of no use to anybody then.
func orphaned(name string) bool {
	pid, ok := vfs.TempOwner(name)
	return ok && isReplacement(name) && !alive(pid)
}

func (s *Store) sweep(dir vfs.Dir, ours func(name string) bool) error {
	var names []string
	err := dir.Names(func(name string, _ vfs.Type) error {
		if ours(name) {
			names = append(names, name)
		}
		return nil
	})
	for _, name := range names {
		if err == nil {
			err = s.removeLeftover(dir, name)
		}
	}
	return err
}

// sweep removes what crashes left of a mailbox that is being scanned.
func (b *boxScan) sweep() error {
	if b.r.o.DryRun {
		return nil
	}
	if b.d.tmp != nil {
		if err := b.s.sweepTmp(b.d.tmp); err != nil {
			return err
		}
	}
	return b.s.sweepBox(b.d.box)
}

// openMissing makes what is missing of cur, new and tmp. The mails that come there are told to be on disk, and so must the
// directories.
func (m *mailbox) openMissing() error {
	if m.d.cur != nil && m.d.new != nil && m.d.tmp != nil {
		return nil
	}
	if err := m.s.makeSubdirs(m.d.box); err != nil {
		return err
	}
	if err := m.d.box.Sync(); err != nil {
		return err
	}
	if err := m.d.openSubdirs(m.s.fs, m.dir); err != nil {
		return err
	}
	return m.ns.openSubdirs(m.s.ns, m.dir)
}

// needsChmod finds out, with a file, whether the umask takes away what the directory's mode grants.
func (m *mailbox) needsChmod() (bool, error) {
	m.mode = m.s.fileMode(m.d.box)
	name := m.s.tempName("mode")
	f, err := m.d.tmp.Create(name, m.mode)
	if err != nil {
		return false, noSpace(err)
	}
	info, err := f.Stat()
	return info.Mode != m.mode, errors.Join(err, f.Close(), m.d.tmp.Remove(name))
}

func (m *mailbox) write(ctx context.Context, name string, received int64, r io.Reader) (st stagedMail, err error) {
	f, err := m.d.tmp.Create(name, m.mode)
	if err != nil {
		return st, err
	}
	st, err = copyCounting(ctx, f, r)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil && m.chmod {
		err = m.d.tmp.Chmod(name, m.mode)
	}
	if err == nil {
		err = m.d.tmp.SetTimes(name, time.Unix(received, 0))
	}
	return st, err
}

// copyCounting copies a mail and counts its bytes and what they are with every line end as CRLF.
func copyCounting(ctx context.Context, w io.Writer, r io.Reader) (st stagedMail, err error) {
	bufp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bufp)
	buf := *bufp
	var last byte
	for {
		n, rerr := io.ReadFull(r, buf)
		if n > 0 {
			p := buf[:n]
			st.size += int64(n)
			st.virtual += int64(n + bareLFs(p, last))
			last = p[n-1]
			if _, err := w.Write(p); err != nil {
				return st, err
			}
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			return st, nil
		}
		if rerr != nil {
			return st, rerr
		}
		if ctx.Err() != nil {
			return st, context.Cause(ctx)
		}
	}
}

// bareLFs counts the LFs without a CR before them; last is the byte before p.
func bareLFs(p []byte, last byte) int {
	n := bytes.Count(p, []byte{'\n'}) - bytes.Count(p, []byte("\r\n"))
	if last == '\r' && p[0] == '\n' {
		n--
	}
	return n
}
