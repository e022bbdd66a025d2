package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dsyncfs/integration/harness"
)

// The first demand on the project: two different Maildirs of real mail, which share some, become equal in one run.
func TestMirrorJoinsTwoRealMaildirs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		aFS, bFS bool
		mails    int
	}{
		{"all of the corpus, both Maildir++", false, false, harness.CorpusSize},
		{"Maildir++ and LAYOUT=fs", false, true, 600},
		{"LAYOUT=fs and Maildir++", true, false, 600},
		{"both LAYOUT=fs", true, true, 600},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.a.FS, p.b.FS = c.aFS, c.bFS
			p.locate()
			mails := harness.Mails(t, c.mails)
			// A multiple of the number of mailboxes, so that a shared mail is in the same mailbox of both.
			third := c.mails / 3 / len(harness.Mailboxes) * len(harness.Mailboxes)
			harness.Build(t, p.a, "a", mails[:2*third])
			harness.Build(t, p.b, "b", mails[third:])
			want := p.union()
			if want.Len() != c.mails {
				t.Fatalf("%d mails to be in both, want %d", want.Len(), c.mails)
			}
			p.settled()
			p.hold(want)
			if c.mails < 1000 {
				p.SameForDovecot(p.a, p.b)
			}
		})
	}
}

// dovecotAccount is a Maildir that a Dovecot has kept: UIDs with gaps, keywords, subscriptions, POP3 fields, an empty
// mailbox.
func dovecotAccount(t *testing.T, e *harness.Env, fs bool) harness.Maildir {
	t.Helper()
	d := e.NewDovecot("dovecot")
	harness.Build(t, d.Maildir, "mx", harness.Mails(t, 120))
	d.Own()
	d.Doveadm("fetch", "uid", "mailbox", "*", "all")
	d.Doveadm("expunge", "mailbox", "INBOX", "uid", "2,5,9")
	d.Doveadm("flags", "add", `\Flagged $Forwarded NonJunk`, "mailbox", "INBOX", "uid", "3:7")
	d.Doveadm("flags", "add", "ToDo", "mailbox", "Work", "uid", "1:3")
	d.Doveadm("mailbox", "create", "Empty/Deep")
	d.Doveadm("mailbox", "subscribe", "INBOX", "Work/2026", "日本語/メール", "R&D", "with space", "gone")
	d.DoveadmSave(t, "Entwürfe", harness.Note("saved by Dovecot"))
	d.Doveadm("fetch", "uid", "mailbox", "*", "all")
	m := harness.Maildir{Path: e.Path("source")}
	e.Must("cp", "-a", d.Path, m.Path)
	addPOP3Fields(t, filepath.Join(m.Dir("INBOX"), "dovecot-uidlist"))
	return m
}

// addPOP3Fields gives mails the UIDLs of another server and an order that is not that of the UIDs.
func addPOP3Fields(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := range lines[1:] {
		uid, rest, _ := strings.Cut(lines[i+1], " ")
		lines[i+1] = fmt.Sprintf("%s Puidl-%d O%d %s", uid, 1000+i, 500-i, rest)
	}
	must(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// Promise 3: a client cannot tell the two sides apart.
func TestMirrorKeepsWhatClientsSee(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"Maildir++", "LAYOUT=fs"} {
		t.Run("from a Dovecot to "+layout, func(t *testing.T) {
			p := newPair(t)
			p.a = dovecotAccount(t, p.Env, false)
			p.b.FS = layout == "LAYOUT=fs"
			p.locate()
			before := p.a.Read(t)
			p.settled()
			if diffs := harness.Diff(before, p.b.Read(t)); len(diffs) > 0 {
				t.Errorf("the copy is not what the source was:\n%s", strings.Join(diffs, "\n"))
			}
			p.SameForDovecot(p.a, p.b)
		})
	}
}

// A mirror that has nothing to do touches nothing at all, not even a directory's time, once the last change is old enough
// for its time to be trusted.
func TestMirrorLeavesNoTraceWhenNothingChanged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 200))
	p.settled()
	p.Eventually("a mirror that touches nothing", 15*time.Second, func() error {
		before := harness.Snap(t, p.a.Path, p.b.Path)
		p.mirror().Want(0)
		if changed := before.Changed(t, p.a.Path, p.b.Path); len(changed) > 0 {
			return fmt.Errorf("%d files changed: %s", len(changed), changed[0])
		}
		return nil
	})
}

