package dsync

import (
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
)

// Generators of items as a brain makes them. Streams are left out; the tests of Peer have them.

var (
	anyText = rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte("ab.\x00\x01\x02\t\n\r \xff\xc3")), 0, 12).Draw(t, "text"))
	})
	someText = anyText.Filter(func(s string) bool { return s != "" })
	wordText = rapid.StringMatching(`[!-~]{1,20}`)
	names    = rapid.OneOf(rapid.Just([]string(nil)), rapid.SliceOfN(someText, 0, 4))
	someOf   = rapid.OneOf(rapid.Just([]string(nil)), rapid.SliceOfN(someText, 1, 4))
	uids     = rapid.Uint32Range(1, uint32(mail.MaxUID))
	times    = rapid.Int64Range(-math.MaxInt64, math.MaxInt64)
	modSeqs  = rapid.Custom(func(t *rapid.T) mail.ModSeq { return mail.ModSeq(rapid.Uint64().Draw(t, "modseq")) })
	guids    = rapid.Custom(func(t *rapid.T) mail.MailboxGUID {
		return mail.MailboxGUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "guid"))
	})
	flagSets = rapid.Custom(func(t *rapid.T) mail.Flags {
		return mail.Flags(rapid.Byte().Draw(t, "flags")) & mail.AllFlags
	})
)

