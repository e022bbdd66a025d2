package merge

import (
	"strings"

	"dsyncfs/mirror/mail"
)

// marksTable keeps each combination of flags, keywords and logged changes once: a mailbox has few.
type marksTable struct {
	sets    []mail.Keywords
	setOf   map[string]uint32
	entries []marksEntry
	entryOf map[marksEntry]uint32
}

type marksEntry struct {
	flags, added, removed                    mail.Flags
	keywords, addedKeywords, removedKeywords uint32
}

func (t *marksTable) init() {
	t.sets, t.setOf = []mail.Keywords{nil}, map[string]uint32{}
	t.entryOf = map[marksEntry]uint32{}
}

func (t *marksTable) put(m Marks) uint32 {
	e := marksEntry{
		flags: m.Flags, added: m.Logged.Add, removed: m.Logged.Remove,
		keywords: t.set(m.Keywords), addedKeywords: t.set(m.Logged.AddKeywords), removedKeywords: t.set(m.Logged.RemoveKeywords),
	}
	n, ok := t.entryOf[e]
	if !ok {
		n = uint32(len(t.entries))
		t.entries = append(t.entries, e)
		t.entryOf[e] = n
	}
	return n
}

// get returns an entry, without a modseq.
func (t *marksTable) get(n uint32) Marks {
	e := t.entries[n]
	return Marks{
		Flags: e.flags, Keywords: t.sets[e.keywords],
		Logged: mail.Delta{
			Add: e.added, Remove: e.removed,
			AddKeywords: t.sets[e.addedKeywords], RemoveKeywords: t.sets[e.removedKeywords],
		},
	}
}

func (t *marksTable) set(k mail.Keywords) uint32 {
	if len(k) == 0 {
		return 0
	}
	key := strings.Join(k, "\x00")
	n, ok := t.setOf[key]
	if !ok {
		own := strings.Split(key, "\x00") // nothing of the record's line stays
		n = uint32(len(t.sets))
		t.sets = append(t.sets, mail.Keywords(own))
		t.setOf[key] = n
	}
	return n
}
