package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"dsyncfs/mirror/brain"
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// keptBytes is how much is kept at least of what was read ahead of the rounds; at most it is twice as much.
const keptBytes = 64 << 20

// keptMails are mails that came beside the rounds: what programs read before its turn, and what they are likely to read next.
// They lie one after the other in files without a name, of which there are two: when the newer one is full, the older one goes.
type keptMails struct {
	dir   string
	limit int64 // bytes of a file

	adding sync.Mutex // held while a mail is added; taken before mu

	mu       sync.Mutex
	now, was *keptFile
	boxes    map[mail.Name]*keptBox
	more     chan struct{} // closed with the next mail
}

var _ brain.Kept = (*keptMails)(nil)

// keptFile is one of the files. It is closed by its finalizer: whoever reads a mail of it may still do so when it is given up.
type keptFile struct {
	file  *os.File
	end   int64
	mails map[keptName]keptSpan
}

type keptName struct {
	box  mail.Name
	guid mail.GUID
}

type keptSpan struct {
	at, size int64
	details  *item.Mail
}

// keptBox lists the mails of a mailbox in the order in which they came.
type keptBox struct {
	gone  int // of these are not kept any more
	guids []mail.GUID
}

func newKeptMails(dir string) *keptMails {
	return &keptMails{dir: dir, limit: keptBytes, boxes: make(map[mail.Name]*keptBox), more: make(chan struct{})}
}

// add keeps a mail of that size. A body of another size is an error, and is not kept. Who adds another one waits until body ends.
func (k *keptMails) add(box mail.Name, guid mail.GUID, size int64, body io.Reader) error {
	k.adding.Lock()
	defer k.adding.Unlock()
	f, err := k.room(size)
	if err != nil {
		return err
	}
	got, err := io.Copy(io.NewOffsetWriter(f.file, f.end), io.LimitReader(body, size+1))
	if err != nil {
		return err
	}
	if got != size {
		return fmt.Errorf("the remote sent %d bytes, and had said that it has %d", got, size)
	}
	k.enter(f, keptName{box, guid}, size, nil)
	return nil
}

// errFull says that there is no room for more without giving up what is kept.
var errFull = errors.New("enough was read ahead")

// addWhole keeps a mail of which nobody said the size, and everything else that is to be said of it, for as long as k is in use.
func (k *keptMails) addWhole(box mail.Name, details *item.Mail, body io.Reader) (size int64, err error) {
	k.adding.Lock()
	defer k.adding.Unlock()
	f, err := k.room(0)
	if err != nil {
		return 0, err
	}
	left := k.limit - f.end
	if size, err = io.Copy(io.NewOffsetWriter(f.file, f.end), io.LimitReader(body, left)); err != nil {
		return 0, err
	}
	if size == left {
		return 0, errFull
	}
	k.enter(f, keptName{box, details.GUID}, size, details)
	return size, nil
}

// enter lists a mail that was written to the end of a file.
func (k *keptMails) enter(f *keptFile, name keptName, size int64, details *item.Mail) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f.mails[name] = keptSpan{f.end, size, details}
	f.end += size
	box, guid := name.box, name.guid
	b := k.boxes[box]
	if b == nil {
		b = &keptBox{}
		k.boxes[box] = b
	}
	b.guids = append(b.guids, guid)
	close(k.more)
	k.more = make(chan struct{})
}

// room returns the file that a mail goes to.
func (k *keptMails) room(size int64) (*keptFile, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != nil && (k.now.end == 0 || k.now.end+size <= k.limit) {
		return k.now, nil
	}
	file, err := nameless(k.dir)
	if err != nil {
		return nil, err
	}
	if old := k.was; old != nil {
		k.forget(old)
	}
	k.was, k.now = k.now, &keptFile{file: file, mails: make(map[keptName]keptSpan)}
	return k.now, nil
}

// clear gives up everything.
func (k *keptMails) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now, k.was = nil, nil
	clear(k.boxes)
}

// forget takes what only an old file has off the lists. The caller holds mu.
func (k *keptMails) forget(old *keptFile) {
	for box, b := range k.boxes {
		for len(b.guids) > 0 {
			if _, there := old.mails[keptName{box, b.guids[0]}]; !there {
				break
			}
			b.guids = b.guids[1:]
			b.gone++
		}
	}
}

// find returns where a mail is; nil: it is not kept.
func (k *keptMails) find(box mail.Name, guid mail.GUID) (*keptFile, keptSpan) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range []*keptFile{k.now, k.was} {
		if f == nil {
			continue
		}
		if s, ok := f.mails[keptName{box, guid}]; ok {
			return f, s
		}
	}
	return nil, keptSpan{}
}

// Mail implements [brain.Kept].
func (k *keptMails) Mail(box mail.Name, guid mail.GUID) (brain.KeptMail, bool) {
	f, s := k.find(box, guid)
	if f == nil {
		return brain.KeptMail{}, false
	}
	return brain.KeptMail{Body: io.NewSectionReader(f.file, s.at, s.size), Size: s.size, Details: s.details}, true
}

// Since implements [brain.Kept].
func (k *keptMails) Since(box mail.Name, n int) ([]mail.GUID, int, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.boxes[box]
	if b == nil {
		return nil, 0, k.more
	}
	return append([]mail.GUID(nil), b.guids[max(0, n-b.gone):]...), b.gone + len(b.guids), k.more
}

// open returns a file without a name that holds a mail, nil if it is not kept.
func (k *keptMails) open(box mail.Name, guid mail.GUID, size int64) (*os.File, error) {
	m, ok := k.Mail(box, guid)
	if !ok || m.Size != size {
		return nil, nil
	}
	file, err := nameless(k.dir)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(file, io.NewSectionReader(m.Body, 0, m.Size)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// nameless makes a file that goes away with its last descriptor.
func nameless(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, err
	}
	if f, err = os.CreateTemp(dir, "fetched-"); err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
