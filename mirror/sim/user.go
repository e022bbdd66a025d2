package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// user acts on the files of a replica as mail programs do, past the store and past all faults.
type user struct {
	w   *world
	r   *replica
	rng *rand.Rand

	through *session // of the mount that the program uses; nil: it acts on the Maildir itself
}

// record journals a change through the mount. The content is that of the mail, for one that appears.
func (u *user) record(ev mail.Event, content string) error {
	if u.through == nil {
		return nil
	}
	return u.through.record(ev, content)
}

// names are the mailboxes that users make.
var names = []mail.Name{"Work", "Work/Lists", "Work/Lists/Old", "Ärger & Co", "Trash", "Sent"}

// words are the keywords that users set; more than fit in the file names of a mailbox.
var words = func() (out []string) {
	for i := range 40 {
		out = append(out, fmt.Sprintf("word%d", i))
	}
	return out
}()

// put says that a mail appeared. What happens to a backup is undone: nothing of it is owed, and nothing removed for good.
func (u *user) put(content string) {
	if u.r == u.w.backup {
		u.copied(content)
		return
	}
	u.w.ledger.put(content)
}

func (u *user) copied(content string) {
	u.w.ledger.copied(content)
	if e := u.w.ledger.contents[content]; e != nil && u.r == u.w.backup && e.puts == 1 {
		e.spare = true
	}
}

func (u *user) removed(content string) {
	u.r.pushed.removed(content)
	if u.r != u.w.backup {
		u.w.ledger.remove(content)
	}
}

func (u *user) edited(old, content string) {
	u.removed(old)
	u.put(content)
	u.w.ledger.rooted(old, content)
}

// act does one thing. What is not possible at the moment is not done.
func (w *world) act(r *replica, op string, seed uint64) error { return w.actAs(nil, r, op, seed) }

// actAs is act through the mount of a session.
func (w *world) actAs(through *session, r *replica, op string, seed uint64) error {
	u := &user{w: w, r: r, rng: rand.New(rand.NewPCG(seed, 2)), through: through}
	do := map[string]func() error{
		"deliver": u.deliver, "burst": u.burst, "see": u.see, "flag": u.flag, "keyword": u.keyword, "manykeywords": u.manyKeywords,
		"expunge": u.expunge, "move": u.move, "copy": u.copy, "create": u.create, "rename": u.rename, "delete": u.delete,
		"recreate": u.recreate, "subscribe": u.subscribe, "unsubscribe": u.unsubscribe, "loselist": u.loseList,
		"assign": u.assign, "resetvalidity": u.resetValidity, "resetguid": u.resetGUID, "edit": u.edit, "editone": u.editOne, "empty": u.empty, "cleanup": u.cleanUp,
		"keep": u.keep, "fillkept": u.fillKept, "dropkept": u.dropKept, "putback": u.putBack,
	}[op]
	if do == nil {
		return fmt.Errorf("no op %q", op)
	}
	if !r.born && op != "deliver" && op != "create" {
		return nil
	}
	err := do()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, errRefused) {
		return nil // it was not possible
	}
	return err
}

func (u *user) pick(n int) int { return u.rng.IntN(n) }

// open opens a directory that it has to be possible to open.
func (u *user) open(path string) (vfs.Dir, error) { return u.r.disk.OpenDir(path) }

// boxes lists the mailboxes by name.
func (u *user) boxes() ([]mail.Name, map[mail.Name]string, error) {
	dirs, err := mailboxDirs(u.r.disk, u.r.layout)
	return slices.Sorted(maps.Keys(dirs)), dirs, err
}

// anyBox picks a mailbox that is there.
func (u *user) anyBox() (mail.Name, string, error) {
	all, dirs, err := u.boxes()
	if err != nil {
		return "", "", err
	}
	name := all[u.pick(len(all))]
	if u.pick(3) == 0 {
		name = mail.Inbox
	}
	return name, dirs[name], nil
}

// found is a mail that was picked.
type found struct {
	box  mail.Name
	dir  string // of the mailbox
	file fileView
}

// anyMail picks a mail; ok is false if there is none.
func (u *user) anyMail() (m found, ok bool, err error) {
	all, dirs, err := u.boxes()
	if err != nil {
		return m, false, err
	}
	for range 3 {
		name := all[u.pick(len(all))]
		mails, err := u.mails(name, dirs[name])
		if err != nil {
			return m, false, err
		}
		if len(mails) > 0 {
			return mails[u.pick(len(mails))], true, nil
		}
	}
	return m, false, nil
}

func (u *user) mails(name mail.Name, dir string) (out []found, err error) {
	b := &boxView{dir: dir}
	for _, sub := range []string{"new", "cur"} {
		if err := b.readFiles(u.r.disk, sub); err != nil {
			return nil, err
		}
	}
	for _, f := range b.files {
		out = append(out, found{name, dir, f})
	}
	return out, nil
}

// maybeSync makes what happened in a directory durable, as about half of all programs do.
func (u *user) maybeSync(dirs ...vfs.Dir) error {
	if u.pick(2) == 0 {
		return nil
	}
	return u.sync(dirs...)
}

