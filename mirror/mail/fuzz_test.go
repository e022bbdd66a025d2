package mail

import (
	"strings"
	"testing"
)

// FuzzFileName holds that what is a mail's name can be written again and then says the same, and that the order of deliveries
// is one.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{
		"1.M2P3.host,S=12,W=14:2,FSab", "1.M2P3.host:2,SF,x", "a:1,x:2,S", "u:2,ZZ~\xff", "9999999999999999999999.M18446744073709551616.h",
		",S=+1", ",S=-5", ",S=9223372036854775808", ".hidden", ":2,S", "1.M.x", "1:2", "1:3,S",
	} {
		f.Add(s, "1.M2P4.host:2,")
	}
	f.Fuzz(func(t *testing.T, name, other string) {
		n, ok := ParseFileName(name)
		if !ok {
			return
		}
		if n.Base == "" || strings.ContainsAny(n.Base, ":/\x00") {
			t.Fatalf("%q has the base %q", name, n.Base)
		}
		again, ok := ParseFileName(n.String())
		again.HasInfo = n.HasInfo // a name with ":1," loses it
		if !ok || again != n {
			t.Fatalf("%q is %+v, written as %q it is %+v, %v", name, n, n.String(), again, ok)
		}
		if p, v := n.Sizes(); p < -1 || v < -1 {
			t.Fatalf("%q has the sizes %d and %d", name, p, v)
		}
		o, ok := ParseFileName(other)
		if !ok {
			return
		}
		there, back := CompareDelivery(n.Base, o.Base), CompareDelivery(o.Base, n.Base)
		if there != -back || there == 0 != (n.Base == o.Base) {
			t.Fatalf("%q against %q is %d, and %d the other way", n.Base, o.Base, there, back)
		}
	})
}

// FuzzName holds that a name that is accepted can be taken apart, put together, and leads nowhere.
func FuzzName(f *testing.F) {
	for _, s := range []string{"INBOX", "inbox/a", "a//b", "../x", "~root", "a/./b", "日本語/メール", "a\x00b", "a\x7f", strings.Repeat("x", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := Name(s)
		if n.Check() != nil {
			return
		}
		if JoinName(n.Parts()...) != n || n.Parent().Child(n.Base()) != n || !n.IsBelow(n.Parent()) {
			t.Fatalf("%q has the parts %q, the parent %q and the base %q", s, n.Parts(), n.Parent(), n.Base())
		}
		for _, part := range n.Parts() {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "/\x00\n") {
				t.Fatalf("%q has a part %q", s, part)
			}
		}
		if folded := n.FoldInbox(); folded.FoldInbox() != folded || folded.Check() != nil {
			t.Fatalf("%q folds to %q", s, folded)
		}
	})
}
