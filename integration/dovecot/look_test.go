package dovecot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dsyncfs/integration/harness"
)

// viewer is an IMAP client that looks at everything of an account, again and again, and insists on what IMAP promises to
// clients that stay connected: UIDs keep their meaning for as long as a mailbox keeps its UIDVALIDITY, UIDNEXT and
// HIGHESTMODSEQ do not go back (RFC 3501 §2.3.1.1, RFC 7162 §3.1).
type viewer struct {
	*harness.IMAP
	s     *server
	t     testing.TB
	texts map[string]string // by mailbox GUID, UIDVALIDITY and UID: the hash of the mail
	high  map[string]uint64 // by mailbox GUID and UIDVALIDITY: the highest HIGHESTMODSEQ
	next  map[string]uint64 // the same for UIDNEXT
	valid map[string]string // by mailbox GUID: its UIDVALIDITY

	remade map[string]bool // names of mailboxes that may be others now
}

func newViewer(s *server) *viewer {
	return &viewer{IMAP: s.login(), s: s, t: s.t,
		texts: map[string]string{}, high: map[string]uint64{}, next: map[string]uint64{}, valid: map[string]string{}}
}

// mailbox is what LIST and STATUS say of one.
type mailbox struct {
	name, guid, validity string
}

// boxes are the mailboxes that can be opened. A Dovecot lists a mailbox of a Maildir as if it was still there after it was
// deleted, as long as there are others below (2.3.19).
func (v *viewer) boxes() []string {
	v.t.Helper()
	var names []string
	for _, r := range v.Do(`LIST "" "*"`) {
		name := harness.DecodeName(r.Word(3))
		if _, status := v.Try("STATUS %s (MESSAGES)", v.Quote(name)); strings.HasPrefix(status, "OK") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// look returns what a client sees, a line for each thing. search is a SEARCH that is made in every mailbox. With again all
// bodies are fetched, else those of new mails only.
func (v *viewer) look(search string, again bool) []string {
	v.t.Helper()
	// A running session does not see mailboxes that others made until a Dovecot process that begins has looked.
	fresh := v.s.login()
	fresh.Do(`LIST "" "*"`)
	fresh.Do("LOGOUT")
	var lines []string
	names := v.boxes()
	for _, command := range []string{"LIST", "LSUB"} {
		for _, r := range v.Do(`%s "" "*"`, command) {
			if name := harness.DecodeName(r.Word(3)); command == "LSUB" || slices.Contains(names, name) {
				lines = append(lines, fmt.Sprintf("%s (%s) %s %s", command, attributes(r.List(1)), r.Word(2), name))
			}
		}
	}
	var boxes []mailbox
	for _, name := range names {
		box, line := v.status(name)
		boxes, lines = append(boxes, box), append(lines, line)
	}
	for _, box := range boxes {
		lines = append(lines, v.mails(box, search, again)...)
	}
	return append(lines, v.s.uidl()...)
}

// attributes are those of a mailbox that do not depend on who looks or on levels of hierarchy that are no mailboxes.
func attributes(list harness.Reply) string {
	var out []string
	for _, a := range strings.Fields(list.Words()) {
		if a = strings.ToLower(a); !slices.Contains([]string{`\marked`, `\unmarked`, `\haschildren`, `\hasnochildren`, `\noselect`}, a) {
			out = append(out, a)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// status is taken before the mailbox is opened, as by a client that has another one open.
func (v *viewer) status(name string) (mailbox, string) {
	v.t.Helper()
	for _, r := range v.Do("STATUS %s (MESSAGES UNSEEN UIDNEXT UIDVALIDITY HIGHESTMODSEQ X-GUID)", v.Quote(name)) {
		if r.Word(0) != "STATUS" {
			continue
		}
		get := r.List(2).Get
		box := mailbox{name, get("X-GUID"), get("UIDVALIDITY")}
		if v.remade[name] {
			v.forget(box)
		}
		if was := v.valid[box.guid]; was != "" && was != box.validity {
			v.t.Errorf("%s: UIDVALIDITY of %s was %s and is %s", v.s.name, name, was, box.validity)
		}
		v.valid[box.guid] = box.validity
		v.raised("HIGHESTMODSEQ", v.high, box, get("HIGHESTMODSEQ"))
		v.raised("UIDNEXT", v.next, box, get("UIDNEXT"))
		return box, fmt.Sprintf("STATUS %s guid %s validity %s next %s messages %s unseen %s", name, box.guid, box.validity, get("UIDNEXT"), get("MESSAGES"), get("UNSEEN"))
	}
	v.t.Fatalf("%s: no STATUS of %s", v.s.name, name)
	return mailbox{}, ""
}

// forget starts anew with a mailbox.
func (v *viewer) forget(box mailbox) {
	delete(v.valid, box.guid)
	delete(v.high, box.guid+"/"+box.validity)
	delete(v.next, box.guid+"/"+box.validity)
}

// raised notes a number that must not fall.
func (v *viewer) raised(what string, seen map[string]uint64, box mailbox, value string) {
	v.t.Helper()
	var n uint64
	fmt.Sscan(value, &n)
	key := box.guid + "/" + box.validity
	if n < seen[key] {
		v.t.Errorf("%s: %s of %s fell from %d to %d", v.s.name, what, box.name, seen[key], n)
	}
	seen[key] = n
}

// mails looks into one mailbox.
func (v *viewer) mails(box mailbox, search string, again bool) []string {
	v.t.Helper()
	v.Do("EXAMINE %s", v.Quote(box.name))
	defer v.Do("UNSELECT")
	lines, uids := rows(v.IMAP, box.name)
	again = again || v.remade[box.name]
	var missing []string
	for _, uid := range uids {
		if v.texts[box.key(uid)] == "" || again {
			missing = append(missing, uid)
		}
	}
	if len(missing) > 0 {
		for _, r := range v.Do("UID FETCH %s (BODY.PEEK[])", strings.Join(missing, ",")) {
			if r.Word(1) == "FETCH" {
				v.identify(box, r.List(2).Get("UID"), []byte(r.List(2).Get("BODY[]")))
			}
		}
	}
	for i, uid := range uids {
		lines[i] += " body " + v.texts[box.key(uid)]
	}
	for _, r := range v.Do("UID SEARCH %s", search) {
		if r.Word(0) == "SEARCH" {
			lines = append(lines, "SEARCH "+box.name+" "+r[1:].Words())
		}
	}
	return lines
}

// rows are the mails of the selected mailbox without their bodies.
func rows(c *harness.IMAP, name string) (lines, uids []string) {
	if c.Exists == 0 {
		return nil, nil
	}
	for _, r := range c.Do("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE)") {
		if m := r.List(2); r.Word(1) == "FETCH" {
			uids = append(uids, m.Get("UID"))
			lines = append(lines, fmt.Sprintf("FETCH %s %s uid %s (%s) %s size %s",
				name, r.Word(0), m.Get("UID"), flagsOf(m), m.Get("INTERNALDATE"), m.Get("RFC822.SIZE")))
		}
	}
	return lines, uids
}

func (b mailbox) key(uid string) string { return b.guid + "/" + b.validity + "/" + uid }

// identify notes which mail a UID is, for ever.
func (v *viewer) identify(box mailbox, uid string, text []byte) {
	v.t.Helper()
	hash := hashOf(text)
	if was := v.texts[box.key(uid)]; was != "" && was != hash {
		v.t.Errorf("%s: UID %s of %s was mail %s and is mail %s", v.s.name, uid, box.name, was, hash)
	}
	v.texts[box.key(uid)] = hash
}

// hashOf is short enough for messages.
func hashOf(text []byte) string {
	hash := harness.HashOf(text)
	return fmt.Sprintf("%x", hash[:6])
}

// flagsOf are the flags and keywords that two clients see alike.
func flagsOf(m harness.Reply) string {
	for i := 0; i+1 < len(m); i += 2 {
		if m.Word(i) == "FLAGS" {
			flags := strings.Fields(m.List(i + 1).Words())
			flags = slices.DeleteFunc(flags, func(f string) bool { return f == `\Recent` })
			slices.Sort(flags)
			return strings.Join(flags, " ")
		}
	}
	return ""
}

// alike fails the test unless two looks are the same.
func alike(t testing.TB, ours, theirs []string) {
	t.Helper()
	var diffs []string
	in := func(lines []string) map[string]int {
		n := map[string]int{}
		for _, line := range lines {
			n[line]++
		}
		return n
	}
	x, y := in(ours), in(theirs)
	for _, line := range ours {
		if x[line] != y[line] {
			diffs = append(diffs, "ours only: "+line)
		}
	}
	for _, line := range theirs {
		if x[line] != y[line] {
			diffs = append(diffs, "dove only: "+line)
		}
	}
	if len(diffs) > 0 {
		t.Errorf("clients of the two sides see %d differences:\n%s", len(diffs), strings.Join(diffs[:min(len(diffs), 25)], "\n"))
	}
}
