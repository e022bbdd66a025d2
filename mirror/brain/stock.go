package brain

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/tree"
)

// stock is what a round keeps of a peer that is no dsyncfs: a Dovecot, which knows nothing of our extension and whose ways
// of failing have to be avoided (docs/dovecot.md lists them).
type stock struct {
	separator, escape byte // of the names in its deletion records
	deletions         []mail.Deletion
	parts             map[mail.Name][]string                // its nodes, as it spells them
	conflicts         map[mail.MailboxGUID]mail.MailboxGUID // mailboxes of one name, own GUID to its
	nodes             []*item.Node                          // its tree
	unclear           []mail.MailboxGUID                    // mailboxes of both sides that may be others there
	toldAs            map[mail.MailboxGUID]mail.MailboxGUID // GUIDs that it told wrong, to what it told
	remade            []mail.Name                           // mailboxes here in place of one that was in step with its
	told              map[mail.MailboxGUID]bool             // the last common states that were told or heard
	needsFull         bool                                  // as slave: one of them did not fit
	seen              map[mail.MailboxGUID]store.State      // as slave: how equal mailboxes were
}

// isStock reports before the handshake whether the other side is no dsyncfs; a Peer within the process always is one.
func (c *conversation) isStock() bool {
	p, ok := c.peer.(interface{ PeerIsDsyncfs() bool })
	return ok && !p.PeerIsDsyncfs()
}

// fitToStock chooses what a stock slave is asked for, of what the user wants. It knows neither a dry run nor a comparison
// nor a wish to get mails back: for these it only exports. What it has to undo in the copy of a backup it finds by looking
// at everything only.
func (r *round) fitToStock(ctx context.Context) error {
	if err := r.loadBases(ctx); err != nil {
		return err
	}
	switch {
	case r.h.DryRun, r.h.Verify, r.dir == twoWay && len(r.h.Restore) > 0:
		r.h.Type, r.h.BackupReceive, r.h.BackupSend, r.h.NoBackupOverwrite = item.SyncFull, false, true, true
		if r.h.Verify {
			r.h.Since, r.h.MaxSize = 1, math.MaxInt64 // then it tells dates and sizes
		} else if !r.h.DryRun {
			r.desync("what was missing here came back; the rest follows")
		}
	case len(r.bases) == 0, r.dir == exportOnly && !r.h.NoBackupOverwrite:
		r.h.Type = item.SyncFull
	}
	r.dir = directionOf(r.h, true)
	return nil
}

// chooseStates keeps of the last common states those that fit what is here. A stock slave looks at everything of a mailbox
// of which it is told none.
func (r *round) chooseStates(ctx context.Context) error {
	boxes, _, err := r.store.Tree(ctx)
	if err != nil {
		return err
	}
	r.stock.told = make(map[mail.MailboxGUID]bool)
	for _, box := range boxes {
		s := box.Status
		base, known := r.bases[s.GUID]
		if known && base.RemoteEpoch != doubtful && !r.restores(box.Name) && base.UIDValidity == s.UIDValidity && base.LastCommonUID > 0 &&
			merge.BaseFits(s, base.LastCommonUID, base.Local.HighestModSeq) {
			r.stock.told[s.GUID] = true
		}
	}
	return nil
}

// unusable reports whether a state that the slave was told does not fit what it has: it would end the round over it, or take
// it for that of another mailbox. The next round does without.
func (r *round) unusable(x *exchange) bool {
	guid := x.own.GUID
	if r.stock == nil || !r.stock.told[guid] {
		return false
	}
	_, conflict := r.stock.conflicts[guid]
	node, there := r.remote[guid]
	return conflict || x.own.NoBase || there && node.uidValidity != x.own.UIDValidity
}

// baseOf returns the last common state of a mailbox as far as this side knows it by itself: a stock master does not tell it.
func (r *round) baseOf(guid mail.MailboxGUID) (store.State, bool) {
	bases := r.bases
	if r.stock != nil && !r.master {
		bases = r.stock.seen
	}
	base, known := bases[guid]
	return base, known
}

