package brain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/tree"
)

// maxNodes bounds the mailbox tree that a peer may send.
const maxNodes = 1 << 20

// exchangeTrees tells the other side the own tree, hears its, and brings the own store in line with both.
func (r *round) exchangeTrees(ctx context.Context) error {
	boxes, deletions, err := r.store.Tree(ctx)
	if err != nil {
		return err
	}
	boxes = r.selected(boxes)
	sep := r.store.Capabilities().Separator
	var remote *tree.Tree
	if r.master || r.stock != nil {
		// A stock peer does not wait, and the master of two dsyncfs does.
		if remote, err = r.receiveTree(ctx, boxes); err != nil {
			return err
		}
		if r.stock != nil {
			if len(r.stock.unclear) > 0 && r.dir == twoWay && !r.h.DryRun && !r.h.Verify {
				return r.clearUp(boxes)
			}
			if boxes, err = r.fitTree(ctx, boxes, remote); err != nil {
				return err
			}
			deletions = append(deletions, r.leftovers(boxes, remote, sep)...)
		}
		if _, there := remote.Lookup(mail.Inbox); there {
			boxes = r.withoutUnusedInbox(boxes)
		}
		err = r.sendTree(boxes, deletions, sep, remote)
	} else {
		boxes = r.withoutUnusedInbox(boxes)
		if err = r.sendTree(boxes, deletions, sep, nil); err == nil {
			remote, err = r.receiveTree(ctx, boxes)
		}
	}
	if err != nil {
		return err
	}
	local, err := tree.New(boxes, deletions, sep)
	if err != nil {
		return err
	}
	if r.h.Verify {
		if r.master {
			r.compareTrees(local, remote)
		}
		r.local = boxes
		return nil
	}
	result, err := tree.Sync(local, remote, r.treeMode(), tree.Options{GUIDs: r.guidRule(), Keep: r.hasUnseenMail, Adopt: true, CountLevels: r.stock != nil})
	if err != nil {
		return err
	}
	if r.stock != nil {
		r.noteConflicts(&result)
		r.noteRenames(local, remote, &result)
	}
	if err := r.changeTree(ctx, result); err != nil {
		return err
	}
	boxes, _, err = r.store.Tree(ctx)
	r.local = r.selected(boxes)
	return err
}

func (r *round) treeMode() tree.Mode {
	switch {
	case r.dir == twoWay || r.h.NoBackupOverwrite:
		return tree.TwoWay
	case r.dir == exportOnly:
		return tree.PreserveLocal
	}
	return tree.PreserveRemote
}

func (r *round) guidRule() tree.GUIDRule {
	switch r.dir {
	case exportOnly:
		return tree.LocalGUID
	case importOnly:
		return tree.RemoteGUID
	}
	return tree.GreaterGUID
}

// hasUnseenMail reports whether a mailbox got mail after the last common state: deleting it on the word of the other side
// would lose that. Both sides ask this about the same mailbox, so both must know the same: a common state that the slave did
// not take, because its index is another one now, does not count for the master either.
func (r *round) hasUnseenMail(box mail.Mailbox) bool {
	base, known := r.baseOf(box.Status.GUID)
	if !known || r.stock == nil && r.master && base.RemoteEpoch != r.peer.Epoch || base.UIDValidity != box.Status.UIDValidity || r.stock == nil && base.LastCommonUID == 0 {
		return r.ours() && box.Status.Messages > 0
	}
	return box.Status.UIDNext > base.LastCommonUID+1
}

// withoutUnusedInbox leaves out an INBOX that never held anything: a fresh account takes over the other side's. Who only
// compares has to see it.
func (r *round) withoutUnusedInbox(boxes []mail.Mailbox) []mail.Mailbox {
	if r.dir == exportOnly || r.h.Verify {
		return boxes
	}
	return slices.DeleteFunc(boxes, func(box mail.Mailbox) bool {
		return box.Name == mail.Inbox && unused(box) && !hasBelow(boxes, box.Name)
	})
}

