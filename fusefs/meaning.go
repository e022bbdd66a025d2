package fusefs

import "dsyncfs/mirror/mail"

// spot is one side of a change, as what matters for its meaning.
type spot struct {
	kind    dirKind
	mailbox mail.Name // of new, cur and tmp
	name    string
	exists  bool // something has that name now
}

// visible reports whether the name is that of a mail that programs see.
func (s spot) visible() bool { return (s.kind == newDir || s.kind == curDir) && isMailName(s.name) }

func (s spot) event(op mail.EventOp) mail.Event {
	return mail.Event{Op: op, Mailbox: s.mailbox, File: s.name}
}

// meaning is what a change is journaled as: before it is made, and after.
type meaning struct{ before, after []mail.Event }

func (m meaning) empty() bool { return len(m.before)+len(m.after) == 0 }

// renameMeaning says what renaming from to to means. The base name of a mail never changes: a rename to another base is
// one mail gone and another appeared.
func renameMeaning(from, to spot) meaning {
	var m meaning
	switch {
	case from.visible() && to.visible() && from.mailbox == to.mailbox && baseOf(from.name) == baseOf(to.name):
		ev := from.event(mail.EventFlags)
		ev.NewFile = to.name
		m.before = append(m.before, ev)
	case from.visible() && to.visible() && from.mailbox != to.mailbox:
		ev := from.event(mail.EventMove)
		ev.To, ev.NewFile = to.mailbox, to.name
		m.before = append(m.before, ev)
	case from.visible() && to.visible():
		m.before = append(m.before, from.event(mail.EventExpunge))
		return m.appeared(to)
	case from.visible():
		m.before = append(m.before, from.event(mail.EventExpunge))
		return m
	case to.visible():
		return m.appeared(to)
	}
	if to.visible() && to.exists {
		m.after = append(m.after, to.event(mail.EventReplace))
	}
	return m
}

// appeared adds that another file is under a name now.
func (m meaning) appeared(to spot) meaning {
	op := mail.EventAppend
	if to.exists {
		op = mail.EventReplace
	}
	m.after = append(m.after, to.event(op))
	return m
}

// exchangeMeaning says what exchanging two names means: each visible one is another mail now.
func exchangeMeaning(a, b spot) meaning {
	var m meaning
	for _, s := range []spot{a, b} {
		if s.visible() {
			m.after = append(m.after, s.event(mail.EventReplace))
		}
	}
	return m
}

// linkMeaning says what a further name for a file means. A second name with the same base in the same mailbox is the
// first half of a move by link and unlink.
func linkMeaning(from, to spot) meaning {
	var m meaning
	switch {
	case !to.visible():
	case from.visible() && from.mailbox == to.mailbox && baseOf(from.name) == baseOf(to.name):
		ev := from.event(mail.EventFlags)
		ev.NewFile = to.name
		m.after = append(m.after, ev)
	default:
		m.after = append(m.after, to.event(mail.EventAppend))
	}
	return m
}

// removeMeaning says what removing a name means: nothing while the mail has another name in its mailbox.
func removeMeaning(s spot, others bool) meaning {
	if !s.visible() || others {
		return meaning{}
	}
	return meaning{before: []mail.Event{s.event(mail.EventExpunge)}}
}

// controlFiles are the files beside a mailbox whose writing is journaled.
var controlFiles = map[string]mail.EventOp{
	"subscriptions":    mail.EventSubscriptions,
	"dovecot-keywords": mail.EventKeywords,
	"dovecot-uidlist":  mail.EventUIDs,
}

// boxMeaning says what another place of a mailbox directory means; a name that is no mailbox is given as empty.
func boxMeaning(from, to mail.Name) meaning {
	switch {
	case from != "" && to != "" && from != to:
		return meaning{before: []mail.Event{{Op: mail.EventMailboxRename, Mailbox: from, To: to}}}
	case from != "" && to == "":
		return meaning{before: []mail.Event{{Op: mail.EventMailboxDelete, Mailbox: from}}}
	case from == "" && to != "":
		return meaning{after: []mail.Event{{Op: mail.EventMailboxCreate, Mailbox: to}}}
	}
	return meaning{}
}