var itemGenerators = map[string]*rapid.Generator[item.Item]{
	"handshake": rapid.Custom(func(t *rapid.T) item.Item {
		b, n := rapid.Bool(), rapid.Int64Range(0, math.MaxInt64)
		h := &item.Handshake{
			Hostname: anyText.Draw(t, "host"), VisibleNamespaces: b.Draw(t, "v"), Box: anyText.Draw(t, "box"),
			Type: rapid.SampledFrom([]item.SyncType("fcs")).Draw(t, "type"), Debug: b.Draw(t, "debug"),
			Exclude: someOf.Draw(t, "exclude"), SendMailRequests: b.Draw(t, "requests"), BackupSend: b.Draw(t, "send"),
			LockTimeout: rapid.Uint32().Draw(t, "lock"), NoMailSync: b.Draw(t, "nomail"), NoBackupOverwrite: b.Draw(t, "noover"),
			PurgeRemote: b.Draw(t, "purge"), NoNotify: b.Draw(t, "nonotify"), Since: n.Draw(t, "since"), Until: n.Draw(t, "until"),
			MaxSize: rapid.Uint64().Draw(t, "size"), Flag: anyText.Draw(t, "flag"), VirtualAllBox: anyText.Draw(t, "all"),
			EmptyHeaderWorkaround: b.Draw(t, "empty"), CommitInterval: rapid.Uint32().Draw(t, "commit"),
			HashedHeaders: someOf.Draw(t, "hashed"), AltChar: rapid.SampledFrom([]string{"", "_", "é"}).Draw(t, "alt"),
			Dsyncfs: rapid.Uint32().Draw(t, "dsyncfs"), Live: b.Draw(t, "live"), Hurry: b.Draw(t, "hurry"), DryRun: b.Draw(t, "dry"), Verify: b.Draw(t, "verify"),
			AllowExpunge: names.Draw(t, "allow"), Restore: names.Draw(t, "restore"), Boxes: names.Draw(t, "boxes"),
			Epoch: rapid.Uint64().Draw(t, "epoch"),
		}
		h.BackupReceive = !h.BackupSend && b.Draw(t, "receive")
		if b.Draw(t, "prefixes") {
			h.NamespacePrefixes = rapid.SliceOfN(rapid.StringMatching(`[a-z/]*`), 1, 3).Draw(t, "prefixes")
		}
		if b.Draw(t, "byguid") {
			h.BoxGUID = guids.Draw(t, "boxguid").String()
		}
		return h
	}),
	"state": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.State{
			GUID: guids.Draw(t, "guid"), UIDValidity: mail.UIDValidity(rapid.Uint32().Draw(t, "validity")),
			LastCommonUID: mail.UID(uids.Draw(t, "uid")), LastCommonModSeq: modSeqs.Draw(t, "modseq"),
			LastCommonPvtModSeq: modSeqs.Draw(t, "pvt"), Messages: rapid.Uint32().Draw(t, "messages"),
			ChangesDuringSync: rapid.Bool().Draw(t, "changes"), Epoch: rapid.Uint64().Draw(t, "epoch"),
			UIDNext: mail.UID(uids.Draw(t, "next")), HighestModSeq: modSeqs.Draw(t, "highest"),
		}
	}),
	"node": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Node{
			Parts: rapid.SliceOfN(someText, 1, 5).Draw(t, "parts"), GUID: guids.Draw(t, "guid"),
			Existence:   rapid.SampledFrom([]mail.Existence{mail.Absent, mail.Exists, mail.Deleted}).Draw(t, "existence"),
			UIDValidity: mail.UIDValidity(rapid.Uint32().Draw(t, "validity")), UIDNext: mail.UID(uids.Draw(t, "next")),
			Renamed: times.Draw(t, "renamed"), Subscribed: rapid.Bool().Draw(t, "subscribed"),
			SubscriptionChanged: times.Draw(t, "subscription"), Messages: rapid.Uint32().Draw(t, "messages"),
			HighestModSeq: modSeqs.Draw(t, "modseq"), NoState: rapid.Bool().Draw(t, "no state"),
		}
	}),
	"deletes": rapid.Custom(func(t *rapid.T) item.Item {
		d := &item.Deletes{Separator: rapid.ByteRange(1, 255).Draw(t, "sep"), Escape: rapid.Byte().Draw(t, "escape")}
		for kind := mail.DeletedMailbox; kind <= mail.Unsubscribed; kind++ {
			for range rapid.IntRange(0, 3).Draw(t, "n") {
				d.Deletions = append(d.Deletions, mail.Deletion{Kind: kind, ID: mail.GUID128(guids.Draw(t, "id")), Time: times.Draw(t, "time")})
			}
		}
		return d
	}),
	"mailbox": rapid.Custom(func(t *rapid.T) item.Item {
		b := rapid.Bool()
		box := &item.Mailbox{
			Status: mail.Status{
				GUID: guids.Draw(t, "guid"), UIDValidity: mail.UIDValidity(uids.Draw(t, "validity")),
				UIDNext: mail.UID(uids.Draw(t, "next")), Messages: rapid.Uint32().Draw(t, "messages"),
				FirstRecent: mail.UID(uids.Draw(t, "recent")), HighestModSeq: modSeqs.Draw(t, "modseq"),
			},
			HighestPvtModSeq: modSeqs.Draw(t, "pvt"), Lost: b.Draw(t, "lost"), Ignore: b.Draw(t, "ignore"),
			CacheFields: anyText.Draw(t, "cache"), HaveGUIDs: b.Draw(t, "guids"), HaveSaveGUIDs: b.Draw(t, "save"),
			HaveOnlyGUID128: b.Draw(t, "only"), NoBase: b.Draw(t, "nobase"), Since: modSeqs.Draw(t, "since"),
			Digest: mail.ContentHash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")),
		}
		box.GUID[0] |= 1
		if box.Lost {
			box.UIDValidity, box.UIDNext = 0, 0
		}
		return box
	}),
	"attribute": rapid.Custom(func(t *rapid.T) item.Item {
		a := &item.Attribute{
			Shared: rapid.Bool().Draw(t, "shared"), Key: rapid.StringMatching(`[ -~é]{1,20}`).Draw(t, "key"),
			Deleted: rapid.Bool().Draw(t, "deleted"), LastChange: times.Draw(t, "change"), ModSeq: modSeqs.Draw(t, "modseq"),
		}
		if !a.Deleted {
			a.Value = anyText.Draw(t, "value")
		}
		return a
	}),
	"change": rapid.Custom(func(t *rapid.T) item.Item {
		b := rapid.Bool()
		c := &item.Change{
			Type: rapid.SampledFrom([]item.ChangeType("sef")).Draw(t, "type"), UID: mail.UID(uids.Draw(t, "uid")),
			HasHeaderHash: b.Draw(t, "hashed"), ModSeq: modSeqs.Draw(t, "modseq"), PvtModSeq: modSeqs.Draw(t, "pvt"),
			Add: flagSets.Draw(t, "add"), Remove: flagSets.Draw(t, "remove"), Final: flagSets.Draw(t, "final"),
			KeywordsReset: b.Draw(t, "reset"), Received: rapid.Int64Range(0, math.MaxInt64).Draw(t, "received"),
			HasSize: b.Draw(t, "sized"), Content: mail.ContentHash(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "content")),
			POP3: rapid.StringMatching(`([0-9]+ [!-~]+)?`).Draw(t, "pop3"), Size: rapid.Int64Range(0, math.MaxInt64).Draw(t, "physical"),
			Past: rapid.SampledFrom([]item.Past{item.PastNone, item.PastMet, item.PastBrought, item.PastRenumbered, item.PastTold}).Draw(t, "past"),
		}
		c.Remove &^= c.Add
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			c.Keywords = append(c.Keywords, item.KeywordChange{
				Op: rapid.SampledFrom([]item.KeywordOp("+-=&")).Draw(t, "op"), Name: wordText.Draw(t, "keyword"),
			})
		}
		if c.Type == item.ChangeExpunge {
			c.GUID128 = mail.GUID128(guids.Draw(t, "guid"))
		} else if b.Draw(t, "hasguid") {
			c.GUID = mail.GUID(wordText.Draw(t, "guid"))
		}
		if c.HasHeaderHash && b.Draw(t, "hash") {
			c.HeaderHash = guids.Draw(t, "hash").String()
		}
		if c.HasSize {
			c.VirtualSize = rapid.Uint64().Draw(t, "size")
		}
		return c
	}),
	"request": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Request{
			GUID: mail.GUID(rapid.StringMatching(`[!-~]{0,9}`).Draw(t, "guid")), UID: mail.UID(uids.Draw(t, "uid")),
			Mailbox: mail.Name(rapid.StringMatching(`[!-~é/ ]{0,9}`).Draw(t, "mailbox")), Have: rapid.Uint64Max(math.MaxInt64).Draw(t, "have"),
		}
	}),
	"mail": rapid.Custom(func(t *rapid.T) item.Item {
		m := &item.Mail{
			POP3UIDL: rapid.StringMatching(`[!-~]{0,9}`).Draw(t, "uidl"), POP3Order: rapid.Uint32().Draw(t, "order"),
			Received: rapid.Int64Range(0, math.MaxInt64).Draw(t, "received"), Saved: times.Draw(t, "saved"),
			Offset: rapid.Uint64Max(math.MaxInt64).Draw(t, "offset"),
		}
		if rapid.Bool().Draw(t, "byuid") {
			m.UID = mail.UID(uids.Draw(t, "uid"))
		} else {
			m.GUID = mail.GUID(wordText.Draw(t, "guid"))
		}
		return m
	}),
	"finish": rapid.Custom(func(t *rapid.T) item.Item {
		b := rapid.Bool()
		return &item.Finish{
			Error: anyText.Draw(t, "error"), MailError: rapid.Uint32().Draw(t, "code"), RequireFullResync: b.Draw(t, "full"),
			Desync: b.Draw(t, "desync"), Guard: b.Draw(t, "guard"), Changed: b.Draw(t, "changed"), Plan: anyText.Draw(t, "plan"), New: rapid.Uint32().Draw(t, "new"),
			Matched: rapid.Uint32().Draw(t, "matched"), Undecided: rapid.Bool().Draw(t, "undecided"),
		}
	}),
	"wake": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Wake{Mailboxes: someOf.Draw(t, "mailboxes")}
	}),
	"parcel": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Parcel{
			GUID: mail.GUID(wordText.Draw(t, "guid")), Offset: rapid.Uint64Max(math.MaxInt64).Draw(t, "offset"),
			Size: rapid.Uint64Max(math.MaxInt64).Draw(t, "size"), Data: string(rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "data")),
		}
	}),
	"receipt": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Receipt{GUID: mail.GUID(wordText.Draw(t, "guid")), Got: rapid.Uint64Max(math.MaxInt64).Draw(t, "got")}
	}),
	"preview": rapid.Custom(func(t *rapid.T) item.Item {
		return &item.Preview{Version: rapid.Uint32().Draw(t, "version"), Bodies: rapid.Bool().Draw(t, "bodies")}
	}),
}

