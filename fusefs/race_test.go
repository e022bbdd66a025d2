package fusefs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A program lists a directory in blocks while another renames each mail in it once for each block: the same steps in the same
// order on the bare directory and on the mount. In the bare one a renamed mail may be met again or never; ext4 lists by the
// hash of the name, so a rename throws it to another place. In the mount each mail appears exactly once.
func TestOnlyTheMountListsEachMailOnce(t *testing.T) {
	const mails = 800
	bare := t.TempDir()
	makeMaildir(t, bare)
	missed, doubled := listWhileRenaming(t, bare, mails)
	t.Logf("bare directory: %d mails missed, %d listed twice", missed, doubled)
	if missed+doubled == 0 {
		t.Error("the bare directory listed every mail once: this test shows nothing")
	}
	m := mountMaildir(t, nil)
	missed, doubled = listWhileRenaming(t, m.dir, mails)
	if missed+doubled > 0 {
		t.Errorf("mount: %d mails missed, %d listed twice", missed, doubled)
	}
}

func listWhileRenaming(t *testing.T, dir string, mails int) (missed, doubled int) {
	t.Helper()
	out, err := helperCommand(t, "list-while-renaming", dir, fmt.Sprint(mails)).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscan(string(out), &missed, &doubled); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return missed, doubled
}

// helpListWhileRenaming makes mails, lists them in blocks of 32 KiB, changes the flags of all after each block, and prints how
// many it never saw and how many more than once.
func helpListWhileRenaming(args []string) error {
	if err := helpFill(args); err != nil {
		return err
	}
	cur, n := filepath.Join(args[0], "cur"), atoi(args[1])
	flags := make([]string, n)
	d, err := os.Open(cur)
	if err != nil {
		return err
	}
	defer d.Close()
	seen := make([]int, n)
	for round := 0; ; round++ {
		names, err := d.Readdirnames(200)
		if len(names) == 0 {
			break
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			var i int
			if _, err := fmt.Sscanf(name, "%d:", &i); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
			seen[i]++
		}
		for i := range n {
			next := []string{"S", "FS", ""}[round%3]
			from, to := fmt.Sprint(i, ":2,", flags[i]), fmt.Sprint(i, ":2,", next)
			if err := os.Rename(filepath.Join(cur, from), filepath.Join(cur, to)); err != nil {
				return err
			}
			flags[i] = next
		}
	}
	missed, doubled := 0, 0
	for _, times := range seen {
		switch {
		case times == 0:
			missed++
		case times > 1:
			doubled++
		}
	}
	fmt.Println(missed, doubled)
	return nil
}