// hear notes how the other side spells names.
func (s *stock) hear(names []mail.Name, parts [][]string, d *item.Deletes) {
	s.separator, s.escape, s.deletions = d.Separator, d.Escape, d.Deletions
	s.parts = make(map[mail.Name][]string, len(names))
	for i, name := range names {
		s.parts[name] = parts[i]
	}
}

// fitTree makes the own tree ready to be told to a stock peer, whose tree was heard.
func (r *round) fitTree(ctx context.Context, boxes []mail.Mailbox, remote *tree.Tree) ([]mail.Mailbox, error) {
	if err := r.checkBox(remote); err != nil {
		return nil, err
	}
	if err := r.checkInboxAhead(boxes, remote); err != nil {
		return nil, err
	}
	if r.treeMode() != tree.TwoWay || r.h.DryRun || r.h.Verify {
		return boxes, nil
	}
	saved, err := r.saveDeleted(ctx, boxes, remote)
	if err != nil {
		return boxes, err
	}
	renamed, err := r.adoptMailboxes(ctx, boxes, remote)
	if err != nil || !saved && !renamed {
		return boxes, err
	}
	boxes, _, err = r.store.Tree(ctx)
	return r.selected(boxes), err
}

// tellDeletions writes the own deletions in the other side's spelling: Dovecot 2.3.19 loops for ever over hashes of names
// with another separator than its own. A mailbox that has got mail since is not told of: its mail would be lost there.
func (r *round) tellDeletions(deletions []mail.Deletion, own byte, remote *tree.Tree) []mail.Deletion {
	spelled := make(map[mail.GUID128]mail.GUID128, len(r.stock.parts))
	for name, parts := range r.stock.parts {
		spelled[name.NameHash(own)] = tree.HashName(parts, r.stock.separator, r.stock.escape)
	}
	var out []mail.Deletion
	for _, d := range deletions {
		if d.Kind == mail.DeletedMailbox {
			box, there := remote.ByGUID(mail.MailboxGUID(d.ID))
			if !there || r.treeMode() == tree.TwoWay && r.hasUnseenMail(box) {
				continue
			}
		} else if d.ID = spelled[d.ID]; d.ID == (mail.GUID128{}) {
			continue
		}
		out = append(out, d)
	}
	return out
}

// saveDeleted gives mailboxes that the other side deleted, and that got mail here since, an identity of their own: under the
// old one a Dovecot would delete them again and again.
func (r *round) saveDeleted(ctx context.Context, boxes []mail.Mailbox, remote *tree.Tree) (changed bool, err error) {
	gone := make(map[mail.MailboxGUID]bool)
	for _, d := range r.stock.deletions {
		if d.Kind == mail.DeletedMailbox {
			gone[mail.MailboxGUID(d.ID)] = true
		}
	}
	for _, box := range boxes {
		guid := box.Status.GUID
		if _, there := remote.ByGUID(guid); there || !gone[guid] || box.Name == mail.Inbox || !r.hasUnseenMail(box) {
			continue
		}
		sum := sha1.Sum(append([]byte("dsyncfs kept mailbox "), guid[:]...))
		if err := r.store.SetGUID(ctx, guid, mail.MailboxGUID(sum[:16])); err != nil {
			return changed, fmt.Errorf("mailbox %s: %w", box.Name, err)
		}
		r.newBases[guid] = store.State{}
		changed = true
	}
	return changed, nil
}

// noteConflicts remembers the mailboxes of one name and two GUIDs. Which GUID stays shows when they are compared: a stock
// Maildir takes over ours whatever the rule, and if we did the same the GUIDs would change places for ever.
func (r *round) noteConflicts(result *tree.Result) {
	r.stock.conflicts = make(map[mail.MailboxGUID]mail.MailboxGUID)
	if r.dir != twoWay {
		return
	}
	for _, c := range result.Conflicts {
		r.stock.conflicts[c.Local] = c.Remote
	}
	kept := result.Changes[:0]
	for _, c := range result.Changes {
		if _, conflict := r.stock.conflicts[c.Was]; c.Op != tree.SetGUID || !conflict {
			kept = append(kept, c)
		}
	}
	result.Changes = kept
}

