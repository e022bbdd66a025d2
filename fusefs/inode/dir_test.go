package inode_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"dsyncfs/fusefs/inode"

	"pgregory.net/rapid"
)

func base(name string) string {
	b, _, _ := strings.Cut(name, ":")
	return b
}

// entry is a name in the model of a directory.
type entry struct {
	name string
	id   inode.ID
}

// A directory keeps the names of a plain list: an entry renamed to another flag stays where it is, everything else new is
// appended.
func TestDirIsAnOrderedListOfNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := inode.NewTable()
		dir := inode.NewDir(2, base)
		var model []entry
		at := func(name string) int {
			return slices.IndexFunc(model, func(e entry) bool { return e.name == name })
		}
		name := rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "base"), rapid.SampledFrom([]string{"", ":2,", ":2,S"}).Draw(t, "flags"))
		})
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				n := name.Draw(t, "name")
				id := table.New()
				if i := at(n); i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
				table.Enter(dir, n, id)
				model = append(model, entry{n, id})
			},
			"succeed": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("nothing to succeed")
				}
				e := rapid.SampledFrom(model).Draw(t, "entry")
				n := base(e.name) + rapid.SampledFrom([]string{"", ":2,", ":2,S"}).Draw(t, "new flags")
				if n != e.name && at(n) >= 0 {
					return
				}
				id := table.New()
				if got := table.Succeed(dir, e.name, n, id); got != e.id {
					t.Fatalf("%d had the name, want %d", got, e.id)
				}
				model[at(e.name)] = entry{n, id}
			},
			"link": func(t *rapid.T) {
				if len(model) == 0 {
					t.Skip("nothing to link")
				}
				id, n := rapid.SampledFrom(model).Draw(t, "node").id, name.Draw(t, "name")
				if i := at(n); i >= 0 && model[i].id == id {
					return
				} else if i >= 0 {
					model = slices.Delete(model, i, i+1)
				}
				table.Enter(dir, n, id)
				model = append(model, entry{n, id})
			},
			"leave": func(t *rapid.T) {
				n := name.Draw(t, "name")
				want := inode.ID(0)
				if i := at(n); i >= 0 {
					want = model[i].id
					model = slices.Delete(model, i, i+1)
				}
				if got := table.Leave(dir, n); got != want {
					t.Fatalf("leave %s: %d, want %d", n, got, want)
				}
			},
			"rename": func(t *rapid.T) {
				from, to := name.Draw(t, "from"), name.Draw(t, "to")
				i := at(from)
				if i < 0 || from == to {
					return
				}
				id := model[i].id
				if j := at(to); j >= 0 {
					if model[j].id == id {
						return // two names of one file: rename(2) does nothing
					}
					model = slices.Delete(model, j, j+1)
					i = at(from)
				}
				if base(from) == base(to) {
					model[i].name = to
				} else {
					model = append(slices.Delete(model, i, i+1), entry{to, id})
				}
				if got := table.Rename(dir, from, to); got != id {
					t.Fatalf("rename %s to %s: %d, want %d", from, to, got, id)
				}
			},
			"": func(t *rapid.T) { compare(t, table, dir, model) },
		})
	})
}

// compare reads the directory in blocks and asks for every name.
func compare(t *rapid.T, table *inode.Table, dir *inode.Dir, model []entry) {
	var got []entry
	pos := uint32(0)
	for {
		block := table.AppendAfter(nil, dir, pos, 2)
		if len(block) == 0 {
			break
		}
		for _, e := range block {
			got = append(got, entry{e.Name, e.ID})
			pos = e.Pos
		}
	}
	if !slices.Equal(got, model) {
		t.Fatalf("listed %v, want %v", got, model)
	}
	if dir.Len() != len(model) {
		t.Fatalf("%d names, want %d", dir.Len(), len(model))
	}
	for _, e := range model {
		if id := table.Find(dir, e.name); id != e.id {
			t.Fatalf("find %s: %d, want %d", e.name, id, e.id)
		}
		others := slices.ContainsFunc(model, func(o entry) bool { return o.name != e.name && base(o.name) == base(e.name) })
		if table.Others(dir, e.name) != others {
			t.Fatalf("others of %s: want %v", e.name, others)
		}
		if _, n := table.FindKey(dir, base(e.name)); base(n) != base(e.name) {
			t.Fatalf("by base of %s: %s", e.name, n)
		}
	}
}

func TestAReaderBetweenTwoBlocksMissesNothing(t *testing.T) {
	table, dir := inode.NewTable(), inode.NewDir(2, base)
	for i := range 1000 {
		table.Enter(dir, fmt.Sprint(i, ":2,"), table.New())
	}
	seen := map[string]int{}
	pos := uint32(0)
	for i := 0; ; i++ {
		block := table.AppendAfter(nil, dir, pos, 10)
		if len(block) == 0 {
			break
		}
		for _, e := range block {
			seen[base(e.Name)]++
			pos = e.Pos
		}
		for j := range 1000 { // every mail gets another name, every tenth goes away
			table.Rename(dir, fmt.Sprint(j, ":2,", strings.Repeat("S", i)), fmt.Sprint(j, ":2,", strings.Repeat("S", i+1)))
		}
		table.Leave(dir, fmt.Sprint(i, ":2,", strings.Repeat("S", i+1)))
	}
	for i := range 1000 {
		if c := seen[fmt.Sprint(i)]; c != 1 {
			t.Errorf("mail %d was seen %d times", i, c)
		}
	}
}

// The mount may cost 200 bytes for a mail, with a name as Dovecot makes them.
func TestMemoryOfAMail(t *testing.T) {
	const mails = 200_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	table, dir := inode.NewTable(), inode.NewDir(2, base)
	for i := range mails {
		id := table.New()
		table.Enter(dir, fmt.Sprintf("%d.M%dP%d.mail,S=%d,W=%d:2,S", 1700000000+i, i, 1234, 5000, 5100), id)
		table.Get(id).SetAttr(inode.Attr{Ino: uint64(i), Size: 5000})
	}
	each := float64(heap()-before) / mails
	runtime.KeepAlive(table)
	runtime.KeepAlive(dir)
	t.Logf("%.0f bytes a mail", each)
	if each > 200 {
		t.Errorf("%.0f bytes a mail", each)
	}
}

func TestTableReusesSlots(t *testing.T) {
	table := inode.NewTable()
	a, b := table.New(), table.New()
	table.Get(a).SetType(10, 0o100000)
	table.Index(a)
	table.AddName(a, inode.Root, "x")
	table.AddName(a, inode.Root, "y")
	if !table.DropName(a, inode.Root, "x") || table.DropName(a, inode.Root, "y") {
		t.Error("names are miscounted")
	}
	table.Drop(a)
	if table.Get(a) != nil {
		t.Error("a dropped node is there")
	}
	if id, n := table.ByIno(10); n != nil {
		t.Errorf("a dropped node is found as %d", id)
	}
	if c := table.New(); c != a || c == b {
		t.Errorf("new slot %d, want %d", c, a)
	}
	if table.Len() != 3 {
		t.Errorf("%d nodes, want 3", table.Len())
	}
}
