package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/store/maildir"
	"dsyncfs/mirror/vfs"
)

// maxFile bounds what the simulation reads of a file.
const maxFile = 1 << 22

// boxView is one mailbox as its files show it, read without the code that is tested.
type boxView struct {
	name mail.Name
	dir  string

	validity uint64
	next     uint64 // effective
	guid     string
	list     []listRow
	torn     bool // the uidlist ends in half a line
	noList   bool

	keywords map[int]string
	files    []fileView // sorted by base name
}

// listRow is one line of a uidlist.
type listRow struct {
	uid    uint64
	fields map[byte]string
	base   string
}

// fileView is one mail.
type fileView struct {
	sub, name string // "cur" or "new", and the name in it
	mail.FileName
	info    vfs.Info
	content string
}

// accountView is a whole replica.
type accountView struct {
	boxes      []boxView // by name
	setAside   []boxView // in tmp/: those that a process which was killed had yet to delete, or to put back
	subscribed []string
}

func (a *accountView) box(name mail.Name) *boxView {
	for i := range a.boxes {
		if a.boxes[i].name == name {
			return &a.boxes[i]
		}
	}
	return nil
}

// boxOf returns the mailbox of which a catalog has a record: the one of its GUID, under whatever name, else the one that has its
// name; nil if there is neither.
func (a *accountView) boxOf(rec store.MailboxRecord) *boxView {
	named, guid := a.box(rec.Name), rec.Status.GUID.String()
	if named != nil && named.guid == guid {
		return named
	}
	for i := range a.boxes {
		if a.boxes[i].guid == guid {
			return &a.boxes[i]
		}
	}
	return named
}

// has reports whether there is a mailbox of a GUID.
func (a *accountView) has(guid string) bool {
	return slices.ContainsFunc(a.boxes, func(b boxView) bool { return b.guid == guid })
}