// noteRenames asks for another round where a subscribed mailbox gets another name, or a mailbox a name that is subscribed
// without there being one. A Dovecot takes a subscription for moved with its mailbox and leaves it with the old name, which
// then looks like a new one, and subscribes to the temporary name that it gives to a name in the way. A mailbox that is in the
// way keeps the first temporary name there, though both sides settled for another one.
func (r *round) noteRenames(local, remote *tree.Tree, result *tree.Result) {
	if r.h.DryRun || r.dir == importOnly {
		return
	}
	names := make(map[mail.Name]bool) // subscribed, and no mailbox
	for _, t := range []*tree.Tree{local, remote} {
		for box := range t.All() {
			if box.Subscribed && box.Status.GUID.IsZero() {
				names[box.Name] = true
			}
		}
	}
	for _, pair := range [][2]*tree.Tree{{local, result.Local}, {remote, result.Remote}} {
		for box := range pair[0].All() {
			now, there := pair[1].ByGUID(box.Status.GUID)
			if !there || now.Name == box.Name {
				continue
			}
			if box.Subscribed || names[now.Name] {
				r.desync(fmt.Sprintf("%s: subscriptions have to follow %s", r.Side, now.Name))
				return
			}
			if temporaryName.MatchString(string(now.Name)) {
				r.desync(fmt.Sprintf("%s: mailbox %s was in the way of another one", r.Side, box.Name))
				return
			}
		}
	}
}

// temporaryName is what a Dovecot calls a node that is in the way of another (dovecot 2.3 dsync-mailbox-tree-sync.c).
var temporaryName = regexp.MustCompile(`-temp-[0-9a-f]+$`)

// leftovers takes back the subscriptions that the other side gave to temporary names, as if they had been ended here.
func (r *round) leftovers(boxes []mail.Mailbox, remote *tree.Tree, separator byte) (ended []mail.Deletion) {
	if r.treeMode() != tree.TwoWay {
		return nil
	}
	subscribed := make(map[mail.Name]bool)
	for _, box := range boxes {
		subscribed[box.Name] = box.Subscribed
	}
	for box := range remote.All() {
		if box.Subscribed && box.Status.GUID.IsZero() && !subscribed[box.Name] && temporaryName.MatchString(string(box.Name)) {
			ended = append(ended, mail.Deletion{Kind: mail.Unsubscribed, ID: box.Name.NameHash(separator), Time: box.SubscriptionChanged + 1})
		}
	}
	return ended
}

// announceTo tells a stock slave of a mailbox and returns its answer: in a conflict under the GUID that should win, and if
// that is not known there, under the other one.
func (x *exchange) announceTo(ctx context.Context) (*item.Mailbox, error) {
	for _, guid := range x.candidates() {
		own := *x.own
		own.GUID = guid
		if x.r.dir == importOnly {
			// Else the source changed its UIDVALIDITY to ours if it has fewer messages.
			if node, there := x.r.remote[guid]; there {
				own.UIDValidity = node.uidValidity
			}
		}
		if err := x.r.sendNow(&own); err != nil {
			return nil, err
		}
		theirs, err := expect[*item.Mailbox](ctx, x.r.c, "the answer to a mailbox")
		if err != nil {
			return nil, err
		}
		if !theirs.Lost && !theirs.Ignore {
			return theirs, x.takeGUID(ctx, guid)
		}
		if theirs.Ignore {
			return theirs, nil
		}
	}
	return &item.Mailbox{Lost: true}, nil
}

