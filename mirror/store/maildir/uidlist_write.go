package maildir

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// uidlistWriter writes a dovecot-uidlist, or lines to be appended to one. It cannot be made to write what Dovecot would
// answer by deleting the file: a line out of order, a bad name, a field that breaks the line.
type uidlistWriter struct {
	w    io.Writer
	last mail.UID
	buf  []byte
}

// writeHeader starts a file.
func (u *uidlistWriter) writeHeader(h uidHeader) error {
	if h.validity == 0 || h.next == 0 || h.next > mail.MaxUID+1 || h.guid.IsZero() {
		return fmt.Errorf("uidlist header V%d N%d G%s: incomplete", h.validity, h.next, h.guid)
	}
	_, err := fmt.Fprintf(u.w, "3 V%d N%d G%s%s\n", h.validity, h.next, h.guid, h.other)
	return err
}

// write adds a record. Fields are as in uidRecord.
func (u *uidlistWriter) write(uid mail.UID, fields, base []byte) error {
	switch {
	case uid <= u.last || uid > mail.MaxUID:
		return fmt.Errorf("uidlist: UID %d after %d", uid, u.last)
	case len(base) == 0 || len(base) > maxDirName || strings.ContainsAny(string(base), "/:\r\n\x00"):
		return fmt.Errorf("uidlist: UID %d: bad file name %q", uid, base)
	case len(fields) > 0 && (fields[0] != ' ' || strings.ContainsAny(string(fields), "\r\n\x00") || strings.Contains(string(fields), " :")):
		return fmt.Errorf("uidlist: UID %d: bad fields %q", uid, fields)
	}
	u.last = uid
	u.buf = strconv.AppendUint(u.buf[:0], uint64(uid), 10)
	u.buf = append(u.buf, fields...)
	u.buf = append(u.buf, " :"...)
	u.buf = append(u.buf, base...)
	u.buf = append(u.buf, '\n')
	_, err := u.w.Write(u.buf)
	return err
}

// recordFields are the fields of a record that we set.
type recordFields struct {
	guid    mail.GUID // written unless it is the base name
	uidl    string
	order   uint32
	size    int64 // physical; -1: not written
	virtual int64 // -1: not written
}

// encode returns the fields for a base name. Values that a field cannot hold are left out.
func (f recordFields) encode(base string) []byte {
	var out []byte
	add := func(key byte, value string) {
		if value == "" || strings.ContainsAny(value, " \r\n\x00") {
			return
		}
		out = append(append(out, ' ', key), value...)
	}
	if string(f.guid) != base {
		add('G', string(f.guid))
	}
	add('P', f.uidl)
	if f.order != 0 {
		add('O', strconv.FormatUint(uint64(f.order), 10))
	}
	if f.size >= 0 {
		add('S', strconv.FormatInt(f.size, 10))
	}
	if f.virtual >= 0 {
		add('W', strconv.FormatInt(f.virtual, 10))
	}
	return out
}

// storableGUID reports whether a record can hold the GUID.
func storableGUID(g mail.GUID) bool {
	return g != "" && len(g) <= mail.MaxGUID && !strings.ContainsAny(string(g), " \r\n\x00")
}

// withFields returns the fields of a record with some keys set to other values; an empty value removes the field.
func withFields(fields []byte, set map[byte]string) []byte {
	var out []byte
	for f := range strings.SplitSeq(string(fields), " ") {
		if f == "" {
			continue
		}
		if _, replaced := set[f[0]]; !replaced {
			out = append(append(out, ' '), f...)
		}
	}
	for key := byte('A'); key <= 'Z'; key++ {
		if v := set[key]; v != "" {
			out = append(append(out, ' ', key), v...)
		}
	}
	return out
}

// appendUIDList adds whole lines to the end of a uidlist that ends in a whole line, and makes them durable.
//
// A crash here leaves some of the lines, the last one perhaps in part: readers ignore that, and the next writer of ours
// finds the file torn and rewrites it.
func appendUIDList(dir vfs.Dir, lines []byte) error {
	f, err := dir.OpenAppend(uidlistName)
	if err != nil {
		return err
	}
	_, err = f.Write(lines)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return noSpace(err)
}

// replaceUIDList makes a new uidlist take the place of the old one, durably.
func replaceUIDList(dir vfs.Dir, perm uint32, write func(*uidlistWriter) error) error {
	err := vfs.Replace(dir, uidlistName, perm, func(w io.Writer) error {
		b := bufio.NewWriterSize(w, 128<<10)
		if err := write(&uidlistWriter{w: b}); err != nil {
			return err
		}
		return b.Flush()
	})
	return noSpace(err)
}
