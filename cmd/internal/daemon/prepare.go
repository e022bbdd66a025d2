package daemon

import (
	"context"
	"errors"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
	"dsyncfs/mirror/tree"
)

// place is a mailbox that is shown before its mails are here.
type place struct {
	name  mail.Name // here
	there mail.Name // at the remote, which may not have heard of a rename yet
	key   boxKey
	dir   string // below the root
	some  bool   // the remote has mails there
	here  map[mail.GUID]struct{}
	gone  map[mail.GUID128]struct{} // expunged here
}

// boxKey names a mailbox whatever programs call it: by its GUID, but for the INBOX, which may take over another one.
type boxKey string

func keyOf(name mail.Name, guid mail.MailboxGUID) boxKey {
	if name == mail.Inbox {
		return boxKey(mail.Inbox)
	}
	return boxKey(guid.String())
}

// withStore looks at the Maildir and hands it to do.
func (f *fill) withStore(ctx context.Context, do func(store.Store) error) (err error) {
	s, err := f.m.o.Local.Store(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	refuse := func([]store.Loss) error { return errLoss }
	if _, err := s.Refresh(ctx, store.RefreshOptions{Guard: refuse, Patience: lookPatience}); err != nil {
		return err
	}
	return errors.Join(do(s), s.EndRound(ctx))
}

// prepare makes the mailboxes that are not here yet, as the first round would, and returns those whose mails may be promised: they
// have no common state with the remote, no round has brought all their mails, and they held no mail before the fill.
func (f *fill) prepare(ctx context.Context, peer string, nodes []*item.Node) (shown map[mail.MailboxGUID]place, err error) {
	err = f.withStore(ctx, func(s store.Store) error {
		shown, err = f.prepareIn(ctx, s, peer, nodes)
		return err
	})
	return shown, err
}

func (f *fill) prepareIn(ctx context.Context, s store.Store, peer string, nodes []*item.Node) (map[mail.MailboxGUID]place, error) {
	bases, err := s.Base(ctx, peer)
	if err != nil {
		return nil, err
	}
	boxes, deletions, err := s.Tree(ctx)
	if err != nil {
		return nil, err
	}
	byName, byGUID := make(map[mail.Name]mail.Mailbox), make(map[mail.MailboxGUID]mail.Mailbox)
	for _, box := range boxes {
		byName[box.Name], byGUID[box.Status.GUID] = box, box
	}
	deleted := make(map[mail.GUID128]bool)
	for _, d := range deletions {
		deleted[d.ID] = true
	}
	shown := make(map[mail.MailboxGUID]place)
	for _, node := range f.sameNames(s, nodes) {
		if _, common := bases[node.guid]; common || deleted[mail.GUID128(node.guid)] {
			continue
		}
		box, there := byGUID[node.guid] // a program may have renamed it
		if !there {
			box, there = byName[node.name]
		}
		if !there {
			err := s.Create(ctx, node.name, node.guid, node.validity)
			if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrName) {
				continue // the round finds out what is to be done
			}
			if err != nil {
				return nil, err
			}
			box = mail.Mailbox{Name: node.name, Status: mail.Status{GUID: node.guid}}
		}
		status := box.Status
		if status.GUID.IsZero() || f.whole[status.GUID] || f.own[box.Name] {
			continue
		}
		at := place{name: box.Name, there: node.name, some: node.messages > 0}
		if at.key, err = f.intents.join(keyOf(box.Name, status.GUID), keyOf(box.Name, node.guid)); err != nil {
			return nil, err
		}
		if at.dir, err = f.m.o.Local.Layout.DirOf(at.name); err != nil {
			return nil, err
		}
		if status.Messages > 0 || f.again {
			if at.here, at.gone, err = knownIn(ctx, s, status.GUID); err != nil {
				return nil, err
			}
		}
		f.names.know(at.key, names{at.name, at.there})
		shown[node.guid] = at
	}
	return shown, nil
}

// remoteBox is a mailbox of the remote whose name can be the same here.
type remoteBox struct {
	name     mail.Name
	guid     mail.MailboxGUID
	validity mail.UIDValidity
	messages uint32
}

func (f *fill) sameNames(s store.Store, nodes []*item.Node) []remoteBox {
	caps := s.Capabilities()
	mapper := tree.Mapper{Separator: caps.Separator, AltChar: f.m.o.Request.AltChar, PartMax: caps.NamePartMax}
	parts := make([][]string, len(nodes))
	for i, n := range nodes {
		parts[i] = n.Parts
	}
	var out []remoteBox
	for i, name := range mapper.MapAll(parts) {
		n := nodes[i]
		if n.Existence == mail.Exists && !n.GUID.IsZero() && n.UIDValidity != 0 && mail.JoinName(n.Parts...) == name && name.Check() == nil {
			out = append(out, remoteBox{name, n.GUID, n.UIDValidity, n.Messages})
		}
	}
	return out
}

// knownIn returns what is in a mailbox, and what was expunged from it.
func knownIn(ctx context.Context, s store.Store, guid mail.MailboxGUID) (here map[mail.GUID]struct{}, gone map[mail.GUID128]struct{}, err error) {
	mb, err := s.Open(ctx, guid)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, mb.Close()) }()
	here, gone = make(map[mail.GUID]struct{}), make(map[mail.GUID128]struct{})
	for m, err := range mb.Messages(0) {
		if err != nil {
			return nil, nil, err
		}
		here[m.GUID] = struct{}{}
	}
	changes, _ := mb.Changes(0, "")
	for c, err := range changes {
		if err != nil {
			return nil, nil, err
		}
		if c.Expunged {
			gone[c.GUID128] = struct{}{}
		}
	}
	return here, gone, nil
}

// renew has the mount remember what programs wanted of mails that had not come when the mount before ended. The mailboxes may have
// other names by now.
func (f *fill) renew(ctx context.Context) error {
	wanted := f.intents.mailboxes()
	if len(wanted) == 0 {
		return nil // a look at the Maildir reads all names of a mailbox that no round has looked at yet
	}
	return f.withStore(ctx, func(s store.Store) error {
		boxes, _, err := s.Tree(ctx)
		if err != nil {
			return err
		}
		here := make(map[boxKey]mail.Name)
		for _, box := range boxes {
			here[f.intents.known(keyOf(box.Name, box.Status.GUID))] = box.Name
		}
		var errs []error
		for _, key := range wanted {
			name, there := here[key]
			if !there {
				continue // a program has removed it
			}
			f.names.know(key, names{name, name})
			dir, err := f.m.o.Local.Layout.DirOf(name)
			if err == nil {
				_, err = f.m.fuse.Promise(dir, f.source(key), nil, f.intents.of(key))
			}
			errs = append(errs, err)
		}
		return errors.Join(append(errs, context.Cause(ctx))...)
	})
}