// candidates are the GUIDs that the other side may have the mailbox under.
func (x *exchange) candidates() []mail.MailboxGUID {
	own := x.own.GUID
	other, conflict := x.r.stock.conflicts[own]
	switch {
	case !conflict:
		return []mail.MailboxGUID{own}
	case bytes.Compare(own[:], other[:]) > 0:
		return []mail.MailboxGUID{own, other}
	}
	return []mail.MailboxGUID{other, own}
}

// takeGUID gives the mailbox the GUID that both sides agreed on.
func (x *exchange) takeGUID(ctx context.Context, guid mail.MailboxGUID) error {
	was := x.own.GUID
	if guid == was {
		return nil
	}
	if err := x.mb.Close(); err != nil {
		return err
	}
	if err := x.r.store.SetGUID(ctx, was, guid); err != nil {
		return err
	}
	mb, err := x.r.store.Open(ctx, guid)
	if err != nil {
		return err
	}
	x.mb, x.own.GUID = mb, guid
	x.r.out.Changed = true
	x.r.newBases[was] = store.State{}
	return nil
}

// conflicting returns the own GUID of the mailbox that a stock master announced under its GUID.
func (r *round) conflicting(theirs mail.MailboxGUID) (own mail.MailboxGUID, ok bool) {
	if r.stock == nil {
		return own, false
	}
	for own, other := range r.stock.conflicts {
		if other == theirs {
			return own, true
		}
	}
	return own, false
}

// settleUIDValidity gives the mailbox the UIDVALIDITY of the side with more messages (dovecot 2.3 dsync-brain-mailbox.c:
// dsync_brain_mailbox_update_pre). The source of a one-way sync changes nothing; the copy of a backup is put right with its
// messages.
func (x *exchange) settleUIDValidity(ctx context.Context) error {
	r := x.r
	switch {
	case x.own.UIDValidity == x.theirs.UIDValidity, r.h.DryRun, r.dir == exportOnly, r.dir == importOnly && !r.h.NoBackupOverwrite:
		return nil
	case r.dir == twoWay && merge.UIDValidityWinner(x.own.Status, x.theirs.Status) == x.own.UIDValidity:
		return nil
	}
	return x.adoptUIDValidity(ctx)
}

// usableGUIDs gives new GUIDs to messages whose GUID no Maildir can hold in a file name: a Dovecot dies of it. Expunges of
// the log know them by the same short form.
func (x *exchange) usableGUIDs(ctx context.Context) error {
	b := store.Batch{Origin: x.r.origin()}
	for m, err := range x.mb.Messages(x.base.LastCommonUID) {
		if err != nil {
			return err
		}
		if strings.ContainsRune(string(m.GUID), '/') || len(m.GUID) > maxFileGUID {
			b.Realign = append(b.Realign, store.Realign{UID: m.UID, NewUID: m.UID, NewGUID: mail.GUID(m.GUID.Hash128().String())})
		}
	}
	if len(b.Realign) == 0 || x.r.h.DryRun || x.r.h.Verify {
		return nil
	}
	res, err := x.mb.Apply(ctx, b)
	if err != nil {
		return err
	}
	x.incoming.status = res.Status
	x.r.out.Changed = true
	return x.reopen(ctx)
}

// maxFileGUID is the longest GUID, in bytes, that leaves room for flags and sizes in a file name.
const maxFileGUID = 180

// stockState is the new last common state with a stock peer. Its log is asked from where it stood when it told of the
// mailbox: what its users did meanwhile has a higher modseq. What we caused is marked there and not told again.
func (x *exchange) stockState(own, theirs *item.State) store.State {
	if theirs.UIDValidity == 0 {
		return x.r.doubted(x.own.GUID)
	}
	return store.State{
		UIDValidity:   x.incoming.uidValidity(x.own),
		LastCommonUID: min(own.LastCommonUID, theirs.LastCommonUID),
		Local:         store.Numbers{UIDNext: own.UIDNext, Messages: own.Messages, HighestModSeq: own.HighestModSeq},
		Remote:        store.Numbers{UIDNext: x.theirs.UIDNext, Messages: theirs.Messages, HighestModSeq: x.theirs.HighestModSeq},
	}
}

