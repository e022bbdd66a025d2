package merge_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"dsyncfs/mirror/item"
	"dsyncfs/mirror/mail"
	"dsyncfs/mirror/merge"
)

// Whatever a peer claims, in any order that the protocol allows, the plan can be carried out and is the same each time.
func TestPlansAreSoundWhateverThePeerClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.changes(15)
		own := h.a
		own.next += mail.UID(rapid.IntRange(0, 3).Draw(t, "gap"))
		o := merge.Options{
			Mode:     rapid.SampledFrom([]merge.Mode{merge.TwoWay, merge.OneWay, merge.Backup}).Draw(t, "mode"),
			Absence:  rapid.SampledFrom([]merge.Absence{merge.Expunged, merge.Keep}).Draw(t, "absence"),
			Tie:      rapid.SampledFrom([]merge.Preference{merge.PreferLocal, merge.PreferRemote, merge.Union}).Draw(t, "tie"),
			HaveBase: rapid.Bool().Draw(t, "base"),
			Base:     mail.UID(rapid.IntRange(0, 6).Draw(t, "base UID")),
			Local:    own.messages, Log: own.logged(0), LocalStatus: own.status(),
		}
		if rapid.Bool().Draw(t, "filter") {
			o.Filter = merge.Filter{Flag: mail.FlagFlagged}
		}
		o.RemoteStatus = mail.Status{
			UIDValidity: own.validity, UIDNext: mail.UID(rapid.IntRange(0, 12).Draw(t, "UIDNEXT")), HighestModSeq: 9, FirstRecent: 1,
		}
		peer := newBox("peer")
		var changes []*item.Change
		for uid := mail.UID(1); uid < 14; uid++ {
			if c := claim(t, h, uid, o); c != nil {
				changes = append(changes, c)
				if c.GUID != "" {
					peer.mails = append(peer.mails, mail.Message{UID: uid, GUID: c.GUID})
					peer.body[c.GUID] = "body of " + string(c.GUID)
				}
			}
		}
		p, err := plan(o, changes)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := plan(o, changes); show(again) != show(p) {
			t.Fatalf("plan %s, again %s", show(p), show(again))
		}
		before := own.content()
		if own.apply(p, peer); len(own.problems) > 0 {
			t.Fatalf("%v\nplan %s\nbefore\n%s", own.problems, show(p), before)
		}
	})
}

// claim makes up what the peer says of a UID, nil for nothing.
func claim(t *rapid.T, h *history, uid mail.UID, o merge.Options) *item.Change {
	guid := mail.GUID(fmt.Sprintf("%c%d", 'a'+rapid.IntRange(0, 2).Draw(t, "name"), rapid.IntRange(1, 9).Draw(t, "number")))
	if i, ok := h.a.find(uid); ok && rapid.Bool().Draw(t, "same mail") {
		guid = h.a.mails[i].GUID
	}
	c := &item.Change{Type: item.ChangeSave, UID: uid, GUID: guid, ModSeq: mail.ModSeq(rapid.IntRange(0, 9).Draw(t, "modseq"))}
	if o.HaveBase && uid <= o.Base {
		c.Type = item.ChangeFlags
	}
	switch rapid.SampledFrom([]string{"mail", "mail", "expunge", "nothing"}).Draw(t, "claim") {
	case "nothing":
		return nil
	case "expunge":
		c.Type, c.GUID = item.ChangeExpunge, ""
		if rapid.Bool().Draw(t, "known GUID") {
			c.GUID128 = guid.Hash128()
		}
		return c
	}
	f := rapid.Uint8()
	c.Add, c.Final = mail.Flags(f.Draw(t, "add")), mail.Flags(f.Draw(t, "final"))
	c.Remove = mail.Flags(f.Draw(t, "remove")) &^ c.Add
	for _, op := range rapid.SliceOfN(rapid.SampledFrom([]item.KeywordOp{'+', '-', '=', '&'}), 0, 2).Draw(t, "keywords") {
		c.Keywords = append(c.Keywords, item.KeywordChange{Op: op, Name: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "keyword")})
	}
	return c
}
