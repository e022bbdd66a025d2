package maildir

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/vfs"
)

// The files of a mailbox that belong to Dovecot.
const (
	uidlistName  = "dovecot-uidlist"
	keywordsName = "dovecot-keywords"
)

// maxUIDLine bounds a line of a uidlist: a file name of 255 bytes, a GUID and a UIDL of any sane length.
const maxUIDLine = 8 << 10

// uidHeader is the first line of a dovecot-uidlist.
type uidHeader struct {
	version  int // 3, or 1 for the old format, which is only read
	validity mail.UIDValidity
	next     mail.UID         // as written; see effectiveNext
	guid     mail.MailboxGUID // zero: none in the file
	other    string           // fields that we do not know, each with its leading space
}

// uidRecord is one line of a dovecot-uidlist.
type uidRecord struct {
	uid    mail.UID
	fields []byte // " G... P..." as in the file: each field with its leading space
	base   []byte // without info
}

// field returns the value of a record field, and whether it is there.
func (r uidRecord) field(key byte) (string, bool) {
	for f := range bytes.SplitSeq(r.fields, []byte{' '}) {
		if len(f) > 0 && f[0] == key {
			return string(f[1:]), true
		}
	}
	return "", false
}

// guid returns the GUID of the mail, which is its base name unless the record says otherwise.
func (r uidRecord) guid() mail.GUID {
	if g, ok := r.field('G'); ok && g != "" {
		return mail.GUID(g)
	}
	return mail.GUID(r.base)
}

// guidOfBase returns the GUID of a mail that has none but its base name.
func guidOfBase(base []byte) mail.GUID { return keepableGUID(mail.GUID(base)) }

// keepableGUID replaces a GUID with a space, which no uidlist can hold in a field, by its hash: every store that gets the
// mail can keep that.
func keepableGUID(g mail.GUID) mail.GUID {
	if strings.Contains(string(g), " ") {
		return mail.GUID(g.Hash128().String())
	}
	return g
}

// uidlistReader reads a dovecot-uidlist line by line (dovecot 2.3.19 maildir-uidlist.c). It is stricter than it has to be
// in nothing that Dovecot accepts, and what Dovecot would answer by deleting the file is [store.ErrCorrupt] here.
type uidlistReader struct {
	header uidHeader
	last   mail.UID // UID of the last record read
	torn   bool     // at the end: the file ends in half a line, which was ignored

	r    *bufio.Reader
	name string // for messages
	line int
}

// readUIDList starts reading. A file without even a whole first line is corrupt.
func readUIDList(r io.Reader, name string) (*uidlistReader, error) {
	u := &uidlistReader{r: bufio.NewReaderSize(r, 64<<10), name: name}
	line, err := u.readLine()
	if err == io.EOF {
		return nil, u.corrupt("no header")
	}
	if err != nil {
		return nil, err
	}
	if err := u.parseHeader(string(line)); err != nil {
		return nil, err
	}
	return u, nil
}

// readLine returns the next line without its end, io.EOF at the end of the file or at half a line.
func (u *uidlistReader) readLine() ([]byte, error) {
	line, err := u.r.ReadSlice('\n')
	u.line++
	switch {
	case err == io.EOF:
		u.torn = len(line) > 0
		return nil, io.EOF
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxUIDLine:
		return nil, u.corrupt("line too long")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", u.name, err)
	}
	return line[:len(line)-1], nil
}

func (u *uidlistReader) corrupt(what string) error {
	return fmt.Errorf("%s line %d: %s: %w", u.name, u.line, what, store.ErrCorrupt)
}

func (u *uidlistReader) parseHeader(line string) error {
	version, rest, _ := cut(line, ' ')
	switch version {
	case "1":
		v, n, _ := cut(rest, ' ')
		u.header.version = 1
		return u.setNumbers(v, n)
	case "3":
		u.header.version = 3
	default:
		return u.corrupt(fmt.Sprintf("version %.10q", version))
	}
	var v, n string
	for more := rest != ""; more; {
		var field string
		field, rest, more = cut(rest, ' ')
		if field == "" {
			continue
		}
		switch value := field[1:]; field[0] {
		case 'V':
			v = value
		case 'N':
			n = value
		case 'G':
			guid, err := mail.ParseMailboxGUID(value)
			if err != nil {
				return u.corrupt(err.Error())
			}
			u.header.guid = guid
		default:
			u.header.other += " " + field
		}
	}
	return u.setNumbers(v, n)
}