// lineOf encodes it under our field lists; ext says whether the peer is a dsyncfs.
func lineOf(it item.Item, ext bool) ([]byte, error) {
	var r record
	if _, err := r.encode(it); err != nil {
		return nil, err
	}
	return ownLayout(r.kind, ext).appendLine(nil, &r), nil
}

// itemOf decodes a line of a peer that announced our own field lists.
func itemOf(line []byte) (item.Item, error) {
	d := fields{record: &record{}, words: words{}}
	if err := ownLayout(kindOf(line[0]), true).parseLine(d.record, line[1:]); err != nil {
		return nil, err
	}
	it, _, err := d.decode(featuresOf(Minor))
	return it, err
}

func TestItemsSurviveTheWire(t *testing.T) {
	for name, items := range itemGenerators {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				it := items.Draw(t, "item")
				line, err := lineOf(it, true)
				if err != nil {
					t.Fatal(err)
				}
				if strings.ContainsAny(string(line), "\x00\n\r") {
					t.Fatalf("line %q", line)
				}
				got, err := itemOf(line)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if !reflect.DeepEqual(got, it) {
					t.Fatalf("%q:\ngot  %+v\nwant %+v", line, got, it)
				}
			})
		})
	}
}

// TestGeneratorsKnowEveryField fails when an item gets a field that the tests above would not notice to be lost.
func TestGeneratorsKnowEveryField(t *testing.T) {
	streams := map[string]bool{"Body": true, "Stream": true}
	for name, items := range itemGenerators {
		missing := map[string]bool{}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(items.Example(0)).Elem()) {
			missing[f.Name] = !streams[f.Name] && !f.Anonymous
		}
		for seed := range 100 {
			v := reflect.ValueOf(items.Example(seed)).Elem()
			for _, f := range reflect.VisibleFields(v.Type()) {
				if !v.FieldByIndex(f.Index).IsZero() {
					missing[f.Name] = false
				}
			}
		}
		for field, is := range missing {
			if is {
				t.Errorf("%s.%s is never set", name, field)
			}
		}
	}
}

