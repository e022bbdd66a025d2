// Package memstore is a complete store in memory: the model that property tests compare adapters with, and the store of
// tests of brain and engine.
//
// An [Account] is the place: what a disk would hold, and the memory of what was seen there. Its methods play the local user
// and the programs that work behind a store's back. [Account.Open] gives the [store.Store] of it, which notices what users
// did in Refresh, as an adapter of a real format does. Everything is deterministic: GUIDs and file names come of a counter,
// the time of the clock that was passed in.
//
// The package refuses to be fast: it copies what it hands out.
//
// Locks: Account.mu guards everything of an account, its stores and its mailboxes. Callbacks of Refresh run under it and
// must not call back.
package memstore

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// Account is one account: its mail and the memory of its store.
type Account struct {
	name string
	now  func() time.Time
	caps store.Capabilities

	mu         sync.Mutex
	serial     uint64 // of names and GUIDs made here
	generation uint64 // of the memory
	full       bool   // the disk is full
	disk       disk
	memory     memory
	witnessed  map[place]struct{} // what users removed where the store could see it
}

// place is a mail by its base name, or a mailbox (base "").
type place struct {
	mailbox mail.Name
	base    string
}

// disk is what others can change.
type disk struct {
	boxes map[mail.Name]*diskBox
	dirs  map[mail.Name]struct{}     // levels of hierarchy of their own
	subs  map[mail.Name]subscription // also what was unsubscribed
}

type diskBox struct {
	guid       mail.MailboxGUID
	validity   mail.UIDValidity
	renamed    int64
	unreadable bool
	files      map[string]*file // by base name
}

// file is one mail. Its GUID and POP3 fields stay with it when it is moved. Files are replaced, never changed in place.
type file struct {
	guid            mail.GUID
	body            []byte
	flags           mail.Flags
	keywords        mail.Keywords
	received, saved int64
	uidl            string
	order           uint32
}

type subscription struct {
	on      bool
	changed int64
}

// NewAccount makes an empty account, with an INBOX. The name tells its GUIDs from those of other accounts; now is its clock.
func NewAccount(name string, now func() time.Time) *Account {
	a := &Account{
		name: name,
		now:  now,
		caps: store.Capabilities{
			Separator: '/', Keywords: -1, SaveGUIDs: true, SaveUIDs: true, NamePartMax: mail.MaxNamePart, HasSaveDates: true,
		},
		disk: disk{
			boxes: map[mail.Name]*diskBox{},
			dirs:  map[mail.Name]struct{}{},
			subs:  map[mail.Name]subscription{},
		},
		witnessed: map[place]struct{}{},
	}
	a.memory.reset()
	a.disk.boxes[mail.Inbox] = a.newDiskBox()
	return a
}

// Open returns a store over the account. There may be one at a time; what another one recorded is there.
func (a *Account) Open() *Store { return &Store{a: a, held: map[string]heldMail{}} }

// LoseMemory forgets what a catalog would hold: change logs, deletions, last common states. UIDs, GUIDs and attributes stay,
// as they do in a Maildir. The epoch is a new one.
func (a *Account) LoseMemory() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.generation++
	a.memory.forget()
}

// SetFull makes the disk refuse new mail, or take it again.
func (a *Account) SetFull(full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.full = full
}

// SetUnreadable makes the listing of a mailbox fail, or work again.
func (a *Account) SetUnreadable(name mail.Name, unreadable bool) error {
	return a.withBox("chmod", name, func(b *diskBox) error {
		b.unreadable = unreadable
		return nil
	})
}

// Deliver puts a new mail into a mailbox, as a delivery agent does, and returns its base name.
func (a *Account) Deliver(name mail.Name, body []byte, received time.Time) (base string, err error) {
	err = a.withBox("deliver to", name, func(b *diskBox) error {
		base = a.newBase()
		now := a.now().Unix()
		b.files[base] = &file{guid: mail.GUID(base), body: slices.Clone(body), received: received.Unix(), saved: now}
		return nil
	})
	return base, err
}

// SetFlags changes flags and keywords of a mail.
func (a *Account) SetFlags(name mail.Name, base string, d mail.Delta) error {
	return a.withFile("set flags", name, base, func(b *diskBox, f *file) error {
		changed := *f
		changed.flags, changed.keywords = d.Apply(f.flags, f.keywords)
		b.files[base] = &changed
		return nil
	})
}

