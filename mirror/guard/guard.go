// Package guard decides whether mails that are gone without a witness may count as expunged, so that a lost disk, an
// emptied directory or a wrong path never empties the other side.
//
// [Judge] takes what vanished from each mailbox and the [Policy]; its [Error] names each mailbox that stops the run and how
// to go on. The package is pure: it neither looks for losses nor remembers what was allowed.
package guard

import (
	"errors"
	"fmt"
	"strings"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// ErrMassExpunge is wrapped by the errors of [Judge].
var ErrMassExpunge = errors.New("too many mails are gone")

// Loss is what vanished from one mailbox without a witness.
type Loss = store.Loss

// Policy says how much may be missing from one mailbox.
type Policy struct {
	MaxMissingPercent int // of the known mails
	MaxMissingMails   int // but at least this many may always be missing

	Allow  func(mail.Name) bool // the user confirmed it for this run; nil: never
	Exempt func(mail.Name) bool // marked \Trash or \Junk; nil: judged by name alone
}

// DefaultPolicy returns the limits of the settings file's defaults.
func DefaultPolicy() Policy { return Policy{MaxMissingPercent: 20, MaxMissingMails: 50} }

// emptied is from how many known mails on a mailbox must not be lost as a whole.
const emptied = 10

// Cause says why a loss stops the run.
type Cause uint8

// The causes.
const (
	TooMany Cause = iota + 1 // more than the policy allows
	All                      // every mail of the mailbox
	Gone                     // the mailbox itself
)

// Stop is a loss that stops the run.
type Stop struct {
	Loss
	Cause Cause
}

// Error says which losses stop the run, in the order in which they were given but for small mailboxes, which come last.
type Error struct {
	Stops []Stop
}

// Judge returns nil if all losses may count as expunges, else an [*Error]. Mailboxes named or marked as trash or junk are
// expected to be emptied; only their disappearance is judged. Mailboxes of fewer than ten mails that vanished as a whole may
// have MaxMissingMails together: a store of many small ones can vanish too.
func Judge(losses []Loss, p Policy) error {
	var stops, small []Stop
	smallMails := 0
	for _, l := range losses {
		if p.Allow != nil && p.Allow(l.Mailbox) {
			continue
		}
		switch c := p.judge(l); {
		case c == 0:
		case (c == All || c == Gone) && l.Known < emptied:
			small = append(small, Stop{Loss: l, Cause: c})
			smallMails += l.Missing
		default:
			stops = append(stops, Stop{Loss: l, Cause: c})
		}
	}
	if smallMails > p.MaxMissingMails {
		stops = append(stops, small...)
	}
	if len(stops) == 0 {
		return nil
	}
	return &Error{Stops: stops}
}

// judge returns what is wrong with a loss, were its mailbox large enough.
func (p Policy) judge(l Loss) Cause {
	switch {
	case l.Known == 0:
		return 0
	case l.Gone:
		return Gone
	case Disposable(l.Mailbox) || p.Exempt != nil && p.Exempt(l.Mailbox):
		return 0
	case l.Missing >= l.Known:
		return All
	case l.Missing > p.MaxMissingMails && int64(l.Missing)*100 > int64(l.Known)*int64(p.MaxMissingPercent):
		return TooMany
	}
	return 0
}

// disposable are the names that mail programs give to mailboxes which get emptied.
var disposable = []string{"trash", "junk", "spam", "deleted items", "deleted messages", "deleted", "bin"}

// Disposable reports whether a mailbox is trash or junk by its last part: one of the usual names, or one of them followed by
// anything but a letter ("Junk E-mail", "Trash-2025", but not "Spamassassin").
func Disposable(name mail.Name) bool {
	base := strings.ToLower(name.Base())
	for _, word := range disposable {
		rest, ok := strings.CutPrefix(base, word)
		if ok && (rest == "" || !(rest[0] >= 'a' && rest[0] <= 'z' || rest[0] >= 0x80)) {
			return true
		}
	}
	return false
}

// shown is how many mailboxes an error text names.
const shown = 5

// Error is one line for each mailbox (no more than five) and, if there are several, one for how to allow them all.
func (e *Error) Error() string {
	var lines []string
	for i, s := range e.Stops {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d mailboxes more", len(e.Stops)-shown))
			break
		}
		lines = append(lines, s.String())
	}
	if len(e.Stops) > 1 {
		lines = append(lines, "nothing was changed; to decide for all at once: --allow-mass-expunge or --restore='*'")
	}
	return strings.Join(lines, "\n")
}

// String says what is missing and what to do.
func (s Stop) String() string {
	what := fmt.Sprintf("%d of %d mails are gone", s.Missing, s.Known)
	switch s.Cause {
	case Gone:
		what = fmt.Sprintf("the mailbox is gone, with %d of %d mails", max(s.Missing, s.Known), s.Known)
	case All:
		what = fmt.Sprintf("all %d mails are gone", s.Known)
	}
	name := quote(string(s.Mailbox))
	return fmt.Sprintf("mailbox %s: %s and nobody was seen expunging them, so nothing was changed; "+
		"if that is right, run again with --allow-mass-expunge=%s, to get them back from the other side with --restore=%s",
		name, what, name, name)
}

// Unwrap makes errors.Is(err, ErrMassExpunge) hold.
func (e *Error) Unwrap() error { return ErrMassExpunge }

// quote writes a name as a shell reads it, if it needs that.
func quote(name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@%,", r) || r >= 0x80
	}
	if name != "" && strings.IndexFunc(name, func(r rune) bool { return !plain(r) }) < 0 {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
}