// TestDovecotSeesNothingOfOurs holds that what goes to a stock peer is decoded the same with its shorter field lists, and
// that it is what an item without our fields looks like.
func TestDovecotSeesNothingOfOurs(t *testing.T) {
	for name, items := range itemGenerators {
		rapid.Check(t, func(t *rapid.T) {
			it := items.Draw(t, name)
			line, err := lineOf(it, false)
			if err != nil {
				t.Fatal(err)
			}
			if kindOf(line[0]).ours {
				return // is not sent at all: TestStockPeerSeesNoExtension
			}
			clearOurs(it)
			bare, err := lineOf(it, true)
			if err != nil || string(bare) != string(line) {
				t.Fatalf("%q, without our fields %q, %v", line, bare, err)
			}
		})
	}
}

func clearOurs(it item.Item) {
	switch it := it.(type) {
	case *item.Handshake:
		it.Dsyncfs, it.Live, it.Hurry, it.DryRun, it.Verify, it.Epoch = 0, false, false, false, false, 0
		it.AllowExpunge, it.Restore, it.Boxes = nil, nil, nil
	case *item.State:
		it.Epoch, it.UIDNext, it.HighestModSeq = 0, 0, 0
	case *item.Node:
		it.Messages, it.HighestModSeq, it.NoState = 0, 0, false
	case *item.Mailbox:
		it.NoBase, it.Since, it.Digest = false, 0, mail.ContentHash{}
	case *item.Change:
		it.Content, it.POP3, it.Size, it.Past = mail.ContentHash{}, "", 0, item.PastNone
	case *item.Finish:
		it.Desync, it.Guard, it.Changed, it.Plan, it.New, it.Matched, it.Undecided = false, false, false, "", 0, 0, false
	case *item.Request:
		it.Have, it.Mailbox = 0, ""
	case *item.Mail:
		it.Offset = 0
	case *item.Wake:
		it.Mailboxes = nil
	case *item.Preview:
		it.Version, it.Bodies = 0, false
	}
}

