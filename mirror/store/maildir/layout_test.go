package maildir

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

func TestNamesAndDirectories(t *testing.T) {
	for _, c := range []struct {
		layout Layout
		name   mail.Name
		dir    string
	}{
		{MaildirPlusPlus, "INBOX", ""},
		{MaildirPlusPlus, "Archive/2024/Q1", ".Archive.2024.Q1"},
		{MaildirPlusPlus, "INBOX/x", ".INBOX.x"},
		{MaildirPlusPlus, "Entwürfe", ".Entw&APw-rfe"},
		{MaildirPlusPlus, "R&D", ".R&-D"},
		{MaildirPlusPlus, "日本語/テスト", ".&ZeVnLIqe-.&MMYwuTDI-"},
		{MaildirPlusPlus, "😀 *%\"\\", ".&2D3eAA- *%\"\\"},
		{MaildirPlusPlus, "cur", ".cur"},
		{FS, "INBOX", ""},
		{FS, "A.b/.c", "A.b/.c"},
		{FS, "INBOX/x", "INBOX/x"},
	} {
		dir, err := c.layout.DirOf(c.name)
		if err != nil || dir != c.dir {
			t.Errorf("DirOf(%q) = %q, %v; want %q", c.name, dir, err, c.dir)
		}
		name, ok := c.layout.MailboxOf(c.dir)
		if !ok || name != c.name {
			t.Errorf("MailboxOf(%q) = %q, %v; want %q", c.dir, name, ok, c.name)
		}
	}
}

func TestNamesThatCannotBeStored(t *testing.T) {
	for _, c := range []struct {
		layout Layout
		name   mail.Name
	}{
		{MaildirPlusPlus, ""}, {MaildirPlusPlus, "a.b"}, {MaildirPlusPlus, "../x"}, {MaildirPlusPlus, "a//b"},
		{MaildirPlusPlus, "a\nb"}, {MaildirPlusPlus, "a\x00"}, {MaildirPlusPlus, "~x"}, {MaildirPlusPlus, "\xff"},
		{MaildirPlusPlus, mail.Name(strings.Repeat("a/", 150) + "a")},
		{MaildirPlusPlus, mail.Name(strings.Repeat("a", 300))}, {MaildirPlusPlus, mail.Name(strings.Repeat("é", 120))},
		{FS, "a/cur"}, {FS, "new"}, {FS, "a/../b"}, {FS, "/a"}, {FS, mail.Name(strings.Repeat("é", 120))},
	} {
		if dir, err := c.layout.DirOf(c.name); !errors.Is(err, store.ErrName) {
			t.Errorf("DirOf(%.40q) = %q, %v; want ErrName", c.name, dir, err)
		}
	}
}

func TestDirectoriesThatAreNoMailbox(t *testing.T) {
	for _, c := range []struct {
		layout Layout
		dir    string
	}{
		{MaildirPlusPlus, "cur"}, {MaildirPlusPlus, ".a/cur"}, {MaildirPlusPlus, "..DOVECOT-TRASHED"}, {MaildirPlusPlus, ".a..b"},
		{MaildirPlusPlus, ".name."}, {MaildirPlusPlus, ".bad&name"}, {MaildirPlusPlus, ".é"}, {MaildirPlusPlus, ".inbox.x"},
		{MaildirPlusPlus, ".INBOX"}, {MaildirPlusPlus, ".&AEE-"}, {MaildirPlusPlus, ".&AOR-"}, {MaildirPlusPlus, ".&2D0-"},
		{MaildirPlusPlus, ".&AOQ-&AOQ-"}, {MaildirPlusPlus, ".\xff\xfe"}, {MaildirPlusPlus, ".&AAA-"}, {MaildirPlusPlus, ".&AC8-"},
		{FS, "a/cur"}, {FS, "tmp"}, {FS, "Inbox/x"}, {FS, "INBOX"}, {FS, "a//b"},
	} {
		if name, ok := c.layout.MailboxOf(c.dir); ok {
			t.Errorf("MailboxOf(%q) = %q, want none", c.dir, name)
		}
	}
}

func TestEveryStorableNameComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layout := rapid.SampledFrom([]Layout{MaildirPlusPlus, FS}).Draw(t, "layout")
		name := mail.JoinName(rapid.SliceOfN(rapid.StringN(1, 8, 24), 1, 4).Draw(t, "parts")...)
		dir, err := layout.DirOf(name)
		if err != nil {
			t.Skip("not storable")
		}
		back, ok := layout.MailboxOf(dir)
		if !ok || back != name.FoldInbox() {
			t.Fatalf("%q became %q and then %q, %v", name, dir, back, ok)
		}
	})
}

func FuzzMailboxOf(f *testing.F) {
	for _, s := range []string{".a.b", ".&ZeVnLIqe-", ".&-", ".&AAA", "..", ".\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, dir string) {
		for _, l := range []Layout{MaildirPlusPlus, FS} {
			name, ok := l.MailboxOf(dir)
			if !ok {
				continue
			}
			if back, err := l.DirOf(name); err != nil || back != dir {
				t.Fatalf("%q is %q, which is %q, %v", dir, name, back, err)
			}
		}
	})
}
