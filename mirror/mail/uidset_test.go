package mail

import (
	"testing"

	"pgregory.net/rapid"
)

func TestUIDSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var set UIDs
		model := make(map[UID]bool)
		for _, uid := range rapid.SliceOf(rapid.Uint32Range(1, 30)).Draw(t, "uids") {
			set.Add(UID(uid))
			model[UID(uid)] = true
		}
		read, err := set.Set().Parse()
		if err != nil || read.Set() != set.Set() {
			t.Fatalf("%q is read as %q, %v", set.Set(), read.Set(), err)
		}
		for uid := UID(1); uid < 33; uid++ {
			if read.Has(uid) != model[uid] {
				t.Errorf("%q has %d: %t", set.Set(), uid, read.Has(uid))
			}
		}
	})
}

func TestWhatIsNoUIDSet(t *testing.T) {
	for _, s := range []UIDSet{"0", "1,", ",1", "2:1", "1:1", "1,2", "1:3,4", "5,3", "01", "+1", "*", "4294967296", "4294967295", "1:"} {
		if _, err := s.Parse(); err == nil {
			t.Errorf("%q is a set", s)
		}
	}
	if u, err := UIDSet("").Parse(); err != nil || len(u) != 0 {
		t.Errorf("the empty set: %v, %v", u, err)
	}
}

func FuzzUIDSet(f *testing.F) {
	for _, s := range []string{"", "1", "1:4,6,8:9", "4294967294"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := UIDSet(s).Parse()
		if err == nil && u.Set() != UIDSet(s) {
			t.Errorf("%q is written as %q", s, u.Set())
		}
	})
}