// sync is fsync of directories.
func (u *user) sync(dirs ...vfs.Dir) error {
	for _, d := range dirs {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	if u.through != nil {
		return u.through.sync()
	}
	return nil
}

// base makes a unique name as delivery agents do.
func (u *user) base(size int) string {
	u.w.deliveries++
	now := u.r.now()
	b := fmt.Sprintf("%d.M%dP%d.%s", now.Unix(), u.w.deliveries, 100+u.pick(3), u.r.name)
	switch u.pick(4) {
	case 0:
		b += fmt.Sprintf(",S=%d", size)
	case 1:
		b += fmt.Sprintf(",U=%d", u.pick(50)) // mbsync's
	}
	return b
}

func (u *user) deliver() error { return u.deliverSome(1) }

// burst delivers so many that the guard cares.
func (u *user) burst() error { return u.deliverSome(8 + u.pick(8)) }

func (u *user) deliverSome(n int) error {
	if !u.r.born {
		if err := u.makeBox("", mail.Inbox); err != nil {
			return err
		}
		u.r.born = true
	}
	box, dir, err := u.anyBox()
	if err != nil {
		return err
	}
	for range n {
		size := 80 + u.pick(200)
		if u.pick(10) == 0 {
			size = 1000 + u.pick(40_000)
		}
		if err := u.deliverOne(box, dir, u.w.ledger.fresh(size, u.pick(3) == 0)); err != nil {
			return err
		}
	}
	return nil
}

// deliverOne is tmp, fsync, rename, fsync: a mail that was accepted is on disk. One of three deliveries behind a mount leaves out the
// last step, as many agents do.
func (u *user) deliverOne(box mail.Name, dir, content string) error {
	if err := u.makeSubdirs(dir); err != nil {
		return err
	}
	tmp, err := u.open(join(dir, "tmp"))
	if err != nil {
		return err
	}
	to, name := "new", u.base(len(content))
	if u.pick(4) == 0 {
		to = "cur" // an append by a reader
	}
	d, err := u.open(join(dir, to))
	if err != nil {
		return err
	}
	if err := u.write(tmp, name, content); err != nil {
		return err
	}
	received := u.r.now().Add(-time.Duration(u.pick(1_000_000)) * time.Second)
	if u.pick(2) == 0 {
		received = u.r.now()
	}
	if err := tmp.SetTimes(name, received); err != nil {
		return err
	}
	final := name
	if to == "cur" {
		final += ":2," + []string{"", "S", "FS", "DS"}[u.pick(4)]
	}
	if err := tmp.Rename(name, d, final); err != nil {
		return err
	}
	u.put(content)
	if u.through == nil && u.w.deliveries%3 == 0 {
		u.w.ledger.contents[content].loose, u.w.loose[name] = u.r.name, true
		return nil
	}
	if err := d.Sync(); err != nil {
		return err
	}
	if err := u.record(mail.Event{Op: mail.EventAppend, Mailbox: box, File: final}, content); err != nil {
		return err
	}
	return u.sync()
}

// write makes a file whose bytes are on disk.
func (u *user) write(dir vfs.Dir, name, content string) error {
	f, err := dir.Create(name, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write([]byte(content)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// makeSubdirs makes what is missing, durably.
func (u *user) makeSubdirs(dir string) error {
	d, err := u.open(dir)
	if err != nil {
		return err
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := d.Mkdir(sub, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return d.Sync()
}

// see moves a mail from new/ to cur/, as a reader that opens the mailbox.
func (u *user) see() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok || m.file.sub != "new" {
		return err
	}
	f := m.file.FileName
	f.HasInfo = true
	if u.pick(2) == 0 {
		f.Flags |= mail.FlagSeen
	}
	return u.renameMail(m, f)
}

// renameMail gives a mail other flags.
func (u *user) renameMail(m found, f mail.FileName) error {
	from, err := u.open(join(m.dir, m.file.sub))
	if err != nil {
		return err
	}
	to, err := u.open(join(m.dir, "cur"))
	if err != nil {
		return err
	}
	f.HasInfo = true
	if err := u.record(mail.Event{Op: mail.EventFlags, Mailbox: m.box, File: m.file.name, NewFile: f.String()}, ""); err != nil {
		return err
	}
	if err := from.Rename(m.file.name, to, f.String()); err != nil {
		return err
	}
	return u.maybeSync(from, to)
}

func (u *user) flag() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok {
		return err
	}
	f := m.file.FileName
	f.Flags ^= mail.Flags(1 << u.pick(5))
	return u.renameMail(m, f)
}

// keyword toggles a keyword, which gets a letter if there is one left.
func (u *user) keyword() error {
	m, ok, err := u.anyMail()
	if err != nil || !ok {
		return err
	}
	letter, err := u.letter(m.dir, words[u.pick(len(words))])
	if err != nil || letter < 0 {
		return err
	}
	f := m.file.FileName
	f.Letters ^= 1 << letter
	return u.renameMail(m, f)
}

// manyKeywords fills the table of keywords of a mailbox.
func (u *user) manyKeywords() error {
	_, dir, err := u.anyBox()
	if err != nil {
		return err
	}
	start := u.pick(len(words))
	for i := range 12 {
		if _, err := u.letter(dir, words[(start+i)%len(words)]); err != nil {
			return err
		}
	}
	return nil
}

// letter returns the letter of a keyword in a mailbox, -1 if all are taken.
func (u *user) letter(dir, word string) (int, error) {
	d, err := u.open(dir)
	if err != nil {
		return -1, err
	}
	data, err := vfs.ReadFile(d, "dovecot-keywords", maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return -1, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if index, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); name == word {
			fmt.Sscan(index, &n)
			return n, nil
		}
		n++
	}
	if n >= 26 {
		return -1, nil
	}
	return n, u.replace(d, "dovecot-keywords", string(data)+fmt.Sprintf("%d %s\n", n, word))
}

// replace is vfs.WriteFile without its counter of names, which would depend on what ran before.
func (u *user) replace(d vfs.Dir, name, content string) error {
	u.w.deliveries++
	temp := fmt.Sprintf("user%d", u.w.deliveries)
	if err := u.write(d, temp, content); err != nil {
		return err
	}
	if err := d.Rename(temp, d, name); err != nil {
		return err
	}
	return d.Sync()
}
