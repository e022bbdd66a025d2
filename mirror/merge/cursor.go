package merge

import (
	"fmt"
	"iter"

	"dsyncfs/mirror/mail"
)

// nearby is how many entries a cursor steps over before it opens the sequence anew to get further.
const nearby = 64

// cursor walks a sequence of things by ascending UID, and can go back.
type cursor[T any] struct {
	open  func(after mail.UID) iter.Seq2[T, error]
	uidOf func(*T) mail.UID

	pull func() (T, error, bool)
	stop func()
	head T
	have bool     // head is valid
	past mail.UID // everything up to here is behind; head, if there is one, is above
}

// peek returns the next entry without passing it, nil at the end. It stays valid until the cursor moves.
func (c *cursor[T]) peek() (*T, error) {
	if c.have {
		return &c.head, nil
	}
	if c.open == nil {
		return nil, nil
	}
	if c.pull == nil {
		c.pull, c.stop = iter.Pull2(c.open(c.past))
	}
	head, err, ok := c.pull()
	if err != nil || !ok {
		return nil, err
	}
	if uid := c.uidOf(&head); uid <= c.past {
		return nil, fmt.Errorf("read messages: UID %d after %d", uid, c.past)
	}
	c.head, c.have = head, true
	return &c.head, nil
}

// advance passes the entry that peek returned.
func (c *cursor[T]) advance() {
	c.past, c.have = c.uidOf(&c.head), false
}

// at returns the entry of that UID, nil if there is none, and leaves the cursor before it.
func (c *cursor[T]) at(uid mail.UID) (*T, error) {
	head, err := c.seek(uid - 1)
	if err != nil || head == nil || c.uidOf(head) != uid {
		return nil, err
	}
	return head, nil
}

// seek moves to the first entry above after and returns it, nil if there is none.
func (c *cursor[T]) seek(after mail.UID) (*T, error) {
	if after < c.past {
		c.reopen(after)
	}
	for step := 0; ; step++ {
		head, err := c.peek()
		if err != nil || head == nil || c.uidOf(head) > after {
			return head, err
		}
		if step == nearby {
			c.reopen(after)
			continue
		}
		c.advance()
	}
}

func (c *cursor[T]) reopen(after mail.UID) {
	c.close()
	c.past = after
}

// close lets go of the sequence. The cursor may be used again.
func (c *cursor[T]) close() {
	if c.stop != nil {
		c.stop()
	}
	c.pull, c.stop, c.have = nil, nil, false
}

// above makes a sequence that starts above a UID of one that starts at the beginning.
func above[T any](all iter.Seq2[T, error], uidOf func(*T) mail.UID) func(mail.UID) iter.Seq2[T, error] {
	if all == nil {
		return nil
	}
	return func(after mail.UID) iter.Seq2[T, error] {
		return func(yield func(T, error) bool) {
			for v, err := range all {
				if err == nil && uidOf(&v) <= after {
					continue
				}
				if !yield(v, err) {
					return
				}
			}
		}
	}
}
