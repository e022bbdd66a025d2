package brain

import (
	"bytes"
	"fmt"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// lineEnds is a body on its way to a Dovecot, which does not keep every byte of it: it saves with LF line ends, so the CR of
// each CRLF goes, and one at the very end (dovecot 2.3 istream-crlf.c). Clients see CRLF line ends anyway; what they see is
// that of CRCRLF one CR is missing, and the one at the end.
type lineEnds struct {
	store.Body
	run   int  // how many CRs what was read ends with
	crlf  bool // there is a CRLF
	drops bool // there is a CRCRLF
}

func (l *lineEnds) Read(p []byte) (int, error) {
	n, err := l.Body.Read(p)
	l.look(p[:n])
	return n, err
}

func (l *lineEnds) look(p []byte) {
	for len(p) > 0 {
		if l.run > 0 {
			switch p[0] {
			case '\r':
				l.run++
				p = p[1:]
				continue
			case '\n':
				l.crlf, l.drops = true, l.drops || l.run > 1
			}
			l.run = 0
		}
		i := bytes.IndexByte(p, '\r')
		if i < 0 {
			return
		}
		l.run, p = 1, p[i+1:]
	}
}

// alterations are the messages of a mailbox that the other side got and does not keep byte by byte.
type alterations struct {
	unseen  []mail.UID // no client can tell
	visible []mail.UID
}

func (a *alterations) note(uid mail.UID, body *lineEnds) {
	switch {
	case body.drops || body.run > 0:
		a.visible = append(a.visible, uid)
	case body.crlf:
		a.unseen = append(a.unseen, uid)
	}
}

// tell reports them to the user; the ones that nobody can see on demand only.
func (a *alterations) tell(r *round, name mail.Name) {
	if len(a.visible) > 0 {
		r.Logger.Warn(fmt.Sprintf("mailbox %s: the Dovecot at the other side drops a CR from %s", name, messages(a.visible)))
	}
	if len(a.unseen) > 0 {
		r.Logger.Info(fmt.Sprintf("mailbox %s: the Dovecot at the other side keeps LF for the CRLF of %s", name, messages(a.unseen)))
	}
}

// messages names the first few of some messages.
func messages(uids []mail.UID) string {
	const named = 5
	words := make([]string, 0, named)
	for _, uid := range uids[:min(len(uids), named)] {
		words = append(words, fmt.Sprint(uid))
	}
	text := "message " + strings.Join(words, ", ")
	if more := len(uids) - named; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
