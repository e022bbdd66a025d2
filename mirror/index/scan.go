package index

import (
	"bytes"
	"iter"

	bolt "go.etcd.io/bbolt"
)

// scan yields what parse makes of the records of a bucket, from a key on (nil: all). open gives the bucket, nil for none. An
// error is yielded once and ends it. The transaction may be written to meanwhile: what comes after the current key is seen
// as it is then.
func scan[T any](t *tx, op string, from []byte, open func() (*bolt.Bucket, error), parse func(key, value []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		s := scanner[T]{open: open, parse: parse, key: append([]byte(nil), from...), writes: -1}
		for {
			err := t.read(op, func() error { return s.step(t) })
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			if s.end || !yield(s.value, nil) {
				return
			}
		}
	}
}

// scanner is the state of a scan.
type scanner[T any] struct {
	open   func() (*bolt.Bucket, error)
	parse  func(key, value []byte) (T, error)
	cursor *bolt.Cursor
	writes int    // of the transaction when the cursor was placed
	key    []byte // the last key, or before the first step where to start
	begun  bool
	value  T
	end    bool
}

// step moves to the next record and parses it.
func (s *scanner[T]) step(t *tx) error {
	key, value, err := s.advance(t)
	if err != nil || key == nil {
		s.end = true
		return err
	}
	s.begun = true
	s.key = append(s.key[:0], key...)
	s.value, err = s.parse(key, value)
	return err
}

// advance moves the cursor, or places it anew if the transaction wrote something since: bbolt's cursors do not survive that.
func (s *scanner[T]) advance(t *tx) (key, value []byte, err error) {
	if s.cursor != nil && s.writes == t.writes {
		key, value = s.cursor.Next()
		return key, value, nil
	}
	b, err := s.open()
	if err != nil || b == nil {
		return nil, nil, err
	}
	s.cursor, s.writes = b.Cursor(), t.writes
	key, value = s.cursor.Seek(s.key)
	if s.begun && bytes.Equal(key, s.key) {
		key, value = s.cursor.Next()
	}
	return key, value, nil
}
