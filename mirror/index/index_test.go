package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// logTo collects what an index warns of.
func logTo(w io.Writer) Options { return Options{Logger: slog.New(slog.NewTextHandler(w, nil))} }

// open opens an index in which nothing may be warned of.
func open(t testing.TB, path string) *Index {
	t.Helper()
	var log bytes.Buffer
	x, err := Open(path, logTo(&log))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if log.Len() > 0 {
			t.Errorf("warned: %s", &log)
		}
	})
	return x
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "state", "index.db") }

func update(t testing.TB, x *Index, f func(store.CatalogTx) error) {
	t.Helper()
	if err := x.Update(f); err != nil {
		t.Fatalf("update: %v", err)
	}
}

func view(t testing.TB, x *Index, f func(store.CatalogTx) error) {
	t.Helper()
	if err := x.View(f); err != nil {
		t.Fatalf("view: %v", err)
	}
}

func collect[T any](t testing.TB, seq iter.Seq2[T, error]) []T {
	t.Helper()
	var out []T
	for v, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func guid(n byte) mail.MailboxGUID { return mail.MailboxGUID{0xa0, n, 15: n} }

func mailboxRecord(n byte, name mail.Name) store.MailboxRecord {
	return store.MailboxRecord{
		Name:    name,
		Renamed: 1_700_000_000 + int64(n), LogStart: 1, Signature: []byte{1, 0, n},
		Status: mail.Status{
			GUID: guid(n), UIDValidity: 4000000000, UIDNext: 17, Messages: 0, FirstRecent: 3, HighestModSeq: 1 << 40,
		},
	}
}

// messageRecord is like what a Maildir keeps.
func messageRecord(uid mail.UID) store.MessageRecord {
	base := fmt.Sprintf("17000%05d.M%06dP%d.mail.example.org", uid, uid*7%1000000, uid%30000)
	return store.MessageRecord{
		Message: mail.Message{
			UID: uid, GUID: mail.GUID(base), Flags: mail.FlagSeen, ModSeq: mail.ModSeq(uid) + 1,
			Received: 1_700_000_000 + int64(uid), Size: 4000 + int64(uid), VirtualSize: 4100 + int64(uid),
		},
		File: "cur/" + base + fmt.Sprintf(",S=%d,W=%d:2,S", 4000+uid, 4100+uid),
	}
}

func TestNewIndexIsPrivateAndEmpty(t *testing.T) {
	path := newPath(t)
	x := open(t, path)
	for _, name := range []string{path, path + ".lock"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	if x.Epoch() == 0 {
		t.Error("the epoch is 0")
	}
	view(t, x, func(tx store.CatalogTx) error {
		if all := collect(t, tx.Mailboxes()); len(all) > 0 {
			t.Errorf("mailboxes %+v", all)
		}
		if v, err := tx.Value("none", "none"); v != nil || err != nil {
			t.Errorf("value %q, %v", v, err)
		}
		return nil
	})
	if err := CheckConsistency(x); err != nil {
		t.Error(err)
	}
}

func TestLooseModeIsTightened(t *testing.T) {
	path := newPath(t)
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestEverythingSurvivesReopening(t *testing.T) {
	path := newPath(t)
	x := open(t, path)
	epoch := x.Epoch()
	boxes := []store.MailboxRecord{mailboxRecord(1, "a"), mailboxRecord(2, "a.b"), mailboxRecord(3, "a/b"), mailboxRecord(4, "ä")}
	boxes[3].Signature = nil
	messages := []store.MessageRecord{messageRecord(1), messageRecord(2), messageRecord(5), messageRecord(1<<31 - 2)}
	messages[1].GUID, messages[1].Keywords = "0123456789abcdef0123456789abcdef", mail.NewKeywords("$Junk", "ä", "Work")
	messages[2] = store.MessageRecord{Message: mail.Message{UID: 5, Size: -1, VirtualSize: -1, Received: -5}}
	messages[3].GUID, messages[3].Saved, messages[3].POP3UIDL, messages[3].POP3Order = "other", 12, "uidl", 1<<32-1
	log := []store.LogEntry{
		{ModSeq: 2, Kind: store.LogAppend, UID: 1, Time: 1_700_000_000},
		{ModSeq: 3, Kind: store.LogExpunge, UID: 3, GUID128: mail.GUID("x").Hash128(), Origin: "peer", Time: -1},
		{ModSeq: 1 << 50, Kind: store.LogFlags, UID: 5, Delta: mail.Delta{
			Add: mail.FlagSeen, Remove: mail.FlagDraft, AddKeywords: mail.NewKeywords("a"), RemoveKeywords: mail.NewKeywords("b", "c"),
		}},
	}
	values := map[string][]byte{"": {}, "k": []byte("v"), "\x00ä": bytes.Repeat([]byte("long"), 5000)}
	update(t, x, func(tx store.CatalogTx) error {
		for _, i := range []int{2, 0, 3, 1} {
			if err := tx.PutMailbox(boxes[i]); err != nil {
				return err
			}
		}
		for _, i := range []int{3, 1, 0, 2} {
			if err := tx.PutMessage(guid(3), messages[i]); err != nil {
				return err
			}
		}
		for _, e := range log {
			if err := tx.AppendLog(guid(3), e); err != nil {
				return err
			}
		}
		for k, v := range values {
			if err := tx.SetValue("bucket", k, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = open(t, path)
	if x.Epoch() != epoch {
		t.Error("another epoch")
	}
	view(t, x, func(tx store.CatalogTx) error {
		if got := collect(t, tx.Mailboxes()); !reflect.DeepEqual(got, boxes) {
			t.Errorf("mailboxes %+v", got)
		}
		if got, ok, err := tx.Mailbox(guid(2)); !ok || err != nil || !reflect.DeepEqual(got, boxes[1]) {
			t.Errorf("mailbox %+v, %v, %v", got, ok, err)
		}
		if got := collect(t, tx.Messages(guid(3), 0)); !reflect.DeepEqual(got, messages) {
			t.Errorf("messages %+v\nwant %+v", got, messages)
		}
		if got := collect(t, tx.Messages(guid(3), 2)); len(got) != 2 || got[0].UID != 5 {
			t.Errorf("messages above 2: %+v", got)
		}
		if got := collect(t, tx.Messages(guid(3), 1<<32-1)); len(got) != 0 {
			t.Errorf("messages above the highest UID: %+v", got)
		}
		if got, ok, err := tx.Message(guid(3), 2); !ok || err != nil || !reflect.DeepEqual(got, messages[1]) {
			t.Errorf("message %+v, %v, %v", got, ok, err)
		}
		if _, ok, err := tx.Message(guid(3), 3); ok || err != nil {
			t.Errorf("message 3: %v, %v", ok, err)
		}
		if got := collect(t, tx.Log(guid(3), 0)); !reflect.DeepEqual(got, log) {
			t.Errorf("log %+v", got)
		}
		if got := collect(t, tx.Log(guid(3), 3)); len(got) != 1 {
			t.Errorf("log above 3: %+v", got)
		}
		if got := maps.Collect(tx.Values("bucket")); !reflect.DeepEqual(got, values) {
			t.Errorf("values %q", got)
		}
		var keys []string
		for k := range tx.Values("bucket") {
			keys = append(keys, k)
		}
		if !slices.IsSorted(keys) {
			t.Errorf("keys %q", keys)
		}
		return nil
	})
}

func TestFailedUpdateLeavesNothing(t *testing.T) {
	x := open(t, newPath(t))
	update(t, x, func(tx store.CatalogTx) error { return tx.PutMailbox(mailboxRecord(1, "kept")) })
	failure := errors.New("no")
	err := x.Update(func(tx store.CatalogTx) error {
		return errors.Join(
			tx.PutMailbox(mailboxRecord(2, "new")), tx.DropMailbox(guid(1)), tx.SetValue("b", "k", []byte("v")), failure)
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic did not pass")
			}
		}()
		_ = x.Update(func(tx store.CatalogTx) error {
			_ = tx.PutMailbox(mailboxRecord(3, "panics"))
			panic("bug")
		})
	}()
	view(t, x, func(tx store.CatalogTx) error {
		if all := collect(t, tx.Mailboxes()); len(all) != 1 || all[0].Name != "kept" {
			t.Errorf("mailboxes %+v", all)
		}
		if v, err := tx.Value("b", "k"); v != nil || err != nil {
			t.Errorf("value %q, %v", v, err)
		}
		return nil
	})
}

func TestWritingInAViewIsAnError(t *testing.T) {
	x := open(t, newPath(t))
	update(t, x, func(tx store.CatalogTx) error { return tx.PutMailbox(mailboxRecord(1, "a")) })
	view(t, x, func(tx store.CatalogTx) error {
		for name, err := range map[string]error{
			"PutMailbox":  tx.PutMailbox(mailboxRecord(1, "a")),
			"DropMailbox": tx.DropMailbox(guid(1)),
			"Rekey":       tx.Rekey(guid(1), guid(2)),
			"PutMessage":  tx.PutMessage(guid(1), messageRecord(1)),
			"DropMessage": tx.DropMessage(guid(1), 1),
			"AppendLog":   tx.AppendLog(guid(1), store.LogEntry{ModSeq: 5, Kind: store.LogAppend}),
			"TrimLog":     tx.TrimLog(guid(1), 5),
			"SetValue":    tx.SetValue("a", "b", nil),
		} {
			if !errors.Is(err, errReadOnly) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

func TestUseAfterTheEndIsAnError(t *testing.T) {
	x := open(t, newPath(t))
	var kept store.CatalogTx
	view(t, x, func(tx store.CatalogTx) error { kept = tx; return nil })
	if _, _, err := kept.Mailbox(guid(1)); !errors.Is(err, errEnded) {
		t.Errorf("error %v", err)
	}
	for _, err := range kept.Mailboxes() {
		if !errors.Is(err, errEnded) {
			t.Errorf("error %v", err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.View(func(store.CatalogTx) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("view of a closed index: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func TestMailboxIsRenamedRekeyedAndDropped(t *testing.T) {
	x := open(t, newPath(t))
	attrs := func(n byte) string { return "attributes/" + guid(n).String() }
	update(t, x, func(tx store.CatalogTx) error {
		return errors.Join(
			tx.PutMailbox(mailboxRecord(1, "a")), tx.PutMailbox(mailboxRecord(2, "b")),
			tx.PutMessage(guid(1), messageRecord(1)), tx.PutMessage(guid(2), messageRecord(9)),
			tx.AppendLog(guid(1), store.LogEntry{ModSeq: 7, Kind: store.LogAppend, UID: 1}),
			tx.SetValue(attrs(1), "key", []byte("one")), tx.SetValue(attrs(2), "key", []byte("two")))
	})
	update(t, x, func(tx store.CatalogTx) error { return tx.PutMailbox(mailboxRecord(1, "z")) })
	update(t, x, func(tx store.CatalogTx) error {
		if err := tx.Rekey(guid(1), guid(2)); !errors.Is(err, store.ErrExists) {
			t.Errorf("rekey to a GUID in use: %v", err)
		}
		if err := tx.Rekey(guid(8), guid(9)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("rekey of an unknown GUID: %v", err)
		}
		return tx.Rekey(guid(1), guid(3))
	})
	view(t, x, func(tx store.CatalogTx) error {
		all := collect(t, tx.Mailboxes())
		want := mailboxRecord(1, "z")
		want.Status.GUID = guid(3)
		if len(all) != 2 || !reflect.DeepEqual(all[1], want) {
			t.Errorf("mailboxes %+v", all)
		}
		if got := collect(t, tx.Messages(guid(3), 0)); len(got) != 1 || got[0].UID != 1 {
			t.Errorf("messages %+v", got)
		}
		if got := collect(t, tx.Messages(guid(1), 0)); len(got) != 0 {
			t.Errorf("messages of the old GUID %+v", got)
		}
		if got := collect(t, tx.Log(guid(3), 0)); len(got) != 1 {
			t.Errorf("log %+v", got)
		}
		if v, err := tx.Value(attrs(3), "key"); string(v) != "one" || err != nil {
			t.Errorf("attribute %q, %v", v, err)
		}
		return nil
	})
	update(t, x, func(tx store.CatalogTx) error { return tx.DropMailbox(guid(3)) })
	update(t, x, func(tx store.CatalogTx) error {
		if err := tx.PutMessage(guid(3), messageRecord(1)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("put into a dropped mailbox: %v", err)
		}
		return tx.PutMailbox(mailboxRecord(3, "z"))
	})
	view(t, x, func(tx store.CatalogTx) error {
		if n := len(collect(t, tx.Messages(guid(3), 0))) + len(collect(t, tx.Log(guid(3), 0))); n != 0 {
			t.Errorf("a dropped mailbox came back with %d records", n)
		}
		if v, err := tx.Value(attrs(3), "key"); v != nil || err != nil {
			t.Errorf("attribute %q, %v", v, err)
		}
		if v, err := tx.Value(attrs(2), "key"); string(v) != "two" || err != nil {
			t.Errorf("attribute of another mailbox %q, %v", v, err)
		}
		if got := collect(t, tx.Messages(guid(2), 0)); len(got) != 1 {
			t.Errorf("messages of another mailbox %+v", got)
		}
		return nil
	})
}

func TestLogOnlyMovesForward(t *testing.T) {
	x := open(t, newPath(t))
	entry := func(m mail.ModSeq) store.LogEntry { return store.LogEntry{ModSeq: m, Kind: store.LogAppend, UID: 1} }
	update(t, x, func(tx store.CatalogTx) error {
		if err := tx.PutMailbox(mailboxRecord(1, "a")); err != nil {
			return err
		}
		for m := mail.ModSeq(2); m <= 2000; m++ {
			if err := tx.AppendLog(guid(1), entry(m)); err != nil {
				return err
			}
		}
		return nil
	})
	lengths := map[mail.ModSeq]int{0: 1999, 1: 1999, 2: 1998, 1500: 500, 1999: 1, 2000: 0, 5000: 0}
	for _, upTo := range slices.Sorted(maps.Keys(lengths)) {
		update(t, x, func(tx store.CatalogTx) error {
			if err := tx.AppendLog(guid(1), entry(2)); err == nil && upTo <= 2000 {
				t.Error("an old modseq was appended")
			}
			return tx.TrimLog(guid(1), upTo)
		})
		view(t, x, func(tx store.CatalogTx) error {
			if got := collect(t, tx.Log(guid(1), 0)); len(got) != lengths[upTo] {
				t.Errorf("trimmed up to %d: %d entries, want %d", upTo, len(got), lengths[upTo])
			}
			return nil
		})
	}
}

func TestIteratorsSeeWritesAhead(t *testing.T) {
	x := open(t, newPath(t))
	update(t, x, func(tx store.CatalogTx) error {
		if err := tx.PutMailbox(mailboxRecord(1, "a")); err != nil {
			return err
		}
		for uid := mail.UID(1); uid <= 3000; uid++ {
			if err := tx.PutMessage(guid(1), messageRecord(uid)); err != nil {
				return err
			}
		}
		return nil
	})
	update(t, x, func(tx store.CatalogTx) error {
		want := mail.UID(1)
		for m, err := range tx.Messages(guid(1), 0) {
			if err != nil {
				return err
			}
			if m.UID != want {
				t.Fatalf("UID %d, want %d", m.UID, want)
			}
			want++
			switch m.UID % 3 {
			case 0:
				err = tx.DropMessage(guid(1), m.UID)
			case 1:
				m.Keywords = mail.NewKeywords(strings.Repeat("k", 100))
				err = tx.PutMessage(guid(1), m)
			default:
				if err = tx.DropMessage(guid(1), m.UID+1); m.UID+1 == want {
					want++
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	view(t, x, func(tx store.CatalogTx) error {
		if got := collect(t, tx.Messages(guid(1), 0)); len(got) != 2000 {
			t.Errorf("%d messages are left", len(got))
		}
		return nil
	})
}

func TestYieldedValuesOutliveTheTransaction(t *testing.T) {
	x := open(t, newPath(t))
	want := messageRecord(1)
	update(t, x, func(tx store.CatalogTx) error {
		return errors.Join(tx.PutMailbox(mailboxRecord(1, "a")), tx.PutMessage(guid(1), want), tx.SetValue("b", "k", []byte("value")))
	})
	var boxes []store.MailboxRecord
	var messages []store.MessageRecord
	var value []byte
	view(t, x, func(tx store.CatalogTx) error {
		boxes, messages = collect(t, tx.Mailboxes()), collect(t, tx.Messages(guid(1), 0))
		var err error
		value, err = tx.Value("b", "k")
		return err
	})
	if err := x.Close(); err != nil { // unmaps the file
		t.Fatal(err)
	}
	if !reflect.DeepEqual(boxes, []store.MailboxRecord{mailboxRecord(1, "a")}) || !reflect.DeepEqual(messages, []store.MessageRecord{want}) || string(value) != "value" {
		t.Errorf("%+v %+v %q", boxes, messages, value)
	}
}

func TestPutMailboxRefusesBadRecords(t *testing.T) {
	x := open(t, newPath(t))
	for _, r := range []store.MailboxRecord{
		{Name: "no GUID"},
		mailboxRecord(1, "nul\x00"),
		mailboxRecord(1, mail.Name(strings.Repeat("x", mail.MaxName+1))),
	} {
		if err := x.Update(func(tx store.CatalogTx) error { return tx.PutMailbox(r) }); !errors.Is(err, store.ErrName) {
			t.Errorf("%.20q: %v", r.Name, err)
		}
	}
}

func TestInUse(t *testing.T) {
	path := newPath(t)
	x := open(t, path)
	start := time.Now()
	_, err := Open(path, Options{Timeout: 100 * time.Millisecond})
	var inUse *InUseError
	if !errors.As(err, &inUse) || !errors.Is(err, ErrInUse) || inUse.PID != os.Getpid() || inUse.Name == "" {
		t.Fatalf("error %v", err)
	}
	if waited := time.Since(start); waited < 100*time.Millisecond {
		t.Errorf("waited %v only", waited)
	}
	if want := fmt.Sprintf("in use by pid %d (", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("error %q does not say %q", err, want)
	}
	opened := make(chan error)
	go func() {
		y, err := Open(path, Options{Timeout: time.Minute})
		if err == nil {
			err = y.Close()
		}
		opened <- err
	}()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("the waiting process: %v", err)
	}
}

// TestViewsAndUpdatesAtOnce reads while it writes; each View must see whole updates.
func TestViewsAndUpdatesAtOnce(t *testing.T) {
	x := open(t, newPath(t))
	const last = 60
	errs := make(chan error, 4)
	done := make(chan struct{})
	for range 3 {
		go func() {
			for {
				select {
				case <-done:
					errs <- nil
					return
				default:
				}
				if err := CheckConsistency(x); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	go func() {
		defer close(done)
		for n := 1; n <= last; n++ {
			if err := x.Update(func(tx store.CatalogTx) error { return addRound(tx, n) }); err != nil {
				errs <- err
				return
			}
		}
		errs <- nil
	}()
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n, err := rounds(x); n != last || err != nil {
		t.Errorf("%d rounds, %v", n, err)
	}
}

// TestCheckConsistencyFindsEveryBreach breaks each of the rules once.
func TestCheckConsistencyFindsEveryBreach(t *testing.T) {
	good := mailboxRecord(1, "a")
	good.Status.Messages, good.Status.UIDNext, good.Status.HighestModSeq, good.LogStart = 1, 10, 50, 5
	message := func(uid mail.UID, m mail.ModSeq) store.MessageRecord {
		return store.MessageRecord{Message: mail.Message{UID: uid, ModSeq: m}}
	}
	for name, c := range map[string]struct {
		want string
		put  func(tx store.CatalogTx) error
	}{
		"": {"", func(store.CatalogTx) error { return nil }},
		"a UID at UIDNEXT": {"UID 10 after 0", func(tx store.CatalogTx) error {
			return errors.Join(tx.DropMessage(guid(1), 3), tx.PutMessage(guid(1), message(10, 7)))
		}},
		"a modseq above the highest": {"modseq 51", func(tx store.CatalogTx) error { return tx.PutMessage(guid(1), message(3, 51)) }},
		"a modseq of zero":           {"modseq 0", func(tx store.CatalogTx) error { return tx.PutMessage(guid(1), message(3, 0)) }},
		"a wrong count":              {"2 messages, the status says 1", func(tx store.CatalogTx) error { return tx.PutMessage(guid(1), message(4, 7)) }},
		"a log entry above the highest": {"log: modseq 51", func(tx store.CatalogTx) error {
			return tx.AppendLog(guid(1), store.LogEntry{ModSeq: 51, Kind: store.LogAppend, UID: 3})
		}},
		"a log entry of a future UID": {"log: UID 11", func(tx store.CatalogTx) error {
			return tx.AppendLog(guid(1), store.LogEntry{ModSeq: 9, Kind: store.LogAppend, UID: 11})
		}},
		"an expunged message": {"UID 3 was expunged", func(tx store.CatalogTx) error {
			return tx.AppendLog(guid(1), store.LogEntry{ModSeq: 9, Kind: store.LogExpunge, UID: 3})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			x := open(t, newPath(t))
			update(t, x, func(tx store.CatalogTx) error {
				return errors.Join(tx.PutMailbox(good), tx.PutMessage(guid(1), message(3, 7)), c.put(tx))
			})
			err := CheckConsistency(x)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
