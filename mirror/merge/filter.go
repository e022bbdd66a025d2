package merge

import (
	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Filter says which of the peer's mails are wanted here; the zero value wants all. Who filters needs records with dates
// and sizes (dsync's options -t, -e, -I, -O).
type Filter struct {
	Since, Until int64      // INTERNALDATE in seconds, both inclusive; 0: no limit
	MaxSize      uint64     // virtual size; 0: no limit
	Flag         mail.Flags // only mails with this flag
	Keyword      string     // only mails with this keyword
	Not          bool       // only mails without that flag or keyword
}

// ParseFlagFilter reads the argument of -O, a flag or keyword with an optional '-' in front, into f.
func (f *Filter) ParseFlagFilter(s string) {
	if len(s) > 0 && s[0] == '-' {
		f.Not, s = true, s[1:]
	}
	if flag, ok := mail.ParseFlag(s); ok {
		f.Flag = flag
		return
	}
	f.Keyword = s
}

// Empty reports whether all mails are wanted.
func (f Filter) Empty() bool { return f.empty() }

func (f *Filter) empty() bool { return *f == Filter{} }

// wantsRecord judges a peer's save. A size that was not sent is never too large.
func (f *Filter) wantsRecord(c *item.Change) bool {
	if f.empty() {
		return true
	}
	m := MarksOf(c)
	size := uint64(0)
	if c.HasSize && c.VirtualSize != item.UnknownSize {
		size = c.VirtualSize
	}
	return f.wants(c.Received, size, m.Flags, m.Keywords)
}

// wantsMessage judges a mail that is here, as the peer would.
func (f *Filter) wantsMessage(m *mail.Message) bool {
	if f.empty() {
		return true
	}
	return f.wants(m.Received, uint64(max(m.VirtualSize, 0)), m.Flags, m.Keywords)
}

func (f *Filter) wants(received int64, size uint64, flags mail.Flags, keywords mail.Keywords) bool {
	switch {
	case f.Since > 0 && received < f.Since, f.Until > 0 && received > f.Until:
		return false
	case f.MaxSize > 0 && size > f.MaxSize:
		return false
	case f.Flag != 0:
		return (flags&f.Flag != 0) != f.Not
	case f.Keyword != "":
		return keywords.Has(f.Keyword) != f.Not
	}
	return true
}
