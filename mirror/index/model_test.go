package index

import (
	"cmp"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// model is a catalog as maps.
type model struct {
	boxes  map[mail.MailboxGUID]*modelBox
	values map[[2]string][]byte
}

type modelBox struct {
	record   store.MailboxRecord
	messages map[mail.UID]store.MessageRecord
	log      []store.LogEntry
}

func (m model) clone() model {
	c := model{map[mail.MailboxGUID]*modelBox{}, maps.Clone(m.values)}
	for g, b := range m.boxes {
		c.boxes[g] = &modelBox{b.record, maps.Clone(b.messages), slices.Clone(b.log)}
	}
	return c
}

// TestAgainstModel does random things to an index and to maps, in transactions that sometimes fail, with reopenings between.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		path := newPath(t)
		x, err := Open(path, Options{})
		if err != nil {
			r.Fatal(err)
		}
		defer func() { _ = x.Close() }()
		m := model{map[mail.MailboxGUID]*modelBox{}, map[[2]string][]byte{}}
		for range rapid.IntRange(1, 12).Draw(r, "transactions") {
			undo := errors.New("undone")
			next := m.clone()
			err := x.Update(func(tx store.CatalogTx) error {
				for range rapid.IntRange(1, 25).Draw(r, "steps") {
					step(r, tx, next)
				}
				compare(r, tx, next)
				if rapid.IntRange(0, 4).Draw(r, "fail") == 0 {
					return undo
				}
				return nil
			})
			switch {
			case err == nil:
				m = next
			case !errors.Is(err, undo):
				r.Fatal(err)
			}
			if rapid.IntRange(0, 3).Draw(r, "reopen") == 0 {
				if err := x.Close(); err != nil {
					r.Fatal(err)
				}
				if x, err = Open(path, Options{}); err != nil {
					r.Fatal(err)
				}
			}
			if err := x.View(func(tx store.CatalogTx) error { compare(r, tx, m); return nil }); err != nil {
				r.Fatal(err)
			}
		}
	})
}

var (
	anyGUID = rapid.Map(rapid.ByteRange(1, 4), guid)
	anyUID  = rapid.Map(rapid.OneOf(rapid.Uint32Range(1, 40), rapid.Uint32Range(1, 1<<32-1)), func(n uint32) mail.UID { return mail.UID(n) })
	anyKey  = rapid.SampledFrom([]string{"", "a", "b", "\x00"})
	anyWord = rapid.SampledFrom([]string{"", "peer", "x", "0123456789abcdef0123456789abcdef", "cur/17.M1P2.host:2,S"})
	anySet  = rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ü", "$Junk"}), 0, 3), func(k []string) mail.Keywords {
		return mail.NewKeywords(k...)
	})
)

// anyBucket draws value buckets, some of which belong to mailboxes.
var anyBucket = rapid.SampledFrom([]string{"plain", "attributes/" + guid(1).String(), "attributes/" + guid(2).String()})

func drawMessage(r *rapid.T) store.MessageRecord {
	word := func(name string) string { return anyWord.Draw(r, name) }
	return store.MessageRecord{
		Message: mail.Message{
			UID: anyUID.Draw(r, "uid"), GUID: mail.GUID(word("guid")), Flags: mail.Flags(rapid.Byte().Draw(r, "flags")),
			Keywords: anySet.Draw(r, "keywords"), ModSeq: mail.ModSeq(rapid.Uint64().Draw(r, "modseq")),
			Received: rapid.Int64().Draw(r, "received"), Saved: rapid.Int64().Draw(r, "saved"), POP3UIDL: word("uidl"),
			POP3Order: rapid.Uint32().Draw(r, "order"), Size: rapid.Int64().Draw(r, "size"), VirtualSize: rapid.Int64().Draw(r, "virtual"),
		},
		File: word("file"),
	}
}

func drawEntry(r *rapid.T, above mail.ModSeq) store.LogEntry {
	return store.LogEntry{
		ModSeq: above + mail.ModSeq(rapid.IntRange(1, 3).Draw(r, "gap")), Kind: store.LogKind(rapid.IntRange(1, 3).Draw(r, "kind")),
		UID: anyUID.Draw(r, "uid"), GUID128: mail.GUID(anyWord.Draw(r, "guid")).Hash128(), Time: rapid.Int64().Draw(r, "time"),
		Origin: store.Origin(anyWord.Draw(r, "origin")),
		Delta:  mail.Delta{Add: mail.Flags(rapid.Byte().Draw(r, "add")), AddKeywords: anySet.Draw(r, "k"), RemoveKeywords: anySet.Draw(r, "k")},
	}
}