// checkBox refuses a nested -m that the other side did not understand. It takes the name in its own separator.
func (r *round) checkBox(remote *tree.Tree) error {
	sep := r.stock.separator
	if r.h.Box == "" || sep == '/' {
		return nil
	}
	given := r.h.Box
	r.h.Box = strings.ReplaceAll(given, string(sep), "/") // from here on it is for our own tree
	if len(remote.Mailboxes()) > 0 || !strings.Contains(given, "/") {
		return nil
	}
	return fmt.Errorf("mailbox %s: the other side separates levels by %q: say %s", given, string(sep), strings.ReplaceAll(given, "/", string(sep)))
}

// virtualSize returns the size with CRLF line ends of a message that nobody counted yet.
func (x *exchange) virtualSize(ctx context.Context, m *mail.Message) (uint64, error) {
	if m.VirtualSize >= 0 {
		return uint64(m.VirtualSize), nil
	}
	body, err := x.mb.Body(ctx, m.UID)
	if errors.Is(err, store.ErrNotFound) {
		return 1, nil // it is on its way out
	}
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var size uint64
	var last byte
	buf := x.r.buffer()
	for {
		n, err := body.Read(buf)
		for _, c := range buf[:n] {
			if c == '\n' && last != '\r' {
				size++
			}
			last = c
		}
		if size += uint64(n); err != nil {
			if errors.Is(err, io.EOF) {
				return size, nil
			}
			return 0, fmt.Errorf("reading message %d: %w", m.UID, err)
		}
	}
}

// countNewThere says for a dry run how many messages a stock peer would get, which it cannot say itself: those here that it
// did not tell of.
func (x *exchange) countNewThere(p merge.Plan) {
	common := int(x.theirs.Messages)
	for i := range p.Adds {
		common -= len(p.Adds[i].Instances)
	}
	x.r.out.Matched += common
	x.r.out.NewThere += max(0, int(x.own.Messages)-common-len(p.Expunges))
}

// insist makes a stock master compare a mailbox in a "changed" sync where equal numbers say nothing: both sides may have made
// the same number of changes since they were last known to be equal. Raising the own HIGHESTMODSEQ makes the numbers differ.
func (x *exchange) insist(ctx context.Context, theirs *item.Mailbox) error {
	r := x.r
	if r.h.Type != item.SyncChanged || merge.NeedsComparison(r.h.Type, x.own.Status, theirs.Status) {
		return nil
	}
	equal, known := r.stock.seen[x.own.GUID]
	if known && equal.RemoteEpoch != doubtful && equal.UIDValidity == x.own.UIDValidity && equal.Local == store.NumbersOf(x.own.Status) && equal.Remote == store.NumbersOf(theirs.Status) {
		return nil
	}
	res, err := x.mb.Apply(ctx, store.Batch{Origin: r.origin(), HighestModSeq: x.own.HighestModSeq + 1})
	if err != nil {
		return err
	}
	if err := x.reopen(ctx); err != nil {
		return err
	}
	x.own.Status, x.incoming.status = res.Status, res.Status
	return nil
}

// knownCommon returns up to which UID both sides are known to have had the same mails, 0 if nothing is known.
func (x *exchange) knownCommon() mail.UID {
	base, known := x.r.baseOf(x.own.GUID)
	if !known || base.UIDValidity != x.own.UIDValidity || base.UIDValidity != x.theirs.UIDValidity {
		return 0
	}
	return base.LastCommonUID
}

// doubtful is the epoch in a last common state with a stock peer that is not to be built on any more, and still says which
// mails both sides had.
const doubtful = 1

// doubt makes the next round compare a mailbox as a whole.
func (r *round) doubt(guid mail.MailboxGUID) { r.newBases[guid] = r.doubted(guid) }

func (r *round) doubted(guid mail.MailboxGUID) store.State {
	base, known := r.baseOf(guid)
	if r.stock == nil || !known {
		return store.State{}
	}
	base.RemoteEpoch = doubtful
	return base
}
