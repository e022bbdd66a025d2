package brain

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/tree"
)

// maxDifferences bounds how many differing messages of one mailbox are listed one by one.
const maxDifferences = 20

// compareTrees lists what differs between the trees of both sides (promise 3: a client cannot tell them apart).
func (r *round) compareTrees(local, remote *tree.Tree) {
	there := make(map[mail.Name]mail.Mailbox)
	for box := range remote.All() {
		there[box.Name] = box
	}
	for box := range local.All() {
		other, ok := there[box.Name]
		delete(there, box.Name)
		if implied(box) && (!ok || implied(other)) && box.Subscribed == other.Subscribed {
			continue
		}
		r.compareBox(box, other, ok)
	}
	rest := make([]mail.Name, 0, len(there))
	for name, box := range there {
		if box.Existence == mail.Exists && !implied(box) || box.Subscribed {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	for _, name := range rest {
		r.differs("mailbox %q: only on the other side", string(name))
	}
}

// implied reports whether a node is a level of hierarchy and no mailbox. Whether a store keeps such a level by itself depends
// on its format, and no client has a use for it.
func implied(box mail.Mailbox) bool { return box.Status.GUID.IsZero() }

func (r *round) compareBox(a, b mail.Mailbox, there bool) {
	name := string(a.Name)
	s, o := a.Status, b.Status
	switch {
	case (a.Existence == mail.Exists) != (there && b.Existence == mail.Exists):
		if a.Existence == mail.Exists {
			r.differs("mailbox %q: only on this side", name)
		} else {
			r.differs("mailbox %q: only on the other side", name)
		}
		return
	case a.Subscribed != b.Subscribed:
		r.differs("mailbox %q: subscribed %v, %v", name, a.Subscribed, b.Subscribed)
	}
	if a.Existence != mail.Exists {
		return
	}
	if s.GUID != o.GUID {
		r.differs("mailbox %q: GUID %s, %s", name, s.GUID, o.GUID)
	}
	if s.UIDValidity != o.UIDValidity {
		r.differs("mailbox %q: UIDVALIDITY %d, %d", name, s.UIDValidity, o.UIDValidity)
	}
	if s.UIDNext != o.UIDNext {
		r.differs("mailbox %q: UIDNEXT %d, %d", name, s.UIDNext, o.UIDNext)
	}
	if r.remote[s.GUID].numbers.Messages != s.Messages && s.GUID == o.GUID && r.ours() {
		r.differs("mailbox %q: %d messages, %d", name, s.Messages, r.remote[s.GUID].numbers.Messages)
	}
}

func (r *round) differs(format string, args ...any) {
	r.out.Plan = append(r.out.Plan, fmt.Sprintf(format, args...))
}

// compare reads the other side's description of every message and lists what differs from the own.
func (x *exchange) compare(ctx context.Context) error {
	next, stop := iter.Pull2(x.changes(ctx))
	defer stop()
	own, err, more := next()
	n := 0
	report := func(uid mail.UID, format string, args ...any) {
		if n++; n <= maxDifferences {
			x.r.differs("mailbox %q, UID %d: %s", string(x.mb.Name()), uid, fmt.Sprintf(format, args...))
		}
	}
	// skip reports the own messages below uid, which the other side does not have.
	skip := func(uid mail.UID) {
		for more && err == nil && own.UID < uid {
			if own.Type != item.ChangeExpunge {
				report(own.UID, "only on this side")
			}
			own, err, more = next()
		}
	}
	lerr := list(ctx, x.r.c, "mail changes", func(c *item.Change) error {
		if skip(c.UID); err != nil || c.Type == item.ChangeExpunge {
			return err
		}
		if !more || own.UID != c.UID || own.Type == item.ChangeExpunge {
			report(c.UID, "only on the other side")
			return nil
		}
		if x.r.stock != nil {
			own.Content, own.POP3 = c.Content, c.POP3 // it does not tell
		}
		if d := differences(own, c); d != "" {
			report(c.UID, "%s", d)
		}
		own, err, more = next()
		return nil
	})
	if lerr != nil {
		return lerr
	}
	if skip(mail.MaxUID); err != nil {
		return err
	}
	if n > maxDifferences {
		x.r.differs("mailbox %q: %d more messages differ", string(x.mb.Name()), n-maxDifferences)
	}
	return nil
}

// differences says in what two descriptions of one message differ.
func differences(a, b *item.Change) string {
	switch {
	case a.GUID != b.GUID:
		return fmt.Sprintf("GUID %q, %q", a.GUID, b.GUID)
	case a.Content != b.Content:
		return "contents differ"
	case a.Final&mail.AllFlags != b.Final&mail.AllFlags:
		return fmt.Sprintf("flags (%s), (%s)", a.Final&mail.AllFlags, b.Final&mail.AllFlags)
	case !keywordsOf(a).Equal(keywordsOf(b)):
		return fmt.Sprintf("keywords %v, %v", keywordsOf(a), keywordsOf(b))
	case a.Received != b.Received:
		return fmt.Sprintf("received at %d, %d", a.Received, b.Received)
	case a.HasSize && b.HasSize && a.VirtualSize != b.VirtualSize:
		return fmt.Sprintf("size %d, %d", a.VirtualSize, b.VirtualSize)
	case a.POP3 != b.POP3:
		return fmt.Sprintf("POP3 %q, %q", a.POP3, b.POP3)
	}
	return ""
}

func keywordsOf(c *item.Change) mail.Keywords {
	var names []string
	for _, k := range c.Keywords {
		if k.Op == item.KeywordSet || k.Op == item.KeywordAddedSet {
			names = append(names, k.Name)
		}
	}
	return mail.NewKeywords(names...)
}