// The changes of both sides since the last sync meet in one, as the table of merge rules says.
func TestMirrorMergesChangesOfBothSides(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 200))
	p.settled()
	both := p.a.Read(t)
	want := both.Copies()
	inbox, work, spam := both.Mailboxes["INBOX"].Messages, both.Mailboxes["Work"].Messages, both.Mailboxes["spam"].Messages

	reflag(t, p.a, inbox[0], "F") // against a reply on the other side
	reflag(t, p.b, inbox[0], "R")
	reflag(t, p.a, inbox[1], "F") // against an expunge
	remove(t, p.b, inbox[1])
	delete(want["INBOX"], inbox[1].Hash)
	remove(t, p.a, inbox[2]) // expunged by both
	remove(t, p.b, inbox[2])
	delete(want["INBOX"], inbox[2].Hash)
	move(t, p.a, work[0], "spam") // against new flags there
	reflag(t, p.b, work[0], "FRS")
	delete(want["Work"], work[0].Hash)
	want.Add("spam", work[0].Hash)
	move(t, p.b, spam[0], "INBOX")
	delete(want["spam"], spam[0].Hash)
	want.Add("INBOX", spam[0].Hash)
	for side, m := range map[string]harness.Maildir{"a": p.a, "b": p.b} { // new mails that get the same UIDs
		for mailbox, hashes := range deliverMany(t, m, "Entwürfe", "new-at-"+side, 7) {
			for h := range hashes {
				want.Add(mailbox, h)
			}
		}
	}
	p.a.Create(t, "Made/here", "Made/on both")
	p.b.Create(t, "Made/there", "Made/on both")
	p.b.Subscribe(t, "Made/there")

	p.mirror("-v").Want(0)
	p.hold(want)
	p.equal()
	p.unchanging()
	after := p.a.Read(t)
	if got := find(after, "INBOX", inbox[0].Hash).Flags; got != merged(inbox[0].Flags, "F", "R") {
		t.Errorf("flags %q after F here and R there on %q", got, inbox[0].Flags)
	}
	if got := find(after, "spam", work[0].Hash).Flags; got != "FRS" {
		t.Errorf("flags %q of a mail moved here and flagged FRS there", got)
	}
	for _, name := range []string{"Made/here", "Made/there", "Made/on both"} {
		if after.Mailboxes[name] == nil {
			t.Errorf("mailbox %s was created on one side and is missing", name)
		}
	}
	uidsOnlyGrow(t, both, after)
}

// merged is the three-way merge of flags: what either side changed.
func merged(base, a, b string) string {
	var out []rune
	for _, f := range "DFRST" {
		was, x, y := strings.ContainsRune(base, f), strings.ContainsRune(a, f), strings.ContainsRune(b, f)
		if was && x && y || !was && (x || y) {
			out = append(out, f)
		}
	}
	return string(out)
}

// uidsOnlyGrow is promise 4 as far as two looks at a mailbox can tell.
func uidsOnlyGrow(t *testing.T, before, after harness.Contents) {
	t.Helper()
	for name, was := range before.Mailboxes {
		is := after.Mailboxes[name]
		if is == nil || is.UIDValidity != was.UIDValidity {
			t.Errorf("mailbox %s: gone, or another UIDVALIDITY", name)
			continue
		}
		if is.UIDNext < was.UIDNext {
			t.Errorf("mailbox %s: UIDNEXT went from %d to %d", name, was.UIDNext, is.UIDNext)
		}
		hashes := map[uint32]harness.Hash{}
		for _, m := range was.Messages {
			hashes[m.UID] = m.Hash
		}
		for _, m := range is.Messages {
			if h, ok := hashes[m.UID]; ok && h != m.Hash {
				t.Errorf("mailbox %s: UID %d is another mail now", name, m.UID)
			}
		}
	}
}

func find(c harness.Contents, mailbox string, h harness.Hash) harness.Message {
	for _, m := range c.Mailboxes[mailbox].Messages {
		if m.Hash == h {
			return m
		}
	}
	return harness.Message{}
}

// locateMail finds the file of a message, whose name may differ between the sides in flags.
func locateMail(t *testing.T, m harness.Maildir, msg harness.Message) string {
	t.Helper()
	for _, box := range m.Read(t).Mailboxes {
		for _, other := range box.Messages {
			if other.Hash == msg.Hash && other.UID == msg.UID {
				return filepath.Join(m.Path, other.Path)
			}
		}
	}
	t.Fatalf("%s has no mail %x with UID %d", m.Path, msg.Hash[:6], msg.UID)
	return ""
}

