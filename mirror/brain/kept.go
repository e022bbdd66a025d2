package brain

import (
	"context"
	"io"
	"sync"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Mails that were read beside the rounds, because a program wanted them before their turn, need not come a second time. Of a
// stock peer they are staged without being asked for. A dsyncfs is told of each by a receipt, also while the round goes on, and
// then sends the rest of the body, which is empty, with everything else that there is to say of the mail.

// Kept are such mails. Its methods may be called by several goroutines.
type Kept interface {
	// Mail returns a mail; false: it is not kept. It can be read until it is not referred to any more.
	Mail(box mail.Name, guid mail.GUID) (KeptMail, bool)
	// Since returns what came to be kept of a mailbox after the first n, how many these are in all, and a channel that is closed
	// when there is more.
	Since(box mail.Name, n int) (guids []mail.GUID, all int, more <-chan struct{})
}

// KeptMail is a whole mail of the other side.
type KeptMail struct {
	Body    io.ReaderAt
	Size    int64
	Details *item.Mail // what is to be said of it besides, but for its body; nil: the other side will say it
}

func (m KeptMail) reader() io.Reader { return io.NewSectionReader(m.Body, 0, m.Size) }

// takeKept stages what is here already of a stock peer's mails.
func (in *incoming) takeKept(ctx context.Context) error {
	x := in.x
	if x.r.Kept == nil || x.r.stock == nil {
		return nil
	}
	for guid, index := range in.waiting {
		m, ok := x.r.Kept.Mail(x.mb.Name(), guid)
		if !ok || m.Details == nil {
			continue
		}
		a := &in.adds[index]
		st, err := x.mb.Stage(ctx, in.message(a, m.Details), m.reader())
		if err != nil {
			return err
		}
		a.origin, a.staged, a.details = staged, st, m.Details
		in.bytes += m.Size
		delete(in.waiting, guid)
	}
	return nil
}

// told are the kept mails that the other side was told of: it may leave out their bodies.
type told struct {
	mu    sync.Mutex
	mails map[mail.GUID]KeptMail
}

func (t *told) add(guid mail.GUID, m KeptMail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mails == nil {
		t.mails = make(map[mail.GUID]KeptMail)
	}
	t.mails[guid] = m
}

func (t *told) take(guid mail.GUID) (KeptMail, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.mails[guid]
	delete(t.mails, guid)
	return m, ok
}

// awaitComplete waits until the receiver has everything, and meanwhile tells a dsyncfs of what need not be sent.
func (x *exchange) awaitComplete(ctx context.Context) error {
	kept := x.r.Kept
	if kept == nil || !x.r.ours() || !x.r.dir.imports() || min(x.r.h.Dsyncfs, x.r.peer.Dsyncfs) < aheadVersion {
		return await(ctx, x.complete)
	}
	for n := 0; ; {
		guids, all, more := kept.Since(x.mb.Name(), n)
		n = all
		for _, guid := range guids {
			m, ok := kept.Mail(x.mb.Name(), guid)
			if !ok {
				continue
			}
			x.told.add(guid, m)
			if err := x.r.c.send(&item.Receipt{GUID: guid, Got: uint64(m.Size)}); err != nil {
				return err
			}
		}
		if len(guids) > 0 {
			if err := x.r.c.flush(); err != nil {
				return err
			}
		}
		select {
		case <-more:
		case <-x.complete:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// receipts are what the other side says that it has of what it asked for.
type receipts struct {
	mu   sync.Mutex
	most int // that are remembered
	got  map[mail.GUID]uint64
}

// expect lets so many be remembered.
func (r *receipts) expect(most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.most, r.got = most, make(map[mail.GUID]uint64)
}

func (r *receipts) note(it *item.Receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.got) < r.most {
		r.got[it.GUID] = it.Got
	}
}

func (r *receipts) of(guid mail.GUID) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[guid]
}
