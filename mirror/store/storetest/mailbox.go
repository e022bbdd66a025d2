package storetest

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/store"
)

var mailboxCases = map[string]func(*testing.T, *suite){
	"Messages/start above a UID and stop when told": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(2), sample(3), sample(7), sample(9))
		m := s.open(t, work)
		var got []mail.UID
		for msg, err := range m.Messages(2) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, msg.UID); len(got) == 2 {
				break
			}
		}
		if !slices.Equal(got, []mail.UID{3, 7}) {
			t.Errorf("UIDs %v", got)
		}
		for msg := range m.Messages(9) {
			t.Errorf("there is a UID %d above the last", msg.UID)
		}
	},
	"Messages/are those of the opening": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2))
		m := s.open(t, work)
		status, was := m.Status(), list(t, m)
		s.apply(t, work, store.Batch{
			Deltas:   []store.FlagChange{{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen}}},
			Expunges: []store.Expunge{{UID: 2, GUID: guidOf(2)}},
		})
		s.save(t, work, "peer", sample(3))
		if got := list(t, m); m.Status() != status || !slices.EqualFunc(got, was, equalMessage) {
			t.Errorf("status %+v and messages %+v changed to %+v and %+v", status, was, m.Status(), got)
		}
		if seq, ok := m.Changes(status.HighestModSeq, ""); ok {
			for c := range seq {
				t.Errorf("a change after the opening: %+v", c)
			}
		}
	},
	"Body/gives the bytes that were saved": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		for i, text := range []string{"", "x", "a\nb\n", "a\r\nb\r\n", "\x00\xff\n.\n..\nFrom x\n", strings.Repeat("0123456789abcdef\n", 20_000)} {
			m := s.open(t, work)
			uid := mail.UID(i + 1)
			staged, err := m.Stage(t.Context(), sample(uid), iotest.HalfReader(strings.NewReader(text)))
			if err != nil {
				t.Fatalf("stage %.20q: %v", text, err)
			}
			applyTo(t, m, store.Batch{Adds: []store.Add{{Message: sample(uid), Staged: staged}}})
			if got := s.content(t, work, uid); got != text {
				t.Errorf("%d bytes %.20q came back as %d bytes %.20q", len(text), text, len(got), got)
			}
			if msg := s.message(t, work, uid); msg.Size != int64(len(text)) {
				t.Errorf("size %d of %d bytes", msg.Size, len(text))
			}
		}
	},
	"Body/is not found when the mail is gone": func(t *testing.T, s *suite) {
		gone, file := s.deliver(t, mail.Inbox, "one")
		m := s.open(t, mail.Inbox)
		s.Outside.Remove(t, mail.Inbox, file)
		for _, uid := range []mail.UID{gone.UID, gone.UID + 1, 0} {
			b, err := m.Body(t.Context(), uid)
			if err == nil {
				_ = b.Close()
			}
			wantErr(t, "body", err, store.ErrNotFound)
		}
	},
	"Body/is found when another program changed the flags": func(t *testing.T, s *suite) {
		msg, file := s.deliver(t, mail.Inbox, "one")
		m := s.open(t, mail.Inbox)
		s.Outside.SetFlags(t, mail.Inbox, file, mail.FlagSeen)
		if got := readBody(t, m, msg.UID); got != bodyOf("one") {
			t.Errorf("content %q", got)
		}
	},
	"Body and Stage/work at the same time": func(t *testing.T, s *suite) {
		msg, _ := s.deliver(t, mail.Inbox, "one")
		s.create(t, work, guidA)
		from, to := s.open(t, mail.Inbox), s.open(t, work)
		const n = 8
		staged := make([]store.Staged, n)
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				b, err := from.Body(t.Context(), msg.UID)
				if err != nil {
					errs[i] = err
					return
				}
				staged[i], err = to.Stage(t.Context(), sample(mail.UID(i+1)), b)
				errs[i] = errors.Join(err, b.Close())
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		var b store.Batch
		for i, st := range staged {
			b.Adds = append(b.Adds, store.Add{Message: sample(mail.UID(i + 1)), Staged: st})
		}
		applyTo(t, to, b)
		for i := range n {
			if got := s.content(t, work, mail.UID(i+1)); got != bodyOf("one") {
				t.Errorf("content of %d: %q", i+1, got)
			}
		}
	},
	"Stage/what is not applied is seen by nobody and vanishes": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		before := s.node(t, work)
		m := s.open(t, work)
		staged := stage(t, m, sample(1), "never")
		s.quiet(t)
		closeMailbox(t, m)
		s.quiet(t)
		again := s.open(t, work)
		if r, err := again.Apply(t.Context(), store.Batch{Adds: []store.Add{{Message: sample(1), Staged: staged}}}); err == nil && r.Status.Messages > 0 {
			t.Errorf("a mail staged before the mailbox was closed appeared: %+v", r)
		}
		s.reopen(t)
		s.refresh(t)
		if after := s.node(t, work); after.Status.Messages != 0 || after.Status.UIDValidity != before.Status.UIDValidity {
			t.Errorf("mailbox is %+v, was %+v", after, before)
		}
	},
	"Stage/a body that breaks off is an error": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		m := s.open(t, work)
		broken := errors.New("connection lost")
		_, err := m.Stage(t.Context(), sample(1), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
		wantErr(t, "stage", err, broken)
		s.quiet(t)
	},
	"Stage/a full disk is said so": func(t *testing.T, s *suite) {
		if s.FillDisk == nil {
			return
		}
		s.create(t, work, guidA)
		m := s.open(t, work)
		free := s.FillDisk(t)
		_, err := m.Stage(t.Context(), sample(1), strings.NewReader(strings.Repeat("x", 1<<20)))
		free()
		wantErr(t, "stage", err, store.ErrNoSpace)
		applyTo(t, m, store.Batch{Adds: []store.Add{{Message: sample(1), Staged: stage(t, m, sample(1), "later")}}})
		s.message(t, work, 1)
		s.quiet(t)
	},
	"Changes/leave out what came from the origin to skip": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2), sample(3))
		since := s.highest(t, work)
		s.apply(t, work, store.Batch{
			Origin:   "peer",
			Deltas:   []store.FlagChange{{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen}}},
			Expunges: []store.Expunge{{UID: 2, GUID: guidOf(2)}},
		})
		s.apply(t, work, store.Batch{Origin: "other", Deltas: []store.FlagChange{{UID: 3, Delta: mail.Delta{Add: mail.FlagDraft}}}})
		for skip, want := range map[store.Origin][]mail.UID{"": {1, 2, 3}, "peer": {3}, "other": {1, 2}, "none": {1, 2, 3}} {
			var got []mail.UID
			for _, c := range s.mustChanges(t, work, since, skip) {
				got = append(got, c.UID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("without %q: changes of %v, want %v", skip, got, want)
			}
		}
	},
	"Changes/put the entries of one message together": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		s.save(t, work, "peer", sample(1), sample(2))
		since := s.highest(t, work)
		for _, d := range []mail.Delta{
			{Add: mail.FlagSeen | mail.FlagFlagged, AddKeywords: mail.NewKeywords("x", "y")},
			{Remove: mail.FlagSeen, Add: mail.FlagAnswered, RemoveKeywords: mail.NewKeywords("x")},
		} {
			s.apply(t, work, store.Batch{Deltas: []store.FlagChange{{UID: 1, Delta: d}, {UID: 2, Delta: d}}})
		}
		s.apply(t, work, store.Batch{Expunges: []store.Expunge{{UID: 2, GUID: guidOf(2)}}})
		c := s.mustChanges(t, work, since, "")
		if len(c) != 2 || c[0].UID != 1 || c[0].Expunged || c[1].UID != 2 || !c[1].Expunged || c[1].GUID128 != guidOf(2).Hash128() {
			t.Fatalf("changes %+v", c)
		}
		d := c[0].Delta
		if d.Add != mail.FlagFlagged|mail.FlagAnswered || d.Remove&^mail.FlagSeen != 0 ||
			!d.AddKeywords.Equal(mail.NewKeywords("y")) || len(d.RemoveKeywords.Minus(mail.NewKeywords("x"))) > 0 {
			t.Errorf("delta %+v", d)
		}
		if m := c[0].Message; m.Flags != mail.FlagFlagged|mail.FlagAnswered || !m.Keywords.Equal(mail.NewKeywords("y")) || m.GUID != guidOf(1) {
			t.Errorf("message %+v", m)
		}
	},
	"Changes/start above a modseq and have no appends": func(t *testing.T, s *suite) {
		s.create(t, work, guidA)
		start := s.highest(t, work)
		s.save(t, work, "peer", sample(1), sample(2))
		if c := s.mustChanges(t, work, start, ""); len(c) != 0 {
			t.Errorf("appends are among the changes: %+v", c)
		}
		s.apply(t, work, store.Batch{Deltas: []store.FlagChange{{UID: 1, Delta: mail.Delta{Add: mail.FlagSeen}}}})
		middle := s.highest(t, work)
		s.apply(t, work, store.Batch{Deltas: []store.FlagChange{{UID: 2, Delta: mail.Delta{Add: mail.FlagSeen}}}})
		if c := s.mustChanges(t, work, middle, ""); len(c) != 1 || c[0].UID != 2 {
			t.Errorf("changes above %d: %+v", middle, c)
		}
		if c := s.mustChanges(t, work, s.highest(t, work), ""); len(c) != 0 {
			t.Errorf("changes above HIGHESTMODSEQ: %+v", c)
		}
	},
	"Attributes/are kept and have modseqs": func(t *testing.T, s *suite) {
		m := s.open(t, mail.Inbox)
		for _, a := range []store.Attribute{
			{Key: "vendor/x", Value: "line\nline\x00\xff", LastChange: base},
			{Key: "comment", Value: "private"},
			{Key: "comment", Value: "shared", Shared: true, LastChange: base},
			{Key: "empty", Value: ""},
		} {
			if err := m.SetAttribute(t.Context(), a); err != nil {
				t.Fatalf("set %+v: %v", a, err)
			}
		}
		s.reopen(t)
		m = s.open(t, mail.Inbox)
		got := attributes(t, m, 0)
		var keys []string
		highest := mail.ModSeq(0)
		for _, a := range got {
			keys = append(keys, a.Key+"="+a.Value)
			highest = max(highest, a.ModSeq)
			if a.ModSeq == 0 || a.Deleted || a.Key == "vendor/x" && a.LastChange != base {
				t.Errorf("attribute %+v", a)
			}
		}
		slices.Sort(keys)
		if !slices.Equal(keys, []string{"comment=private", "comment=shared", "empty=", "vendor/x=line\nline\x00\xff"}) {
			t.Errorf("attributes %q", keys)
		}
		if shared := slices.IndexFunc(got, func(a store.Attribute) bool { return a.Shared }); shared >= 0 && got[shared].Value != "shared" {
			t.Errorf("shared attribute %+v", got[shared])
		}
		if again := attributes(t, m, highest); len(again) != 0 {
			t.Errorf("attributes above %d: %+v", highest, again)
		}
		if err := m.SetAttribute(t.Context(), store.Attribute{Key: "comment", Deleted: true, LastChange: base + 1}); err != nil {
			t.Fatal(err)
		}
		after := attributes(t, m, highest)
		if len(after) != 1 || !after[0].Deleted || after[0].Shared || after[0].Key != "comment" || after[0].ModSeq <= highest {
			t.Errorf("attributes after the deletion: %+v", after)
		}
	},
}

func attributes(t *testing.T, m store.Mailbox, since mail.ModSeq) []store.Attribute {
	t.Helper()
	out, err := m.Attributes(t.Context(), since)
	if err != nil {
		t.Fatalf("attributes of %q: %v", m.Name(), err)
	}
	return out
}
