package brain

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"strings"

	"dsyncfs/mirror/mail"
)

// headerHash is what a Dovecot tells of the headers of a mail, in its version 3: the MD5 of the header fields of these names
// in the order of the mail, with LF line ends and an empty line after them, without spaces, and with one '?' for each run of
// control, 8-bit and '?' characters (dovecot 2.3 dsync-mail.c: dsync_mail_get_hdr_hash, message-header-hash.c). text begins
// with the header.
func headerHash(text []byte, names []string) string {
	h := md5.New()
	var out []byte
	wanted, last := false, byte(0)
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 {
			end = len(text)
		}
		line := bytes.TrimRight(text[:end], "\r\n")
		text = text[end:]
		if len(line) == 0 {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			name, _, isField := bytes.Cut(line, []byte(":"))
			name = bytes.TrimRight(name, " \t")
			wanted = isField && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, string(name)) })
		}
		if wanted {
			out = append(append(out, line...), '\n')
		}
	}
	out = append(out, '\n')
	kept := out[:0]
	for _, c := range out {
		was := last
		last = c
		switch {
		case c == ' ':
			continue
		case c == '\n' || c == '\t' || c > ' ' && c < 0x7f && c != '?':
		default:
			if last = '?'; was == '?' {
				continue
			}
			c = '?'
		}
		kept = append(kept, c)
	}
	h.Write(kept)
	return hex.EncodeToString(h.Sum(nil))
}

// textReader reads a mail piece by piece. Its first piece, which has to hold the header, can be looked at before.
type textReader struct {
	r     io.Reader
	buf   []byte
	first []byte
	err   error // of reading the first piece
	ended bool
}

// peek returns the first piece.
func (t *textReader) peek() []byte {
	if t.first == nil && t.err == nil {
		n, err := io.ReadFull(t.r, t.buf)
		t.first, t.ended = t.buf[:n], errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if !t.ended {
			t.err = err
		}
	}
	return t.first
}

// hash hashes the mail as a client sees it: whatever its line ends are, and without mbsync's X-TUID (see hashContent).
func (t *textReader) hash() (mail.ContentHash, error) {
	before, after := cutTUID(t.peek())
	w := lineWriter{h: sha256.New()}
	w.write(before)
	w.write(after)
	for t.err == nil && !t.ended {
		n, err := t.r.Read(t.buf)
		w.write(t.buf[:n])
		if t.ended = errors.Is(err, io.EOF); !t.ended {
			t.err = err
		}
	}
	return w.sum(), t.err
}

// lineWriter hashes text with CRLF taken for LF.
type lineWriter struct {
	h  hash.Hash
	cr bool // a CR may be the first half of a CRLF
}

func (w *lineWriter) write(text []byte) {
	for len(text) > 0 {
		if w.cr && text[0] != '\n' {
			w.h.Write([]byte{'\r'})
		}
		end := bytes.IndexByte(text, '\r')
		if w.cr = end >= 0; !w.cr {
			w.h.Write(text)
			return
		}
		w.h.Write(text[:end])
		text = text[end+1:]
	}
}

func (w *lineWriter) sum() mail.ContentHash {
	if w.cr {
		w.h.Write([]byte{'\r'})
	}
	return mail.ContentHash(w.h.Sum(nil))
}