func TestMalformedLinesAreRefused(t *testing.T) {
	guid := "b67690134123046bd809000047b22664"
	for _, c := range []struct{ name, line, field string }{
		{"a required field is absent", "N\x02\ty", "name"},
		{"a required field is missing at the end", "NINBOX", "existence"},
		{"more fields than announced", "R" + strings.Repeat("a\t", 5), "more fields"},
		{"an unknown existence", "NINBOX\tx", "existence"},
		{"two letters of existence", "NINBOX\tyy", "existence"},
		{"an empty name", "N\ty", "name"},
		{"an empty part of a name", "Na\x01t\x01tb\ty", "name"},
		{"a name of too many levels", "N" + strings.Repeat("a\x01t", maxLevels) + "a\ty", "name"},
		{"a short mailbox GUID", "NINBOX\ty\tb676", "mailbox_guid"},
		{"a mailbox GUID that is not hex", "NINBOX\ty\t" + strings.Repeat("g", 32), "mailbox_guid"},
		{"a UIDVALIDITY of 33 bits", "NINBOX\ty\t" + guid + "\t4294967296", "uid_validity"},
		{"a UIDNEXT beyond all UIDs", "NINBOX\ty\t" + guid + "\t1\t2147483649", "uid_next"},
		{"a number that is not one", "NINBOX\ty\t" + guid + "\t1x", "uid_validity"},
		{"an empty number", "NINBOX\ty\t" + guid + "\t\t1", "uid_validity"},
		{"a number with a sign", "NINBOX\ty\t" + guid + "\t+1", "uid_validity"},
		{"a time beyond 64 bits", "NINBOX\ty\t\x02\t\x02\t\x02\t9223372036854775808", "last_renamed_or_created"},
		{"a separator of two characters", "D//", "hierarchy_sep"},
		{"an empty separator", "D\t%", "hierarchy_sep"},
		{"an escape of two characters", "D/\t%%", "escape_char"},
		{"a deletion without time", "D/\t%\t" + guid, "mailboxes"},
		{"a deletion with a bad GUID", "D/\t%\t\x02\tdead 1", "dirs"},
		{"a space after the deletions", "D/\t%\t\x02\t\x02\t" + guid + " 1 ", "unsubscribes"},
		{"a mailbox without GUID", "B" + strings.Repeat("0", 32) + "\t1\t1\t0\t1\t1\t0", "mailbox_guid"},
		{"a mailbox without UIDVALIDITY", "B" + guid + "\t0\t1\t0\t1\t1\t0", "uid_validity"},
		{"a mailbox without UIDNEXT", "B" + guid + "\t1\t0\t0\t1\t1\t0", "uid_next"},
		{"a modseq of 65 bits", "B" + guid + "\t1\t1\t0\t1\t18446744073709551616\t0", "highest_modseq"},
		{"an unknown attribute type", "Ax\tkey\tvalue", "type"},
		{"an attribute without key", "Ap\t\tvalue", "key"},
		{"an attribute without value", "Ap\tkey", "exactly one"},
		{"an attribute with value and deletion", "Ap\tkey\tvalue\t\x02\t", "exactly one"},
		{"an attribute with value and stream", "Ap\tkey\tvalue\t", "exactly one"},
		{"an unknown change", "Cx\t1", "type"},
		{"a change of UID 0", "Cs\t0", "uid"},
		{"a UID beyond 2^31", "Cs\t2147483648", "uid"},
		{"flags beyond a byte", "Cs\t1\tg\t\x02\t1\t\x02\t100", "add_flags"},
		{"flags added and removed", "Cs\t1\tg\t\x02\t1\t\x02\t1\t9", "remove_flags"},
		{"an expunge with a GUID that is no hash", "Ce\t1\t1767261600.M000001P1.example", "guid"},
		{"a GUID that is too long", "Cs\t1\t" + strings.Repeat("a", maxGUID+1), "guid"},
		{"a GUID with a line break", "Cs\t1\ta\x01nb", "guid"},
		{"a header hash that is none", "Cs\t1\tg\tx", "hdr_hash"},
		{"a keyword without type", "Cs\t1\tg\t\x02\t1\t\x02\t\x02\t\x02\t\x02\t\x02\tabc", "keyword_changes"},
		{"a keyword without name", "Cs\t1\tg\t\x02\t1\t\x02\t\x02\t\x02\t\x02\t\x02\t+", "keyword_changes"},
		{"a keyword with a line break", "Cs\t1\tg\t\x02\t1\t\x02\t\x02\t\x02\t\x02\t\x02\t+a\x011nb", "keyword_changes"},
		{"an empty keyword in a list", "Cs\t1\tg\t\x02\t1\t\x02\t\x02\t\x02\t\x02\t\x02\t+a\x01t\x01t+b", "keyword_changes"},
		{"a content hash of another length", "Cs\t1\tg" + strings.Repeat("\t\x02", 10) + "\t" + guid, "dsyncfs_content"},
		{"a request of nothing", "R", "neither"},
		{"a request of UID 0", "R\x02\t0", "uid"},
		{"a request in a mailbox with a line break", "Rg\t1\t\x02\ta\x01nb", "dsyncfs_mailbox"},
		{"a size below nothing", "Cs\t1\tg" + strings.Repeat("\t\x02", 12) + "\t-1", "dsyncfs_physical_size"},
		{"a size beyond all files", "Cs\t1\tg" + strings.Repeat("\t\x02", 12) + "\t9223372036854775808", "dsyncfs_physical_size"},
		{"a preview of a version that is no number", "Vx", "dsyncfs_version"},
		{"a mail of nothing", "M\t\x02\tuidl", "neither"},
		{"a UIDL with a line break", "Mg\t\x02\ta\x01nb", "pop3_uidl"},
		{"an unknown sync type", "Hh\t\x02\t\x02\t\x02\tx", "sync_type"},
		{"a lock timeout of 0", "Hh" + strings.Repeat("\t\x02", 10) + "\t0", "lock_timeout"},
		{"a box GUID that is none", "Hh\t\x02\t\x02\tINBOX", "sync_box_guid"},
		{"both directions of backup", "Hh" + strings.Repeat("\t\x02", 8) + "\t\t", "backup_send"},
		{"two replacement characters", "Hh" + strings.Repeat("\t\x02", 23) + "\t__", "alt_char"},
		{"too long a list", "Hh" + strings.Repeat("\t\x02", 6) + "\t" + strings.Repeat("a\x01t", maxList), "exclude_mailboxes"},
		{"a cache field on its own", "cflags\tt", "own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			it, err := itemOf([]byte(c.line))
			if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), c.field) || !strings.Contains(err.Error(), kindOf(c.line[0]).name) {
				t.Errorf("%+v, %v", it, err)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
		})
	}
}

