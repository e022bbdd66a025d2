package merge_test

import (
	"fmt"
	"strings"
	"testing"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// parseEntries reads entries written as "UID GUID content", of which the content may be missing.
func parseEntries(s string) []merge.Entry {
	var out []merge.Entry
	for _, line := range strings.FieldsFunc(s, func(r rune) bool { return r == '|' }) {
		var e merge.Entry
		var content string
		if n, _ := fmt.Sscan(line, &e.UID, &e.GUID, &content); n == 3 {
			copy(e.Content[:], content)
		}
		out = append(out, e)
	}
	return out
}

func TestAlign(t *testing.T) {
	for _, c := range []struct {
		name          string
		validity      mail.UIDValidity // of the winner; here it is 7
		local, remote string
		want          string // UID>new UID, new GUID
		counts        string // matched, new here, new there
	}{
		{
			name: "a copy of equal names needs nothing", validity: 7,
			local: "1 A|2 B", remote: "1 A|2 B", counts: "2 0 0",
		},
		{
			name: "a copy with other names takes the winner's", validity: 7,
			local: "1 A,U=1 a|2 B,U=2 b", remote: "1 A a|2 B b", want: "1>1A 2>2B", counts: "2 0 0",
		},
		{
			name: "another UIDVALIDITY brings the winner's UIDs", validity: 8,
			local: "5 A a|9 X b|10 N n", remote: "1 B b|2 A a", want: "5>2 9>1B 10>11", counts: "2 1 0",
		},
		{
			name: "a GUID beats an equal content", validity: 8,
			local: "1 A a|2 B a", remote: "4 B a|5 A a", want: "1>5 2>4", counts: "2 0 0",
		},
		{
			name: "equal contents pair in order", validity: 8,
			local: "1 X a|2 Y a|3 Z a", remote: "4 P a|5 Q a", want: "1>4P 2>5Q 3>11", counts: "2 1 0",
		},
		{
			name: "under one UIDVALIDITY an equal UID comes first", validity: 7,
			local: "1 X a|2 Y a", remote: "2 P a", want: "2>2P", counts: "1 1 0",
		},
		{
			name: "under one UIDVALIDITY an equal UID comes first among equal GUIDs", validity: 7,
			local: "1 X|2 X|3 Y y", remote: "2 X x|3 X x|4 Z y", want: "3>3Z", counts: "3 0 0",
		},
		{
			name: "an unknown content pairs by GUID only", validity: 7,
			local: "1 A|2 B b|3 C", remote: "1 A a|2 B|3 D", want: "", counts: "2 1 1",
		},
		{
			name: "a GUID is enough where the winner's content is unknown", validity: 8,
			local: "1 A a", remote: "2 A", want: "1>2", counts: "1 0 0",
		},
		{
			name: "equal GUIDs of different contents are two mails", validity: 7,
			local: "1 A a", remote: "1 A b", want: "1>1" + "61000000000000000000000000000000", counts: "0 1 1",
		},
		{
			name: "a further instance of the same mail keeps its GUID", validity: 7,
			local: "1 A a|2 A a", remote: "1 A a", want: "", counts: "1 1 0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			local := mail.Status{UIDValidity: 7, UIDNext: 11}
			remote := mail.Status{UIDValidity: c.validity, UIDNext: 6}
			a, err := merge.Align(parseEntries(c.local), parseEntries(c.remote), local, remote)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range a.Realign {
				got = append(got, fmt.Sprintf("%d>%d%s", r.UID, r.NewUID, r.NewGUID))
				if a.Original(r.NewUID) != r.UID {
					t.Errorf("UID %d comes from %d", r.NewUID, a.Original(r.NewUID))
				}
			}
			equal(t, "alignment", strings.Join(got, " "), c.want)
			equal(t, "counts", fmt.Sprint(a.Matched, a.NewHere, a.NewThere), c.counts)
		})
	}
}

func TestAlignRefusesListsOutOfOrder(t *testing.T) {
	for _, lists := range [][2]string{{"2 A|1 B", ""}, {"", "1 A|1 B"}} {
		if a, err := merge.Align(parseEntries(lists[0]), parseEntries(lists[1]), mail.Status{}, mail.Status{}); err == nil {
			t.Errorf("aligned: %+v", a)
		}
	}
}

// A backup destination whose mails have other names, UIDs and UIDVALIDITY: nothing is fetched.
func TestBackupOfAnAlignedCopy(t *testing.T) {
	source, copied := newBox("source"), newBox("destination")
	copied.validity = 9
	for i := range 5 {
		body := fmt.Sprint("body ", i)
		source.deliver(mail.GUID(fmt.Sprint("A", i)), body)
		if i != 2 {
			copied.deliver(mail.GUID(fmt.Sprint("B", 9-i)), body)
		}
	}
	copied.deliver("only here", "another body")
	al, err := merge.Align(entries(copied, func() bool { return true }), entries(source, func() bool { return true }), copied.status(), source.status())
	if err != nil {
		t.Fatal(err)
	}
	status := copied.status()
	status.UIDValidity, status.UIDNext = al.UIDValidity, al.UIDNext
	p, err := plan(merge.Options{
		Mode: merge.Backup, LocalStatus: status, RemoteStatus: source.status(), Local: al.View(copied.messages),
	}, records(source.messages, nil, false, 0))
	if err != nil {
		t.Fatal(err)
	}
	al.Into(&p)
	if len(p.Adds) != 1 || p.Adds[0].GUID != "A2" || len(p.Expunges) != 1 {
		t.Errorf("plan %s", show(p))
	}
	copied.apply(p, source)
	equal(t, "destination", copied.content(), source.content())
	equal(t, "problems", strings.Join(copied.problems, "\n"), "")
}
