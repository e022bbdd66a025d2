package maildir

import (
	"errors"
	"testing"
	"unicode/utf8"

	"dsyncfs/mirror/store"
)

// FuzzMUTF7 holds that a name has one spelling and a spelling one name.
func FuzzMUTF7(f *testing.F) {
	for _, s := range []string{"R&-D", "Entw&APw-rfe", "&ZeVnLIqe-", "&2D3eAA-", "&2D0-", "&", "&-", "&AAA-", "&AGE-", "&Jjo-&Jjo-", "a\x00b", "\xff", "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := decodeMUTF7(s); err == nil && (encodeMUTF7(name) != s || !utf8.ValidString(name)) {
			t.Fatalf("%q is %q, which is written %q", s, name, encodeMUTF7(name))
		}
		if !utf8.ValidString(s) {
			return
		}
		if back, err := decodeMUTF7(encodeMUTF7(s)); err != nil || back != s {
			t.Fatalf("%q is written %q, which is %q, %v", s, encodeMUTF7(s), back, err)
		}
	})
}

// FuzzStoredValues holds that what the catalog gives back, and what a file in tmp is called, is read or refused whatever it
// is, and that what is read is written the same again.
func FuzzStoredValues(f *testing.F) {
	held := tempPrefix + heldKind + "-8a4be94614c281c163e2af26b3876cd6-1-1795809167.M588739P18834Q15.vm"
	for _, key := range []string{"18a4be94614c281c163e2af26b3876cd6", "pcomment", "s", held, "dsyncfs-held-x-y-z", "dsyncfs-stage-1.MP99999999999999999999Q.vm"} {
		f.Add(key, signature{}.encode())
		f.Add(key, encodeTime(1))
		f.Add(key, encodeSubscription(true, -1))
		f.Add(key, []byte(`{"Value":"YQ==","ModSeq":7}`))
	}
	s := &Store{o: Options{Hostname: "vm", PID: 1}}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		sig := decodeSignature(value)
		if again := decodeSignature(sig.encode()); again != sig {
			t.Fatalf("signature %+v became %+v", sig, again)
		}
		if yes, at := decodeSubscription(value); yes {
			if again, then := decodeSubscription(encodeSubscription(yes, at)); !again || then != at {
				t.Fatalf("subscription of %d became %v of %d", at, again, then)
			}
		}
		if d, err := parseDeletion(key, value); err == nil {
			if again, err := parseDeletion(deletionKey(d), encodeTime(d.Time)); err != nil || again != d {
				t.Fatalf("deletion %+v became %+v, %v", d, again, err)
			}
		}
		if _, err := decodeAttribute(key, value); err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("error of another kind: %v", err)
		}
		parseHeldName(key)
		s.isDead(key)
	})
}
