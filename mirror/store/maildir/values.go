package maildir

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// The buckets of catalog values that belong to this adapter. Times are seconds, 8 bytes.
const (
	bucketMeta          = "maildir"
	bucketBase          = "base/"         // + peer: mailbox GUID -> State, JSON
	bucketPeers         = "peers"         // every peer of which there are such states -> "1"
	bucketDeleted       = "deleted"       // kind byte + hex ID -> time
	bucketSubscriptions = "subscriptions" // name -> '0' or '1' + time of the change
	bucketDirectories   = "directories"   // name of a level that is no mailbox -> time of its making
	bucketAttributes    = "attributes/"   // + mailbox GUID: 's' or 'p' + key -> Attribute, JSON
	bucketUndecided     = "undecided"     // mailbox GUID -> how many mails are missing, and since when, JSON
	bucketLost          = "lost/"         // + mailbox GUID: lostKey -> Lost, JSON
	bucketReserved      = "reserved"      // mailbox GUID -> UID from which on UIDs may be given here, 4 bytes; see Reserve
	bucketPending       = "pending"       // mailbox GUID + "/" + base name -> identity, JSON; see Apply

	keyValidity      = "validity"      // highest UIDVALIDITY ever seen, 4 bytes
	keySubscriptions = "subscriptions" // how the file looked when it was read

	keyMailboxLog     = "mailbox log"      // likewise, see mailboxLogMark
	keyMailboxLogLast = "mailbox log last" // record of it, 24 bytes
)

func encodeTime(t int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(t)) }

func decodeTime(data []byte) int64 {
	if len(data) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(data))
}

func deletionKey(d mail.Deletion) string {
	return string(rune('0'+d.Kind)) + d.ID.String()
}

func putDeletion(tx store.CatalogTx, d mail.Deletion) error {
	return tx.SetValue(bucketDeleted, deletionKey(d), encodeTime(d.Time))
}

// cameBack forgets what is known of the mailbox that had a GUID before another one got it, or it was put back: that it was deleted,
// as the other side would delete it, should it get lost here, and a Dovecot that is told so of one that exists dies (2.3.19
// dsync-brain-mailbox-tree.c: dsync_brain_mailbox_tree_add_delete); its last common states, and UIDs that were reserved in it.
func cameBack(tx store.CatalogTx, guid mail.MailboxGUID) error {
	return errors.Join(forgetDeletion(tx, guid), forgetBases(tx, guid), tx.SetValue(bucketReserved, guid.String(), nil))
}

func forgetDeletion(tx store.CatalogTx, guid mail.MailboxGUID) error {
	d := mail.Deletion{Kind: mail.DeletedMailbox, ID: mail.GUID128(guid)}
	return tx.SetValue(bucketDeleted, deletionKey(d), nil)
}

func parseDeletion(key string, value []byte) (mail.Deletion, error) {
	if len(key) != 33 || key[0] < '0' || key[0] > '9' {
		return mail.Deletion{}, fmt.Errorf("deletion %q: %w", key, store.ErrCorrupt)
	}
	d := mail.Deletion{Kind: mail.DeletionKind(key[0] - '0'), Time: decodeTime(value)}
	_, err := hex.Decode(d.ID[:], []byte(key[1:]))
	return d, err
}

// forgetBases drops the last common states of a mailbox that is new under its GUID. They are those of one that had its GUID before: kept until
// now, as who deleted a mailbox has to tell up to where it knew it, but with them the mails of the new one would not count.
func forgetBases(tx store.CatalogTx, guid mail.MailboxGUID) error {
	for peer := range tx.Values(bucketPeers) {
		if err := tx.SetValue(bucketBase+peer, guid.String(), nil); err != nil {
			return err
		}
	}
	return nil
}

// putJSON sets a value.
func putJSON(tx store.CatalogTx, bucket, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.SetValue(bucket, key, data)
}

// decodeState reads the last common state of a mailbox.
func decodeState(key string, value []byte) (st store.State, err error) {
	if err = json.Unmarshal(value, &st); err != nil {
		err = fmt.Errorf("last common state of %s: %w: %w", key, store.ErrCorrupt, err)
	}
	return st, err
}

// attributeValue is what is kept of an attribute. The value may be any bytes.
type attributeValue struct {
	Value      []byte
	Deleted    bool  `json:",omitempty"`
	LastChange int64 `json:",omitempty"`
	ModSeq     mail.ModSeq
}

// putAttribute writes an attribute under its key, which says first whether it is shared or private.
func putAttribute(tx store.CatalogTx, bucket string, a store.Attribute) error {
	key := "p" + a.Key
	if a.Shared {
		key = "s" + a.Key
	}
	return putJSON(tx, bucket, key, attributeValue{Value: []byte(a.Value), Deleted: a.Deleted, LastChange: a.LastChange, ModSeq: a.ModSeq})
}

func decodeAttribute(key string, value []byte) (store.Attribute, error) {
	var v attributeValue
	if err := json.Unmarshal(value, &v); err != nil || key == "" {
		return store.Attribute{}, fmt.Errorf("attribute %q: %w: %w", key, store.ErrCorrupt, err)
	}
	return store.Attribute{
		Shared: key[0] == 's', Key: key[1:], Value: string(v.Value), Deleted: v.Deleted, LastChange: v.LastChange, ModSeq: v.ModSeq,
	}, nil
}
