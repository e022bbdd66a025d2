package merge

import (
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Preference says whose word counts where the logs of both sides do not decide.
type Preference uint8

// The preferences. Of two sides that prefer by role one has to say PreferLocal and the other PreferRemote; the master is
// the one that prefers itself.
const (
	PreferLocal Preference = iota
	PreferRemote
	Union // what either side has stays, unless a log says that it was removed, and no later one that it was added
)

// Preferred returns the preference for one mail: the side whose modseq of it is greater, else tie. Union holds whatever the
// modseqs: it is for sides whose modseqs may have nothing to do with each other.
func Preferred(local, remote mail.ModSeq, tie Preference) Preference {
	switch {
	case tie == Union:
		return Union
	case local > remote:
		return PreferLocal
	case remote > local:
		return PreferRemote
	}
	return tie
}

// FlagState is what one side knows of the flags of a mail: those set now, and those that its log says were added or removed
// since the last common state.
type FlagState struct {
	Now, Added, Removed mail.Flags
}

// Flags returns the flags that a mail gets on both sides (dovecot 2.3.19 dsync_mailbox_import_flags). What a log explains
// beats what is unexplained; opposite logged changes and unexplained differences go by the preference. Exchanging the sides
// and the preference gives the same result.
func Flags(local, remote FlagState, p Preference) mail.Flags {
	addedRemoved, removedAdded := local.Added&remote.Removed, local.Removed&remote.Added
	switch p {
	case PreferLocal:
		remote.Removed &^= addedRemoved
		remote.Added &^= removedAdded
	case PreferRemote:
		local.Added &^= addedRemoved
		local.Removed &^= removedAdded
	case Union:
		remote.Removed &^= addedRemoved
		local.Removed &^= removedAdded
	}
	differ := local.Now ^ remote.Now
	add, remove := (local.Added|remote.Added)&differ, (local.Removed|remote.Removed)&differ
	here, there := (local.Now|add)&^remove, (remote.Now|add)&^remove
	switch p {
	case PreferLocal:
		return here
	case PreferRemote:
		return there
	}
	return here | there
}

// Marks are the flags and keywords of one mail on one side, and what that side's log says of them.
type Marks struct {
	Flags    mail.Flags
	Keywords mail.Keywords
	Logged   mail.Delta
	ModSeq   mail.ModSeq
}

// MarksOf reads the marks out of a peer's record. Flag bits that are no system flags (\Recent, Dovecot's internal ones) are
// dropped.
func MarksOf(c *item.Change) Marks {
	m := Marks{Flags: c.Final & mail.AllFlags, ModSeq: c.ModSeq}
	m.Logged.Add, m.Logged.Remove = c.Add&mail.AllFlags, c.Remove&mail.AllFlags
	if len(c.Keywords) == 0 {
		return m
	}
	var now, added, removed []string
	for _, k := range c.Keywords {
		if k.Op == item.KeywordSet || k.Op == item.KeywordAddedSet {
			now = append(now, k.Name)
		}
		if k.Op == item.KeywordAdded || k.Op == item.KeywordAddedSet {
			added = append(added, k.Name)
		}
		if k.Op == item.KeywordRemoved {
			removed = append(removed, k.Name)
		}
	}
	m.Keywords = mail.NewKeywords(now...)
	m.Logged.AddKeywords, m.Logged.RemoveKeywords = mail.NewKeywords(added...), mail.NewKeywords(removed...)
	return m
}

// equal reports whether the same flags and keywords are set.
func (m Marks) equal(o Marks) bool { return m.Flags == o.Flags && m.Keywords.Equal(o.Keywords) }

// flagState is the part of m that [Flags] works on.
func (m Marks) flagState() FlagState {
	return FlagState{Now: m.Flags, Added: m.Logged.Add, Removed: m.Logged.Remove}
}

// keywordState is the same for one keyword, as if it were the only flag.
func (m Marks) keywordState(name string) FlagState {
	bit := func(k mail.Keywords) mail.Flags {
		if k.Has(name) {
			return 1
		}
		return 0
	}
	return FlagState{Now: bit(m.Keywords), Added: bit(m.Logged.AddKeywords), Removed: bit(m.Logged.RemoveKeywords)}
}

// Keywords returns the keywords that a mail gets on both sides: the rule of [Flags] for each name.
func Keywords(local, remote Marks, p Preference) mail.Keywords {
	if local.Keywords.Equal(remote.Keywords) {
		return local.Keywords
	}
	var out mail.Keywords
	for _, name := range local.Keywords.Union(remote.Keywords) {
		if Flags(local.keywordState(name), remote.keywordState(name), p) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// Merge returns the marks that a mail gets on both sides.
func Merge(local, remote Marks, tie Preference) Marks {
	modSeq := max(local.ModSeq, remote.ModSeq)
	p := Preferred(local.ModSeq, remote.ModSeq, tie)
	if tie == Union {
		local.Logged, remote.Logged = withoutClash(local, remote)
	}
	return Marks{
		Flags:    Flags(local.flagState(), remote.flagState(), p),
		Keywords: Keywords(local, remote, p),
		ModSeq:   modSeq,
	}
}

// withoutClash returns what both logs say without the older one of opposite changes: a union is for differences that nobody
// can explain, while a flag that was set long ago and removed since is no longer wanted.
func withoutClash(local, remote Marks) (l, r mail.Delta) {
	l, r = local.Logged, remote.Logged
	switch {
	case local.ModSeq > remote.ModSeq:
		r = unopposed(r, l)
	case local.ModSeq < remote.ModSeq:
		l = unopposed(l, r)
	}
	return l, r
}

// unopposed returns d without what goes against the stronger change.
func unopposed(d, stronger mail.Delta) mail.Delta {
	return mail.Delta{
		Add: d.Add &^ stronger.Remove, Remove: d.Remove &^ stronger.Add,
		AddKeywords:    d.AddKeywords.Minus(stronger.RemoveKeywords),
		RemoveKeywords: d.RemoveKeywords.Minus(stronger.AddKeywords),
	}
}
