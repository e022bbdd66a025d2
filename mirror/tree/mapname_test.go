package tree

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
)

func TestMapParts(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name  string
		parts []string
		sep   byte
		alt   string
		want  mail.Name
	}{
		{"a plain name stays", []string{"Work", "2026"}, '/', "", "Work/2026"},
		{"non-ASCII stays", []string{"Entwürfe", "日本語"}, '.', "", "Entwürfe/日本語"},
		{"the separator of the store is replaced", []string{"a.b", "c/d"}, '.', "", "a_b/c_d"},
		{"a dot is fine where it separates nothing", []string{"a.b"}, '/', "", "a.b"},
		{"the replacement is the one of the handshake", []string{"a/b"}, '/', "-", "a-b"},
		{"an unusable replacement is not used", []string{"a/b"}, '/', "/", "a_b"},
		{"a replacement that is the separator is not used", []string{"a.b"}, '.', ".", "a_b"},
		{"a separator that is the default replacement", []string{"a_b/"}, '_', "", "a-b-"},
		{"control characters are replaced", []string{"a\nb\x00c\x7fd"}, '/', "", "a_b_c_d"},
		{"invalid UTF-8 becomes the replacement character", []string{"a\xffb"}, '/', "", "a\ufffdb"},
		{"parts that lead out are repaired", []string{"..", ".", ""}, '/', "", "_../_./_"},
		{"a home directory is repaired at the start only", []string{"~root", "~x"}, '/', "", "_~root/~x"},
		{"INBOX is INBOX in every spelling", []string{"inBox", "inbox"}, '/', "", "INBOX/inbox"},
		{"no parts at all", nil, '/', "", "_"},
		{"a long part is cut", []string{long}, '/', "", mail.Name(long[:246] + "-" + shortHash(long))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := MapParts(c.parts, c.sep, c.alt, 0); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestMapperRepairsWhatTheStoreRefuses(t *testing.T) {
	m := Mapper{Separator: '/', Refuse: func(part string) bool { return part == "cur" || part == "new" }}
	if got := m.Map([]string{"new", "curry", "cur"}); got != "_new/curry/_cur" {
		t.Errorf("got %q", got)
	}
}

func TestMapAllKeepsDifferentNamesApart(t *testing.T) {
	names := [][]string{{"a/b"}, {"a_b"}, {"a.b"}, {"INBOX"}, {"Inbox"}, {"x"}}
	m := Mapper{Separator: '.'}
	got := m.MapAll(names)
	if got[1] != "a_b" || got[3] != mail.Inbox || got[5] != "x" {
		t.Errorf("names that need no mapping became %q %q %q", got[1], got[3], got[5])
	}
	seen := make(map[mail.Name]bool)
	for _, name := range got {
		if seen[name] {
			t.Errorf("%q twice in %q", name, got)
		}
		seen[name] = true
	}
	reversed := slices.Clone(names)
	slices.Reverse(reversed)
	again := m.MapAll(reversed)
	slices.Reverse(again)
	if fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("in another order %q, before %q", again, got)
	}
}

func TestMapPartsAlwaysGivesAValidName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(
			rapid.String(), rapid.StringMatching(`[./~_&a-c]{0,4}`), rapid.StringMatching(`(é|日|&|x){0,300}`),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		)
		parts := rapid.SliceOfN(part, 0, 30).Draw(t, "parts")
		m := Mapper{
			Separator: rapid.SampledFrom([]byte("/._~&\x80")).Draw(t, "sep"), AltChar: rapid.SampledFrom([]string{"", "_", "~", ".", "é", "ab", "\x01"}).Draw(t, "alt"),
			PartMax: rapid.IntRange(0, 300).Draw(t, "max"),
		}
		name := m.Map(parts)
		if err := name.Check(); err != nil {
			t.Fatal(err)
		}
		for _, got := range name.Parts() {
			if m.Separator != '/' && m.Separator < 0x80 && strings.IndexByte(got, m.Separator) >= 0 {
				t.Fatalf("%q holds the separator %q", name, m.Separator)
			}
			if limit := max(m.PartMax, 2*tagLength); m.PartMax > 0 && storedLength(got) > limit {
				t.Fatalf("%q is longer than %d", got, limit)
			}
		}
		if again := m.Map(name.Parts()); m.Map(again.Parts()) != again {
			t.Fatalf("%q is mapped to %q and on to %q", name, again, m.Map(again.Parts()))
		}
	})
}

func FuzzMapParts(f *testing.F) {
	f.Add("Work\x1f2026", byte('.'), "_", 255)
	f.Add("~\x1f..\x1f\xff/", byte('/'), "/", 20)
	f.Add(strings.Repeat("日\x1f", 3000), byte('.'), "", 0)
	f.Fuzz(func(t *testing.T, joined string, sep byte, alt string, partMax int) {
		parts := strings.Split(joined, "\x1f")
		if err := MapParts(parts, sep, alt, partMax).Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestStoredLength(t *testing.T) {
	// Lengths of the modified UTF-7 of RFC 3501 §5.1.3: Entw&APw-rfe, &ZeVnLIqe-, &-, &2Dzf,w-.
	for s, want := range map[string]int{"abc": 3, "Entwürfe": 12, "日本語": 10, "&": 2, "🏿": 8} {
		if got := storedLength(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