// selected returns the nodes that take part, by the master's options.
func (r *round) selected(boxes []mail.Mailbox) []mail.Mailbox {
	var out []mail.Mailbox
	for _, box := range boxes {
		if r.takesPart(box) {
			out = append(out, box)
		}
	}
	return out
}

func unused(box mail.Mailbox) bool {
	return box.Existence == mail.Exists && box.Status.Messages == 0 && box.Status.UIDNext <= 1 && !box.Subscribed
}

func hasBelow(boxes []mail.Mailbox, name mail.Name) bool {
	for _, b := range boxes {
		if b.Name.IsBelow(name) {
			return true
		}
	}
	return false
}

func (r *round) takesPart(box mail.Mailbox) bool {
	for _, pattern := range r.h.Exclude {
		if matchPattern(pattern, string(box.Name)) {
			return false
		}
	}
	switch {
	case r.h.BoxGUID != "":
		return box.Status.GUID.String() == strings.ToLower(r.h.BoxGUID)
	case r.h.Box != "":
		return matchPattern(string(mail.Name(r.h.Box).FoldInbox()), string(box.Name))
	case r.h.Boxes != nil:
		return matches(r.h.Boxes, box.Name)
	}
	return true
}

// matchPattern is IMAP's LIST pattern: '*' stands for anything, '%' and '?' for anything within a level or one character.
func matchPattern(pattern, name string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*', '%':
			for i := 0; i <= len(name); i++ {
				if matchPattern(pattern[1:], name[i:]) {
					return true
				}
				if i < len(name) && pattern[0] == '%' && name[i] == '/' {
					return false
				}
			}
			return false
		case '?':
			if name == "" {
				return false
			}
		default:
			if name == "" || name[0] != pattern[0] {
				return false
			}
		}
		pattern, name = pattern[1:], name[1:]
	}
	return name == ""
}

// sendTree tells the own tree; remote is the other side's, if it was heard already.
func (r *round) sendTree(boxes []mail.Mailbox, deletions []mail.Deletion, sep byte, remote *tree.Tree) error {
	for _, box := range boxes {
		// One that nobody renamed here was made of the other side's, perhaps with another replacement for what it cannot hold.
		if node, there := r.remote[box.Status.GUID]; there && !box.Status.GUID.IsZero() && box.Renamed == 0 && r.spelling[node.name] != nil {
			r.spelling[box.Name] = r.spelling[node.name]
		}
	}
	for _, box := range boxes {
		n := &item.Node{
			Parts: r.spell(box.Name), Existence: box.Existence, GUID: r.guidFor(box.Status.GUID),
			Renamed: box.Renamed, Subscribed: box.Subscribed, SubscriptionChanged: box.SubscriptionChanged,
		}
		if !box.Status.GUID.IsZero() {
			n.UIDValidity, n.UIDNext = box.Status.UIDValidity, box.Status.UIDNext
			n.Messages, n.HighestModSeq = box.Status.Messages, box.Status.HighestModSeq
		}
		_, n.NoState = r.refused[n.GUID]
		if err := r.c.send(n); err != nil {
			return err
		}
	}
	d := &item.Deletes{Separator: sep, Deletions: deletions}
	if r.stock != nil {
		d.Separator, d.Escape, d.Deletions = r.stock.separator, r.stock.escape, r.tellDeletions(deletions, sep, remote)
	}
	return r.sendNow(&item.EndOfList{}, d)
}

// spell returns a name as the other side told it, if this side's store could not hold it as it was: else the other side
// would take it for a new name. What is only here goes below the parent as it is called there.
func (r *round) spell(name mail.Name) []string {
	if len(r.spelling) == 0 {
		return name.Parts()
	}
	if parts, told := r.spelling[name]; told {
		return parts
	}
	if parent := name.Parent(); parent != "" {
		return append(slices.Clip(r.spell(parent)), name.Base())
	}
	return name.Parts()
}