// step does one random thing to both.
func step(r *rapid.T, tx store.CatalogTx, m model) {
	g := anyGUID.Draw(r, "mailbox")
	b := m.boxes[g]
	want := func(err, want error) {
		if !errors.Is(err, want) {
			r.Fatalf("error %v, want %v", err, want)
		}
	}
	var missing error // what writing to this mailbox gives
	if b == nil {
		missing = store.ErrNotFound
	}
	switch rapid.IntRange(0, 8).Draw(r, "step") {
	case 0:
		rec := mailboxRecord(byte(rapid.IntRange(0, 9).Draw(r, "record")), mail.Name(rapid.SampledFrom([]string{"a", "a/b", "b"}).Draw(r, "name")))
		rec.Status.GUID = g
		want(tx.PutMailbox(rec), nil)
		if b == nil {
			b = &modelBox{messages: map[mail.UID]store.MessageRecord{}}
			m.boxes[g] = b
		}
		b.record = rec
	case 1:
		want(tx.DropMailbox(g), nil)
		if b != nil {
			delete(m.boxes, g)
			m.moveValues(g, mail.MailboxGUID{})
		}
	case 2:
		to := anyGUID.Draw(r, "to")
		err := tx.Rekey(g, to)
		switch {
		case b == nil:
			want(err, store.ErrNotFound)
		case to == g:
			want(err, nil)
		case m.boxes[to] != nil:
			want(err, store.ErrExists)
		default:
			want(err, nil)
			delete(m.boxes, g)
			m.boxes[to] = b
			b.record.Status.GUID = to
			m.moveValues(g, to)
		}
	case 3, 4:
		rec := drawMessage(r)
		want(tx.PutMessage(g, rec), missing)
		if b != nil {
			b.messages[rec.UID] = rec
		}
	case 5:
		uid := anyUID.Draw(r, "uid")
		want(tx.DropMessage(g, uid), missing)
		if b != nil {
			delete(b.messages, uid)
		}
	case 6:
		var above mail.ModSeq
		if b != nil && len(b.log) > 0 {
			above = b.log[len(b.log)-1].ModSeq
		}
		e := drawEntry(r, above+100) // above what was trimmed in this transaction
		if b == nil {
			want(tx.AppendLog(g, e), missing)
			return
		}
		if err := tx.AppendLog(g, e); err == nil { // refused only below what was trimmed
			b.log = append(b.log, e)
		}
	case 7:
		upTo := mail.ModSeq(rapid.IntRange(0, 600).Draw(r, "upTo"))
		want(tx.TrimLog(g, upTo), missing)
		if b != nil {
			b.log = slices.DeleteFunc(b.log, func(e store.LogEntry) bool { return e.ModSeq <= upTo })
		}
	case 8:
		bucket, key := anyBucket.Draw(r, "bucket"), anyKey.Draw(r, "key")
		value := rapid.SampledFrom([][]byte{nil, {}, []byte("v"), make([]byte, 9000)}).Draw(r, "value")
		want(tx.SetValue(bucket, key, value), nil)
		delete(m.values, [2]string{bucket, key})
		if value != nil {
			m.values[[2]string{bucket, key}] = value
		}
	}
}

// moveValues moves the values of one mailbox to another, a zero one meaning nowhere.
func (m model) moveValues(from, to mail.MailboxGUID) {
	take := func(g mail.MailboxGUID) map[string][]byte {
		taken := map[string][]byte{}
		for k, v := range m.values {
			if k[0] == "attributes/"+g.String() {
				taken[k[1]] = v
				delete(m.values, k)
			}
		}
		return taken
	}
	moved := take(from)
	if to.IsZero() {
		return
	}
	take(to)
	for k, v := range moved {
		m.values[[2]string{"attributes/" + to.String(), k}] = v
	}
}

// compare reads everything both ways.
func compare(r *rapid.T, tx store.CatalogTx, m model) {
	same := func(what string, got, want any) {
		if !reflect.DeepEqual(got, want) {
			r.Fatalf("%s: %+v, want %+v", what, got, want)
		}
	}
	var boxes, wantBoxes []store.MailboxRecord
	for rec, err := range tx.Mailboxes() {
		if err != nil {
			r.Fatal(err)
		}
		boxes = append(boxes, rec)
	}
	for _, b := range m.boxes {
		wantBoxes = append(wantBoxes, b.record)
	}
	slices.SortFunc(wantBoxes, func(x, y store.MailboxRecord) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), x.Status.GUID.Compare(y.Status.GUID))
	})
	same("mailboxes", boxes, wantBoxes)
	for g, b := range m.boxes {
		var messages, wantMessages []store.MessageRecord
		for rec, err := range tx.Messages(g, 20) {
			if err != nil {
				r.Fatal(err)
			}
			messages = append(messages, rec)
		}
		for _, uid := range slices.Sorted(maps.Keys(b.messages)) {
			if uid > 20 {
				wantMessages = append(wantMessages, b.messages[uid])
			}
			rec, ok, err := tx.Message(g, uid)
			if !ok || err != nil {
				r.Fatalf("message %d: %v, %v", uid, ok, err)
			}
			same("message", rec, b.messages[uid])
		}
		same("messages", messages, wantMessages)
		var log []store.LogEntry
		for e, err := range tx.Log(g, 0) {
			if err != nil {
				r.Fatal(err)
			}
			log = append(log, e)
		}
		same("log", log, slices.Clip(append([]store.LogEntry(nil), b.log...)))
	}
	values := map[[2]string][]byte{}
	for _, bucket := range []string{"plain", "attributes/" + guid(1).String(), "attributes/" + guid(2).String(), "attributes/" + guid(3).String(), "attributes/" + guid(4).String()} {
		for k, v := range tx.Values(bucket) {
			values[[2]string{bucket, k}] = v
		}
	}
	same("values", values, m.values)
}