// mailboxDirs lists the directories of a Maildir that are mailboxes, by path below the root.
func mailboxDirs(fsys vfs.FS, layout maildir.Layout) (map[mail.Name]string, error) {
	out := make(map[mail.Name]string)
	var walk func(path string) error
	walk = func(path string) error {
		d, err := fsys.OpenDir(path)
		if err != nil {
			return err
		}
		defer d.Close()
		var subs []string
		isBox := path == ""
		err = d.Names(func(name string, typ vfs.Type) error {
			switch {
			case typ != vfs.Directory:
				isBox = isBox || name == "dovecot-uidlist" || name == "maildirfolder"
			case name == "cur" || name == "new":
				isBox = true
			case name == "tmp":
			case layout == maildir.FS || path == "" && name[0] == '.':
				subs = append(subs, name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if isBox {
			name, ok := layout.MailboxOf(path)
			if !ok {
				return fmt.Errorf("directory %q is no mailbox name", path)
			}
			out[name] = path
		}
		for _, s := range subs {
			if err := walk(join(path, s)); err != nil {
				return err
			}
		}
		return nil
	}
	return out, walk("")
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// readAccount reads a Maildir. The error says what is malformed in it.
func readAccount(fsys vfs.FS, layout maildir.Layout) (*accountView, error) {
	dirs, err := mailboxDirs(fsys, layout)
	if err != nil {
		return nil, err
	}
	a := &accountView{}
	for _, name := range slices.Sorted(maps.Keys(dirs)) {
		b, err := readBox(fsys, name, dirs[name])
		if err != nil {
			return nil, fmt.Errorf("mailbox %q: %w", string(name), err)
		}
		a.boxes = append(a.boxes, *b)
	}
	if a.setAside, err = readSetAside(fsys); err != nil {
		return nil, err
	}
	root, err := fsys.OpenDir("")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if a.subscribed, err = readSubscriptions(root, layout); err != nil {
		return nil, err
	}
	return a, nil
}

// readSetAside reads the mails of mailboxes on the way between deleted and not.
func readSetAside(fsys vfs.FS) (boxes []boxView, err error) {
	tmp, err := fsys.OpenDir("tmp")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer tmp.Close()
	err = tmp.Names(func(name string, typ vfs.Type) error {
		if !strings.HasPrefix(name, "dsyncfs-trying-") {
			return nil
		}
		b := boxView{dir: join("tmp", name)}
		for _, sub := range []string{"new", "cur"} {
			if err := b.readFiles(fsys, sub); err != nil {
				return err
			}
		}
		boxes = append(boxes, b)
		return nil
	})
	return boxes, err
}

func readBox(fsys vfs.FS, name mail.Name, dir string) (*boxView, error) {
	b := &boxView{name: name, dir: dir, keywords: make(map[int]string)}
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := vfs.ReadFile(d, "dovecot-uidlist", maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.noList = true
	case err != nil:
		return nil, err
	default:
		if err := b.parseList(string(data)); err != nil {
			return nil, fmt.Errorf("dovecot-uidlist: %w:\n%q", err, data)
		}
	}
	data, err = vfs.ReadFile(d, "dovecot-keywords", maxFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		index, word, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		n, err := strconv.Atoi(index)
		if err != nil || n < 0 || n > 25 || word == "" || !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("dovecot-keywords: line %q", line)
		}
		b.keywords[n] = word
	}
	for _, sub := range []string{"new", "cur"} {
		if err := b.readFiles(fsys, sub); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(b.files, func(x, y fileView) int { return strings.Compare(x.Base, y.Base) })
	return b, nil
}

// parseList is as strict as Dovecot where it can lose something: it deletes a uidlist with UIDs out of order or a line that it
// cannot read.
func (b *boxView) parseList(data string) error {
	last := uint64(0)
	first := true
	for line := range strings.Lines(data) {
		if !strings.HasSuffix(line, "\n") {
			b.torn = true
			break
		}
		line = strings.TrimSuffix(line, "\n")
		if first {
			first = false
			if err := b.parseHeader(line); err != nil {
				return err
			}
			continue
		}
		head, base, found := strings.Cut(line, " :")
		words := strings.Split(head, " ")
		uid, err := strconv.ParseUint(words[0], 10, 31)
		if !found || err != nil || base == "" || uid <= last || strings.ContainsAny(base, ":/\x00") {
			return fmt.Errorf("line %q after UID %d", line, last)
		}
		row := listRow{uid: uid, base: base, fields: make(map[byte]string)}
		for _, w := range words[1:] {
			if w == "" {
				return fmt.Errorf("empty field in %q", line)
			}
			row.fields[w[0]] = w[1:]
		}
		last = uid
		b.list = append(b.list, row)
	}
	if first {
		return errors.New("no header")
	}
	b.next = max(b.next, last+1)
	return nil
}

func (b *boxView) parseHeader(line string) (err error) {
	words := strings.Split(line, " ")
	if words[0] != "3" {
		return fmt.Errorf("version %q", words[0])
	}
	for _, w := range words[1:] {
		switch {
		case w == "":
			err = errors.New("empty field")
		case w[0] == 'V':
			b.validity, err = strconv.ParseUint(w[1:], 10, 32)
		case w[0] == 'N':
			b.next, err = strconv.ParseUint(w[1:], 10, 32)
		case w[0] == 'G':
			b.guid = w[1:]
		default:
			err = errors.New("unknown field")
		}
		if err != nil {
			return fmt.Errorf("header %q: %w", line, err)
		}
	}
	if b.validity == 0 || b.next == 0 || len(b.guid) != 32 {
		return fmt.Errorf("header %q", line)
	}
	return nil
}

func (b *boxView) readFiles(fsys vfs.FS, sub string) error {
	d, err := fsys.OpenDir(join(b.dir, sub))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Names(func(name string, typ vfs.Type) error {
		f := fileView{sub: sub, name: name}
		var ok bool
		if f.FileName, ok = mail.ParseFileName(name); !ok || typ != vfs.Regular {
			return fmt.Errorf("%s/%s is no mail", sub, name)
		}
		if f.info, err = d.Stat(name); err != nil {
			return err
		}
		data, err := vfs.ReadFile(d, name, maxFile)
		f.content = string(data)
		b.files = append(b.files, f)
		return err
	})
}

// file returns the mail of a base name.
func (b *boxView) file(base string) *fileView {
	i, found := slices.BinarySearchFunc(b.files, base, func(f fileView, base string) int { return strings.Compare(f.Base, base) })
	if !found {
		return nil
	}
	return &b.files[i]
}

const subscriptionsV2 = "V\t2\n\n"

func readSubscriptions(root vfs.Dir, layout maildir.Layout) ([]string, error) {
	data, err := vfs.ReadFile(root, "subscriptions", maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(string(data), subscriptionsV2)
	if !ok || text != "" && !strings.HasSuffix(text, "\n") {
		return nil, fmt.Errorf("subscriptions: %q", data)
	}
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, strings.TrimSuffix(line, "\n"))
	}
	slices.Sort(out)
	if len(slices.Compact(slices.Clone(out))) != len(out) {
		return nil, fmt.Errorf("subscriptions: a name comes twice: %q", data)
	}
	return out, nil
}

// image is everything on a disk: by path, the content with what a stat says. Directories of mailboxes have no time: locks
// come and go there.
func image(fsys vfs.FS) (map[string]string, error) {
	out := make(map[string]string)
	var walk func(path string) error
	walk = func(path string) error {
		d, err := fsys.OpenDir(path)
		if err != nil {
			return err
		}
		defer d.Close()
		return d.Names(func(name string, typ vfs.Type) error {
			full := join(path, name)
			if typ == vfs.Directory {
				out[full] = "directory"
				if name == "cur" || name == "new" {
					info, err := d.Stat(name)
					if err != nil {
						return err
					}
					out[full] = "directory of " + info.Mtime.String()
				}
				return walk(full)
			}
			info, err := d.Stat(name)
			if err != nil {
				return err
			}
			data, err := vfs.ReadFile(d, name, maxFile)
			out[full] = fmt.Sprintf("%d %s ", info.Ino, info.Mtime) + string(data)
			return err
		})
	}
	return out, walk("")
}

// contents is what users see on a disk: mailboxes, mails with their names, and subscriptions.
func contents(fsys vfs.FS) (map[string]string, error) {
	img, err := image(fsys)
	for path, what := range img {
		dir, base := "", path
		if i := strings.LastIndexByte(path, '/'); i >= 0 {
			dir, base = path[:i], path[i+1:]
		}
		switch {
		case strings.HasPrefix(what, "directory"):
			img[path] = "directory"
		case base != "subscriptions" && !strings.HasSuffix("/"+dir, "/cur") && !strings.HasSuffix("/"+dir, "/new"):
			delete(img, path)
		}
		if strings.HasPrefix(path, "tmp/") {
			delete(img, path)
		}
		// A keyword has another letter in the mailbox where the mail was moved.
		if i := strings.Index(path, ":2,"); i >= 0 {
			moved := path[:i] + strings.TrimRight(path[i:], "abcdefghijklmnopqrstuvwxyz")
			delete(img, path)
			img[moved] = what
		}
	}
	return img, err
}

// String is one line per mailbox and mail, for the course of a simulation.
func (a *accountView) String() string {
	var out strings.Builder
	for _, b := range a.boxes {
		fmt.Fprintf(&out, "    %s G%.8s V%d N%d\n", b.name, b.guid, b.validity, b.next)
		uids := make(map[string]uint64)
		for _, row := range b.list {
			uids[row.base] = row.uid
		}
		for _, f := range b.files {
			subject, _, _ := strings.Cut(strings.TrimPrefix(f.content, "Subject: "), "\n")
			fmt.Fprintf(&out, "      UID %d %s/%s ino %d: %.20s\n", uids[f.Base], f.sub, f.name, f.info.Ino, subject)
		}
	}
	return out.String()
}
