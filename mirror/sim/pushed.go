package sim

import (
	"fmt"
	"sync"

	"dsyncfs/mirror/item"
)

// pushed watches the pushes that a replica takes: a mail that it had, and that a user moved at the other side, must not be nowhere
// on it until a later one. Three things may leave it so, until the next push or round: a round that broke off; a move while the
// other side went through its directories, which saw it leave the one and had looked at the other before; and a move to another
// name, which is a new mail, whose body may have to go ahead.
type pushed struct {
	mu      sync.Mutex
	due     bool            // a push has begun and the store is not open yet
	had     map[string]bool // what was there when it was opened for the push; nil: it is not
	refused bool
	err     error
}

// received takes note of what a replica gets. Outside of a round a push begins with a mailbox.
func (p *pushed) received(it item.Item, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch it.(type) {
	case *item.Mailbox:
		p.due = p.due || !open
	case *item.Handshake:
		p.due = false
	}
}

// opened takes note of the mails that are there.
func (p *pushed) opened(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.had = nil; p.due && len(r.w.moved) > 0 {
		p.had, p.due, p.refused = make(map[string]bool), false, false
		eachMail(r, func(content string) {
			if r.w.moved[content] {
				p.had[content] = true
			}
		})
	}
}

// sent takes note of what a replica says, and looks when it has answered a push.
func (p *pushed) sent(it item.Item, r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch it := it.(type) {
	case *item.Handshake:
		p.due, p.had = false, nil
	case *item.State:
		p.refused = p.refused || it.ChangesDuringSync
	case *item.EndOfList:
		if p.had != nil && !p.refused && p.err == nil {
			p.err = p.missing(r)
		}
		p.had = nil
	}
}

// missing returns an error about a mail that went, though nobody removed it.
func (p *pushed) missing(r *replica) error {
	eachMail(r, func(content string) { delete(p.had, content) })
	for _, content := range r.w.ledger.all() {
		if e := r.w.ledger.contents[content]; p.had[content] && r.w.ledger.owed(e) {
			return fmt.Errorf("nowhere: mail %d was moved, and a push took it away", e.n)
		}
	}
	return nil
}

// removed takes note of what a user of the replica removed meanwhile.
func (p *pushed) removed(content string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.had, content)
}

// nowhere returns what was found.
func (p *pushed) nowhere() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// eachMail calls do with the content of every mail of a replica that can be read.
func eachMail(r *replica, do func(content string)) {
	dirs, err := mailboxDirs(r.disk, r.layout)
	if err != nil {
		return // in the middle of a rename
	}
	for _, dir := range dirs {
		b := &boxView{dir: dir}
		for _, sub := range []string{"new", "cur"} {
			if err := b.readFiles(r.disk, sub); err != nil {
				break // a program is removing it
			}
		}
		for _, f := range b.files {
			do(f.content)
		}
	}
}
