package maildir

import (
	"cmp"
	"strconv"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// identity is what a mail brings along that its file does not say.
type identity struct {
	guid  mail.GUID
	uidl  string
	order uint32
	saved int64

	keywords mail.Keywords // those without a letter in the file name
}

// fields are those of a line of the uidlist that say it.
func (id identity) fields() map[byte]string {
	out := map[byte]string{'G': string(id.guid)}
	if id.uidl != "" {
		out['P'] = id.uidl
	}
	if id.order != 0 {
		out['O'] = strconv.FormatUint(uint64(id.order), 10)
	}
	return out
}

// identityIn is what the catalog knows of a mail.
func identityIn(r store.MessageRecord) identity {
	return identity{guid: r.GUID, uidl: r.POP3UIDL, order: r.POP3Order, saved: r.Saved}
}

// identityAt is what a line of the uidlist says of its file, with what it has lost of what was known, as in a uidlist that was
// made anew: that will be put back. Its base name alone would make the mail another one, or worse, the one in whose place a
// user wrote it.
func (b *boxScan) identityAt(i int32, row uidRecord, was identity) identity {
	id := identity{guid: keepableGUID(row.guid()), order: parseOrder(row)}
	id.uidl, _ = row.field('P')
	if _, has := row.field('G'); has || was.guid == id.guid || !storableGUID(was.guid) {
		return id
	}
	id.guid, id.saved = was.guid, was.saved
	id.uidl, id.order = cmp.Or(id.uidl, was.uidl), cmp.Or(id.order, was.order)
	if b.restored == nil {
		b.restored = make(map[int32]identity)
	}
	b.restored[i], b.rewrite = id, true
	return id
}

// sameIdentity takes over what another program changed in a line of the uidlist and reports whether it did.
func (b *boxScan) sameIdentity(id identity, r *store.MessageRecord) bool {
	if id.guid == r.GUID && id.uidl == r.POP3UIDL && id.order == r.POP3Order {
		return false
	}
	if id.guid != r.GUID {
		// Nothing in the log can say this, so whoever wants to know must compare everything.
		b.cutLog()
	}
	r.GUID, r.POP3UIDL, r.POP3Order = id.guid, id.uidl, id.order
	return true
}

func parseOrder(row uidRecord) uint32 {
	text, ok := row.field('O')
	if !ok {
		return 0
	}
	var n uint64
	for _, c := range []byte(text) {
		if c < '0' || c > '9' || n > 1<<32 {
			return 0
		}
		n = n*10 + uint64(c-'0')
	}
	return uint32(min(n, 1<<32-1))
}
