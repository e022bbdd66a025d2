package mail

import (
	"strings"
	"testing"
)

// The base name ends at the first colon; what is no mail has none.
func TestBaseNames(t *testing.T) {
	for name, want := range map[string]string{
		"a": "a", "a:2,S": "a", "a:2,S:2,F": "a", "a,S=1,W=2:2,": "a,S=1,W=2", "a:": "a", "1.M2P3.host!x:2,": "1.M2P3.host!x", "\x01é:x": "\x01é",
	} {
		if base, ok := BaseName(name); !ok || base != want {
			t.Errorf("%q: %q, %v", name, base, ok)
		}
		if f, ok := ParseFileName(name); !ok || f.Base != want {
			t.Errorf("%q: parsed as %q, %v", name, f.Base, ok)
		}
	}
	for _, name := range []string{"", ".", ".a", ":", ":2,S", "a/b", "a\n", "a\r:2,", "a\x00", "a:2,/", "a:2,\n", "/"} {
		if base, ok := BaseName(name); ok || base != "" {
			t.Errorf("%q: %q is a mail", name, base)
		}
	}
}

func FuzzBaseName(f *testing.F) {
	f.Add("1700000000.M1P2.host,S=5:2,FS")
	f.Add(":")
	f.Fuzz(func(t *testing.T, name string) {
		base, ok := BaseName(name)
		if bad := name == "" || name[0] == '.' || name[0] == ':' || strings.ContainsAny(name, "/\r\n\x00"); ok == bad {
			t.Fatalf("%q: a mail is %v", name, ok)
		}
		if want, _, _ := strings.Cut(name, ":"); ok && base != want {
			t.Fatalf("%q: %q", name, base)
		}
	})
}
