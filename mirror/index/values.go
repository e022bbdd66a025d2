package index

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	bolt "go.etcd.io/bbolt"

	"dsyncfs/mirror/mail"
)

// valueKey keeps bbolt, which has no empty keys, from seeing one.
func valueKey(key string) []byte { return append([]byte{'='}, key...) }

// Value implements [store.CatalogTx].
func (t *tx) Value(bucket, key string) (value []byte, err error) {
	err = t.read("read value", func() error {
		b := t.values.Bucket(valueKey(bucket))
		if b == nil {
			return nil
		}
		k := valueKey(key)
		stored := b.Get(k)
		if stored == nil {
			return nil
		}
		payload, err := unseal(kindValue, 0, k, stored)
		if err == nil {
			value = append([]byte{}, payload...)
		}
		return err
	})
	return value, err
}

// SetValue implements [store.CatalogTx]. A nil value removes the key, an empty one is kept.
func (t *tx) SetValue(bucket, key string, value []byte) error {
	return t.write("set value", func() error {
		name, k := valueKey(bucket), valueKey(key)
		if value == nil {
			b := t.values.Bucket(name)
			if b == nil {
				return nil
			}
			return b.Delete(k)
		}
		b, err := t.values.CreateBucketIfNotExists(name)
		if err != nil {
			return fmt.Errorf("bucket %q: %w", bucket, err)
		}
		return b.Put(k, seal(kindValue, 0, k, append(make([]byte, 0, len(value)+4), value...)))
	})
}

// Values implements [store.CatalogTx]. Damage ends it, and is the error of the transaction.
func (t *tx) Values(bucket string) iter.Seq2[string, []byte] {
	type pair struct {
		key   string
		value []byte
	}
	seq := scan(t, "read values", nil,
		func() (*bolt.Bucket, error) { return t.values.Bucket(valueKey(bucket)), nil },
		func(key, stored []byte) (pair, error) {
			payload, err := unseal(kindValue, 0, key, stored)
			if err != nil {
				return pair{}, err
			}
			return pair{string(key[1:]), append([]byte{}, payload...)}, nil
		})
	return func(yield func(string, []byte) bool) {
		for p, err := range seq {
			if err != nil || !yield(p.key, p.value) {
				return
			}
		}
	}
}

// valuesOf returns the names of the value buckets that belong to a mailbox: those that end in its GUID.
func (t *tx) valuesOf(guid mail.MailboxGUID) [][]byte {
	var names [][]byte
	suffix := []byte(guid.String())
	c := t.values.Cursor()
	for name, _ := c.First(); name != nil; name, _ = c.Next() {
		if bytes.HasSuffix(name, suffix) {
			names = append(names, bytes.Clone(name))
		}
	}
	return names
}

func (t *tx) dropValues(guid mail.MailboxGUID) error {
	var errs []error
	for _, name := range t.valuesOf(guid) {
		errs = append(errs, t.values.DeleteBucket(name))
	}
	return errors.Join(errs...)
}

// renameValues moves the values of one mailbox to another. What stood there is replaced.
func (t *tx) renameValues(from, to mail.MailboxGUID) error {
	if err := t.dropValues(to); err != nil {
		return err
	}
	for _, name := range t.valuesOf(from) {
		target, err := t.values.CreateBucket(append(name[:len(name)-len(from.String()):len(name)-len(from.String())], to.String()...))
		if err != nil {
			return err
		}
		err = t.values.Bucket(name).ForEach(func(k, v []byte) error {
			return target.Put(bytes.Clone(k), bytes.Clone(v))
		})
		if err != nil {
			return err
		}
		if err := t.values.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}