func (u *uidlistReader) setNumbers(v, n string) error {
	validity, err := strconv.ParseUint(v, 10, 32)
	if err != nil || validity == 0 {
		return u.corrupt(fmt.Sprintf("UIDVALIDITY %.20q", v))
	}
	next, err := strconv.ParseUint(n, 10, 32)
	if err != nil || next == 0 || next > uint64(mail.MaxUID)+1 {
		return u.corrupt(fmt.Sprintf("next UID %.20q", n))
	}
	u.header.validity, u.header.next = mail.UIDValidity(validity), mail.UID(next)
	return nil
}

// next returns the next record, which stays valid until the call after it, and io.EOF after the last one.
func (u *uidlistReader) next() (rec uidRecord, err error) {
	line, err := u.readLine()
	if err != nil {
		return rec, err
	}
	uid, digits := uint64(0), 0
	for digits < len(line) && line[digits] >= '0' && line[digits] <= '9' && digits < 11 {
		uid = uid*10 + uint64(line[digits]-'0')
		digits++
	}
	switch {
	case digits == 0 || digits == len(line) || line[digits] != ' ':
		return rec, u.corrupt("no UID")
	case uid <= uint64(u.last):
		return rec, u.corrupt(fmt.Sprintf("UID %d after %d", uid, u.last))
	case uid > uint64(mail.MaxUID):
		return rec, u.corrupt(fmt.Sprintf("UID %d is too high", uid))
	}
	rec.uid, rec.base = mail.UID(uid), line[digits+1:]
	if u.header.version == 3 {
		// The name is what follows the first " :"; the fields are before that.
		i := bytes.Index(line[digits:], []byte(" :"))
		if i < 0 {
			return rec, u.corrupt("no file name")
		}
		rec.fields, rec.base = line[digits:digits+i], line[digits+i+2:]
	}
	if i := bytes.IndexByte(rec.base, ':'); i >= 0 {
		rec.base = rec.base[:i] // old versions wrote names with flags
	}
	if len(rec.base) == 0 || bytes.IndexByte(rec.base, '/') >= 0 || bytes.IndexByte(rec.base, 0) >= 0 {
		return rec, u.corrupt("bad file name")
	}
	u.last = rec.uid
	return rec, nil
}

// effectiveNext is the UID that the next mail gets, once all records were read.
func (u *uidlistReader) effectiveNext() mail.UID { return max(u.header.next, u.last+1) }

// cut is strings.Cut for a byte.
func cut(s string, sep byte) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// uidlistFile is a dovecot-uidlist that is open for reading. It stays the same file when another one replaces it.
type uidlistFile struct {
	f    vfs.File
	info vfs.Info
	name string
}

// openUIDList opens the uidlist of a mailbox directory; the error is fs.ErrNotExist if there is none.
func openUIDList(dir vfs.Dir) (*uidlistFile, error) {
	f, err := dir.Open(uidlistName)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Type != vfs.Regular {
		err = fmt.Errorf("%s: not a file: %w", uidlistName, store.ErrCorrupt)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &uidlistFile{f: f, info: info, name: joinPath(dir.Path(), uidlistName)}, nil
}

// read starts at the first line; it can be called again. A file that is not there, nil, has no lines.
func (u *uidlistFile) read() (*uidlistReader, error) {
	if u == nil {
		return &uidlistReader{r: bufio.NewReader(strings.NewReader(""))}, nil
	}
	return readUIDList(io.NewSectionReader(u.f, 0, u.info.Size), u.name)
}

func (u *uidlistFile) Close() error { return u.f.Close() }

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