func reflag(t *testing.T, m harness.Maildir, msg harness.Message, flags string) {
	t.Helper()
	path := locateMail(t, m, msg)
	base, _, _ := strings.Cut(filepath.Base(path), ":2,")
	must(t, os.Rename(path, filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", base+":2,"+flags)))
}

func remove(t *testing.T, m harness.Maildir, msg harness.Message) {
	t.Helper()
	must(t, os.Remove(locateMail(t, m, msg)))
}

func move(t *testing.T, m harness.Maildir, msg harness.Message, mailbox string) {
	t.Helper()
	path := locateMail(t, m, msg)
	must(t, os.Rename(path, filepath.Join(m.Dir(mailbox), "cur", filepath.Base(path))))
}

// A mailbox that was renamed on one side is renamed on the other: nothing is sent.
func TestMirrorRenamesMailboxes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	p.settled()
	inodes := p.b.Inodes(t)
	want := p.a.Read(t).Copies()
	must(t, os.Rename(p.a.Dir("spam"), p.a.Dir("Archive")))
	want["Archive"] = want["spam"]
	delete(want, "spam")
	p.mirror().Want(0)
	p.hold(want)
	p.equal()
	p.b.NotRewritten(t, inodes)
	if p.b.Read(t).Mailboxes["spam"] != nil {
		t.Error("the mailbox is there under its old name too")
	}
}

// A mailbox deleted here that got a mail there stays, with that mail.
func TestMirrorKeepsADeletedMailboxWithNewMail(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 100))
	p.settled()
	must(t, os.RemoveAll(p.a.Dir("Work")))
	fresh := deliverMany(t, p.b, "Work", "fresh", 1)
	p.mirror("--allow-mass-expunge").Want(0)
	p.equal()
	for h := range fresh["Work"] {
		if find(p.a.Read(t), "Work", h).UID == 0 {
			t.Error("the new mail of the deleted mailbox is lost")
		}
	}
}

// Keywords beyond the 26 that file names can hold pass through all the same.
func TestMirrorCarriesMoreThan26Keywords(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	harness.Build(t, p.a, "a", harness.Mails(t, 20), "INBOX")
	p.settled()
	names := func(prefix string) (names []string) {
		for i := range 20 {
			names = append(names, fmt.Sprintf("%s%02d", prefix, i))
		}
		return names
	}
	// Each side uses twenty of its own, so that both have forty afterwards.
	here, there := names("here"), names("there")
	msgs := p.a.Read(t).Mailboxes["INBOX"].Messages
	p.a.Keywords(t, "INBOX", here...)
	p.b.Keywords(t, "INBOX", there...)
	for i, msg := range msgs {
		reflag(t, p.a, msg, "S"+string(rune('a'+i)))
		reflag(t, p.b, msg, "S"+string(rune('a'+i)))
	}
	p.mirror().Want(0)
	p.verify().Want(0)
	p.unchanging()
	for _, side := range []harness.Maildir{p.a, p.b} {
		said := keywordsOnTheWire(p, side)
		for i, msg := range msgs {
			got := said[msg.UID]
			if !slices.Contains(got, here[i]) || !slices.Contains(got, there[i]) || len(got) != 2 {
				t.Errorf("%s: UID %d has the keywords %q, want %s and %s", side.Path, msg.UID, got, here[i], there[i])
			}
		}
	}
}

// keywordsOnTheWire returns the keywords of the mails in INBOX as a dsync server that serves the Maildir sends them.
func keywordsOnTheWire(p *pair, m harness.Maildir) map[uint32][]string {
	p.t.Helper()
	raw := p.Path("raw")
	empty := p.Path("empty")
	must(p.t, os.RemoveAll(empty))
	must(p.t, os.RemoveAll(p.Path("empty-state")))
	p.Run("-o", "mail_location=maildir:"+empty, "-o", "state_dir="+p.Path("empty-state"), "backup", "-R",
		"dsyncfs", "-o", "mail_location="+m.Location(), "dsync-server", "-r", raw).Want(0)
	text, err := os.ReadFile(raw + ".out")
	must(p.t, err)
	keywords := map[uint32][]string{}
	var columns []string // as the stream announced them
	for line := range strings.Lines(string(text)) {
		change, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "C")
		fields := strings.Split(change, "\t")
		switch {
		case ok && columns == nil:
			columns = fields
		case ok && fields[0] == "s" && len(fields) > slices.Index(columns, "keyword_changes"):
			uid, err := strconv.ParseUint(fields[slices.Index(columns, "uid")], 10, 32)
			must(p.t, err)
			keywords[uint32(uid)] = keywordNames(fields[slices.Index(columns, "keyword_changes")])
		}
	}
	return keywords
}

// keywordNames reads names that each have a character before them saying whether it was added or stays.
func keywordNames(field string) (names []string) {
	if field == "\x02" { // no value
		return nil
	}
	for _, k := range strings.Split(field, "\x01t") {
		names = append(names, strings.TrimLeft(k, "+&="))
	}
	return names
}

// An INBOX that never held a mail is the same on both sides; verify said that it was only on the other one.
func TestMirrorOfAnInboxWithoutMail(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.a.Create(t, "INBOX", "Work")
	deliverMany(t, p.a, "Work", "work", 2)
	p.settled()
}