// receiveTree hears the other side's tree, with names as this side's store can hold them. own is this side's.
func (r *round) receiveTree(ctx context.Context, own []mail.Mailbox) (*tree.Tree, error) {
	caps := r.store.Capabilities()
	mapper := tree.Mapper{Separator: caps.Separator, AltChar: r.h.AltChar, PartMax: caps.NamePartMax}
	r.remote = make(map[mail.MailboxGUID]remoteNode)
	var nodes []*item.Node
	var parts [][]string
	err := list(ctx, r.c, "the mailbox tree", func(n *item.Node) error {
		if len(nodes) == maxNodes {
			return fmt.Errorf("%w: more than %d mailboxes", ErrProtocol, maxNodes)
		}
		nodes, parts = append(nodes, n), append(parts, n.Parts)
		return nil
	})
	if err != nil {
		return nil, err
	}
	boxes := make([]mail.Mailbox, 0, len(nodes))
	names := mapper.MapAll(parts)
	r.spelling = make(map[mail.Name][]string)
	for i, name := range names {
		n := nodes[i]
		if mail.JoinName(parts[i]...) != name {
			r.spelling[name] = parts[i]
		}
		box := mail.Mailbox{
			Name: name, Existence: n.Existence, Renamed: n.Renamed,
			Subscribed: n.Subscribed, SubscriptionChanged: n.SubscriptionChanged,
			Status: mail.Status{
				GUID: n.GUID, UIDValidity: n.UIDValidity, UIDNext: n.UIDNext, Messages: n.Messages, HighestModSeq: n.HighestModSeq,
			},
		}
		if r.stock != nil && !r.takesPart(box) {
			continue
		}
		boxes = append(boxes, box)
		if base, known := r.bases[n.GUID]; known && n.NoState {
			r.agreed[n.GUID] = base.Local.HighestModSeq
			delete(r.bases, n.GUID)
		}
	}
	if r.stock != nil {
		r.stock.nodes = nodes
		r.trueGUIDs(boxes, own)
	}
	for _, box := range boxes {
		r.remote[box.Status.GUID] = remoteNode{box.Name, box.Status.UIDValidity, store.NumbersOf(box.Status)}
	}
	d, err := expect[*item.Deletes](ctx, r.c, "the deleted mailboxes")
	if err != nil {
		return nil, err
	}
	if r.stock != nil {
		r.stock.hear(names, parts, d)
	}
	t, err := tree.New(boxes, d.Deletions, d.Separator)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return t.WithEscape(d.Escape), nil
}

