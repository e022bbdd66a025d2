package merge

import (
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Logged is what a side's own log holds of one message: everything since the last common state put together, without what
// came from the peer. It has to be what is also told to the peer.
type Logged struct {
	UID      mail.UID
	Expunged bool
	GUID128  mail.GUID128 // of an expunged message; zero: unknown
	ModSeq   mail.ModSeq  // of its expunge
	Past     item.Past    // of an expunged one
	Delta    mail.Delta   // of one that is there
}

// SaveRecord describes an existing message to the peer: m as it is now, d what the log says of its flags.
func SaveRecord(m *mail.Message, d mail.Delta) *item.Change { return record(item.ChangeSave, m, d) }

// FlagsRecord is SaveRecord for a message at or below the last common UID.
func FlagsRecord(m *mail.Message, d mail.Delta) *item.Change { return record(item.ChangeFlags, m, d) }

// ExpungeRecord tells the peer that a message was expunged, at that modseq if it is to know (else 0).
func ExpungeRecord(uid mail.UID, guid mail.GUID128, at mail.ModSeq) *item.Change {
	return &item.Change{Type: item.ChangeExpunge, UID: uid, GUID128: guid, ModSeq: at}
}

func record(t item.ChangeType, m *mail.Message, d mail.Delta) *item.Change {
	return &item.Change{
		Type: t, UID: m.UID, GUID: m.GUID, ModSeq: m.ModSeq,
		Add: d.Add &^ d.Remove, Remove: d.Remove, Final: m.Flags,
		Keywords: keywordChanges(m.Keywords, d),
	}
}

// keywordChanges writes keywords as dsync-mailbox-export.c does: removed ones first, then what is set, then what was added
// and is not there.
func keywordChanges(now mail.Keywords, d mail.Delta) []item.KeywordChange {
	if len(now)+len(d.AddKeywords)+len(d.RemoveKeywords) == 0 {
		return nil
	}
	var out []item.KeywordChange
	for _, name := range d.RemoveKeywords.Minus(now) {
		out = append(out, item.KeywordChange{Op: item.KeywordRemoved, Name: name})
	}
	for _, name := range now {
		op := item.KeywordSet
		if d.AddKeywords.Has(name) {
			op = item.KeywordAddedSet
		}
		out = append(out, item.KeywordChange{Op: op, Name: name})
	}
	for _, name := range d.AddKeywords.Minus(now) {
		out = append(out, item.KeywordChange{Op: item.KeywordAdded, Name: name})
	}
	return out
}