// Expunge removes a mail where the store sees it being done.
func (a *Account) Expunge(name mail.Name, base string) error {
	return a.withFile("expunge", name, base, func(b *diskBox, _ *file) error {
		delete(b.files, base)
		a.witnessed[place{name, base}] = struct{}{}
		return nil
	})
}

// Vanish removes a mail without a witness.
func (a *Account) Vanish(name mail.Name, base string) error {
	return a.withFile("remove", name, base, func(b *diskBox, _ *file) error {
		delete(b.files, base)
		return nil
	})
}

// Move moves a mail to another mailbox under its base name.
func (a *Account) Move(from mail.Name, base string, to mail.Name) error {
	return a.withFile("move", from, base, func(b *diskBox, f *file) error {
		target, ok := a.disk.boxes[to]
		if !ok {
			return fmt.Errorf("move to %q: %w", to, store.ErrNotFound)
		}
		if _, taken := target.files[base]; taken {
			return fmt.Errorf("move %s to %q: %w", base, to, store.ErrExists)
		}
		target.files[base] = f
		delete(b.files, base)
		return nil
	})
}

// Copy saves a mail a second time, under a base name and GUID of its own, and returns the former.
func (a *Account) Copy(from mail.Name, base string, to mail.Name) (copied string, err error) {
	err = a.withFile("copy", from, base, func(_ *diskBox, f *file) error {
		target, ok := a.disk.boxes[to]
		if !ok {
			return fmt.Errorf("copy to %q: %w", to, store.ErrNotFound)
		}
		copied = a.newBase()
		duplicate := *f
		duplicate.guid, duplicate.saved = mail.GUID(copied), a.now().Unix()
		target.files[copied] = &duplicate
		return nil
	})
	return copied, err
}

// Files returns the base names in a mailbox, sorted; none if there is no such mailbox.
func (a *Account) Files(name mail.Name) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.disk.boxes[name]
	if !ok {
		return nil
	}
	return slices.SortedFunc(maps.Keys(b.files), mail.CompareDelivery)
}

// Content returns the bytes of a mail.
func (a *Account) Content(name mail.Name, base string) (body []byte, err error) {
	err = a.withFile("read", name, base, func(_ *diskBox, f *file) error {
		body = slices.Clone(f.body)
		return nil
	})
	return body, err
}

// CreateMailbox makes a mailbox as a user does. A level of hierarchy of that name becomes the mailbox.
func (a *Account) CreateMailbox(name mail.Name) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.checkNew("create", name); err != nil {
		return err
	}
	delete(a.disk.dirs, name)
	a.disk.boxes[name] = a.newDiskBox()
	return nil
}

// CreateDirectory makes a level of hierarchy as a user does.
func (a *Account) CreateDirectory(name mail.Name) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.checkNew("create directory", name); err != nil {
		return err
	}
	if _, ok := a.disk.dirs[name]; ok {
		return fmt.Errorf("create directory %q: %w", name, store.ErrExists)
	}
	a.disk.dirs[name] = struct{}{}
	return nil
}

// RenameMailbox moves a mailbox or directory, and everything below it, as a user does.
func (a *Account) RenameMailbox(from, to mail.Name) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.renameOnDisk(from, to, a.now().Unix())
}

// DeleteMailbox removes a mailbox with its mails where the store sees it being done.
func (a *Account) DeleteMailbox(name mail.Name) error { return a.removeBox(name, true) }

// LoseMailbox removes a mailbox with its mails without a witness.
func (a *Account) LoseMailbox(name mail.Name) error { return a.removeBox(name, false) }

func (a *Account) removeBox(name mail.Name, seen bool) error {
	return a.withBox("delete", name, func(*diskBox) error {
		if name == mail.Inbox {
			return fmt.Errorf("delete %q: %w", name, store.ErrName)
		}
		delete(a.disk.boxes, name)
		if seen {
			a.witnessed[place{name, ""}] = struct{}{}
		}
		return nil
	})
}

// Subscribe changes the list of subscriptions as a user does.
func (a *Account) Subscribe(name mail.Name, on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.disk.subscribe(name, on, a.now().Unix())
}