// changeTree executes the own part of the result. What no longer fits is left to the next round.
func (r *round) changeTree(ctx context.Context, result tree.Result) error {
	if r.treeMode() == tree.TwoWay && r.dir == exportOnly {
		return nil // the source of a one-way sync keeps its tree
	}
	if err := r.judgeDeletes(result.Changes); err != nil {
		return err
	}
	if r.h.DryRun {
		r.aliases = make(map[mail.MailboxGUID]mail.MailboxGUID)
		for _, c := range result.Conflicts {
			r.aliases[c.Remote] = c.Local
		}
	}
	for _, c := range result.Changes {
		if r.h.DryRun {
			r.out.Plan = append(r.out.Plan, r.Side+": "+c.String())
			if c.Op == tree.Create && r.master {
				r.out.NewHere += int(r.remote[c.GUID].numbers.Messages)
			}
			continue
		}
		changed, err := r.changeOne(ctx, c)
		r.out.Changed = r.out.Changed || changed
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrExists):
			r.desync(fmt.Sprintf("%s: %s: %v", r.Side, c, err))
		case err != nil:
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// judgeDeletes asks the guard about mailboxes that would go only because the other side does not have them. In a backup that
// was made before, what the source never had is a change of the destination, and to be undone.
func (r *round) judgeDeletes(changes []tree.Change) error {
	var losses []store.Loss
	for _, c := range changes {
		_, common := r.bases[c.GUID]
		if c.Op != tree.Delete || c.Witnessed || c.Replaced || len(r.bases) > 0 && !common {
			continue
		}
		mb, err := r.store.Open(context.Background(), c.GUID)
		if err != nil {
			continue // it cannot be deleted then either
		}
		n := int(mb.Status().Messages)
		losses = append(losses, store.Loss{Mailbox: mb.Name(), Known: n, Missing: n, Gone: true})
		if err := mb.Close(); err != nil {
			return err
		}
	}
	if len(losses) == 0 {
		return nil
	}
	return r.judge(losses)
}

// changeOne executes one change and reports whether there was anything to do.
func (r *round) changeOne(ctx context.Context, c tree.Change) (changed bool, err error) {
	r.Logger.Debug("tree", "change", c.String())
	switch c.Op {
	case tree.Create:
		if parts, unlike := r.spelling[c.Name]; unlike {
			r.Logger.Info(fmt.Sprintf("mailbox %q of the other side is called %q here", string(mail.JoinName(parts...)), string(c.Name)))
		}
		return r.create(ctx, c)
	case tree.CreateDirectory:
		err = r.store.CreateDirectory(ctx, c.Name)
	case tree.Delete:
		err = r.store.Delete(ctx, c.GUID)
	case tree.DeleteDirectory:
		err = r.store.DeleteDirectory(ctx, c.Name)
	case tree.Rename:
		err = r.store.Rename(ctx, c.Name, c.To, c.Time)
	case tree.Subscribe, tree.Unsubscribe:
		err = r.store.Subscribe(ctx, c.Name, c.Op == tree.Subscribe)
	case tree.SetGUID:
		err = r.store.SetGUID(ctx, c.Was, c.GUID)
		delete(r.bases, c.GUID) // likewise, see create
	default:
		err = fmt.Errorf("unknown tree change %d", c.Op)
	}
	return err == nil, err
}

// create makes a mailbox. One that is there already without ever having held anything (the INBOX of a fresh account) takes
// over the identity.
func (r *round) create(ctx context.Context, c tree.Change) (changed bool, err error) {
	err = r.store.Create(ctx, c.Name, c.GUID, c.UIDValidity)
	delete(r.bases, c.GUID) // that of one that had the GUID before; the store has forgotten it
	switch {
	case err == nil:
		return true, r.reserve(ctx, c)
	case !errors.Is(err, store.ErrExists):
		return false, err
	}
	boxes, _, terr := r.store.Tree(ctx)
	if terr != nil {
		return false, terr
	}
	for _, box := range boxes {
		if box.Name != c.Name || !unused(box) || box.Status.GUID.IsZero() {
			continue
		}
		if box.Status.GUID == c.GUID && box.Status.UIDValidity == c.UIDValidity {
			return false, nil
		}
		if box.Status.GUID != c.GUID {
			if err := r.store.SetGUID(ctx, box.Status.GUID, c.GUID); err != nil {
				return false, err
			}
		}
		return true, errors.Join(r.setUIDValidity(ctx, c.GUID, c.UIDValidity), r.reserve(ctx, c))
	}
	return false, err
}

// reserve keeps the UIDs that the other side gave in a mailbox from those that turn up here before its mails come. Should this round
// break off, a mail that a user moved would else have the UID under which the other side's log has its end.
func (r *round) reserve(ctx context.Context, c tree.Change) error {
	if c.UIDNext <= 1 || c.UIDNext > mail.MaxUID {
		return nil
	}
	return r.store.Reserve(ctx, c.GUID, c.UIDNext)
}

func (r *round) setUIDValidity(ctx context.Context, guid mail.MailboxGUID, v mail.UIDValidity) error {
	mb, err := r.store.Open(ctx, guid)
	if err != nil {
		return err
	}
	_, err = mb.Apply(ctx, store.Batch{Origin: r.origin(), UIDValidity: v})
	return errors.Join(err, mb.Close())
}
