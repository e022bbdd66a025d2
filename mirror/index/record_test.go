package index

import (
	"reflect"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

// FuzzRecords holds that no payload makes a decoder crash or claim more memory than it is long, and that what decodes stays
// the same when it is stored again.
func FuzzRecords(f *testing.F) {
	full := messageRecord(7)
	full.GUID, full.Keywords, full.POP3UIDL, full.POP3Order, full.Saved = "other", mail.NewKeywords("a", "ü"), "u", 9, 4
	hex := messageRecord(8)
	hex.GUID = "0123456789abcdef0123456789abcdef"
	entry := store.LogEntry{Kind: store.LogFlags, UID: 3, Origin: "peer", Delta: mail.Delta{Add: 1, AddKeywords: mail.NewKeywords("k")}}
	plain := messageRecord(9)
	for _, seed := range [][]byte{
		appendMessage(nil, &full), appendMessage(nil, &hex), appendMessage(nil, &plain), appendMessage(nil, new(store.MessageRecord)),
		appendLogEntry(nil, &entry), appendMailbox(nil, 5, mailboxRecord(1, "x")), {}, {0xff}, {1, 0, 0x80, 0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var shared keywordSets
		if m, err := decodeMessage(payload, 5, &shared); err == nil {
			again, err := decodeMessage(appendMessage(nil, &m), 5, &shared)
			if err != nil || !reflect.DeepEqual(again, m) {
				t.Errorf("message %+v became %+v, %v", m, again, err)
			}
		}
		if e, err := decodeLogEntry(payload, 5, &shared); err == nil {
			again, err := decodeLogEntry(appendLogEntry(nil, &e), 5, &shared)
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("log entry %+v became %+v, %v", e, again, err)
			}
		}
		if id, r, err := decodeMailbox(payload); err == nil {
			id2, again, err := decodeMailbox(appendMailbox(nil, id, r))
			if err != nil || id2 != id || !reflect.DeepEqual(again, r) {
				t.Errorf("mailbox %+v became %+v, %v", r, again, err)
			}
		}
	})
}

func TestMessageIsSmall(t *testing.T) {
	m := messageRecord(123456)
	if n := len(appendMessage(nil, &m)); n > len(m.File)+25 {
		t.Errorf("%d bytes for a file name of %d", n, len(m.File))
	}
}

func TestEqualKeywordsAreMadeOnce(t *testing.T) {
	var shared keywordSets
	m := messageRecord(1)
	m.Keywords = mail.NewKeywords("a", "b")
	payload := appendMessage(nil, &m)
	one, err1 := decodeMessage(payload, 1, &shared)
	two, err2 := decodeMessage(payload, 2, &shared)
	if err1 != nil || err2 != nil || &one.Keywords[0] != &two.Keywords[0] {
		t.Errorf("%v %v: two sets were made", err1, err2)
	}
}