func (d *disk) subscribe(name mail.Name, on bool, now int64) {
	if was, known := d.subs[name]; was.on == on && (known || !on) {
		return
	}
	d.subs[name] = subscription{on, now}
}

func (a *Account) withBox(op string, name mail.Name, f func(*diskBox) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.disk.boxes[name]
	if !ok {
		return fmt.Errorf("%s %q: %w", op, name, store.ErrNotFound)
	}
	return f(b)
}

func (a *Account) withFile(op string, name mail.Name, base string, f func(*diskBox, *file) error) error {
	return a.withBox(op, name, func(b *diskBox) error {
		found, ok := b.files[base]
		if !ok {
			return fmt.Errorf("%s %q of %q: %w", op, base, name, store.ErrNotFound)
		}
		return f(b, found)
	})
}

// checkNew says why no mailbox of that name can be made.
func (a *Account) checkNew(op string, name mail.Name) error {
	if err := name.Check(); err != nil {
		return fmt.Errorf("%s: %w: %w", op, store.ErrName, err)
	}
	if _, ok := a.disk.boxes[name]; ok {
		return fmt.Errorf("%s %q: %w", op, name, store.ErrExists)
	}
	return nil
}

// renameOnDisk moves from and everything below it, or nothing at all.
func (a *Account) renameOnDisk(from, to mail.Name, at int64) error {
	fail := func(err error) error { return fmt.Errorf("rename %q to %q: %w", from, to, err) }
	if from == mail.Inbox || to.IsBelow(from) {
		return fail(store.ErrName)
	}
	if err := to.Check(); err != nil {
		return fmt.Errorf("rename %q: %w: %w", from, store.ErrName, err)
	}
	boxes, dirs := map[mail.Name]mail.Name{}, map[mail.Name]mail.Name{} // their new names by their old ones
	for name := range a.disk.boxes {
		if moved, with := name.Moved(from, to); with {
			boxes[name] = moved
		}
	}
	for name := range a.disk.dirs {
		if moved, with := name.Moved(from, to); with {
			dirs[name] = moved
		}
	}
	if len(boxes)+len(dirs) == 0 {
		return fail(store.ErrNotFound)
	}
	for _, moved := range slices.Concat(slices.Collect(maps.Values(boxes)), slices.Collect(maps.Values(dirs))) {
		if a.disk.exists(moved) {
			return fail(store.ErrExists)
		}
		if err := moved.Check(); err != nil {
			return fmt.Errorf("rename %q: %w: %w", from, store.ErrName, err)
		}
	}
	for name, moved := range boxes {
		b := a.disk.boxes[name]
		delete(a.disk.boxes, name)
		a.disk.boxes[moved] = b
		b.renamed = at
	}
	for name, moved := range dirs {
		delete(a.disk.dirs, name)
		a.disk.dirs[moved] = struct{}{}
	}
	return nil
}

func (d *disk) exists(name mail.Name) bool {
	_, box := d.boxes[name]
	_, dir := d.dirs[name]
	return box || dir
}

// find returns the mailbox of a GUID and its name, nil if there is none.
func (d *disk) find(guid mail.MailboxGUID) (mail.Name, *diskBox) {
	for name, b := range d.boxes {
		if b.guid == guid {
			return name, b
		}
	}
	return "", nil
}

func (a *Account) newDiskBox() *diskBox {
	a.serial++
	now := a.now().Unix()
	return &diskBox{
		guid:     mail.MailboxGUID(a.digest("mailbox")),
		validity: mail.UIDValidity(uint32(now) + uint32(a.serial)),
		renamed:  now,
		files:    map[string]*file{},
	}
}

func (a *Account) newBase() string {
	a.serial++
	return fmt.Sprintf("%d.M%dP1.%s", a.now().Unix(), a.serial, strings.ReplaceAll(a.name, "/", "_"))
}

// digest draws 16 bytes that no other account or serial number has.
func (a *Account) digest(kind string) [16]byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", kind, a.name, a.serial))
	return [16]byte(sum[:16])
}

func (a *Account) epoch() uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "epoch\x00%s\x00%d", a.name, a.generation))
	return binary.BigEndian.Uint64(sum[:]) | 1
}

func (b *diskBox) check(name mail.Name) error {
	if b.unreadable {
		return fmt.Errorf("read mailbox %q: %w", name, fs.ErrPermission)
	}
	return nil
}
