package maildir

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/vfs"
)

// maxKeywords is how many keywords a mailbox can have in its file names.
const maxKeywords = 26

// maxKeywordsFile bounds dovecot-keywords.
const maxKeywordsFile = 1 << 20

// keywordTable is a dovecot-keywords: what each keyword letter of a mailbox stands for; "" is free (dovecot 2.3.19
// maildir-keywords.c).
type keywordTable struct {
	names [maxKeywords]string
	sets  map[uint32]mail.Keywords // memo: most mails share few combinations
}

// parseKeywords reads a dovecot-keywords. As in Dovecot a line that makes no sense counts for nothing.
func parseKeywords(data []byte) *keywordTable {
	t := &keywordTable{}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		index, name, found := strings.Cut(string(line), " ")
		i, err := strconv.ParseUint(index, 10, 8)
		if !found || err != nil || i >= maxKeywords || !validKeyword(name) || t.names[i] != "" || t.letter(name) >= 0 {
			continue
		}
		t.names[i] = name
	}
	return t
}

// validKeyword reports whether a name can be a line of the file: an atom, roughly.
func validKeyword(name string) bool {
	return name != "" && len(name) <= mail.MaxNamePart && !strings.ContainsAny(name, " \t\r\n\x00") && strings.TrimSpace(name) == name
}

// loadKeywords reads the table of a mailbox directory; a missing file is an empty table.
func loadKeywords(dir vfs.Dir) (*keywordTable, error) {
	data, err := vfs.ReadFile(dir, keywordsName, maxKeywordsFile)
	if err != nil && !notExist(err) {
		return nil, err
	}
	return parseKeywords(data), nil
}

// encode writes the table as Dovecot does.
func (t *keywordTable) encode() []byte {
	var out []byte
	for i, name := range t.names {
		if name != "" {
			out = fmt.Appendf(out, "%d %s\n", i, name)
		}
	}
	return out
}

// letter returns the index of a name, compared as Dovecot does without regard to case; -1 if it has none.
func (t *keywordTable) letter(name string) int {
	for i, n := range t.names {
		if n != "" && strings.EqualFold(n, name) {
			return i
		}
	}
	return -1
}

// add gives letters to names that have none and reports whether any got one. What does not fit, because all are taken or no
// line can hold the name, stays without.
func (t *keywordTable) add(names mail.Keywords) (added bool) {
	free := 0
	for _, name := range names {
		if !validKeyword(name) || t.letter(name) >= 0 {
			continue
		}
		for free < maxKeywords && t.names[free] != "" {
			free++
		}
		if free == maxKeywords {
			return added
		}
		t.names[free] = name
		t.sets, added = nil, true
	}
	return added
}

// letters returns the letters that stand for a set, as in [mail.FileName].
func (t *keywordTable) letters(k mail.Keywords) (letters uint32) {
	for _, name := range k {
		if i := t.letter(name); i >= 0 {
			letters |= 1 << i
		}
	}
	return letters
}

// known returns those of the letters that stand for something.
func (t *keywordTable) known(letters uint32) (known uint32) {
	for rest := letters; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros32(rest); i < maxKeywords && t.names[i] != "" {
			known |= 1 << i
		}
	}
	return known
}

// keywords returns the keywords of a mail whose name has these letters and that had the keywords before: those without a
// letter stay, and a name that differs from the table in case only stays as it was.
func (t *keywordTable) keywords(letters uint32, before mail.Keywords) mail.Keywords {
	named := t.named(letters)
	if len(before) == 0 {
		return named
	}
	var keep mail.Keywords
	for _, name := range before {
		switch i := t.letter(name); {
		case i < 0:
			keep = append(keep, name)
		case letters&(1<<i) != 0 && name != t.names[i]:
			keep = append(keep, name)
			named = named.Minus(mail.Keywords{t.names[i]})
		}
	}
	return named.Union(keep)
}

func (t *keywordTable) named(letters uint32) mail.Keywords {
	letters = t.known(letters)
	if letters == 0 {
		return nil
	}
	if set, ok := t.sets[letters]; ok {
		return set
	}
	var names []string
	for rest := letters; rest != 0; rest &= rest - 1 {
		names = append(names, t.names[bits.TrailingZeros32(rest)])
	}
	set := mail.NewKeywords(names...)
	if t.sets == nil {
		t.sets = make(map[uint32]mail.Keywords)
	}
	if len(t.sets) < 1024 {
		t.sets[letters] = set
	}
	return set
}

// saveKeywords replaces the table of a mailbox, whose lock the caller holds. A running Dovecot looks at the whole seconds
// of the mtime only, so the new file must be at least one younger than the old; otherwise it would keep its own table and
// write that over ours.
func saveKeywords(dir vfs.Dir, perm uint32, t *keywordTable, now time.Time) error {
	mtime := now
	old, err := dir.Stat(keywordsName)
	if err != nil && !notExist(err) {
		return err
	}
	if err == nil && !mtime.Truncate(time.Second).After(old.Mtime.Truncate(time.Second)) {
		mtime = old.Mtime.Truncate(time.Second).Add(time.Second)
	}
	err = replaceAt(dir, keywordsName, perm, mtime, func(w io.Writer) error {
		_, err := w.Write(t.encode())
		return err
	})
	return noSpace(err)
}

// replaceAt is [vfs.Replace] for a file that has its mtime from the moment it appears.
func replaceAt(dir vfs.Dir, name string, perm uint32, mtime time.Time, write func(io.Writer) error) (err error) {
	temp := "." + name + ".dsyncfs"
	if err := dir.Remove(temp); err != nil && !notExist(err) {
		return err
	}
	f, err := dir.Create(temp, perm)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = dir.SetTimes(temp, mtime)
	}
	if err == nil {
		err = dir.Rename(temp, dir, name)
	}
	if err != nil {
		dir.Remove(temp)
		return err
	}
	return dir.Sync()
}