// TestDovecotsOwnLinesAreAccepted has what real peers send although it looks odd.
func TestDovecotsOwnLinesAreAccepted(t *testing.T) {
	for _, c := range []struct {
		name, line string
		want       item.Item
	}{
		{"F with no fields is success", "F", &item.Finish{}},
		{"an error without text is still an error", "F\t75", &item.Finish{Error: "unspecified error", MailError: 75}},
		{"until 0 is no limit", "Hh" + strings.Repeat("\t\x02", 18) + "\t0", &item.Handshake{Hostname: "h", Type: item.SyncFull}},
		{"internal flag bits are masked", "Cf\t1\tg\t\x02\t\x02\t\x02\t41\t82\tbf",
			&item.Change{Type: 'f', UID: 1, GUID: "g", Add: 1, Remove: 2, Final: mail.AllFlags}},
		{"an expunge of unknown GUID", "Ce\t7", &item.Change{Type: 'e', UID: 7}},
		{"hex of either case", "Ce\t7\tABCDEFabcdef00000000000000000000",
			&item.Change{Type: 'e', UID: 7, GUID128: mail.GUID128{0xab, 0xcd, 0xef, 0xab, 0xcd, 0xef}}},
		{"no empty header is hashed", "Hh" + strings.Repeat("\t\x02", 22) + "\tDate\x01t",
			&item.Handshake{Hostname: "h", Type: item.SyncFull, HashedHeaders: []string{"Date"}}},
		{"the empty namespace prefix", "Hh\t", &item.Handshake{Hostname: "h", Type: item.SyncFull, NamespacePrefixes: []string{""}}},
		{"a GUID as odd as a file name", "Ra\x01tb c\xff", &item.Request{GUID: "a\tb c\xff"}},
		{"a mail by UID", "M\t3\t", &item.Mail{UID: 3}},
		{"a field that starts with the absent byte", "Hh\t\x02\t\x02\x02", &item.Handshake{Hostname: "h", Type: item.SyncFull, Box: "\x02"}},
		{"a tab within a part of a name", "Na\x011tb\tn", &item.Node{Parts: []string{"a\tb"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := itemOf([]byte(c.line))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestItemsThatWouldKillAPeerAreNotSent(t *testing.T) {
	for _, c := range []struct {
		name string
		it   item.Item
	}{
		{"nothing", nil},
		{"a node without name", &item.Node{}},
		{"a node with an empty part", &item.Node{Parts: []string{"a", ""}}},
		{"a node of unknown existence", &item.Node{Parts: []string{"a"}, Existence: 3}},
		{"deletions without separator", &item.Deletes{}},
		{"an attribute without key", &item.Attribute{Value: "x"}},
		{"a deleted attribute with a value", &item.Attribute{Key: "k", Value: "x", Deleted: true}},
		{"a change without type", &item.Change{UID: 1}},
		{"a change without UID", &item.Change{Type: item.ChangeSave}},
		{"a flag added and removed", &item.Change{Type: item.ChangeFlags, UID: 1, Add: 1, Remove: 1}},
		{"a flag that is none", &item.Change{Type: item.ChangeFlags, UID: 1, Final: 0x20}},
		{"a keyword without type", &item.Change{Type: item.ChangeFlags, UID: 1, Keywords: []item.KeywordChange{{Name: "a"}}}},
		{"a keyword with a space", &item.Change{Type: item.ChangeFlags, UID: 1, Keywords: []item.KeywordChange{{Op: '+', Name: "a b"}}}},
		{"a request of nothing", &item.Request{}},
		{"a mail of nothing", &item.Mail{Body: io.NopCloser(strings.NewReader(""))}},
		{"a handshake of unknown type", &item.Handshake{Type: 'x'}},
		{"a time before the epoch as filter", &item.Handshake{Since: -1}},
	} {
		if line, err := lineOf(c.it, true); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %q, %v", c.name, line, err)
		}
	}
}

func TestSaveGUIDsOfOldPeersAreAssumed(t *testing.T) {
	line := "Bb67690134123046bd809000047b22664\t1\t1\t0\t1\t1\t0\t\x02\t\x02\t\t"
	for minor, want := range map[int]bool{0: true, 1: true, 2: false, 5: false} {
		d := fields{record: &record{}, words: words{}}
		if err := ownLayout(mailboxKind, false).parseLine(d.record, []byte(line[1:])); err != nil {
			t.Fatal(err)
		}
		it, _, err := d.decode(featuresOf(minor))
		if err != nil || it.(*item.Mailbox).HaveSaveGUIDs != want {
			t.Errorf("minor %d: %+v, %v", minor, it, err)
		}
	}
}

func TestFeaturesByMinorVersion(t *testing.T) {
	for minor, want := range []Features{
		{HeaderHash: 1},
		{HeaderHash: 1, Attributes: true},
		{HeaderHash: 1, Attributes: true, SaveGUIDs: true},
		{HeaderHash: 1, Attributes: true, SaveGUIDs: true, Finish: true},
		{HeaderHash: 3, Attributes: true, SaveGUIDs: true, Finish: true},
		{HeaderHash: 3, Attributes: true, SaveGUIDs: true, Finish: true},
		{HeaderHash: 3, Attributes: true, SaveGUIDs: true, Finish: true, AllAttributes: true},
	} {
		if got := featuresOf(minor); got != want {
			t.Errorf("minor %d: %+v, want %+v", minor, got, want)
		}
	}
}

// TestTableMatchesDovecot compares our field lists, without our own fields, with the ones that a Dovecot 2.3.19 sends.
func TestTableMatchesDovecot(t *testing.T) {
	var got strings.Builder
	for _, k := range kinds {
		if k.ours {
			continue
		}
		got.Write(ownLayout(k, false).appendHeader(nil))
		got.WriteByte('\n')
		names := map[string]bool{}
		for _, f := range k.fields {
			if f.name == "" || names[f.name] || f.ours != strings.HasPrefix(f.name, "dsyncfs_") || f.ours && f.required {
				t.Errorf("%s: field %+v", k.name, f)
			}
			names[f.name] = true
		}
	}
	trace := string(readFile(t, "testdata/traces/01-initial-mirror/master-to-slave.bin"))
	_, after, _ := strings.Cut(trace, "\n")
	want, _, _ := strings.Cut(after, ".\n")
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
