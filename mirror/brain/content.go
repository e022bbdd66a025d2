package brain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"

	"dsyncfs/mirror/mail"
)

// hashContent hashes the bytes of a message, which it reads into buf piece by piece. A header line X-TUID does not count:
// mbsync puts one into every mail that it copies (isync 1.4 sync.c: copy_msg_convert), and the copy is the same mail. The
// header has to lie within the first buf for that.
func hashContent(r io.Reader, buf []byte) (mail.ContentHash, error) {
	h := sha256.New()
	n, err := io.ReadFull(r, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return mail.ContentHash{}, err
	}
	before, after := cutTUID(buf[:n])
	h.Write(before)
	h.Write(after)
	if err == nil {
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, buf); err != nil {
			return mail.ContentHash{}, err
		}
	}
	return mail.ContentHash(h.Sum(nil)), nil
}

// tuid is how the line starts; a value of twelve characters and the line end follow.
var tuid = []byte("X-TUID: ")

const tuidValue = 12

// cutTUID returns what is before and after the first X-TUID line of a header.
func cutTUID(text []byte) (before, after []byte) {
	for at := 0; at < len(text); {
		line := text[at:]
		end := bytes.IndexByte(line, '\n') + 1
		if end == 0 {
			break
		}
		line = line[:end]
		content := bytes.TrimRight(line, "\r\n")
		if len(content) == 0 {
			break // the header ends
		}
		if bytes.HasPrefix(line, tuid) && len(content) == len(tuid)+tuidValue {
			return text[:at], text[at+end:]
		}
		at += end
	}
	return text, nil
}
